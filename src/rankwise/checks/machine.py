"""Facts about this machine, for `rankwise doctor`: each is asked for with a time limit, all at the
same time.

A fact that cannot be found out has `trouble`: a few words that say why. Nothing is started, and
nothing is imported that jobs import: torch's build is read from its files. Standard library only.
"""

import functools
import json
import os
import platform
import re
import shutil
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path

from rankwise.checks import disk
from rankwise.core import environment, paths, probe, settings
from rankwise.data import sources
from rankwise.execution import container, gpu_lease, gpus, slurm_nodes

SMI, SMI_FORMAT = "nvidia-smi", "--format=csv,noheader"
# Container engine -> the arguments that make it print its version. Docker and podman are asked for
# what needs their service: an engine that is installed and does not run is of no use.
ENGINES = {
    "docker": ("info", "--format", "{{.ServerVersion}}"),
    "podman": ("info", "--format", "{{.Version.Version}}"),
    "buildah": ("--version",),
    "apptainer": ("--version",),
    "singularity": ("--version",),
}
KUBECTL_TIMEOUT_S = 5


def look(root: Path) -> dict[str, dict]:
    """Everything that the doctor wants to know about this machine.

    Args:
        root: The project's folder.

    Returns:
        Name -> facts. Sizes are in bytes; `trouble` is there where something is wrong or does not
        answer.
    """
    questions = {
        "system": _system,
        "processors": _processors,
        "memory": _memory,
        "cards": _gpus,
        "torch": _torch,
        "packages": functools.partial(_packages, root),
        "clone": lambda: _disk(disk.results_folder(root), disk.written_folders(root)),
        "scratch": lambda: _disk(scratch(), [scratch()]),
        "hub": _hub,
        "image": functools.partial(_image, root),
        "slurm": _slurm,
        "kubernetes": _kubernetes,
    }
    engine_questions = {
        f"engine {name}": functools.partial(_engine, name, arguments)
        for name, arguments in ENGINES.items()
    }
    answers = probe.ask({**questions, **engine_questions})
    facts = {name: answers[name] for name in questions}
    facts["engines"] = {name: answers[f"engine {name}"] for name in ENGINES}
    return facts


def _system() -> dict:
    return {"platform": platform.platform(), "python": platform.python_version()}


def _processors() -> dict:
    """The processor's model, how many cores it has, and how many of them this process may use."""
    # os.sched_getaffinity is missing on macOS.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = _text_of(Path("/proc/cpuinfo"))
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "model": model[1].strip() if model else platform.machine(),
        "count": os.cpu_count(),
        "usable": usable,
    }


def _text_of(path: Path) -> str:
    """The text of a file; an empty one if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


# Memory and disks ---------------------------------------------------------------------------------


def _memory() -> dict:
    """Memory that processes here may use in total, and memory that is free.

    A container may be limited to less than the machine has.
    """
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", _text_of(Path("/proc/meminfo")), re.MULTILINE)
    kib_by_name = {name: int(kib) for name, kib in lines}
    if kib_by_name:
        total = kib_by_name["MemTotal"] * 1024
    else:  # no /proc, as on macOS
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    usable = min([total, *limits(_text_of(Path("/proc/self/cgroup")))])
    available = kib_by_name.get("MemAvailable", usable // 1024) * 1024
    return {"usable_bytes": usable, "available_bytes": min(usable, available)}


def limits(groups: str, mounted: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Memory limits (bytes) of a process's control groups, and of the groups around them.

    Args:
        groups: The text of the process's /proc/PID/cgroup: lines of `number:controllers:path`.
        mounted: Where the control groups are mounted.
    """
    found = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in (
            "",
            "memory",
        ):  # "" is version 2 of control groups, which has one tree for all
            continue
        top = mounted / controllers
        group = top / path.lstrip("/")
        # Also the folders above: a container may see its own group as the top.
        depth = len(group.relative_to(top).parts)
        for folder in [group, *group.parents][: depth + 1]:
            for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
                text = _text_of(folder / name).strip()
                if text.isdigit():  # version 2 says `max` where there is no limit
                    found.append(int(text))
    return found


def scratch() -> Path:
    """The folder for temporary files as TMPDIR names it, whether it can be used or not."""
    return Path(settings.read("TMPDIR") or tempfile.gettempdir())


def _disk(folder: Path, written: list[Path]) -> dict:
    """Free space in a folder, and the trouble with the folders that jobs write to."""
    existing = [one for one in written if one.exists() or one == folder]
    unwritable = slurm_nodes.unwritable(existing)
    facts: dict = {"path": str(folder)}
    if folder.exists():
        facts["free_bytes"] = shutil.disk_usage(folder).free
    if unwritable:
        facts["trouble"] = unwritable[0]
    return facts


