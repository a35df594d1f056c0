"""Attention by the package flash-attn, as shapes: what it copies and what it keeps for backward.

transformers' `flash_attention_2` needs the package and a GPU. On the meta device this stands in for
it: the same kernel as torch's flash attention (Dao 2023, arXiv 2307.08691), which reads grouped
keys as they are. Where texts are padded, transformers gathers queries, keys and values without
padding, and spreads the output again. No padding is taken off here: batches are assumed to be full.

This module is imported by name, where a request asks for it.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from rankwise.measure.memory import autocast

NAME = "flash_attention_shapes"
HALF = (torch.float16, torch.bfloat16)


def use(model: nn.Module) -> None:
    """Let a model of transformers on the meta device attend by flash-attn's shapes."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.config._attn_implementation = NAME


def _mask(
    *_sizes: object, attention_mask: Tensor | None = None, **_others: object
) -> Tensor | None:
    """Padding by token, (batch, length), or None."""
    return attention_mask


def _attention(
    _module: nn.Module,
    query: Tensor,  # (batch, heads, length, width)
    key: Tensor,  # (batch, heads or a divisor of them, length, width); the value likewise
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_others: object,
) -> tuple[Tensor, None]:
    """The output, (batch, length, heads, width), and no weights, as transformers wants them."""
    kinds = [tensor.dtype for tensor in (query, key, value)]
    if not all(kind in HALF for kind in kinds):
        # transformers casts what flash-attn cannot take to the dtype of products.
        query, key, value = (autocast.narrowed(tensor) for tensor in (query, key, value))
    is_padded = attention_mask is not None
    if is_padded:
        query, key, value = (tensor.clone() for tensor in (query, key, value))
    with autocast.without_casts():
        output = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout, bool(is_causal), scale=scaling
        )[0]
    output = output.transpose(1, 2)
    return (output.clone() if is_padded else output), None
