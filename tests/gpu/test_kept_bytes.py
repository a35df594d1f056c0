"""What attention and dropout keep for backward: on the device, as predicted, and by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.real_gpu import DEVICE, kept_bytes, on_gpu_or_rehearsed
from rankwise.measure.memory.kernels import kernels_of

pytestmark = on_gpu_or_rehearsed

BATCH, HEADS, LENGTH, WIDTH = 2, 4, 128, 64
SCALARS = 64  # bytes: a kernel keeps the state of its random generator


def heads(dtype: torch.dtype, device: str, count: int = HEADS) -> Tensor:
    return torch.randn(BATCH, count, LENGTH, WIDTH, dtype=dtype, device=device, requires_grad=True)


def attention(dtype: torch.dtype, device: str, keys: int = HEADS) -> int:
    query, key, value = (heads(dtype, device, count) for count in (HEADS, keys, keys))
    options = {"is_causal": True, "enable_gqa": keys != HEADS}
    return kept_bytes(lambda: functional.scaled_dot_product_attention(query, key, value, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_keeps_its_inputs_its_output_and_a_number_a_row(dtype: torch.dtype) -> None:
    """Flash and the memory-efficient kernel: q, k, v, the output, and the log of each row's sum."""
    numbers = BATCH * HEADS * LENGTH * WIDTH
    expected = 4 * numbers * dtype.itemsize + 4 * BATCH * HEADS * LENGTH
    assert attention(dtype, DEVICE) == pytest.approx(expected, abs=SCALARS)
    with kernels_of(DEVICE):
        assert attention(dtype, "meta") == pytest.approx(expected, abs=SCALARS)


def test_attention_with_a_mask_keeps_it_as_numbers() -> None:
    """Beside what attention without a mask keeps: fp32 numbers in place of the booleans."""
    numbers, masked = BATCH * HEADS * LENGTH * WIDTH, BATCH * LENGTH * LENGTH
    expected = 4 * (4 * numbers + BATCH * HEADS * LENGTH + masked)
    assert masked_attention(DEVICE) == pytest.approx(expected, abs=SCALARS)
    with kernels_of(DEVICE):
        assert masked_attention("meta") == pytest.approx(expected, abs=SCALARS)


def masked_attention(device: str) -> int:
    query, key, value = (heads(torch.float32, device) for _ in range(3))
    mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool, device=device).tril()
    return kept_bytes(
        lambda: functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_keys_are_kept_as_predicted(dtype: torch.dtype) -> None:
    with kernels_of(DEVICE):
        predicted = attention(dtype, "meta", keys=1)
    assert attention(dtype, DEVICE, keys=1) == pytest.approx(predicted, rel=0.01)


def test_dropout_keeps_a_mask() -> None:
    """On CUDA a byte a number; on a CPU the noise itself, in fp32."""
    expected = 1000 * 64 * {"cuda": 1, "cpu": 4}[DEVICE]

    def dropped(device: str) -> int:
        values = torch.randn(1000, 64, device=device, requires_grad=True)
        return kept_bytes(lambda: functional.dropout(values, 0.1, training=True))

    assert dropped(DEVICE) == expected
    with kernels_of(DEVICE):
        assert dropped("meta") == expected