# GPUs and packages --------------------------------------------------------------------------------


def _gpus() -> dict:
    """GPUs (`found`), `notes` on them, the `driver`, and `capabilities` by UUID."""
    version = probe.run(SMI, "--query-gpu=driver_version", SMI_FORMAT)
    facts: dict = {"found": [], "notes": [], "capabilities": {}}
    if version.trouble:
        facts["trouble"] = f"{SMI} {version.trouble}"
    driver = re.match(r"\d+\.[\d.]+", version.printed)
    if driver:
        facts |= {"driver": driver[0], "capabilities": _capabilities()}
    if version.hangs and not settings.read("RANKWISE_CARDS"):
        return facts  # a driver that hangs would hang again
    try:
        found = gpus.available()
    except gpus.GpuError as error:
        return {**facts, "refused": str(error)}
    facts["found"] = [gpu._asdict() for gpu in found]
    facts["notes"] = gpu_lease.notes(found) if found else []
    return facts


def _capabilities() -> dict[str, float]:
    """UUID -> compute capability; empty if the driver is too old to tell."""
    printed = probe.run(SMI, "--query-gpu=uuid,compute_cap", SMI_FORMAT).printed
    lines = re.findall(r"^(\S+), (\d+\.\d+)$", printed, re.MULTILINE)
    return {uuid: float(capability) for uuid, capability in lines}


def _torch() -> dict:
    """The installed torch's version, and the CUDA version that it was built for, or None."""
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return {"trouble": "not installed"}
    # Importing torch takes seconds; its version.py has a line such as `cuda: Optional[str] =
    # '13.0'`.
    text = _text_of(Path(torch.locate_file("torch/version.py")))
    line = re.search(r"^cuda\b.*=\s*'?([\d.]+|None)", text, re.MULTILINE)
    return {"version": torch.version, "cuda": line[1] if line and line[1] != "None" else None}


def _packages(root: Path) -> dict:
    """Lock -> how many of its packages are installed otherwise, and the first of them."""
    locks = (paths.workflow_root(root) / "envs").glob("*.lock")
    return {lock.name: _lock(lock) for lock in sorted(locks)}


def _lock(lock: Path) -> dict:
    differing = [f"{name} {how}" for name, how in environment.differences(lock).items()]
    return {"differ": len(differing), "first": differing[0] if differing else None}


# Services -----------------------------------------------------------------------------------------


def _hub() -> dict:
    endpoint = sources.hub_endpoint()
    facts: dict = {"endpoint": endpoint}
    trouble = sources.unreachable(endpoint) if endpoint else None
    if trouble:
        facts["trouble"] = trouble
    return facts


def _image(root: Path) -> dict:
    facts = {"reference": container.reference(root)}
    try:
        container.check(facts["reference"], root)
    except ValueError as error:
        facts["trouble"] = str(error)
    return facts


def _engine(name: str, arguments: tuple[str, ...]) -> dict:
    """The version of a container engine that answers."""
    answer = probe.run(name, *arguments)
    if answer.trouble:
        return {"trouble": answer.trouble}
    version = re.search(r"\d+(\.\w+)+", answer.printed)
    return {"version": version[0] if version else answer.printed.strip()}


def _slurm() -> dict:
    """The `nodes` of a cluster; equal nodes are one entry with their `count`."""
    answer = probe.run("sinfo", "--noheader", "--Node", "--format", slurm_nodes.SINFO_COLUMNS)
    if answer.trouble:
        return {"trouble": f"sinfo {answer.trouble}"}
    counts: Counter[str] = Counter()
    for line in answer.printed.splitlines():
        node = slurm_nodes.read_node(line)
        nameless = node._replace(name="")  # the name would make equal nodes differ
        counts[json.dumps(nameless._asdict())] += 1
    return {"nodes": [{**json.loads(node), "count": count} for node, count in counts.items()]}


def _kubernetes() -> dict:
    """The versions of kubectl (`client`) and of the cluster (`server`)."""
    limit = f"--request-timeout={KUBECTL_TIMEOUT_S}s"
    answer = probe.run("kubectl", "version", "--output", "json", limit)
    known = json.loads(answer.printed) if answer.printed.startswith("{") else {}
    facts = {}
    for kind in ("client", "server"):
        if f"{kind}Version" in known:
            facts[kind] = known[f"{kind}Version"]["gitVersion"]
    if answer.trouble:
        facts["trouble"] = f"kubectl {answer.trouble}"
    return facts
