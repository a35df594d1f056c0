"""Bytes that training keeps between steps: weights, gradients and optimizer state.

They are predicted from shapes and counted on a real step. The prediction allocates nothing: the
model and the optimizer's state are on the meta device. An optimizer that cannot step there, because
its step looks at values or has kernels of its own, steps on the CPU with tensors of the same shapes
and types; a note says so. The measurement builds the same model with random weights, takes one
optimizer step with random gradients and sums the tensors, as published system A did.

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
from torch.utils._pytree import tree_leaves

from rankwise.core.errors import Unsupported
from rankwise.measure.step import adapted, profiled_optimizer
from rankwise.methods.parts.base import Method, parameter_groups, unreleased
from rankwise.methods.parts.optimizers import one_line, optimizer_over
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
    state, note = _predicted_state(request, method, model, names)
    return {
        **_weights(model),
        "optimizer_state_bytes": state,
        **({"note": note} if note else {}),
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
    state = 0
    if _trainable(model):
        optimizer = profiled_optimizer(unreleased(request["method"]), method, model, names)
        state = _bytes_after_step(optimizer)
    return {**_weights(model), "optimizer_state_bytes": state}


def _weights(model: nn.Module) -> dict[str, int]:
    return {
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


def _predicted_state(
    request: dict, method: Method, model: nn.Module, names: dict
) -> tuple[int, str]:
    """Bytes of optimizer state after one step from shapes, and how they were counted if otherwise.

    Args:
        request: A profile's request.
        method: Its method.
        model: The adapted model, on the meta device.
        names: From `models.build.names`.

    Returns:
        Bytes, and a note, which is empty where no value was needed.
    """
    if not _trainable(model):
        return 0, ""
    entry = unreleased(request["method"])
    optimizer = profiled_optimizer(entry, method, model, names)
    if hasattr(optimizer, "allocate"):
        # Our optimizers can allocate their state without a step, which would compute a basis.
        optimizer.allocate()
        return _bytes(_state_tensors(optimizer)), ""
    try:
        return _bytes_after_step(optimizer), ""
    except Exception as error:  # a plain optimizer may ask for a value in any way
        groups = []
        for group in parameter_groups(entry, method, model, names):
            params = [_stand_in(param) for param in group["params"]]
            groups.append({**group, "params": params})
        real = optimizer_over(type(optimizer), entry, groups, seed=0)
        reason = f"{entry['optimizer']['module']} cannot step on torch's meta device"
        note = f"optimizer state counted on the CPU: {reason} ({one_line(error)})"
        return _bytes_after_step(real), note


def _stand_in(param: nn.Parameter) -> nn.Parameter:
    """A parameter of the same shape and type on the CPU."""
    return nn.Parameter(torch.zeros(param.shape, dtype=param.dtype, device="cpu"))


def _bytes_after_step(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the state that an optimizer keeps after a step with random gradients."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.randn_like(param)
    if getattr(optimizer, "FORWARD_ONLY", False):
        optimizer.step(lambda: torch.zeros(()))
    else:
        optimizer.step()
    return _bytes(_state_tensors(optimizer))


def _state_tensors(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    """The tensors of an optimizer's state, each once, in lists and tables of the state as well."""
    # By id: a table that several parameters share is there once.
    leaves = tree_leaves([dict(state) for state in optimizer.state.values()])
    return {id(value): value for value in leaves if isinstance(value, Tensor)}.values()


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if trains(param)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
