"""Kernels as a device would choose them, for models on the meta device, whose own choices are a CPU's or none.

On CUDA dropout keeps a mask of one byte a number, and attention is flash (bf16, fp16) or memory-efficient (fp32): both keep
their output and one number a row (Dao et al. 2022, arXiv 2205.14135; Rabe & Staats 2021, arXiv 2112.05682). On a CPU dropout
keeps its noise in the input's dtype, and attention with dropout forms its products. torch chooses in `sdp_utils.cpp`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

ATEN = torch.ops.aten


@contextmanager
def kernels(device: str | None) -> Iterator[None]:
    """Within it, models on the meta device run what they would on `device`; None leaves every choice to torch."""
    if device is None:
        yield
        return
    with mock.patch.object(functional, "scaled_dot_product_attention", ATTENTION[device]):
        if device == "cpu":
            yield
        else:
            with mock.patch.object(functional, "dropout", _dropout):
                yield


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: ARG001
    if not training or p == 0:
        return x
    return torch.native_dropout(x, p, True)[0]


def _cuda(
    query: Tensor,  # (batch, heads, length, width)
    key: Tensor,  # (batch, heads or a divisor of them, length, width), and so is the value
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if query.dtype != torch.float32 and attn_mask is None:
        return ATEN._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    if enable_gqa:  # the efficient kernel wants as many keys as queries
        return _products(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
        )
    keeps = any(tensor.requires_grad for tensor in (query, key, value))
    efficient = ATEN._scaled_dot_product_efficient_attention
    return efficient(query, key, value, attn_mask, keeps, dropout_p, is_causal, scale=scale)[0]


def _cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p:
        return _products(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    flash = ATEN._scaled_dot_product_flash_attention_for_cpu
    return flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _products(*given: object, **settings: object) -> Tensor:
    return ATEN._scaled_dot_product_attention_math(*given, **settings)[0]


ATTENTION = {"cuda": _cuda, "cpu": _cpu}
