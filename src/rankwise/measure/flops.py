"""FLOPs of one training step, from shapes: forward, backward, and the optimizer's matrix products.

Counted by torch's FlopCounterMode on the meta device (2 FLOPs a multiply-add; matrix products and attention only), with
eager attention, whose products every counter sees. `optimizer_flops` is a step between two refreshes of a projected
optimizer; what a refresh costs (QR and SVD, which the counter does not know) is not in it.
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankwise import models
from rankwise.measure.batch import meta_batch
from rankwise.method import Method, Unsupported, adapt, build_optimizer, unreleased


def flops(request: dict) -> dict:
    """FLOPs by phase of one step of one micro-batch, un-merged."""
    shapes = request["shapes"]
    model = models.from_shapes(request["model"], shapes["task"], shapes["classes"], "meta", attention="eager")
    names = models.names(request["model"], shapes["task"])
    try:
        with torch.device("meta"):
            method, model = adapt(request["method"], model, names)
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    model.train()
    method.settle(model)
    forward, loss = _forward(model, shapes)
    parts = {"forward_flops": forward, "backward_flops": 0, "optimizer_flops": 0}
    if loss.requires_grad:
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        parts |= {"backward_flops": counter.get_total_flops(), "optimizer_flops": _optimizer(request, method, model, names)}
    metrics = {**parts, "step_flops": sum(parts.values()), "batch_size": shapes["batch_size"]}
    return {"metrics": {**metrics, "sequence_length_tokens": shapes["sequence_length_tokens"]}}


def _forward(model: nn.Module, shapes: dict) -> tuple[int, torch.Tensor]:
    """FLOPs, and a loss with the real one's gradient shapes; cross-entropy has no matrix product."""
    batch = meta_batch(shapes)
    labels = batch["input_ids"][:, 0] if shapes["task"] == "classification" else batch["input_ids"]
    with FlopCounterMode(display=False) as counter:
        logits = model(**batch).logits
    return counter.get_total_flops(), nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _optimizer(request: dict, method: Method, model: nn.Module, names: dict) -> int:
    """Matrix products of a step that refreshes no basis; an optimizer without descents works by element and has none."""
    optimizer = build_optimizer(unreleased(request["method"]), method, model, names, seed=0)
    if not hasattr(optimizer, "descent"):
        return 0
    optimizer.allocate()
    for state in optimizer.state.values():
        state["step"] = 1  # the refresh is over
    in_place = {torch.ops.aten.addmm_: lambda _weight, left, right, **_: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        optimizer.step()
    return counter.get_total_flops()
