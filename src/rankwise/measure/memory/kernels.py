"""Run a model on the meta device with the kernels that a CUDA GPU or a CPU would choose.

On the meta device torch makes the choices of a CPU, or none. But what a step keeps for backward
depends on the kernel. So we choose as torch would on the device asked for
(aten/src/ATen/native/transformers/cuda/sdp_utils.cpp):

- CUDA, dropout: the fused kernel keeps a mask of one byte per number (native_dropout).
- CUDA, attention: flash in bf16 and fp16 without a mask, otherwise memory-efficient. Both keep
  their output and one number per row (Dao et al. 2022, arXiv 2205.14135; Rabe & Staats 2021, arXiv
  2112.05682). The memory-efficient kernel wants as many keys as queries, so grouped keys in fp32
  take plain products.
- CPU, dropout: keeps its noise in the input's dtype, which is what the meta device does by itself.
- CPU, attention: flash without dropout, plain products with it, or with a bias that trains.
- Both, attention: plain products where a key of one head is broadcast to all heads.
- Both, mixtures of experts: one product of all groups (experts.py).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from rankwise.measure.memory.experts import grouped_product

ATEN = torch.ops.aten


@contextmanager
def kernels_of(device: str | None) -> Iterator[None]:
    """While active, models on the meta device run the kernels of `device`.

    transformers and torch.nn look both functions up in torch.nn.functional at every call, so
    replacing them there reaches every model.

    Args:
        device: `cuda` or `cpu`; None leaves every choice to torch.
    """
    with ExitStack() as patches:
        if device is not None:
            attention = ATTENTION[device]
            patches.enter_context(
                mock.patch.object(functional, "scaled_dot_product_attention", attention)
            )
            patches.enter_context(mock.patch.object(functional, "grouped_mm", grouped_product))
        if device == "cuda":
            patches.enter_context(mock.patch.object(functional, "dropout", _cuda_dropout))
        yield


def _cuda_dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001 - part of the signature of functional.dropout
) -> Tensor:
    if not training or p == 0:
        return x
    return torch.native_dropout(x, p, True)[0]


def _cuda_attention(
    query: Tensor,  # (batch, heads, length, width)
    key: Tensor,  # (batch, heads or a divisor of them, length, width); the value likewise
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if not enable_gqa and _is_broadcast(query, key):
        return _plain_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    if query.dtype != torch.float32 and attn_mask is None:
        return ATEN._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    if enable_gqa:
        return _plain_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
        )
    # The kernel stores one number per row (the log of the softmax's denominator) only for backward.
    needs_backward = any(tensor.requires_grad for tensor in (query, key, value))
    return ATEN._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_backward, dropout_p, is_causal, scale=scale
    )[0]


def _cpu_attention(
    query: Tensor,  # shapes as for CUDA
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    is_trained = attn_mask is not None and attn_mask.requires_grad  # T5's table of distances
    if dropout_p or is_trained or (not enable_gqa and _is_broadcast(query, key)):
        return _plain_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return ATEN._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


def _is_broadcast(query: Tensor, key: Tensor) -> bool:
    """Whether several heads read one key without saying so (`enable_gqa`), as in Falcon."""
    return query.shape[:2] != key.shape[:2]


def _plain_attention(*args: object, **kwargs: object) -> Tensor:
    """Attention that forms and keeps the scores (batch, heads, length, length)."""
    return ATEN._scaled_dot_product_attention_math(*args, **kwargs)[0]


ATTENTION = {"cuda": _cuda_attention, "cpu": _cpu_attention}
