"""Measured peaks of every phase, from torch's CPU allocator or from CUDA's."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from rankwise.measure.memory import phases
from rankwise.measure.step import Step

MARK = "phase "  # before a phase's name in a profile


class PeakObserver:
    """An observer (phases.py) that only counts bytes and labels nothing."""

    def watch(self, model: nn.Module) -> None:
        """Do nothing: a hook would hold a gradient that the allocator must see freed."""

    def built(self, training_step: Step) -> None:  # noqa: ARG002
        """Drop what building the model left in reference cycles."""
        gc.collect()

    def see_gradients(self, training_step: Step) -> None:
        """Do nothing: there are no labels."""

    def see_state(self, training_step: Step) -> None:
        """Do nothing: there are no labels."""


class CpuPeaks(PeakObserver):
    """Marks phases in a profile."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        with record_function(MARK + name):
            yield


class CudaPeaks(PeakObserver):
    """Reads the allocator's peak of each phase and resets its counters in between.

    Attributes:
        columns: `measured_{phase}_peak_bytes` of every phase.
        reserved: The most bytes that the allocator reserved in a training step.
    """

    def __init__(self) -> None:
        self.columns: dict[str, int] = {}
        self.reserved = 0

    def built(self, training_step: Step) -> None:
        """Return to the driver what building the model on the GPU left reserved.

        Training builds its model on the CPU and moves it, so it leaves nothing.
        """
        super().built(training_step)
        torch.cuda.empty_cache()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.synchronize()
        column = f"measured_{name}_peak_bytes"
        peak = torch.cuda.max_memory_allocated()
        self.columns[column] = max(peak, self.columns.get(column, 0))
        if name in phases.STEPS:
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())


def cpu(request: dict, observer: CpuPeaks | None = None) -> dict[str, int]:
    """Measure the peaks of torch's CPU allocator, workspace inside kernels included.

    torch has no counter of live CPU bytes that could be read between phases. Its profiler records
    the allocator's total with every allocation and every free.

    Args:
        request: A profile's request.
        observer: Marks the phases.

    Returns:
        `measured_{phase}_peak_bytes` of every phase.
    """
    gc.collect()
    torch.manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        phases.run(request, "cpu", observer or CpuPeaks())
    events = list(_walk(recorded.profiler.kineto_results.experimental_event_tree()))
    totals = _live_bytes(events)
    columns = {}
    for event in events:
        if event.name.startswith(MARK):
            name = event.name.removeprefix(MARK)
            peak = _highest(totals, event.start_time_ns, event.end_time_ns)
            column = f"measured_{name}_peak_bytes"
            columns[column] = max(peak, columns.get(column, 0))  # a phase may come again
    return columns


def _walk(events: Iterable) -> Iterator:
    """Yield every event of a profiler's tree."""
    for event in events:
        yield event
        yield from _walk(event.children)


def _live_bytes(events: list) -> list[tuple[int, int]]:
    """(time in ns, bytes alive) after every allocation and free on the CPU, in order.

    Bytes that this process held before the first of them are not counted.
    """
    changes = []
    for event in events:
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
            allocation = event.extra_fields
            changes.append((event.start_time_ns, allocation.total_allocated, allocation.alloc_size))
    changes.sort()
    _, first_total, first_size = changes[0]
    held_before = first_total - first_size
    return [(time, total - held_before) for time, total, _ in changes]


def _highest(totals: list[tuple[int, int]], start: int, end: int) -> int:
    """The highest total between two times; what is alive at the start is part of the peak."""
    before = [total for time, total in totals if time <= start]
    within = [total for time, total in totals if start < time <= end]
    return max([before[-1] if before else 0, *within])


def cuda(request: dict) -> dict[str, int]:
    """Measure the peaks of CUDA's caching allocator, and what the GPU's own count adds.

    That count covers every process on the GPU. Memory of another one that comes or goes meanwhile
    makes `measured_context_bytes` wrong.

    Returns:
        `measured_{phase}_peak_bytes` of every phase, `measured_reserved_bytes` of the training
        steps, and `measured_context_bytes`: what the GPU counts beyond the allocator.
    """
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    observer = CudaPeaks()
    training_step = phases.run(request, "cuda", observer)
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    del (
        training_step
    )  # alive until here, so that its memory is reserved and not part of the context
    return {
        **observer.columns,
        "measured_reserved_bytes": observer.reserved,
        "measured_context_bytes": context,
    }
