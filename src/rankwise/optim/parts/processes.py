"""Communication between the processes of a data-parallel run; one process sends nothing."""

from torch import Tensor, distributed


def process_count() -> int:
    """Return how many processes train together: 1 without an initialized process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def average_(tensor: Tensor) -> Tensor:
    """Replace `tensor` by its mean over all processes, and return it."""
    if process_count() > 1:
        distributed.all_reduce(tensor)
        tensor.div_(process_count())
    return tensor


def from_first_process(tensor: Tensor) -> Tensor:
    """Return the first process's `tensor`, so that all processes project onto the same basis."""
    if process_count() > 1:
        tensor = tensor.contiguous()
        distributed.broadcast(tensor, 0)
    return tensor
