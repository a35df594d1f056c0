"""What stands beside a timed part: the energy it took, and what else was using the machine.

Energy is read from a meter or left out, never worked out from a rated power. On CUDA it is NVML's: the card's counter, or
where it has none the power at each look, integrated. On a CPU it is RAPL's counters of the packages, where they are readable
(Linux gives them to root only). Both count all that ran there meanwhile, idle power too.

A taint says why a time is not the code's own: other processes on the card, clocks held down, other processes on the cores,
more threads than cores. What cannot be seen here (another system than Linux, no driver) is silent.

NVML is called in the driver's own library, which every machine with a driver has, so no package is needed.
"""

import ctypes
import os
import time
from pathlib import Path

import torch

from rankwise.core import environment

POWERCAP, STAT = Path("/sys/class/powercap"), Path("/proc/stat")
BUSY = 0.2  # share of the cores from which others' work taints
SHORTEST_S = 0.25  # a window that the kernel's ticks of 10 ms can still tell from noise
LIBRARY = "libnvidia-ml.so.1"
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons (nvml.h) that mean slower than asked for; the others are choices.
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature",
    0x80: "power brake",
}


def device_name(device: str) -> str:
    """What the vendor calls the card or the processor."""
    return torch.cuda.get_device_name() if device == "cuda" else environment.processor()


class Card:
    """The card that torch computes on, as NVML sees it. A quantity that it does not offer is None."""

    def __init__(self, nvml: ctypes.CDLL, handle: ctypes.c_void_p):
        self._nvml, self._handle = nvml, handle

    @classmethod
    def find(cls) -> "Card | None":
        """The card, or None without a driver."""
        try:
            nvml = ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        handle, uuid = (
            ctypes.c_void_p(),
            f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}",
        )
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(
            uuid.encode(), ctypes.byref(handle)
        ):
            return None
        return cls(nvml, handle)

    def _read(self, function: str, kind: type) -> int | None:
        value = kind()
        code = getattr(self._nvml, function)(self._handle, ctypes.byref(value))
        return None if code else value.value

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded."""
        found = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)  # millijoules
        return None if found is None else found / 1e3

    def power_w(self) -> float | None:
        """Watts now."""
        found = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)  # milliwatts
        return None if found is None else found / 1e3

    def throttles(self) -> set[str]:
        """Why the clocks are held down now."""
        bits = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return {reason for bit, reason in THROTTLES.items() if bits & bit}

    def others(self) -> int:
        """How many other processes compute on the card. A container may see none of them, nor itself."""
        number = ctypes.c_uint(0)  # room for none: NVML answers with the number
        self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._handle, ctypes.byref(number), None)
        return max(0, number.value - torch.cuda.is_initialized())


class Watch:
    """Around a timed part, as a context; `look` between repeats, outside of what is timed."""

    def __init__(self, device: str):
        self._device, self._card = device, Card.find() if device == "cuda" else None
        self._looks: list[tuple[float, float | None]] = []  # seconds, watts
        self._seen: set[str] = set()

    def __enter__(self) -> "Watch":
        self._start = self._counters()
        self.look()
        return self

    def __exit__(self, *_error: object) -> None:
        self.look()
        self._end = self._counters()

    def look(self) -> None:
        """See what the card is doing now."""
        if self._card:
            self._looks.append((time.perf_counter(), self._card.power_w()))
            self._seen |= {f"clocks held down by {reason}" for reason in self._card.throttles()}
            self._seen |= {"other processes on the card"} if self._card.others() else set()

    def _counters(self) -> dict:
        energy = _packages() if self._device == "cpu" else {}
        return {
            "cpu": _cpu(),
            "rapl": energy,
            "card": self._card.energy_j() if self._card else None,
        }

    def energy(self) -> tuple[float, str] | None:
        """Joules, and the meter with what it covers; None where nothing measures."""
        start, end = self._start, self._end
        if start["card"] is not None:
            return end["card"] - start["card"], "nvml: the whole card"
        if len(self._looks) > 1 and all(watts is not None for _, watts in self._looks):
            pairs = zip(self._looks, self._looks[1:], strict=False)
            return sum(
                (t - s) * (a + b) / 2 for (s, a), (t, b) in pairs
            ), "nvml, power integrated: the whole card"
        if start["rapl"]:
            microjoules = sum(
                (end["rapl"][name][0] - used) % span for name, (used, span) in start["rapl"].items()
            )
            return microjoules / 1e6, f"rapl:{'+'.join(start['rapl'])}: the processor's packages"
        return None

    def other_cpu(self) -> float | None:
        """Share of this process's cores that others used meanwhile, steal included; None where it cannot be told."""
        if self._start["cpu"] is None:
            return None
        own, busy, whole = (
            after - before
            for before, after in zip(self._start["cpu"], self._end["cpu"], strict=True)
        )
        return max(0.0, busy - own) / whole if whole >= SHORTEST_S * len(_cores()) else None

    def taint(self) -> list[str]:
        """The reasons, none if clean."""
        cores, threads = len(_cores()), torch.get_num_threads()
        found = (
            [f"{threads} threads on {cores} core{'s' * (cores != 1)}"] if threads > cores else []
        )
        found += (
            [f"other processes used over {BUSY * 100:.0f} % of the cores"]
            if (self.other_cpu() or 0) > BUSY
            else []
        )
        return found + sorted(self._seen)


def _cores() -> set[int]:
    """The cores that this process may use."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def _cpu() -> tuple[float, float, float] | None:
    """Seconds that this process, and that all, have used of its cores, and all that these have had."""
    lines = STAT.read_text(encoding="utf-8").splitlines() if STAT.is_file() else []
    wanted = {f"cpu{core}" for core in _cores()}
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    rows = [list(map(int, line.split()[1:9])) for line in lines if line.split()[0] in wanted]
    if not rows:
        return None
    whole, idle = sum(map(sum, rows)), sum(sum(row[3:5]) for row in rows)
    tick, own = os.sysconf("SC_CLK_TCK"), os.times()
    return own.user + own.system, (whole - idle) / tick, whole / tick


def _packages() -> dict[str, tuple[int, int]]:
    """Microjoules used of each readable RAPL package, and where its counter starts again."""
    found = {}
    for folder in sorted(POWERCAP.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            numbers = tuple(
                int((folder / file).read_text()) for file in ("energy_uj", "max_energy_range_uj")
            )
        except OSError:
            continue
        if name.startswith("package"):
            found[name] = numbers
    return found
