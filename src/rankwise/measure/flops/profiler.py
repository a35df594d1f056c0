"""FLOPs of a training step as `torch.autograd.profiler.profile(with_flops=True)` counts them on a GPU, from shapes.

That is published system A's counter (its flops_profiler_stats.csv). It knows mm, addmm, bmm, baddbmm and convolutions, 2 FLOPs
a multiply-add (our models have no convolution), and aten::mul and aten::add out of place, one FLOP for each number of the first
operand (torch's csrc/profiler/util.cpp). All else is free: fused attention, decompositions, other pointwise operations, and
whatever works in place.

Our model runs under a dispatch mode on the meta device, with a GPU's kernels. Three things that mode and device do otherwise
than a profiled run are set right:

- SUMS: where a tensor was used several times, autograd adds up its gradients, in place (aten::add_, not counted). Under a
  dispatch mode it does so out of place, so additions between two nodes of the backward graph are left out. A profiled run has a
  few after all where a second tensor waits for the gradient that the sum starts from: once an adapter of Houlsby's, in no
  method of system A.
- DELTA: the backward pass of memory-efficient attention in fp32 takes row sums of grad * out before its kernel starts, by an
  aten::mul of the output's size (attention_backward.cu); it is the one part of attention that the profiler sees.
- OPTIMIZER: system A's optimizers, and torch's AdamW, work in place on single tensors or by foreach: their products are
  counted, their pointwise operations are not. Ours scale out of place and fuse a product with its addition (addmm_), so of them
  products count.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from rankwise.measure.flops.formulas import Elementwise
from rankwise.measure.memory.kernels import kernels

ATEN = torch.ops.aten
PRODUCTS = {
    ATEN.mm: (0, 1),
    ATEN.addmm: (1, 2),
    ATEN.bmm: (0, 1),
    ATEN.baddbmm: (1, 2),
}  # places of the two factors
POINTWISE = (ATEN.add, ATEN.mul)
EFFICIENT_BACKWARD = ATEN._scaled_dot_product_efficient_attention_backward


def forward_and_backward(
    model: nn.Module, loss: Callable[[], Tensor], device: str = "cuda"
) -> tuple[int, int]:
    """FLOPs of products, and by element, of one call of `loss` and of its backward pass, with a device's kernels.

    It runs `model`, on the meta device, whose gradients are dropped.
    """
    with (
        kernels(device),
        Elementwise(),
        _Profiler() as profiler,
    ):  # Elementwise answers what is asked of values
        found = loss()
        if found.requires_grad:
            for node in _nodes(found.grad_fn):
                node.register_prehook(profiler.enter)
                node.register_hook(profiler.leave)
            found.backward()
    model.zero_grad()
    return profiler.products, profiler.elementwise


def _nodes(last: Node) -> Iterator[Node]:
    """Every node of a backward graph, once."""
    known, waiting = {last}, [last]
    while waiting:
        node = waiting.pop()
        yield node
        new = {before for before, _ in node.next_functions if before is not None} - known
        known |= new
        waiting += new


class _Profiler(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products, self.elementwise = 0, 0
        self.between = False  # two nodes of the backward graph

    def enter(self, _gradients: tuple) -> None:
        self.between = False

    def leave(self, _inputs: tuple, _outputs: tuple) -> None:
        self.between = True

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[packet])
            self.products += 2 * left.numel() * right.shape[-1]
        elif packet in POINTWISE and not self.between:
            self.elementwise += args[0].numel()
        found = func(*args, **(kwargs or {}))
        if packet is EFFICIENT_BACKWARD:
            self.elementwise += args[0].numel()
        return found
