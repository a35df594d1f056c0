"""The GPUs of this machine that may be used, and what other processes have on them.

They are the GPUs that nvidia-smi reports (each MIG slice counts as one), filtered by
CUDA_VISIBLE_DEVICES, which SLURM sets; numbers in it count in nvidia-smi's order. Without
nvidia-smi, the driver's files in /proc give GPUs of unknown size.

RANKWISE_CARDS names a JSON file that replaces all of this, to use some GPUs only or to simulate
many:

    [{"uuid": "GPU-5d5ba0d6-...", "name": "NVIDIA H100", "memory_gib": 80}]

Standard library only: every job on a GPU calls this before it has loaded anything.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rankwise.core import probe, settings

GIB, MIB = 2**30, 2**20
PROC = Path("/proc/driver/nvidia/gpus")
SMI = "nvidia-smi"
SMI_TIMEOUT_S = 60  # on a machine with many GPUs and no persistence daemon, a call may take long
KEYS = {"uuid": str, "name": str, "memory_gib": int | float}


class GpuError(ValueError):
    """A request for GPUs that this machine cannot meet. The message is one sentence."""


class Gpu(NamedTuple):
    """One GPU, or one slice of a GPU that MIG splits."""

    uuid: str
    name: str
    memory_bytes: int  # 0: unknown

    def __str__(self) -> str:
        size = f", {self.memory_bytes / GIB:.1f} GiB" if self.memory_bytes else ""
        return f"{self.uuid} ({self.name}{size})"


def available(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that this process may use; none if there is no driver.

    Raises:
        GpuError: RANKWISE_CARDS or CUDA_VISIBLE_DEVICES is wrong.
    """
    pool_file = settings.read("RANKWISE_CARDS", environment)
    if pool_file:
        return _read_pool(Path(pool_file))
    return _visible(_installed(), settings.given("CUDA_VISIBLE_DEVICES", environment))


def used_bytes(gpus: list[Gpu]) -> dict[str, int]:
    """Memory in use on each GPU, by all processes together, ours included.

    Returns:
        UUID -> bytes. GPUs that nvidia-smi does not report, such as MIG slices, are left out.
    """
    lines = _smi("--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits") or []
    used = {}
    for line in lines:
        uuid, mebibytes = line.split(", ")
        used[uuid] = _mib_to_bytes(mebibytes)
    return {gpu.uuid: used[gpu.uuid] for gpu in gpus if gpu.uuid in used}


def busy_fractions(gpus: list[Gpu]) -> dict[str, float]:
    """The fraction of the last second or less in which each GPU computed, for any process.

    Returns:
        UUID -> fraction. GPUs of which nvidia-smi does not say it, such as MIG slices, are left
        out.
    """
    lines = _smi("--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits") or []
    busy = {}
    for line in lines:
        uuid, percent = line.split(", ")
        if percent.strip().isdigit():
            busy[uuid] = int(percent) / 100
    return {gpu.uuid: busy[gpu.uuid] for gpu in gpus if gpu.uuid in busy}


def processes(gpus: list[Gpu]) -> dict[str, list[str]]:
    """The processes that compute on each GPU, ours included. In a container, none may be visible.

    Returns:
        UUID -> texts such as `python3 (pid 7)`.
    """
    lines = _smi("--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader") or []
    names: dict[str, list[str]] = {gpu.uuid: [] for gpu in gpus}
    for line in lines:
        uuid, pid, program = line.split(", ", 2)
        if uuid in names:
            names[uuid].append(f"{Path(program).name} (pid {pid})")
    return names


# The file of RANKWISE_CARDS -----------------------------------------------------------------------


def _read_pool(path: Path) -> list[Gpu]:
    where = f"RANKWISE_CARDS: {path}"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GpuError(
            f"{where}: got {error.strerror}, allowed: a JSON file that can be read"
        ) from None
    except ValueError as error:
        raise GpuError(f"{where}: got {error}, allowed: JSON") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise GpuError(
            f"{where}: got {json.dumps(entries)[:60]}, "
            f"allowed: a list of GPUs, each with {', '.join(KEYS)}"
        )
    gpus: list[Gpu] = []
    uuids: set[str] = set()
    for number, entry in enumerate(entries):
        gpu = _read_entry(f"{where}: {number}", entry)
        if gpu.uuid in uuids:
            raise GpuError(f"{where}: got uuid {gpu.uuid!r} twice, allowed: each GPU once")
        uuids.add(gpu.uuid)
        gpus.append(gpu)
    return gpus


