"""FLOPs of a forward pass by a second counter: fvcore, which reads them from a traced graph.

torch's FlopCounterMode counts what is dispatched, so the two share no code. Where we differ from
fvcore's defaults:

- fvcore counts a multiply-add as one, so its counts are doubled.
- Only matrix products are taken; fvcore also counts normalisations.
- fvcore reads the cost of an einsum from a text that numpy prints with four digits. Our own handler
  replaces it: the product of all index sizes, which is exact for two factors.
"""

from math import prod

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

PRODUCTS = ("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum", "conv")
OWN_FUNCTION = "prim::PythonOp."  # of an autograd function's node in a traced graph


def forward(model: nn.Module, batch: dict[str, Tensor]) -> tuple[int, list[str]]:
    """FLOPs of the matrix products of one forward pass.

    Args:
        model: On any device; the meta device is enough.
        batch: The model's inputs by name.

    Returns:
        FLOPs, two for each multiply-add; and the names of the model's own autograd functions, into
        which a traced graph does not look.

    Raises:
        RuntimeError, TypeError: torch.jit cannot trace the model.
    """
    analysis = FlopCountAnalysis(_Positional(model, tuple(batch)), tuple(batch.values()))
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    analysis.set_op_handle("aten::einsum", _einsum_products)
    products_by_operator = analysis.by_operator()
    own = [name for name in analysis.unsupported_ops() if name.startswith(OWN_FUNCTION)]
    functions = [name.removeprefix(OWN_FUNCTION) for name in own]
    return 2 * sum(int(products_by_operator[name]) for name in PRODUCTS), functions


class _Positional(nn.Module):
    """Wrap a model for the tracer, which passes tensors by position and wants one tensor back."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def _einsum_products(inputs: list[torch._C.Value], _outputs: list[torch._C.Value]) -> int:
    """Multiply-adds of an einsum: its equation is input 0, the list of its factors input 1."""
    equation = inputs[0].toIValue().replace(" ", "")
    subscripts = equation.partition("->")[0].split(",")
    shapes = [get_shape(factor) for factor in inputs[1].node().inputs()]
    sizes: dict[str | int, int] = {}
    for subscript, shape in zip(subscripts, shapes, strict=True):
        sizes |= _sizes(subscript, shape)
    return prod(sizes.values())


def _sizes(subscript: str, shape: list[int]) -> dict[str | int, int]:
    """Size of each index of one factor.

    Dimensions behind an ellipsis have no letter. They are named by their negative distance from the
    end of the ellipsis, for einsum aligns them from the right.
    """
    head, _, tail = subscript.partition("...")
    end = len(shape) - len(tail)
    sizes: dict[str | int, int] = dict(zip(head, shape, strict=False))
    for position in range(len(head), end):
        sizes[position - end] = shape[position]
    sizes |= dict(zip(reversed(tail), reversed(shape), strict=False))
    return sizes
