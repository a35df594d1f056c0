"""Meters of a timed part: the energy it took, and the use of the machine by others.

Energy is read from a meter or left out; it is never derived from a rated power. On CUDA it is
NVML's: the GPU's counter or, where it has none, the power at each look, integrated over time. On a
CPU it is RAPL's counters of the processor packages, where they are readable (Linux gives them to
root only). Both meters count all that ran meanwhile, idle power too.

A taint says why a time is not only the code's own: other processes on the GPU, clocks held down,
other processes on the cores, more threads than cores. What cannot be seen here (a system other than
Linux, no driver) gives no taint.
"""

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from rankwise.core import environment
from rankwise.measure.speed.nvml import Gpu

POWERCAP, STAT = Path("/sys/class/powercap"), Path("/proc/stat")
BUSY = 0.2  # share of the cores above which other processes taint a time
SHORTEST_S = 0.25  # the kernel counts in ticks of 10 ms; shorter windows are noise


def device_name(device: str) -> str:
    """The vendor's name of the GPU or the processor."""
    return torch.cuda.get_device_name() if device == "cuda" else environment.processor()


class CpuSeconds(NamedTuple):
    """CPU seconds on the cores available to this process, from counters that only grow.

    Attributes:
        own: Used by this process.
        busy: Used by all processes, and stolen by other virtual machines.
        elapsed: Used or idle: the number of cores times the time since boot.
    """

    own: float
    busy: float
    elapsed: float


class Counters(NamedTuple):
    """Counters at one moment.

    Attributes:
        cpu: CPU seconds; None where they cannot be read.
        rapl: Microjoules by processor package, and the value at which its counter wraps.
        gpu_j: Joules of the GPU's counter; None where it has none.
    """

    cpu: CpuSeconds | None
    rapl: dict[str, tuple[int, int]]
    gpu_j: float | None


class Watch:
    """A context around a timed part. Call `look` between repeats, outside of what is timed."""

    def __init__(self, device: str):
        self._device = device
        self._gpu = Gpu.find() if device == "cuda" else None
        self._looks: list[tuple[float, float | None]] = []  # seconds, watts
        self._gpu_taints: set[str] = set()

    def __enter__(self) -> "Watch":
        self._start = self._counters()
        self.look()
        return self

    def __exit__(self, *_error: object) -> None:
        self.look()
        self._end = self._counters()

    def look(self) -> None:
        """Record what the GPU is doing now."""
        if self._gpu is None:
            return
        self._looks.append((time.perf_counter(), self._gpu.power_w()))
        self._gpu_taints |= {f"clocks held down by {reason}" for reason in self._gpu.throttles()}
        if self._gpu.other_processes():
            self._gpu_taints.add("other processes on the card")

    def _counters(self) -> Counters:
        return Counters(
            cpu=_cpu_seconds(),
            rapl=_rapl_packages() if self._device == "cpu" else {},
            gpu_j=self._gpu.energy_j() if self._gpu else None,
        )

    def energy(self) -> tuple[float, str] | None:
        """Joules between start and end, and the meter with what it covers; None without a meter."""
        start, end = self._start, self._end
        if start.gpu_j is not None:
            return end.gpu_j - start.gpu_j, "nvml: the whole card"
        if len(self._looks) > 1 and all(watts is not None for _, watts in self._looks):
            return self._integrated_power(), "nvml, power integrated: the whole card"
        if start.rapl:
            packages = "+".join(start.rapl)
            return self._rapl_joules(), f"rapl:{packages}: the processor's packages"
        return None

    def _integrated_power(self) -> float:
        """Joules by the trapezoidal rule over all looks."""
        joules = 0
        for (earlier, watts_before), (later, watts_after) in pairwise(self._looks):
            joules += (later - earlier) * (watts_before + watts_after) / 2
        return joules

    def _rapl_joules(self) -> float:
        microjoules = 0
        for package, (used_before, wraps_at) in self._start.rapl.items():
            used_after, _ = self._end.rapl[package]
            microjoules += (used_after - used_before) % wraps_at
        return microjoules / 1e6

    def other_cpu(self) -> float | None:
        """Share of this process's cores that others used, time stolen by a host included.

        Returns:
            None where the counters cannot be read or the window is too short.
        """
        start, end = self._start.cpu, self._end.cpu
        if start is None:
            return None
        own = end.own - start.own
        busy = end.busy - start.busy
        elapsed = end.elapsed - start.elapsed
        if elapsed < SHORTEST_S * len(_cores()):
            return None
        return max(0.0, busy - own) / elapsed

    def taint(self) -> list[str]:
        """Why the time is not only the code's own; empty if it is clean."""
        reasons = []
        cores, threads = len(_cores()), torch.get_num_threads()
        if threads > cores:
            plural = "" if cores == 1 else "s"
            reasons.append(f"{threads} threads on {cores} core{plural}")
        if (self.other_cpu() or 0) > BUSY:
            reasons.append(f"other processes used over {BUSY * 100:.0f} % of the cores")
        return reasons + sorted(self._gpu_taints)


def _cores() -> set[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_seconds() -> CpuSeconds | None:
    """CPU seconds on this process's cores since boot; None where /proc/stat cannot be read.

    References:
        proc(5), /proc/stat: ticks by core as user, nice, system, idle, iowait, irq, softirq, steal.
        The guest columns that follow are contained in user already.
    """
    if not STAT.is_file():
        return None
    wanted = {f"cpu{core}" for core in _cores()}
    all_ticks, idle_ticks, found = 0, 0, False
    for line in STAT.read_text(encoding="utf-8").splitlines():
        name, *numbers = line.split()
        if name in wanted:
            ticks = [int(number) for number in numbers[:8]]
            all_ticks += sum(ticks)
            idle_ticks += ticks[3] + ticks[4]
            found = True
    if not found:
        return None
    ticks_per_s, own = os.sysconf("SC_CLK_TCK"), os.times()
    return CpuSeconds(
        own=own.user + own.system,
        busy=(all_ticks - idle_ticks) / ticks_per_s,
        elapsed=all_ticks / ticks_per_s,
    )


def _rapl_packages() -> dict[str, tuple[int, int]]:
    """(microjoules used, value at which the counter wraps) of each readable RAPL package."""
    packages = {}
    for folder in sorted(POWERCAP.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            used = int((folder / "energy_uj").read_text())
            wraps_at = int((folder / "max_energy_range_uj").read_text())
        except OSError:
            continue  # only root may read it
        # Other domains (core, uncore, dram) are parts of a package or not of the processor.
        if name.startswith("package"):
            packages[name] = used, wraps_at
    return packages
