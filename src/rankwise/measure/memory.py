"""Bytes that training keeps between steps: weights, gradients, optimizer state. From shapes, and counted on a real step.

The prediction allocates nothing: the model and the optimizer's state live on the meta device. The measurement builds the same
model with random weights, takes one optimizer step with random gradients and sums the state's tensors, as published system A
did. Activations are no part of this profile.
"""

import torch
from torch import nn

from rankwise import models
from rankwise.method import Unsupported, adapt, build_optimizer


def memory(request: dict) -> dict:
    """Predicted bytes by part, the same measured if the request asks for it.

    Raises:
        ArithmeticError: prediction and measurement of the optimizer's state differ.
    """
    try:
        metrics = predict(request)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    if request["measured"]:
        metrics["measured_optimizer_state_bytes"] = measure(request)
        if metrics["measured_optimizer_state_bytes"] != metrics["optimizer_state_bytes"]:
            raise ArithmeticError(f"optimizer state: predicted and measured differ: {metrics}")
    return {"metrics": metrics}


def predict(request: dict) -> dict[str, int]:
    """The parts, from shapes alone."""
    model = _model(request, "meta")
    trainable = [p for p in model.parameters() if p.requires_grad]
    return {
        "weights_bytes": _bytes(list(model.parameters())),
        "gradients_bytes": _bytes(trainable),
        "optimizer_state_bytes": _state(request, model),
        "trainable_parameters": sum(p.numel() for p in trainable),
        "total_parameters": sum(p.numel() for p in model.parameters()),
    }


def measure(request: dict) -> int:
    """Bytes in the optimizer's state after a real step on the CPU."""
    torch.manual_seed(0)
    return _state(request, _model(request, "cpu"))


def _model(request: dict, device: str) -> nn.Module:
    shapes = request["shapes"]
    model = models.from_shapes(request["model"], shapes["task"], shapes["classes"], device)
    with torch.device(device):
        return adapt(request["method"], model, models.names(request["model"], shapes["task"]))[1]


def _state(request: dict, model: nn.Module) -> int:
    """Bytes of state after one step; a descent's state is allocated without one, for its step computes a basis."""
    if not any(p.requires_grad for p in model.parameters()):
        return 0
    optimizer = build_optimizer(request["method"], model, seed=0)
    on_meta = next(model.parameters()).is_meta
    if on_meta and hasattr(optimizer, "allocate"):
        optimizer.allocate()
    else:
        for param in (p for p in model.parameters() if p.requires_grad):
            param.grad = torch.randn_like(param)
        optimizer.step()
    kept = (value for state in optimizer.state.values() for value in state.values())
    return _bytes([value for value in kept if isinstance(value, torch.Tensor)])


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