def _read_entry(where: str, entry: dict) -> Gpu:
    if set(entry) != set(KEYS):
        present = ", ".join(entry) or "nothing"
        raise GpuError(f"{where}: got {present}, allowed: {', '.join(KEYS)}")
    for name, kind in KEYS.items():
        value = entry[name]
        # For Python, True and False are integers.
        if not isinstance(value, kind) or isinstance(value, bool):
            allowed = "a number" if name == "memory_gib" else "a text"
            raise GpuError(f"{where}.{name}: got {value!r}, allowed: {allowed}")
    uuid, memory_gib = entry["uuid"], entry["memory_gib"]
    if not re.fullmatch(r"[\w.-]+", uuid):  # it becomes a file name in the folder of leases
        allowed = "letters, digits, '-', '_' and '.'"
        raise GpuError(f"{where}.uuid: got {uuid!r}, allowed: {allowed}")
    if not memory_gib > 0:
        raise GpuError(f"{where}.memory_gib: got {memory_gib}, allowed: more than 0, in GiB")
    return Gpu(uuid, entry["name"], int(memory_gib * GIB))


# The driver --------------------------------------------------------------------------------------


def _installed() -> list[Gpu]:
    """All GPUs, a split one replaced by its slices."""
    lines = _smi("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
    if lines is None:
        return _from_proc()
    slices = _mig_slices()
    gpus: list[Gpu] = []
    for line in lines:
        uuid, name, mebibytes = line.split(", ")
        gpus += slices.get(uuid, [Gpu(uuid, name, _mib_to_bytes(mebibytes))])
    return gpus


def _mig_slices() -> dict[str, list[Gpu]]:
    """UUID of a split GPU -> its slices.

    `nvidia-smi -L` lists the slices below their GPU. A slice's size is in its profile: `1g.10gb`.
    """
    slices: dict[str, list[Gpu]] = {}
    gpu_name, gpu_uuid = "", ""
    for line in _smi("-L") or []:
        whole = re.match(r"GPU \d+: (.+) \(UUID: (\S+)\)", line)
        if whole:
            gpu_name, gpu_uuid = whole.groups()
            continue
        part = re.match(r"\s+MIG (\S+?\.(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (\S+)\)", line)
        if part:
            profile, gib, uuid = part.groups()
            one_slice = Gpu(uuid, f"{gpu_name} MIG {profile}", int(gib) * GIB)
            slices.setdefault(gpu_uuid, []).append(one_slice)
    return slices


def _from_proc() -> list[Gpu]:
    """The GPUs in the driver's files, whose sizes are unknown."""
    gpus = []
    for path in sorted(PROC.glob("*/information")):
        text = path.read_text(encoding="utf-8")
        fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", text, flags=re.MULTILINE))
        uuid = fields.get("GPU UUID", "?").strip()
        # A container sees a file of every GPU, but `GPU-????...` for those that it was not given.
        if "?" not in uuid:
            gpus.append(Gpu(uuid, fields.get("Model", "NVIDIA GPU").strip(), 0))
    return gpus


def _smi(*arguments: str) -> list[str] | None:
    """Lines that nvidia-smi prints; None where it is missing, fails or does not answer."""
    answer = probe.run(SMI, *arguments, seconds=SMI_TIMEOUT_S)
    if answer.trouble:
        return None
    return [line for line in answer.printed.splitlines() if line.strip()]


def _mib_to_bytes(text: str) -> int:
    """A size that nvidia-smi prints; 0 for `[N/A]`."""
    return int(text) * MIB if text.strip().isdigit() else 0


# CUDA_VISIBLE_DEVICES -----------------------------------------------------------------------------


def _visible(gpus: list[Gpu], setting: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order; all if it is not set.

    As CUDA does, this stops at the first name that is neither a number nor a UUID, such as `-1`.
    """
    if setting is None or not gpus:
        return gpus
    visible: list[Gpu] = []
    for part in setting.split(","):
        name = part.strip()
        if not name:
            continue
        if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
            break
        gpu = _named(name, gpus)
        if gpu not in visible:
            visible.append(gpu)
    return visible


def _named(name: str, gpus: list[Gpu]) -> Gpu:
    """The GPU with this number, or whose UUID begins with `name`."""
    if name.isdigit():
        matches = gpus[int(name) : int(name) + 1]
    else:
        matches = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
    if len(matches) != 1:
        allowed = ", ".join(f"{number} or {gpu.uuid}" for number, gpu in enumerate(gpus))
        raise GpuError(f"environment: CUDA_VISIBLE_DEVICES: got {name!r}, allowed: {allowed}")
    return matches[0]
