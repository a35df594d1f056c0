"""Masks of padding as numbers, made once for all layers, as in transformers before 5.

Encoders made the mask of scaled dot-product attention in the dtype of their embeddings
(transformers 4.57, `_prepare_4d_attention_mask_for_sdpa` of modeling_attn_mask_utils.py). Today's
models make a boolean one, and on CUDA each layer turns it into numbers of its own, which the
memory-efficient kernel keeps: (batch, 1, length, length) a layer.

This module is imported by name, where a profile asks for it.
"""

from contextlib import AbstractContextManager
from unittest import mock

import torch
from torch import Tensor
from transformers import masking_utils


def made_once() -> AbstractContextManager[None]:
    """While active, models make masks of numbers for scaled dot-product attention."""
    functions = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    return mock.patch.dict(functions._global_mapping, {"sdpa": _mask})


def _mask(*args: object, dtype: torch.dtype = torch.float32, **kwargs: object) -> Tensor | None:
    """Transformers' mask: 0 where a token is seen, the lowest number elsewhere."""
    mask = masking_utils.sdpa_mask(*args, **kwargs)
    if mask is None or mask.dtype != torch.bool:
        return mask
    seen = torch.zeros((), device=mask.device, dtype=dtype)
    return torch.where(mask, seen, torch.finfo(dtype).min)
