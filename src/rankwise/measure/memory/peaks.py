"""Measured peaks of every phase, from torch's CPU allocator or from CUDA's."""

import functools
import gc
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._C._profiler import _EventType
from torch._ops import OpOverloadPacket
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

    Args:
        request: A profile's request.
        observer: Marks the phases.

    Returns:
        `measured_{phase}_peak_bytes` of every phase.
    """
    return cpu_and_tensors(request, observer)[0]


def cpu_and_tensors(
    request: dict, observer: CpuPeaks | None = None
) -> tuple[dict[str, int], dict[str, int]]:
    """Measure the peaks of torch's CPU allocator with and without workspace inside kernels.

    torch has no counter of live CPU bytes that could be read between phases. Its profiler records
    every allocation and every free, and the operator within which it happens. Workspace is what an
    operator allocates and frees before it returns.

    Args:
        request: A profile's request.
        observer: Marks the phases.

    Returns:
        `measured_{phase}_peak_bytes` of every phase; and the same without workspace.
    """
    gc.collect()
    torch.manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        phases.run(request, "cpu", observer or CpuPeaks())
    changes = allocations(recorded)
    roots = recorded.profiler.kineto_results.experimental_event_tree()
    workspace = {_key(event) for root in roots for event in _workspace(root)}
    marks = [event for event in _walk(roots) if event.name.startswith(MARK)]
    return _peaks(marks, live_bytes(changes)), _peaks(marks, live_bytes(changes, workspace))


def allocations(recorded: profile) -> list:
    """The allocations and frees on the CPU in a profile, in their order; frees have negative sizes.

    Args:
        recorded: Made with `profile_memory`.
    """
    roots = recorded.profiler.kineto_results.experimental_event_tree()
    return sorted(filter(_is_allocation, _walk(roots)), key=lambda event: event.start_time_ns)


def live_bytes(changes: list, workspace: Collection = ()) -> list[tuple[int, int]]:
    """(time in ns, bytes alive) after every allocation and free.

    Bytes that this process held before the first of them are not counted.

    Args:
        changes: Allocations and frees, in their order.
        workspace: The keys of those that are not counted.
    """
    first = changes[0].extra_fields
    not_counted = first.total_allocated - first.alloc_size
    totals = []
    for change in changes:
        if _key(change) in workspace:
            not_counted += change.extra_fields.alloc_size
        totals.append((change.start_time_ns, change.extra_fields.total_allocated - not_counted))
    return totals


def _walk(events: Iterable) -> Iterator:
    """Yield every event of a profiler's tree."""
    for event in events:
        yield event
        yield from _walk(event.children)


def _is_allocation(event: object) -> bool:
    """Whether an event is an allocation or a free on the CPU."""
    is_memory = event.tag == _EventType.Allocation
    return is_memory and event.extra_fields.device.type == "cpu"


def _key(event: object) -> tuple[int, int, int]:
    """What tells an allocation or a free from all others: torch makes its objects anew."""
    change = event.extra_fields
    return event.start_time_ns, change.ptr, change.alloc_size


def _workspace(event: object) -> Iterator:
    """Yield the allocations and frees of workspace below an event: of each kernel, the pairs."""
    if not _is_kernel(event.name):
        for child in event.children:
            yield from _workspace(child)
        return
    alive = {}
    changes = filter(_is_allocation, _walk(event.children))
    for change in sorted(changes, key=lambda change: change.start_time_ns):
        address = change.extra_fields.ptr
        if change.extra_fields.alloc_size > 0:
            alive[address] = change
        elif address in alive:
            yield from (alive.pop(address), change)


@functools.cache
def _is_kernel(name: str) -> bool:
    """Whether an event is an operator that a tracker (tracker.py) sees as one.

    Operators that autograd takes apart (CompositeImplicitAutograd) are seen in parts.
    """
    namespace, _, operator = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace, None), operator, None) if operator else None
    if not isinstance(packet, OpOverloadPacket):
        return False
    names = [getattr(packet, overload).name() for overload in packet.overloads()]
    return not all(map(_is_composite, filter(torch._C._dispatch_has_kernel, names)))


def _is_composite(operator: str) -> bool:
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, composite)


def _peaks(marks: list, totals: list[tuple[int, int]]) -> dict[str, int]:
    """`measured_{phase}_peak_bytes` of every marked phase.

    Args:
        marks: Events of phases. A phase may come again.
        totals: (time in ns, bytes alive) after every allocation and free.
    """
    columns = {}
    for mark in marks:
        column = f"measured_{mark.name.removeprefix(MARK)}_peak_bytes"
        peak = _highest(totals, mark.start_time_ns, mark.end_time_ns)
        columns[column] = max(peak, columns.get(column, 0))
    return columns


def _highest(totals: list[tuple[int, int]], start: int, end: int) -> int:
    """The highest total between two times in ns; what is alive at the start is part of the peak."""
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
