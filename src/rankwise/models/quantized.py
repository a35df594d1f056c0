"""Linear layers in 4 and 8 bits, by bitsandbytes; storage.py says what they are. Loaded by name, where they are used only."""

import logging
import math
import warnings
from collections.abc import Iterator

import bitsandbytes as bnb
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from rankwise.core.errors import Unsupported

NF4_BLOCK, SCALE_BLOCK, OUTLIER = 64, 256, 6.0
with torch.device("cpu"):  # loaded by name, perhaps under the meta device
    SCALE_LEVELS = bnb.functional.create_dynamic_map()
logging.getLogger("bitsandbytes.autograd._functions").setLevel(
    logging.ERROR
)  # int8 says at every call that it casts to fp16

# Blocks run through the rows of a matrix. On processors with AVX-512, bitsandbytes 0.50.2 lets one begin with each row that has
# a multiple of 16 weights and none of 64, and reads the scales of others; rows of whole blocks, or one row, it reads right.
DEQUANTIZE = "dequantize_4bit"
_kernel, _mended = (
    torch.library.get_kernel(f"bitsandbytes::{DEQUANTIZE}", "CPU"),
    torch.library.Library("bitsandbytes", "IMPL"),
)


def _in_whole_blocks(
    keys: torch.DispatchKeySet,
    codes: Tensor,
    scales: Tensor,
    block: int,
    kind: str,
    shape: list[int],
    dtype: torch.dtype,
) -> Tensor:
    numel = math.prod(shape)
    rows = numel // block if numel % block == 0 else 1
    flat = shape if shape[-1] % block == 0 else [rows, numel // rows]
    return _kernel.call_boxed(keys, codes, scales, block, kind, flat, dtype).view(shape)


with warnings.catch_warnings(
    action="ignore", category=UserWarning
):  # torch says that there was a kernel
    _mended.impl(DEQUANTIZE, _in_whole_blocks, "CPU", with_keyset=True, allow_override=True)


class Nf4Linear(bnb.nn.Linear4bit):
    """A linear layer with 4-bit weights; its bias stays outside of bitsandbytes, which has no gradient of it for sequences."""

    def __init__(self, dense: nn.Linear, double: bool, compute_dtype: torch.dtype):
        super().__init__(
            dense.in_features,
            dense.out_features,
            False,
            compute_dtype,
            double,
            "nf4",
            device="meta",
        )
        codes, state = bnb.functional.quantize_4bit(
            dense.weight.data, None, None, NF4_BLOCK, False, "nf4"
        )
        if double:
            _quantize_scales(state)
        kept = {
            "quant_state": state,
            "blocksize": NF4_BLOCK,
            "compress_statistics": double,
            "quant_type": "nf4",
        }
        self.weight = bnb.nn.Params4bit(codes, requires_grad=False, bnb_quantized=True, **kept)
        self.bias = dense.bias

    def forward(self, x: Tensor) -> Tensor:
        out = bnb.matmul_4bit(x.to(self.compute_dtype), self.weight, self.weight.quant_state)
        return _add(out, self.bias).to(x.dtype)

    def constants(self) -> list[Tensor]:
        """What stands beside the codes: scales, and the tables of levels."""
        outer = self.weight.quant_state
        inner = [outer.offset, outer.state2.absmax, outer.state2.code] if outer.nested else []
        return [outer.absmax, outer.code, *inner]

    def dense_weight(self) -> Tensor:
        """The fp32 matrix that the codes stand for."""
        return bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)


def _quantize_scales(state: bnb.functional.QuantState) -> None:
    """Double quantization; bitsandbytes' own keeps its table where it was first asked for, which may be the meta device."""
    state.offset, state.nested = state.absmax.mean(), True
    centred = state.absmax - state.offset
    state.absmax, state.state2 = bnb.functional.quantize_blockwise(
        centred, SCALE_LEVELS, blocksize=SCALE_BLOCK
    )


class Int8Linear(bnb.nn.Linear8bitLt):
    """A linear layer with 8-bit weights; the scales are a buffer, so that they move with the model."""

    def __init__(self, dense: nn.Linear, compute_dtype: torch.dtype):
        super().__init__(
            dense.in_features,
            dense.out_features,
            False,
            has_fp16_weights=False,
            threshold=OUTLIER,
            device="meta",
        )
        codes, scale, _ = bnb.functional.int8_vectorwise_quant(dense.weight.data.half())
        self.weight = bnb.nn.Int8Params(codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.state.SCB = scale  # where peft looks
        self.bias, self.compute_dtype = dense.bias, compute_dtype

    def forward(self, x: Tensor) -> Tensor:
        self.state.is_training, self.state.CB, self.state.SCB = (
            self.training,
            self.weight.data,
            self.scale,
        )
        self.state.threshold = (
            0.0 if x.is_meta else OUTLIER
        )  # how many columns are above it, only values tell
        return _add(
            bnb.matmul(x.to(self.compute_dtype), self.weight, state=self.state), self.bias
        ).to(x.dtype)

    def constants(self) -> list[Tensor]:
        """What stands beside the codes: a scale a row."""
        return [self.scale]

    def dense_weight(self) -> Tensor:
        """The fp32 matrix that the codes stand for."""
        return self.weight.data.float() * (self.scale * (1 / 127)).unsqueeze(1)


def _add(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias.to(out.dtype)


def quantize(model: nn.Module, kind: str, head: list[str], compute_dtype: torch.dtype) -> None:
    """Replace the linear layers of `model`, less those of `head`, in place."""
    base = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and not set(n.split(".")) & set(head)
    ]
    if not base:
        raise Unsupported(
            f"weights {kind}: {type(model).__name__} has no linear layers to quantize"
        )
    for name, dense in base:
        small = (
            Int8Linear(dense, compute_dtype)
            if kind == "int8"
            else Nf4Linear(dense, kind == "nf4_double", compute_dtype)
        )
        model.set_submodule(name, small)
    _mark(model, kind)


def quantized(model: nn.Module) -> Iterator[tuple[str, Nf4Linear | Int8Linear]]:
    """The quantized layers by name."""
    return ((n, m) for n, m in model.named_modules() if isinstance(m, Nf4Linear | Int8Linear))


def dequantize(model: nn.Module) -> nn.Module:
    """`model` with dense fp32 layers for its quantized ones. Uses the model up.

    Layers of peft are made for the layer that they wrap, so they come off, and go on again with their weights.
    """
    small = dict(quantized(model))
    if not isinstance(model, PeftModel) or model.active_peft_config.is_prompt_learning:
        return _dense(model, small)
    codes = {f"{name}.weight" for name in small}
    kept = {name: value.clone() for name, value in model.state_dict().items() if name not in codes}
    _mark(model.get_base_model(), "fp32")  # else (IA)3 refuses to come off
    base = model.unload()
    adapted = get_peft_model(_dense(base, dict(quantized(base))), model.active_peft_config)
    adapted.load_state_dict(kept, strict=False)  # the scales are kept too, and have no place in it
    return adapted.train(model.training)


def _dense(model: nn.Module, small: dict[str, Nf4Linear | Int8Linear]) -> nn.Module:
    for name, layer in small.items():
        dense = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        dense.weight, dense.bias = (
            nn.Parameter(layer.dense_weight(), requires_grad=False),
            layer.bias,
        )
        model.set_submodule(name, dense)
    _mark(model, "fp32")
    return model


def _mark(model: nn.Module, kind: str) -> None:
    """Say where peft looks what it will find."""
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = kind == "int8", kind in ("nf4", "nf4_double")
