"""Which kernel computes attention on a GPU, by what it keeps for backward: counted by hand.

Source of the choice: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rankwise.measure.memory import account, autocast, flash_attention
from rankwise.measure.memory.kernels import kernels_of
from rankwise.measure.memory.tracker import Tracker

BATCH, HEADS, LENGTH = 2, 4, 32
ROWS = BATCH * HEADS * LENGTH
FP32, BF16 = torch.float32, torch.bfloat16
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def kept(
    call: Call, dtype: torch.dtype, width: int = 16, key_heads: int = HEADS, precision: str = "fp32"
) -> int:
    """Bytes that are alive after attention on CUDA, less those of queries, keys and values."""
    shapes = [(BATCH, heads, LENGTH, width) for heads in (HEADS, key_heads, key_heads)]
    tensors = [torch.ones(shape, dtype=dtype, device="meta") for shape in shapes]
    leaves = [tensor.requires_grad_() for tensor in tensors]
    tracker = Tracker()
    with kernels_of("cuda", precision=precision), tracker, tracker.phase("forward"):
        for leaf in leaves:
            tracker.see(leaf, "inputs")
        with torch.autocast("cpu", BF16, enabled=precision != "fp32"):
            output = call(*leaves)
    last = [dict(moment.kinds) for moment in account.replay(tracker) if moment.phase == "forward"][
        -1
    ]
    del output
    return sum(last.values()) - last["inputs"]


def attend(**options: object) -> Call:
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, **options)


def mask(columns: int = LENGTH) -> Tensor:
    return torch.ones(BATCH, 1, LENGTH, columns, dtype=torch.bool, device="meta")


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask())


def close(got: int, expected: int) -> bool:
    """Within the states of random generators, two numbers of 8 bytes each."""
    return 0 <= got - expected <= 64


def test_flash_keeps_its_output_and_a_number_a_row() -> None:
    assert close(kept(attend(is_causal=True), BF16), ROWS * 16 * 2 + ROWS * 4)


def test_flash_reads_grouped_keys_as_they_are() -> None:
    got = kept(attend(is_causal=True, enable_gqa=True), BF16, key_heads=1)
    assert close(got, ROWS * 16 * 2 + ROWS * 4)


def test_flash_pads_heads_to_multiples_of_eight() -> None:
    """Three padded inputs and a padded output of 16 numbers a row, for heads of 12."""
    assert close(kept(attend(), BF16, width=12), 4 * ROWS * 16 * 2 + ROWS * 4)


def test_fp32_is_memory_efficient() -> None:
    assert close(kept(attend(), FP32), ROWS * 16 * 4 + ROWS * 4)


def test_a_boolean_mask_becomes_numbers_that_are_kept() -> None:
    """The mask itself goes; its numbers are those of one head."""
    numbers = BATCH * LENGTH * LENGTH * 2
    assert close(kept(masked, BF16), ROWS * 16 * 2 + ROWS * 4 + numbers)


@pytest.mark.parametrize(
    ("dtype", "options", "sizes"),
    [
        pytest.param(FP32, {"enable_gqa": True}, {"key_heads": 1}, id="grouped keys in fp32"),
        pytest.param(BF16, {"attn_mask": None}, {"width": 264 + 4}, id="a wide head, unaligned"),
        pytest.param(FP32, {}, {"width": 18}, id="fp32, unaligned"),
    ],
)
def test_what_no_fused_kernel_takes_keeps_the_scores(
    dtype: torch.dtype, options: dict, sizes: dict
) -> None:
    scores = ROWS * LENGTH * dtype.itemsize
    output = ROWS * sizes.get("width", 16) * dtype.itemsize
    assert kept(attend(**options), dtype, **sizes) >= output + scores


def test_a_wide_head_is_memory_efficient() -> None:
    """Flash ends at 256 numbers a head."""
    assert close(kept(attend(), BF16, width=264), ROWS * 264 * 2 + ROWS * 4)


def flash_attn(mask: Tensor | None = None) -> Call:
    """Attention by the package flash-attn, as models of transformers call it."""
    return lambda q, k, v: flash_attention._attention(nn.Module(), q, k, v, mask, is_causal=True)[0]


def test_flash_attn_keeps_its_output_and_a_logsumexp_a_row() -> None:
    """Beside q, k and v: the output, and a number in fp32 for each row of each head.

    The tensors that FlashAttnFunc saves for backward (flash_attn_interface.py: q, k, v, out_padded,
    softmax_lse), and the shape of the last, (batch, heads, length) in fp32 (flash_api.cpp, mha_fwd).
    """
    logsumexp = BATCH * HEADS * LENGTH * 4
    output = BATCH * LENGTH * HEADS * 16 * 2
    assert close(kept(flash_attn(), BF16), output + logsumexp)
    assert close(kept(flash_attn(), BF16, key_heads=2), output + logsumexp)


def test_flash_attn_copies_what_padding_is_taken_from() -> None:
    """transformers gathers q, k and v without padding, and spreads the output again."""
    query = output = BATCH * HEADS * LENGTH * 16 * 2
    key = value = BATCH * 2 * LENGTH * 16 * 2
    logsumexp = BATCH * HEADS * LENGTH * 4
    padding = torch.ones(BATCH, LENGTH, device="meta")
    got = kept(flash_attn(padding), BF16, key_heads=2)
    # The output that the kernel keeps, and the one that goes on.
    assert close(got, query + key + value + 2 * output + logsumexp)


def test_autocast_narrows_queries_keys_and_values() -> None:
    """Three casts are kept beside what flash keeps."""
    got = kept(attend(is_causal=True), FP32, precision="bf16")
    assert close(got, 4 * ROWS * 16 * 2 + ROWS * 4)
    assert not autocast.is_active()
