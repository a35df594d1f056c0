"""Softmax that keeps its input beside its output, as on torch before 1.11.

The gradient needs the output alone. But `_softmax_backward_data` took the input as an argument, for
its dtype, until torch 1.11 (transformers' `pytorch_utils.softmax_backward_data` still tells the two
apart). With eager attention that is one more tensor of all pairs of tokens for each layer.

This module is imported by name, where a profile asks for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

_plain = functional.softmax


class _WithInput(torch.autograd.Function):
    """An output whose graph keeps the input until backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, output: Tensor, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


def _softmax(inputs: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    device = "cpu" if inputs.is_meta else inputs.device.type
    if dtype is None and torch.is_autocast_enabled(device):
        dtype = torch.float32  # autocast computes softmax in fp32, from a copy that it makes
    inputs = inputs if dtype is None else inputs.to(dtype)
    return _WithInput.apply(_plain(inputs, dim), inputs)


@contextmanager
def kept() -> Iterator[None]:
    """While active, softmax keeps its input."""
    with mock.patch.object(functional, "softmax", _softmax):
        yield
