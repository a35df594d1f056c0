"""How the frozen base is stored: fp32, bf16, nf4, nf4_double or int8.

The storage is independent of the method, which adapts the base as it finds it.

nf4: a block of 64 weights w keeps a = max|w| in fp32, and each w/a as the nearest of 16 levels, the
quantiles of a normal distribution: 4 + 32/64 = 4.5 bits a weight. nf4_double: the a are quantized
too, with their mean taken off, to 8 bits in blocks of 256 with one fp32 each: 4 + 8/64 + 32/(64 *
256) = 4.127 bits. int8: a row keeps s = max|w| and round(127 w / s): 8 bits a weight and 4 bytes a
row. A layer also keeps its tables of levels: 64 bytes, with nf4_double 1,092, with int8 none.

Source: NF4 and double quantization, QLoRA (Dettmers et al. 2023, arXiv 2305.14314, section 3).
int8: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), whose inputs are quantized by row, except
for columns with a value above 6. By bitsandbytes.

The base's linear layers are stored so, except for the task's head and the output embedding. With
`compute: bf16`, which the shipped entries have, the quantized layers multiply in bf16, and
embeddings, norms and biases are bf16, and with them what passes between the layers. Otherwise these
stay fp32, as peft's prepare_model_for_kbit_training has them: peft trains what `compute: autocast`
is with the precision bf16. Under bf16 every parameter is bf16. A head that is new for the task
stays fp32.

Where this differs from others' QLoRA: in bf16, norms are bf16 too (QLoRA's authors keep them in
fp32; litgpt's bf16-true does as we do), activation checkpointing is not switched on (peft does),
the base is the one that the other methods get, and the constants are counted. Where it differs from
bitsandbytes' layers: on processors with AVX512-BF16 those evaluate in bf16 from repacked weights,
and they change the bias's dtype; here evaluation computes as training does. int8 on a CPU is the
exception: bitsandbytes trains there on dequantized weights and quantizes the inputs in evaluation
only.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

from rankwise.core.errors import Unsupported

KINDS = ("fp32", "bf16", "nf4", "nf4_double", "int8")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Imported where it is needed only: it imports bitsandbytes, which takes seconds.
QUANTIZED = "rankwise.models.quantized"


def store(
    model: nn.Module,
    kind: str,
    names: dict,
    precision: torch.dtype = torch.float32,
    compute: str | None = None,
) -> nn.Module:
    """Store the base of `model` as `kind`, in place; on the meta device its shapes.

    Args:
        model: fp32 and not yet adapted.
        kind: one of KINDS.
        names: from `build.names`.
        precision: in which quantized layers multiply, if `compute` does not say.
        compute: `fp32` or `bf16`: in which a quantized base computes. `autocast`, or None: its
            layers multiply in `precision`, and all else is fp32.

    Returns:
        The same model.

    Raises:
        ValueError: there is no such kind.
        Unsupported: the model has no linear layer to quantize (GPT-2's layers are Conv1D), or
            bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"weights: got {kind!r}, allowed: {', '.join(KINDS)}")
    if kind == "bf16":
        _cast_to_bf16(model, names["new_head"])
    elif kind != "fp32":
        dtype = DTYPES.get(compute, precision)
        _quantized(kind).quantize(model, kind, names["head"], dtype)
        if compute == "bf16":
            _cast_to_bf16(model, names["new_head"])
    return model


def _quantized(kind: str) -> ModuleType:
    """The module that quantizes.

    Raises:
        Unsupported: bitsandbytes is not installed.
    """
    try:
        return importlib.import_module(QUANTIZED)
    except ModuleNotFoundError as error:
        if error.name != "bitsandbytes":
            raise
        raise Unsupported(f"{kind}: needs bitsandbytes, in the extra [quantized]") from None


def _cast_to_bf16(model: nn.Module, kept_in_fp32: list[str]) -> None:
    """Cast parameters but codes; buffers stay, because rotary frequencies need fp32."""
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if set(name.split(".")) & set(kept_in_fp32):
            if own:  # a head may be a module around its layers, such as RoBERTa's
                module.register_forward_pre_hook(_cast_inputs)
        else:
            for param in own:
                if param.is_floating_point():
                    param.data = param.data.to(torch.bfloat16)


def _cast_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give an fp32 module inputs of its own dtype."""
    return tuple(value.to(module.weight.dtype) for value in inputs)


def _is_quantized(layer: nn.Module) -> bool:
    return hasattr(layer, "dense_weight")


def constants(model: nn.Module) -> list[Tensor]:
    """All tensors of scales and tables that quantized layers keep beside their codes."""
    tensors = []
    for layer in model.modules():
        if _is_quantized(layer):
            tensors += layer.constants()
    return tensors


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without codes and constants of quantized layers, which the base has anyway."""
    prefixes = tuple(f"{name}." for name, layer in model.named_modules() if _is_quantized(layer))
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    return {
        key: value
        for key, value in model.state_dict().items()
        if key in trained or not key.startswith(prefixes)
    }


def numel(param: Tensor) -> int:
    """The number of weights in a parameter; packed codes hold two a byte."""
    state = getattr(param, "quant_state", None)
    return state.shape.numel() if state else param.numel()


def dequantize(model: nn.Module) -> nn.Module:
    """`model` with dense fp32 layers in place of its quantized ones. Uses the model up."""
    if not any(_is_quantized(layer) for layer in model.modules()):
        return model
    return importlib.import_module(QUANTIZED).dequantize(model)
