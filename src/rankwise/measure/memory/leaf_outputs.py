"""Bytes that a model's leaf modules return in one forward pass: published system A's "activations".

They are not what backward needs. The output of a dropout that drops nothing counts, the softmax of
a fused attention does not. The ledger's activations are what is kept; this number only stands
beside them. It comes from shapes, and nothing is allocated.
"""

import torch
from torch import Tensor, nn

from rankwise.measure import step, step_batch
from rankwise.measure.memory.tracker import Tracker
from rankwise.models import experts


def leaf_outputs_bytes(request: dict) -> int:
    """Count a request's adapted model on its micro-batch, on the meta device, in train mode.

    Raises:
        Unsupported: The method cannot train this model; the message is the reason.
    """
    # The tracker is here only because it answers models that read a value of a meta tensor.
    with experts.on_meta(), Tracker():
        _, model, _ = step.adapted(request, "meta")
        return leaf_outputs(model.train(), step_batch.batch(request, "meta"))


@torch.no_grad()
def leaf_outputs(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes of every tensor that a module without children returns.

    A module that is called twice counts twice.

    Args:
        model: On any device; the meta device is enough.
        batch: The model's inputs by name.
    """
    sizes = []

    def record_size(_module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    hooks = []
    for module in model.modules():
        is_leaf = next(module.children(), None) is None
        if is_leaf:
            hooks.append(module.register_forward_hook(record_size))
    model(**batch)
    for hook in hooks:
        hook.remove()
    return sum(sizes)
