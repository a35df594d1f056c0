"""Run a model on the meta device with the kernels that a CUDA GPU or a CPU would choose.

On the meta device torch makes the choices of a CPU, or none. But what a step keeps for backward
depends on the kernel. So we choose as torch would on the device asked for
(aten/src/ATen/native/transformers/cuda/sdp_utils.cpp and attention.cpp):

- CUDA, dropout: the fused kernel keeps a mask of one byte per number (native_dropout).
- CUDA, attention: flash in bf16 and fp16 without a mask, for heads of up to 256 numbers; otherwise
  memory-efficient. Both keep their output and one number per row (Dao et al. 2022, arXiv
  2205.14135; Rabe & Staats 2021, arXiv 2112.05682). The memory-efficient kernel wants as many keys
  as queries, so grouped keys in fp32 take plain products. So do heads whose width is no multiple of
  8 numbers, in fp32 of 4.
- CUDA, masks: a boolean mask becomes one of numbers at each call, which the kernel keeps.
- CPU, dropout: keeps its noise in the input's dtype, which is what the meta device does by itself.
- CPU, attention: flash without dropout, plain products with it, or with a bias that trains.
- Both, attention: plain products where a key of one head is broadcast to all heads.
- Autocast acts on meta tensors (autocast.py).

cuDNN's attention, which torch prefers on Hopper and data-center Blackwell, keeps what flash keeps.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from transformers import masking_utils

from rankwise.measure.memory import autocast

ATEN = torch.ops.aten
# Modules of AdamW and SGD; torch.optim hides their names.
FUSED_OPTIMIZERS = tuple(map(importlib.import_module, ("torch.optim.adam", "torch.optim.sgd")))
WIDEST_FLASH_HEAD = 256  # check_head_dim_size_flash
FLASH_ALIGNMENT = 8  # numbers: narrower heads are padded to a multiple of it
# Bytes that each head of the memory-efficient kernel is aligned to, from Ampere on
# (minimum_gemm_alignment: 128 bits).
EFFICIENT_ALIGNMENT_BYTES = 16
MASK_ALIGNMENT = 8  # numbers: preprocess_mask pads the rows of a mask to a multiple of it


@contextmanager
def kernels_of(
    device: str | None, *, precision: str = "fp32", padded: bool = False
) -> Iterator[None]:
    """While active, models on the meta device run the kernels of `device`.

    transformers and torch.nn look both functions up in torch.nn.functional at every call, so
    replacing them there reaches every model.

    Args:
        device: `cuda` or `cpu`; None leaves every choice to torch.
        precision: Anything but `fp32` lets autocast act on meta tensors.
        padded: Whether a mask hides padding. transformers drops a mask that hides nothing, and a
            mask on the meta device has no values to look at.
    """
    with ExitStack() as patches:
        if device is not None:
            attention = ATTENTION[device]
            patches.enter_context(
                mock.patch.object(functional, "scaled_dot_product_attention", attention)
            )
            if precision != "fp32":
                patches.enter_context(autocast.casts_of(device))
            if padded:
                for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
                    patches.enter_context(mock.patch.object(masking_utils, name, _never))
            for module in FUSED_OPTIMIZERS:
                check = "_device_dtype_check_for_fused"  # refuses the meta device
                patches.enter_context(mock.patch.object(module, check, _nothing))
            # torch has shapes of fused AdamW alone; like it, this one changes its inputs in place.
            patches.enter_context(mock.patch.object(torch, "_fused_sgd_", _nothing))
        if device == "cuda":
            patches.enter_context(mock.patch.object(functional, "dropout", _cuda_dropout))
        yield


def _nothing(*_args: object, **_kwargs: object) -> None:
    return None


def _never(*_args: object, **_kwargs: object) -> bool:
    return False


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
    if autocast.is_active():
        query, key, value, attn_mask = map(autocast.narrowed, (query, key, value, attn_mask))
    with autocast.without_casts():
        return _cuda_kernel(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )


def _cuda_kernel(
    query: Tensor,  # shapes as for _cuda_attention
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    *,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    is_grouped = query.shape[:2] != key.shape[:2]
    if mask is None and _can_use_flash(query, key, value) and (enable_gqa or not is_grouped):
        return _flash(query, key, value, dropout_p, is_causal, scale)
    if is_grouped or not _can_use_efficient(query, key, value):
        return _plain_attention(
            query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if mask is not None:
        mask = _aligned(_as_numbers(mask, query.dtype))
        mask = mask.expand(*query.shape[:3], key.shape[2])
    # The kernel stores one number per row (the log of the softmax's denominator) only for backward.
    needs_backward = any(tensor.requires_grad for tensor in (query, key, value))
    return ATEN._scaled_dot_product_efficient_attention(
        query, key, value, mask, needs_backward, dropout_p, is_causal, scale=scale
    )[0]


def _can_use_flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    width = query.shape[-1]
    is_one_width = width == key.shape[-1] == value.shape[-1]
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return is_half and is_one_width and width <= WIDEST_FLASH_HEAD


def _can_use_efficient(query: Tensor, key: Tensor, value: Tensor) -> bool:
    alignment = EFFICIENT_ALIGNMENT_BYTES // query.element_size()
    is_aligned = all(tensor.shape[-1] % alignment == 0 for tensor in (query, value))
    return is_aligned and query.shape[-1] == key.shape[-1]


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    width = query.shape[-1]
    missing = -width % FLASH_ALIGNMENT
    if missing:
        query, key, value = (functional.pad(tensor, (0, missing)) for tensor in (query, key, value))
        scale = 1 / math.sqrt(width) if scale is None else scale
    output = ATEN._scaled_dot_product_flash_attention(
        query, key, value, dropout_p, is_causal, scale=scale
    )[0]
    return output[..., :width] if missing else output


def _as_numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers that are added to scores (convert_boolean_attn_mask)."""
    if mask.dtype != torch.bool:
        return mask
    hidden = torch.full((), -math.inf, dtype=dtype, device=mask.device)
    return torch.where(mask, 0.0, hidden)


def _aligned(mask: Tensor) -> Tensor:
    """A mask whose rows begin at multiples of MASK_ALIGNMENT numbers (preprocess_mask)."""
    columns = mask.shape[-1]
    if columns % MASK_ALIGNMENT == 0:
        return mask
    return functional.pad(mask, (0, -columns % MASK_ALIGNMENT))[..., :columns]


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
    if autocast.is_active():
        query, key, value, attn_mask = map(autocast.narrowed, (query, key, value, attn_mask))
    is_trained = attn_mask is not None and attn_mask.requires_grad  # T5's table of distances
    is_broadcast = not enable_gqa and query.shape[:2] != key.shape[:2]  # as in Falcon
    with autocast.without_casts():
        if dropout_p or is_trained or is_broadcast:
            return _plain_attention(
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )
        mask = None if attn_mask is None else _as_numbers(attn_mask, query.dtype)
        return ATEN._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale
        )[0]


def _plain_attention(*args: object, **kwargs: object) -> Tensor:
    """Attention that forms and keeps the scores (batch, heads, length, length)."""
    return ATEN._scaled_dot_product_attention_math(*args, **kwargs)[0]


ATTENTION = {"cuda": _cuda_attention, "cpu": _cpu_attention}
