"""Bytes that training keeps between steps: weights, gradients and optimizer state.

They are predicted from shapes and counted on a real step. The prediction allocates nothing: the
model and the optimizer's state are on the meta device. The measurement builds the same model with
random weights, takes one optimizer step with random gradients and sums the tensors, as published
system A did.

Weights are what the parameters hold, packed codes included. A quantized base's scales and tables
are `quantization_bytes`, which published systems B and C left out. Parameters count weights, not
bytes: packed codes hold two weights per byte.

`adapter_bytes` is what a user stores beside the base to use the trained model: everything that
trains, a new head included, in the type that it is stored in. A method that trains all weights
ships the whole model. Nothing is counted that can be computed again from the base and the run's
random seed: VeRA's random matrices, SHiRA's places, masks, PiSSA's remainder.

Activations are not part of this profile (see ledger.py).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported
from rankwise.measure.step import adapted, profiled_optimizer
from rankwise.methods.parts.base import Method, unreleased
from rankwise.models import storage
from rankwise.optim.parts.waiting import trains


def memory(request: dict) -> dict:
    """Predict bytes by part, and measure them as well if the request asks for it.

    Returns:
        A result with the metrics of `predict` and `measured_...` beside those that are measured; or
        status `unsupported` with the reason.

    Raises:
        ArithmeticError: Prediction and measurement of a part differ.
    """
    try:
        metrics = predict(request)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    if request["measured"]:
        for part, size in measure(request).items():
            if size != metrics[part]:
                raise ArithmeticError(f"{part}: predicted {metrics[part]}, measured {size}")
            metrics[f"measured_{part}"] = size
    return {"metrics": metrics}


def predict(request: dict) -> dict[str, int]:
    """Bytes by part and numbers of parameters, from shapes alone.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    method, model, names = adapted(request, "meta")
    return {
        **_measurable_parts(request, method, model, names),
        "buffers_bytes": _bytes(model.buffers()),
        "gradients_bytes": _gradients_bytes(request, method, model, names),
        "adapter_bytes": _bytes(_trainable(model)),
        "trainable_parameters": sum(param.numel() for param in _trainable(model)),
        "total_parameters": sum(storage.numel(param) for param in model.parameters()),
    }


def measure(request: dict) -> dict[str, int]:
    """Bytes that a model on the CPU holds after a real step, by part."""
    torch.manual_seed(0)
    method, model, names = adapted(request, "cpu")
    return _measurable_parts(request, method, model, names)


def _measurable_parts(
    request: dict, method: Method, model: nn.Module, names: dict
) -> dict[str, int]:
    return {
        "optimizer_state_bytes": _state_bytes(request, method, model, names),
        "weights_bytes": _bytes(model.parameters()),
        "quantization_bytes": _bytes(storage.constants(model)),
    }


def _gradients_bytes(request: dict, method: Method, model: nn.Module, names: dict) -> int:
    """Bytes of the gradients that exist at once: all, unless the optimizer says otherwise.

    It does if it releases them, or lets some blocks have them at a time.
    """
    trainable = _trainable(model)
    if not trainable:
        return 0
    optimizer = profiled_optimizer(request["method"], method, model, names)
    if hasattr(optimizer, "gradients_bytes"):
        return optimizer.gradients_bytes()
    return _bytes(trainable)


def _state_bytes(request: dict, method: Method, model: nn.Module, names: dict) -> int:
    """Bytes of optimizer state after one step."""
    trainable = _trainable(model)
    if not trainable:
        return 0
    optimizer = profiled_optimizer(unreleased(request["method"]), method, model, names)
    if trainable[0].is_meta and hasattr(optimizer, "allocate"):
        # Our optimizers can allocate their state without a step, which would compute a basis.
        optimizer.allocate()
    else:
        for param in trainable:
            param.grad = torch.randn_like(param)
        if getattr(optimizer, "FORWARD_ONLY", False):
            optimizer.step(lambda: torch.zeros(()))
        else:
            optimizer.step()
    # By id: a table that several parameters share is there once.
    tensors: dict[int, Tensor] = {}
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                tensors[id(value)] = value
    return _bytes(tensors.values())


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if trains(param)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
