"""Measured peaks of every phase: from torch's CPU allocator, or from CUDA's and the device's own count."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile, record_function

from rankwise.measure.memory import phases
from rankwise.measure.step import Step

MARK = "phase "


class Peaks:
    """An observer that only counts; what else it is told, it ignores."""

    def watch(self, model: nn.Module) -> None:
        """Nothing: a hook would hold a gradient that the allocator must see freed."""

    def built(self, one: Step) -> None:  # noqa: ARG002
        """Drop what building the model left in cycles."""
        gc.collect()

    def see_gradients(self, one: Step) -> None:
        """Nothing to label."""

    def see_state(self, one: Step) -> None:
        """Nothing to label."""


class CpuPeaks(Peaks):
    """Phases as marks in a profile."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        with record_function(MARK + name):
            yield


class CudaPeaks(Peaks):
    """The allocator's peak of each phase, its counter reset between."""

    def __init__(self) -> None:
        self.columns: dict[str, int] = {}
        self.reserved = 0

    def built(self, one: Step) -> None:
        """Hand back what building the model left: training moves a model here that it has built elsewhere."""
        super().built(one)
        torch.cuda.empty_cache()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything within belongs to the phase."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.synchronize()
        self.columns[f"measured_{name}_peak_bytes"] = torch.cuda.max_memory_allocated()
        if name in phases.STEPS:
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())


def cpu(request: dict) -> dict[str, int]:
    """Bytes that torch's CPU allocator holds at the peak of each phase, workspace inside of kernels included."""
    gc.collect()
    torch.manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        phases.run(request, "cpu", CpuPeaks())
    events = list(_walk(recorded.profiler.kineto_results.experimental_event_tree()))
    spans = [
        (event.name.removeprefix(MARK), event.start_time_ns, event.end_time_ns)
        for event in events
        if event.name.startswith(MARK)
    ]
    changes = sorted(
        (event.start_time_ns, event.extra_fields.total_allocated, event.extra_fields.alloc_size)
        for event in events
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu"
    )
    before = changes[0][1] - changes[0][2]  # what this process held already
    totals = [(time, total - before) for time, total, _ in changes]
    return {
        f"measured_{name}_peak_bytes": _highest(totals, start, end) for name, start, end in spans
    }


def _walk(events: Iterable) -> Iterator:
    for event in events:
        yield event
        yield from _walk(event.children)


def _highest(totals: list[tuple[int, int]], start: int, end: int) -> int:
    """The highest total between two times; what a phase finds is part of its peak."""
    found = [total for time, total in totals if time <= start][-1:] or [0]
    return max(found + [total for time, total in totals if start < time <= end])


def cuda(request: dict) -> dict[str, int]:
    """Bytes that CUDA's allocator held and reserved at its peaks, and what the device counts beyond that: the context.

    The device's own count covers every process on the card; another one's memory that comes or goes in between taints it.
    """
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    observer = CudaPeaks()
    one = phases.run(request, "cuda", observer)
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    del one
    return {
        **observer.columns,
        "measured_reserved_bytes": observer.reserved,
        "measured_context_bytes": context,
    }
