"""Every way in which memory runs out is a result with a reason; other errors stay errors."""

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from rankwise.models import memory_errors

MORE_THAN_ANY_MACHINE = 10**14


def file_not_mapped() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")


@pytest.mark.parametrize(("allocate", "reason"), [
    (lambda: torch.empty(MORE_THAN_ANY_MACHINE), "host memory: can't allocate memory: you tried to allocate 400000000000000 bytes"),
    (lambda: np.empty(MORE_THAN_ANY_MACHINE), "host memory: Unable to allocate 728. TiB for an array"),
    (lambda: bytearray(10**18), "host memory: an object of Python could not be allocated"),
    (file_not_mapped, "host memory: [Errno 12] Cannot allocate memory"),
    (gpu, "CUDA out of memory. Tried to allocate 2.00 GiB"),
])  # fmt: skip
def test_out_of_memory_is_a_result(allocate: Callable[[], object], reason: str) -> None:
    with pytest.raises(memory_errors.ERRORS) as raised:
        allocate()
    result = memory_errors.result(raised.value)
    assert result["status"] == "out_of_memory"
    assert result["reason"].startswith(reason)
    assert "\n" not in result["reason"]


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    OSError(errno.ENOENT, "No such file"),
])  # fmt: skip
def test_another_error_is_raised_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        memory_errors.result(error)
    assert raised.value is error
