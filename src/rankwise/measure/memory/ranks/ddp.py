"""DDP: the whole model, and buckets in which gradients are sent.

The reducer copies each gradient into a bucket when it arrives, sends the buckets that are full, and
copies the means back (torch's default, gradient_as_bucket_view=False, which training has). So
buckets of the size of all gradients stay from the first step on.

The first step has one bucket for all gradients of a dtype. After it, buckets are made again: in the
order in which gradients arrived, the first of 1 MiB, the others of 25 MiB; a bucket is closed by
the gradient with which it reaches its size.

Source: torch.nn.parallel.distributed and compute_bucket_assignment_by_size in
torch/csrc/distributed/c10d/reducer.cpp, torch 2.13 (Li et al. 2020, arXiv 2006.15704, section 3.2).
"""

from rankwise.core.units import MIB
from rankwise.measure.memory.ranks import notes as noted
from rankwise.measure.memory.ranks.log import Writer
from rankwise.measure.memory.ranks.notes import Parameter

FIRST_BUCKET = MIB  # kDefaultFirstBucketBytes
BUCKET = 25 * MIB  # kDefaultBucketBytesCap


class Ddp(Writer):
    """The log of a process under DDP."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._buckets: list[int] = []

    def built(self) -> None:
        """DDP is built around the model when its first update comes."""
        params = [param for param in self.notes.parameters if param.trains]
        self._make(bucket_sizes(params, [float("inf")]))

    def phase_begins(self) -> None:
        """Buckets are made again before the first forward pass after the first update."""
        if self.phase == "forward" and "backward" not in self.backwards:
            arrived = [note.subject for note in self.notes.notes if note.what == noted.GRADIENT]
            order = [self.notes.parameters[number] for number in dict.fromkeys(arrived)]
            for bucket in self._buckets:
                self.log.free(bucket)
            self._make(bucket_sizes(order, [FIRST_BUCKET, BUCKET]))

    def _make(self, sizes: list[int]) -> None:
        self._buckets = [self.log.add(size, "temporary") for size in sizes]


def bucket_sizes(params: list[Parameter], limits: list[float]) -> list[int]:
    """Bytes of the buckets for gradients that come in the order of `params`; see `buckets`."""
    return [sum(param.size for param in bucket) for bucket in buckets(params, limits)]


def buckets(params: list[Parameter], limits: list[float]) -> list[list[Parameter]]:
    """Parameters in buckets, in their order.

    Args:
        params: Parameters of any dtypes, which have buckets of their own.
        limits: Bytes at which the first, the second, ... bucket of a dtype is closed; the last
            limit is that of all others.
    """
    made: list[list[Parameter]] = []
    filling: dict[int, list[Parameter]] = {}  # by bytes of an element, which stand for the dtype
    closed: dict[int, int] = {}
    for param in params:
        key = param.itemsize
        bucket = filling.setdefault(key, [])
        bucket.append(param)
        limit = limits[min(closed.get(key, 0), len(limits) - 1)]
        if sum(each.size for each in bucket) >= limit:
            made.append(filling.pop(key))
            closed[key] = closed.get(key, 0) + 1
    return [*made, *filling.values()]
