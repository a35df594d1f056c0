"""Methods on a base in 4 or 8 bits: the plain model with the dequantised matrices, computed here or by bitsandbytes."""

import copy

import bitsandbytes
import pytest
import torch
from torch import Tensor, nn

from helpers.formulas import formula_of
from helpers.lockstep import check_gradients, pair
from rankwise.models import storage
from references.registry import entries

# QLoRA (Dettmers et al. 2023), appendix E: the 16 levels of NF4.
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]  # fmt: skip
HEADS = ("pre_classifier", "classifier")


def nf4(weight: Tensor) -> Tensor:
    """The nearest level times the largest magnitude of each block of 64 weights (section 3)."""
    blocks = weight.double().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(NF4, dtype=torch.float64)
    nearest = (blocks[..., None] / largest[..., None] - levels).abs().argmin(-1)
    return (levels[nearest] * largest).view_as(weight)


def nf4_double(weight: Tensor) -> Tensor:
    """By bitsandbytes, with quantized scales."""
    codes, state = bitsandbytes.functional.quantize_4bit(
        weight.float(), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    return bitsandbytes.functional.dequantize_4bit(codes, state).double()


def int8(weight: Tensor) -> Tensor:
    """Dettmers et al. 2022, LLM.int8(): round(127 w / s) s / 127 with s the largest magnitude of a row.

    bitsandbytes quantizes weights in half precision.
    """
    half = weight.half().double()
    largest = half.abs().amax(1, keepdim=True)
    return (127 * half / largest).round() * largest / 127


STORED = {"nf4": nf4, "nf4_double": nf4_double, "int8": int8}


def dequantise(model: nn.Module, kind: str) -> None:
    """Round the matrices of a plain model to what their codes stand for."""
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear) and path not in HEADS:
                module.weight.copy_(STORED[kind](module.weight))


@pytest.mark.parametrize(
    "name", entries("test_stored_bases.py::test_gradients_are_those_of_the_dequantised_base")
)
def test_gradients_are_those_of_the_dequantised_base(name: str) -> None:
    """Our products are in fp32, those of int8 in fp16, hence the tolerances."""
    found = pair(name, double=False)
    kind = found.entry["weights"]
    found.plain.double()
    dequantise(found.plain, kind)
    answer = formula_of(found)
    found.randomise()
    for parameter, value in found.theirs.items():
        found.theirs[parameter] = value.detach().double().requires_grad_()
    if kind == "int8":  # in evaluation bitsandbytes quantizes the inputs too
        found.ours.train()
        for module in found.ours.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    check_gradients(found, answer, atol=1e-3 if kind == "int8" else 1e-6)


@pytest.mark.parametrize("kind", STORED)
def test_codes_stand_for_the_papers_weights(kind: str) -> None:
    """To rounding. Of int8 one weight in a thousand may have the next code: half way between two, fp32 decides."""
    found = pair("frozen")
    stored = storage.store(copy.deepcopy(found.plain).float(), kind, found.names)
    dense = dict(storage.dequantize(stored).named_parameters())
    dequantise(found.plain, kind)
    for path, expected in found.plain.named_parameters():
        gap = (dense[path].double() - expected).abs()
        is_other = gap > 1e-6 * expected.abs() + 2e-7
        assert is_other.double().mean() <= (1e-3 if kind == "int8" else 0), path
        assert gap.max() <= expected.abs().max() / 127 * 1.001, path
