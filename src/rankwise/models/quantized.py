"""Linear layers in 4 and 8 bits, by bitsandbytes; storage.py describes the formats.

storage.py imports this module by name, only where it is needed.
"""

import copy
import logging
import math
import warnings
from collections.abc import Iterator

import bitsandbytes as bnb
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from rankwise.core.errors import Unsupported

NF4_BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale of their own, with double quantization
OUTLIER = 6.0  # int8: input columns with a larger value are multiplied in 16 bits
with torch.device("cpu"):  # this module may be imported under the meta device
    SCALE_LEVELS = bnb.functional.create_dynamic_map()
# int8 warns at every call that it casts inputs to fp16.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

# Blocks run through the rows of a matrix. On processors with AVX-512, bitsandbytes 0.50.2 starts a
# new block with each row whose length is a multiple of 16 and not of 64, and so reads wrong scales.
# Rows of whole blocks, or a single row, are read correctly. The CPU's kernel is replaced by one
# that reshapes.
DEQUANTIZE = "dequantize_4bit"
_kernel = torch.library.get_kernel(f"bitsandbytes::{DEQUANTIZE}", "CPU")
_mended = torch.library.Library("bitsandbytes", "IMPL")


def _dequantize_in_whole_blocks(
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
    readable = shape if shape[-1] % block == 0 else [rows, numel // rows]
    return _kernel.call_boxed(keys, codes, scales, block, kind, readable, dtype).view(shape)


with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a kernel is replaced
    _mended.impl(
        DEQUANTIZE, _dequantize_in_whole_blocks, "CPU", with_keyset=True, allow_override=True
    )


class Nf4Linear(bnb.nn.Linear4bit):
    """A linear layer with 4-bit weights.

    The bias stays outside of bitsandbytes, which has no gradient of it for sequences.

    Args:
        dense: the layer to replace.
        double: quantize the scales, too.
        compute_dtype: in which the layer multiplies.

    References:
        QLoRA, Dettmers et al. 2023, arXiv 2305.14314, section 3.
    """

    def __init__(self, dense: nn.Linear, double: bool, compute_dtype: torch.dtype):
        super().__init__(
            dense.in_features,
            dense.out_features,
            bias=False,
            compute_dtype=compute_dtype,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",
        )
        codes, state = bnb.functional.quantize_4bit(
            dense.weight.data,
            blocksize=NF4_BLOCK,
            compress_statistics=False,
            quant_type="nf4",
        )
        if double:
            _quantize_scales(state)
        # Backward makes the dense matrix in this dtype; bitsandbytes would take that of `dense`.
        state.dtype = compute_dtype
        self.weight = bnb.nn.Params4bit(
            codes,
            requires_grad=False,
            quant_state=state,
            blocksize=NF4_BLOCK,
            compress_statistics=double,
            quant_type="nf4",
            bnb_quantized=True,
        )
        self.bias = dense.bias

    def forward(self, x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        inputs = x.to(self.compute_dtype)
        # A kernel that multiplies many rows makes the dense matrix inside, where only an allocator
        # sees it. On the meta device this stands for it.
        shape = (self.out_features, self.in_features)
        dense = inputs.new_empty(shape) if x.is_meta else None
        out = bnb.matmul_4bit(inputs, self.weight, self.weight.quant_state)
        del dense
        return _add_bias(out, self.bias).to(x.dtype)

    def constants(self) -> list[Tensor]:
        """The tensors beside the codes: scales, and tables of levels."""
        state = self.weight.quant_state
        tensors = [state.absmax, state.code]
        if state.nested:
            tensors += [state.offset, state.state2.absmax, state.state2.code]
        return tensors

    def dense_weight(self) -> Tensor:  # (m, n)
        """The fp32 matrix that the codes stand for."""
        state = copy.copy(self.weight.quant_state)
        state.dtype = torch.float32
        return bnb.functional.dequantize_4bit(self.weight.data, state)


def _quantize_scales(state: bnb.functional.QuantState) -> None:
    """Double quantization of the scales, in place.

    bitsandbytes' own function keeps its table of levels on the device of its first call, which may
    be the meta device.
    """
    state.offset, state.nested = state.absmax.mean(), True
    centred = state.absmax - state.offset
    state.absmax, state.state2 = bnb.functional.quantize_blockwise(
        centred, SCALE_LEVELS, blocksize=SCALE_BLOCK
    )


class Int8Linear(bnb.nn.Linear8bitLt):
    """A linear layer with 8-bit weights; the scales are a buffer, so that they move with the model.

    Args:
        dense: the layer to replace.
        compute_dtype: in which the layer multiplies.

    References:
        LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339.
    """

    def __init__(self, dense: nn.Linear, compute_dtype: torch.dtype):
        super().__init__(
            dense.in_features,
            dense.out_features,
            bias=False,
            has_fp16_weights=False,
            threshold=OUTLIER,
            device="meta",
        )
        codes, scale, _ = bnb.functional.int8_vectorwise_quant(dense.weight.data.half())
        self.weight = bnb.nn.Int8Params(codes, requires_grad=False)
        self.register_buffer("scale", scale)  # (m)
        self.state.SCB = scale  # where peft looks for it
        self.bias, self.compute_dtype = dense.bias, compute_dtype

    def forward(self, x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        self.state.is_training = self.training
        self.state.CB, self.state.SCB = self.weight.data, self.scale
        # Which columns have outliers depends on values, and the meta device has none.
        self.state.threshold = 0.0 if x.is_meta else OUTLIER
        out = bnb.matmul(x.to(self.compute_dtype), self.weight, state=self.state)
        return _add_bias(out, self.bias).to(x.dtype)

    def constants(self) -> list[Tensor]:
        """The tensors beside the codes: one scale a row."""
        return [self.scale]

    def dense_weight(self) -> Tensor:  # (m, n)
        """The fp32 matrix that the codes stand for."""
        return self.weight.data.float() * (self.scale * (1 / 127)).unsqueeze(1)


QuantizedLinear = Nf4Linear | Int8Linear


def _add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias.to(out.dtype)


def quantize(model: nn.Module, kind: str, head: list[str], compute_dtype: torch.dtype) -> None:
    """Replace the linear layers of `model` in place, except for those of the head.

    Args:
        model: the base.
        kind: nf4, nf4_double or int8.
        head: names of the head's modules.
        compute_dtype: in which the new layers multiply.

    Raises:
        Unsupported: the model has no linear layers.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and set(name.split(".")).isdisjoint(head)
    }
    if not layers:
        reason = f"{type(model).__name__} has no linear layers to quantize"
        raise Unsupported(f"weights {kind}: {reason}")
    for name, dense in layers.items():
        if kind == "int8":
            small = Int8Linear(dense, compute_dtype)
        else:
            small = Nf4Linear(dense, kind == "nf4_double", compute_dtype)
        model.set_submodule(name, small)
    _mark(model, kind)


def quantized(model: nn.Module) -> Iterator[tuple[str, QuantizedLinear]]:
    """The quantized layers by name."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            yield name, module


def dequantize(model: nn.Module) -> nn.Module:
    """`model` with dense fp32 layers in place of its quantized ones. Uses the model up.

    peft makes its layers for the class of the layer that they wrap. So they come off before the
    base is dense, go on again, and get their weights back.
    """
    layers = dict(quantized(model))
    if not isinstance(model, PeftModel) or model.active_peft_config.is_prompt_learning:
        return _make_dense(model, layers)
    codes = {f"{name}.weight" for name in layers}
    state = {name: value.clone() for name, value in model.state_dict().items() if name not in codes}
    _mark(model.get_base_model(), "fp32")  # else (IA)3 refuses to come off
    base = model.unload()
    adapted = get_peft_model(_make_dense(base, dict(quantized(base))), model.active_peft_config)
    adapted.load_state_dict(state, strict=False)  # it also has scales, which are of no use now
    return adapted.train(model.training)


def _make_dense(model: nn.Module, layers: dict[str, QuantizedLinear]) -> nn.Module:
    for name, layer in layers.items():
        dense = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        dense.weight = nn.Parameter(layer.dense_weight(), requires_grad=False)
        dense.bias = layer.bias
        model.set_submodule(name, dense)
    _mark(model, "fp32")
    return model


def _mark(model: nn.Module, kind: str) -> None:
    """Set the attributes by which peft decides which of its layers to use."""
    model.is_loaded_in_8bit = kind == "int8"
    model.is_loaded_in_4bit = kind in ("nf4", "nf4_double")
