"""FLOPs of a training step as torch's autograd profiler counts them on a GPU, from shapes.

`torch.autograd.profiler.profile(with_flops=True)` is published system A's counter (the numbers in
its flops_profiler_stats.csv). It knows mm, addmm, bmm, baddbmm and convolutions, with 2 FLOPs for a
multiply-add (our models have no convolution). It also knows aten::mul and aten::add out of place,
with one FLOP for each number of the first operand (torch's csrc/profiler/util.cpp). All else is
free: fused attention, decompositions, other pointwise operations, and whatever works in place.

Our model runs under a dispatch mode on the meta device, with a GPU's kernels (memory/kernels.py).
Three things differ from a profiled run and are corrected:

- SUMS: where a tensor was used several times, autograd adds up its gradients in place (aten::add_,
  not counted). Under a dispatch mode it adds out of place. So additions between two nodes of the
  backward graph are left out. A profiled run does add out of place where a second tensor waits for
  the gradient that the sum starts from. That happens once in an adapter of Houlsby's, and in no
  method of system A.
- DELTA: the backward pass of memory-efficient attention in fp32 takes row sums of grad * out before
  its kernel starts, by an aten::mul of the output's size (attention_backward.cu). It is the only
  part of attention that the profiler sees.
- OPTIMIZER: system A's optimizers, and torch's AdamW, work in place on single tensors or by
  foreach. Their products are counted, their pointwise operations are not. Ours scale out of place
  and fuse a product with its addition (addmm_). So only the products of an optimizer count, and
  count.py adds them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from rankwise.measure.flops.formulas import Elementwise
from rankwise.measure.memory.kernels import kernels_of

ATEN = torch.ops.aten
# Positions of the two factors among an operator's arguments.
FACTORS = {
    ATEN.mm: (0, 1),
    ATEN.addmm: (1, 2),
    ATEN.bmm: (0, 1),
    ATEN.baddbmm: (1, 2),
}
POINTWISE = (ATEN.add, ATEN.mul)
EFFICIENT_BACKWARD = ATEN._scaled_dot_product_efficient_attention_backward


def forward_and_backward(
    model: nn.Module, loss: Callable[[], Tensor], device: str = "cuda"
) -> tuple[int, int]:
    """Count one forward and backward pass as the profiler would.

    Args:
        model: On the meta device. Its gradients are dropped at the end.
        loss: Runs the model and returns its loss.
        device: `cuda` or `cpu`: whose kernels run.

    Returns:
        FLOPs of products, and FLOPs per element.
    """
    # Elementwise is here for its answers to reads of a value, not for its count.
    with kernels_of(device), Elementwise(), _Profiler() as profiler:
        result = loss()
        if result.requires_grad:
            for node in _nodes(result.grad_fn):
                node.register_prehook(profiler.enter_node)
                node.register_hook(profiler.leave_node)
            result.backward()
    model.zero_grad()
    return profiler.products, profiler.elementwise


def _nodes(last: Node) -> Iterator[Node]:
    """Yield every node of a backward graph once."""
    known, waiting = {last}, [last]
    while waiting:
        node = waiting.pop()
        yield node
        for earlier, _ in node.next_functions:
            if earlier is not None and earlier not in known:
                known.add(earlier)
                waiting.append(earlier)


class _Profiler(TorchDispatchMode):
    """Counts what the profiler counts, in `products` and `elementwise`."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.elementwise = 0, 0
        self.between_nodes = False  # of the backward graph, where autograd sums gradients

    def enter_node(self, _gradients: tuple) -> None:
        self.between_nodes = False

    def leave_node(self, _inputs: tuple, _outputs: tuple) -> None:
        self.between_nodes = True

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        operator = func.overloadpacket
        if operator in FACTORS:
            left, right = (args[position] for position in FACTORS[operator])
            self.products += 2 * left.numel() * right.shape[-1]
        elif operator in POINTWISE and not self.between_nodes:
            self.elementwise += args[0].numel()
        output = func(*args, **(kwargs or {}))
        if operator is EFFICIENT_BACKWARD:
            self.elementwise += args[0].numel()  # DELTA
        return output
