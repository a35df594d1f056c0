"""4-bit layers that hold their inputs, as those of bitsandbytes before 0.44 do.

A frozen layer needs its weights alone for the gradient of its input. But up to 0.43 MatMul4Bit set
`ctx.tensors = (A, B)`, so it held its input A, too. bitsandbytes removed that in its commit 9e75374
("fix QLoRA mem bug: delete useless buffered activation", #1270). An attribute of a context is not
what autograd frees in backward: it goes with the graph. So a loop that holds a loss or logits until
the next ones are there holds the inputs of two steps.

This module is imported by name, where a profile asks for it.
"""

import functools
from collections.abc import Callable

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class _WithInput(torch.autograd.Function):
    """An output whose graph holds the layer's input."""

    @staticmethod
    def forward(ctx: FunctionCtx, output: Tensor, inputs: Tensor) -> Tensor:
        ctx.inputs = inputs  # no saved tensor, which backward would free
        return output.view_as(output)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


def keep(model: nn.Module) -> None:
    """Let every 4-bit layer of a model hold its input, in place.

    With activation checkpointing a layer holds its input only where it runs again in backward: the
    reentrant checkpoints of that time built no graph before.

    Args:
        model: A model whose base is quantized by rankwise.models.quantized.
    """
    recomputes = getattr(model, "is_gradient_checkpointing", False)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.forward = functools.partial(
                _forward, module.forward, module.compute_dtype, recomputes
            )


def _forward(
    plain: Callable[[Tensor], Tensor], dtype: torch.dtype, recomputes: bool, x: Tensor
) -> Tensor:
    if recomputes and torch._C._current_graph_task_id() == -1:  # not within backward
        return plain(x)
    inputs = x.to(dtype)  # what is multiplied
    return _WithInput.apply(plain(inputs), inputs).to(x.dtype)
