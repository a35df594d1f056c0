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
from rankwise.method import Unsupported, adapt, build_optimizer


def flops(request: dict) -> dict:
    """FLOPs by phase of one step of one micro-batch, un-merged."""
    shapes = request["shapes"]
    model = models.from_shapes(request["model"], shapes["task"], shapes["classes"], "meta", attention="eager")
    try:
        with torch.device("meta"):
            model = adapt(request["method"], model, models.names(request["model"], shapes["task"]))[1]
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    model.train()
    forward, loss = _forward(model, shapes)
    parts = {"forward_flops": forward, "backward_flops": 0, "optimizer_flops": 0}
    if loss.requires_grad:
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        parts |= {"backward_flops": counter.get_total_flops(), "optimizer_flops": _optimizer(request, model)}
    metrics = {**parts, "step_flops": sum(parts.values()), "batch_size": shapes["batch_size"]}
    return {"metrics": {**metrics, "sequence_length_tokens": shapes["sequence_length_tokens"]}}


def _forward(model: nn.Module, shapes: dict) -> tuple[int, torch.Tensor]:
    """FLOPs, and a loss with the real one's gradient shapes; cross-entropy has no matrix product."""
    batch = meta_batch(shapes)
    labels = batch["input_ids"][:, 0] if shapes["task"] == "classification" else batch["input_ids"]
    with FlopCounterMode(display=False) as counter:
        logits = model(**batch).logits
    return counter.get_total_flops(), nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _optimizer(request: dict, model: nn.Module) -> int:
    """Matrix products of a step that refreshes no basis."""
    optimizer = build_optimizer(request["method"], model, seed=0)
    if hasattr(optimizer, "allocate"):
        optimizer.allocate()
        for state in optimizer.state.values():
            state["step"] = 1  # the refresh is over
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    return counter.get_total_flops()
