"""The processes that train one cell together, and what they tell each other.

Numbers on the CPU go through gloo, also where gradients go through NCCL: to agree on a stop must
not make the CPU wait for the GPU. One process alone sends nothing.
"""

from datetime import timedelta

import torch
from torch import distributed

from rankwise.core import settings

# A process may wait for another's long work, such as the start of a method. That a process is gone
# is seen by the job that started them (execution/processes.py), not by a timeout.
TIMEOUT = timedelta(days=1)


class Group:
    """The processes of this training.

    Attributes:
        count: How many there are.
        index: The number of this one, from 0. The first one writes results, checkpoints and logs.
    """

    def __init__(self) -> None:
        self.count = int(settings.read("WORLD_SIZE"))
        self.index = int(settings.read("RANK"))

    def join(self, device: str) -> None:
        """Join the other processes; waits until all are there. A second call does nothing.

        Args:
            device: "cpu", or anything else for a GPU where there is one.
        """
        if self.count == 1 or distributed.is_initialized():
            return
        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(settings.read("LOCAL_RANK")))
        rendezvous = settings.read("RANKWISE_RENDEZVOUS")
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            init_method=f"file://{rendezvous}" if rendezvous else "env://",
            rank=self.index,
            world_size=self.count,
            timeout=TIMEOUT,
        )

    def check_count(self, planned: int) -> None:
        """Refuse to train with another number of processes than planned.

        Raises:
            ValueError: The number differs.
        """
        if self.count != planned:
            raise ValueError(
                f"processes: got {self.count} (WORLD_SIZE), allowed: {planned}, as the request's "
                "schedule says; the workflow's jobs start them"
            )

    @property
    def is_first(self) -> bool:
        """Whether this process writes results, checkpoints and logs."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag of any process is set; all processes get the same answer."""
        if self.count == 1:
            return flag
        largest = torch.tensor(int(flag))
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return bool(largest)

    def collected(self, value: object) -> list | None:
        """The `value` of every process, in their order, in the first one; None in the others."""
        if self.count == 1:
            return [value]
        values: list | None = [None] * self.count if self.is_first else None
        distributed.gather_object(value, values)
        return values

    def gathered(self, value: object) -> list:
        """The `value` of every process, in their order, in all processes."""
        if self.count == 1:
            return [value]
        values: list = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(False)
