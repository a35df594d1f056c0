"""Out of memory, on a GPU or on the host, as a result with a reason.

On a GPU, torch raises `torch.OutOfMemoryError`. On the CPU, its allocator raises a RuntimeError
with a text of its own, numpy and Python raise MemoryError, and a file that cannot be mapped raises
OSError. They come when a limit of memory (`ulimit -v`) or the machine's is reached. If the kernel
ends the process instead, the log says so (`core/kills.py`).
"""

import errno
from typing import NoReturn

import torch

ERRORS = (MemoryError, RuntimeError, OSError)
CPU_ALLOCATOR = "DefaultCPUAllocator: "
HOST = "host memory: "


def result(error: BaseException) -> dict[str, str]:
    """The status and the reason of a result that ran out of memory.

    Args:
        error: One of ERRORS.

    Raises:
        BaseException: `error` itself, if it says something else.
    """
    return {"status": "out_of_memory", "reason": reason(error) or _raise(error)}


def reason(error: BaseException) -> str | None:
    """The sentence of an error that says that memory ran out; None of any other error."""
    text = str(error).partition("\n")[0]
    if isinstance(error, torch.OutOfMemoryError):
        return text
    if isinstance(error, MemoryError):
        return f"{HOST}{text or 'an object of Python could not be allocated'}"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return f"{HOST}{text}"
    if isinstance(error, RuntimeError) and CPU_ALLOCATOR in text:
        return f"{HOST}{text.partition(CPU_ALLOCATOR)[2]}"
    return None


def _raise(error: BaseException) -> NoReturn:
    raise error
