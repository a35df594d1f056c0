"""Products of a mixture of experts on the meta device.

transformers stacks the weights of a layer's experts to one tensor, sorts the tokens by expert, and
multiplies all groups in one call of torch's grouped_mm. A token is there once for each expert that
it is sent to. So the rows are tokens x experts a token, however the router distributes them, and no
byte depends on values: no load has to be assumed.

torch's own meta kernel takes bf16 alone. The product here takes every dtype, and keeps for backward
what torch keeps (derivatives.yaml, _grouped_mm): the rows if the weights train, the weights if the
rows need a gradient. Not included: the few hundred bytes of arguments that CUDA's kernel is called
with.
"""

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional


def stacked(model: nn.Module) -> list[str]:
    """The names of the parameters that hold the matrices of several experts."""
    return [name for name, param in model.named_parameters() if param.ndim == 3]


def on_meta() -> AbstractContextManager:
    """While active, grouped_mm works on the meta device in every dtype.

    transformers looks it up in torch.nn.functional at every call.
    """
    return mock.patch.object(functional, "grouped_mm", grouped_product)


def grouped_product(
    rows: Tensor,  # (rows, in)
    weights: Tensor,  # (experts, in, out)
    *,
    offs: Tensor,  # (experts)
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:  # (rows, out)
    """Stand in for torch.nn.functional.grouped_mm on the meta device.

    Args:
        rows: Sorted by expert.
        weights: Of all experts.
        offs: Where the rows of each expert end; on the meta device of no effect.
        bias: Not supported by torch either.
        out_dtype: Not used by transformers.

    Raises:
        NotImplementedError: A bias or another dtype is asked for.
    """
    if bias is not None or out_dtype is not None or rows.dim() != 2 or weights.dim() != 3:
        raise NotImplementedError("grouped_mm: predicted for rows (rows, in) and weights alone")
    return _GroupedProduct.apply(rows, weights, offs)


class _GroupedProduct(torch.autograd.Function):
    """The shapes of a grouped product and of its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, offs: Tensor) -> Tensor:
        need_rows, need_weights, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if need_weights else None, weights if need_rows else None, offs)
        ctx.of_rows, ctx.of_weights, ctx.strides = rows.shape, weights.shape, weights.stride()
        return rows.new_empty((rows.shape[0], weights.shape[-1]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        need_rows, need_weights, _ = ctx.needs_input_grad
        grad_rows = grad.new_empty(ctx.of_rows) if need_rows else None
        # Laid out as the weights are, so that it becomes their gradient without a copy.
        grad_weights = grad.new_empty_strided(ctx.of_weights, ctx.strides) if need_weights else None
        return grad_rows, grad_weights, None
