"""Bytes that the leaf modules of a model put out in one forward pass in train mode: published system A's "activations".

They are not what backward needs: the output of a dropout that drops nothing counts, the softmax of a fused attention does not.
The ledger's activations are what is kept; this number only stands beside theirs. From shapes, nothing is allocated.
"""

import torch
from torch import Tensor, nn

from rankwise.measure import step
from rankwise.measure.memory.tracker import Tracker


def leaf_outputs_bytes(request: dict) -> int:
    """Of the adapted model on a profile's micro-batch, on the meta device.

    Raises:
        Unsupported: the method cannot do this model, with the reason.
    """
    with Tracker():  # answers models that look into a value, which a meta tensor has not
        _, model, _ = step.adapted(request, "meta")
        return leaf_outputs(model.train(), step.batch(request, "meta"))


@torch.no_grad()
def leaf_outputs(model: nn.Module, batch: dict[str, Tensor]) -> int:
    """Bytes of every tensor that a module without children returns; a module that is called twice counts twice."""
    sizes = []

    def count(_module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(count) for module in leaves]
    model(**batch)
    for hook in hooks:
        hook.remove()
    return sum(sizes)
