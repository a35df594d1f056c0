"""4-bit layers that make their dense matrix in two steps, for predictions of other trainers.

bitsandbytes remembers the dtype that a matrix was quantized from, and dequantizes to it. A layer
that multiplies in another dtype then holds two dense matrices for a moment: that one and its copy
in the dtype of the product. Forward and backward both make them. Our own layers set the dtype of
the product (models/quantized.py), and so do transformers and peft. Lightning's
BitsandbytesPrecision quantizes from fp16, whatever the layer multiplies in (`_Linear4bit.quantize`
in lightning_fabric/plugins/precision/bitsandbytes.py, 2.1 to 2.4).

The order is that of MatMul4Bit in bitsandbytes 0.41 to 0.43: dequantize, cast, multiply.

This module is imported by name, where a profile asks for it.
"""

import functools

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from rankwise.models import storage


class _Product(torch.autograd.Function):
    """x W' with a frozen 4-bit W, which is made dense in forward and again in backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, layer: bnb.nn.Linear4bit) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, _dense(layer, x.dtype))

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ _dense(ctx.layer, gradient.dtype), None


def _dense(layer: bnb.nn.Linear4bit, dtype: torch.dtype) -> Tensor:  # (m, n)
    """The layer's matrix in `dtype`, by way of the dtype that it was quantized from."""
    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)


def use(model: nn.Module, dtype: str) -> None:
    """Let every 4-bit layer of a model dequantize to `dtype` first, in place.

    Args:
        model: A model whose base may be quantized by rankwise.models.quantized.
        dtype: `fp32`, `fp16` or `bf16`.
    """
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.weight.quant_state.dtype = storage.DTYPES[dtype]
            module.forward = functools.partial(_forward, module)


def _forward(layer: bnb.nn.Linear4bit, x: Tensor) -> Tensor:
    out = _Product.apply(x.to(layer.compute_dtype), layer)
    return (out if layer.bias is None else out + layer.bias.to(out.dtype)).to(x.dtype)
