"""Bytes that training keeps between steps: weights, gradients, optimizer state. From shapes, and counted on a real step.

The prediction allocates nothing: the model and the optimizer's state live on the meta device. The measurement builds the same
model with random weights, takes one optimizer step with random gradients and sums the tensors, as published system A did.
Weights are what the parameters hold, packed codes included; a quantized base's scales and tables are `quantization_bytes`,
which published systems B and C left out. Parameters count weights, not the bytes that two of them share. Activations are no
part of this profile.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported
from rankwise.measure.step import adapted
from rankwise.methods.parts.base import Method, build_optimizer, unreleased
from rankwise.models import storage


def memory(request: dict) -> dict:
    """Predicted bytes by part, the same measured if the request asks for it.

    Raises:
        ArithmeticError: prediction and measurement of a part differ.
    """
    try:
        metrics = predict(request)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    for part, size in measure(request).items() if request["measured"] else ():
        if size != metrics[part]:
            raise ArithmeticError(f"{part}: predicted {metrics[part]}, measured {size}")
        metrics[f"measured_{part}"] = size
    return {"metrics": metrics}


def predict(request: dict) -> dict[str, int]:
    """The parts, from shapes alone."""
    method, model, names = adapted(request, "meta")
    trainable = [p for p in model.parameters() if p.requires_grad]
    return {
        **_parts(request, method, model, names),
        "buffers_bytes": _bytes(model.buffers()),
        "gradients_bytes": _gradients(request, method, model, names, trainable),
        "trainable_parameters": sum(p.numel() for p in trainable),
        "total_parameters": sum(storage.numel(p) for p in model.parameters()),
    }


def measure(request: dict) -> dict[str, int]:
    """What a model on the CPU holds after a real step."""
    torch.manual_seed(0)
    return _parts(request, *adapted(request, "cpu"))


def _parts(request: dict, method: Method, model: nn.Module, names: dict) -> dict[str, int]:
    return {
        "optimizer_state_bytes": _state(request, method, model, names),
        "weights_bytes": _bytes(model.parameters()),
        "quantization_bytes": _bytes(storage.constants(model)),
    }


def _gradients(
    request: dict, method: Method, model: nn.Module, names: dict, trainable: list[nn.Parameter]
) -> int:
    """Bytes of gradients that are there at once: all of them, unless the optimizer releases them."""
    if not request["method"]["optimizer"].get("release"):
        return _bytes(trainable)
    return build_optimizer(request["method"], method, model, names, seed=0).gradients_bytes()


def _state(request: dict, method: Method, model: nn.Module, names: dict) -> int:
    """Bytes of state after one step; a descent's state is allocated without one, for its step computes a basis."""
    if not any(p.requires_grad for p in model.parameters()):
        return 0
    optimizer = build_optimizer(unreleased(request["method"]), method, model, names, seed=0)
    on_meta = next(model.parameters()).is_meta
    if on_meta and hasattr(optimizer, "allocate"):
        optimizer.allocate()
    else:
        for param in (p for p in model.parameters() if p.requires_grad):
            param.grad = torch.randn_like(param)
        optimizer.step()
    kept = (
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    return _bytes(
        {id(value): value for value in kept}.values()
    )  # a table that parameters share is there once


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
