"""torch's automatic mixed precision for models on the meta device.

torch.autocast casts the inputs of some operators: products to bf16 or fp16, losses and norms to
fp32. It asks each tensor for its device, and does nothing to a meta tensor. While `casts_of` is
active, a meta tensor is cast as one of the predicted device would be
(aten/src/ATen/autocast_mode.cpp):

- Which operators have a rule is read from torch's dispatcher. Which of four rules, stands here.
- The cast of a trainable fp32 parameter is cached until the outermost autocast ends. Everything
  else, such as a frozen weight, is cast at each use.

Whether autocast is on, and in which dtype, is what torch.autocast("cpu", ...) says: torch enters
and leaves it in every place where it would for a GPU, also where a checkpointed layer runs again.

The rules of each device are kernels of a dispatch key that no device of ours uses, above autograd
like torch's own. They run only within `casts_of`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch._ops import OpOverload
from torch.utils._pytree import tree_iter, tree_map_only

FLAG = "cpu"  # the device type whose autocast stands for that of the predicted device
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # names of a `precision` with casts
KEYS = {"cpu": DispatchKey.AutocastHPU, "cuda": DispatchKey.AutocastPrivateUse1}
OF_TORCH = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}  # keys of torch's own rules

# Operators by rule; the rest of a device's list is cast to fp32. From the lists of autocast_mode.h
# for CUDA, and of autocast_mode.cpp for a CPU.
_PRODUCTS = (
    "_convolution.deprecated", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d",
    "conv_transpose2d.input", "conv_transpose3d.input", "prelu", "addmm", "matmul", "mm",
    "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "scaled_dot_product_attention",
)  # fmt: skip
NARROWED = {
    "cuda": {
        *_PRODUCTS, "_convolution", "convolution", "addmv", "addr", "einsum", "mv", "chain_matmul",
        "linalg_multi_dot", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "lstm_cell",
        "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "_scaled_dot_product_flash_attention",
        "cudnn_convolution", "cudnn_convolution_transpose",
    },
    "cpu": {
        *_PRODUCTS, "conv1d.padding", "conv2d.padding", "conv3d.padding", "_addmm_activation",
        "mkldnn_rnn_layer", "_native_multi_head_attention",
    },
}  # fmt: skip
# Their result is fp32, unless the call names a dtype.
FP32_RESULT = {
    "cuda": {
        "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum",
        "linalg_vector_norm", "linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum",
        "sum.dim_IntList",
    },
    "cpu": set(),
}  # fmt: skip
# Their inputs are cast to the widest dtype among them.
PROMOTED = {
    "cuda": {
        "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler",
        "index_put", "tensordot", "scatter_add",
    },
    "cpu": {"stack", "cat", "index_copy"},
}  # fmt: skip

_cache: dict[int, tuple[Tensor, Tensor]] = {}  # id of a parameter -> it, and its cast
_libraries: list[torch.library.Library] = []  # their kernels go with them
_devices: list[str] = []  # what is predicted, while `casts_of` is active


@contextmanager
def casts_of(device: str) -> Iterator[None]:
    """While active, torch.autocast("cpu") acts on meta tensors by the rules of `device`.

    Args:
        device: `cpu` or `cuda`.
    """
    _register(device)
    key = KEYS[device]
    was_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded(key)
    torch._C._dispatch_tls_set_dispatch_key_excluded(key, False)
    _devices.append(device)
    try:
        with (
            torch._C._IncludeDispatchKeyGuard(key),
            # torch calls it where the outermost autocast ends.
            mock.patch.object(torch, "clear_autocast_cache", _clear(torch.clear_autocast_cache)),
        ):
            yield
    finally:
        _devices.pop()
        _cache.clear()
        torch._C._dispatch_tls_set_dispatch_key_excluded(key, was_excluded)


def is_active() -> bool:
    """Whether meta tensors are cast now."""
    return bool(_devices) and torch.is_autocast_enabled(FLAG)


def without_casts() -> torch._C._ExcludeDispatchKeyGuard:
    """A context within which operators take what they are given, as inside torch's own rules."""
    keys = DispatchKeySet(KEYS["cpu"]) | DispatchKeySet(KEYS["cuda"])
    return torch._C._ExcludeDispatchKeyGuard(keys)


def narrowed(value: Tensor | None) -> Tensor | None:
    """A tensor in autocast's dtype, as the input of a product; None stays None."""
    return None if value is None else _cast(value, torch.get_autocast_dtype(FLAG))


def operators(device: str) -> set[str]:
    """Names of the ATen operators, with overload, that torch's autocast has a rule for."""
    key = OF_TORCH[device]
    names = torch._C._dispatch_get_all_op_names()
    return {
        name.removeprefix("aten::")
        for name in names
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    }


def _clear(of_torch: Callable[[], None]) -> Callable[[], None]:
    def clear() -> None:
        _cache.clear()
        of_torch()

    return clear


@functools.cache
def _register(device: str) -> None:
    """Give every operator of a device's list its kernel, once a process."""
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, KEYS[device].name)
    own = torch.library.Library("aten", "IMPL")
    for name in sorted(operators(device)):
        own.impl(name, _kernel(name, _rule(name, device)), KEYS[device].name)
    _libraries.extend((others, own))


Arguments = tuple[tuple, dict]
Rule = Callable[[tuple, dict], Arguments]


def _kernel(name: str, rule: Rule) -> Callable:
    base, _, overload = name.partition(".")
    operator: OpOverload = getattr(getattr(torch.ops.aten, base), overload or "default")

    def kernel(*args: object, **kwargs: object) -> object:
        if is_active():
            args, kwargs = rule(args, kwargs)
        with without_casts():
            return operator(*args, **kwargs)

    return kernel


def _rule(name: str, device: str) -> Rule:
    if name in NARROWED[device]:
        return lambda args, kwargs: _all(args, kwargs, torch.get_autocast_dtype(FLAG))
    if name in PROMOTED[device]:
        return _widest
    if name in FP32_RESULT[device]:
        return _fp32_result
    return lambda args, kwargs: _all(args, kwargs, torch.float32)


def _all(args: tuple, kwargs: dict, dtype: torch.dtype) -> Arguments:
    return tree_map_only(Tensor, lambda value: _cast(value, dtype), (args, kwargs))


def _widest(args: tuple, kwargs: dict) -> Arguments:
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    is_wide = any(value.dtype == torch.float32 for value in tensors if _is_eligible(value))
    return _all(args, kwargs, torch.float32 if is_wide else torch.get_autocast_dtype(FLAG))


def _fp32_result(args: tuple, kwargs: dict) -> Arguments:
    names_dtype = kwargs.get("dtype") is not None or any(isinstance(a, torch.dtype) for a in args)
    if names_dtype or not _is_eligible(args[0]):
        return args, kwargs
    return args, {**kwargs, "dtype": torch.float32}


def _is_eligible(value: Tensor) -> bool:
    return value.is_meta and value.is_floating_point() and value.dtype != torch.float64


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in another dtype; that of a trainable fp32 leaf in the narrow one is cached."""
    if not _is_eligible(value) or value.dtype == dtype:
        return value
    is_cached = (
        dtype == torch.get_autocast_dtype(FLAG)
        and value.dtype == torch.float32
        and value.requires_grad
        and value.is_leaf
        and not value._is_view()
        and torch.is_autocast_cache_enabled()
    )
    if not is_cached:
        return value.to(dtype)
    if id(value) not in _cache:
        _cache[id(value)] = value, value.to(dtype)
    return _cache[id(value)][1]
