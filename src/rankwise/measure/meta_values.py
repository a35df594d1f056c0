"""Answers for code that reads a number out of a meta tensor, which has none.

`tensor.item()`, `bool(tensor)` and `int(tensor)` all end in the operator _local_scalar_dense, which
raises on the meta device. The dispatch modes of this package answer it instead. The answer is one
that lets checks pass (`if not mask.all(): raise`) and makes every condition hold, so work that
depends on a condition, such as a refresh when a basis has drifted, is counted.
"""

import torch
from torch import Tensor
from torch._ops import OpOverload

READ = torch.ops.aten._local_scalar_dense.default


def reads_meta_value(func: OpOverload, args: tuple) -> bool:
    """Whether a dispatched operator reads a number out of a meta tensor.

    Args:
        func: The operator that a dispatch mode was called for.
        args: The operator's positional arguments.

    References:
        `_local_scalar_dense` in torch's native_functions.yaml, which `tensor.item()` calls.
    """
    return func is READ and args[0].is_meta


def assumed_value(tensor: Tensor) -> bool | int:
    """True for a boolean tensor, 1 for any other."""
    return True if tensor.dtype == torch.bool else 1
