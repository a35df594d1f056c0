"""What this machine is and has, as facts for `rankwise doctor`: each asked for with a limit of time, all at once.

A fact that cannot be had is `trouble`, a few words. Nothing is started, nothing is imported that jobs import: torch's build is
read from its files. Standard library only.
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

from rankwise.core import environment, probe, settings
from rankwise.data import sources
from rankwise.execution import container, gpu_lease, gpus, slurm_nodes

SMI, FORMAT = "nvidia-smi", "--format=csv,noheader"
ENGINES = {
    "docker": ("info", "--format", "{{.ServerVersion}}"),
    "podman": ("info", "--format", "{{.Version.Version}}"),
    "buildah": ("--version",),
    "apptainer": ("--version",),
    "singularity": ("--version",),
}
KUBECTL_S = 5


def look(root: Path) -> dict[str, dict]:
    """Name -> facts: sizes in bytes, paths as this machine has them; `trouble` where something does not answer or is wrong."""
    questions = {
        "system": _system,
        "processors": _processors,
        "memory": _memory,
        "cards": _cards,
        "torch": _torch,
        "packages": lambda: {
            lock.name: _lock(lock) for lock in sorted((root / "envs").glob("*.lock"))
        },
        "clone": lambda: _disk(root, [root, root / "results"]),
        "scratch": lambda: _disk(scratch(), [scratch()]),
        "hub": _hub,
        "image": lambda: _image(root),
        "slurm": _slurm,
        "kubernetes": _kubernetes,
    }
    engines = {
        f"engine {name}": functools.partial(_engine, name, arguments)
        for name, arguments in ENGINES.items()
    }
    found = probe.ask({**questions, **engines})
    return {
        **{name: found[name] for name in questions},
        "engines": {name: found[f"engine {name}"] for name in ENGINES},
    }


def _system() -> dict:
    return {"platform": platform.platform(), "python": platform.python_version()}


def _processors() -> dict:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return {
        "model": named[1].strip() if named else platform.machine(),
        "count": os.cpu_count(),
        "usable": usable,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


# Memory and disks -----------------------------------------------------------------------------------------------------


def _memory() -> dict:
    """What processes here may have in all, and what is free: less than the machine's where a container is held to less."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE))
    total = (
        int(lines["MemTotal"]) * 1024
        if lines
        else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    usable = min([total, *limits(_read(Path("/proc/self/cgroup")))])
    return {
        "usable_bytes": usable,
        "available_bytes": min(usable, int(lines.get("MemAvailable", usable // 1024)) * 1024),
    }


def limits(groups: str, mounted: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Limits of memory (bytes) of a process's control groups, as its /proc/PID/cgroup names them, and of those around them."""
    found = []
    for line in groups.splitlines():
        _, kinds, inside = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = mounted / kinds
        own = top / inside.lstrip("/")
        folders = [own, *own.parents][
            : len(own.relative_to(top).parts) + 1
        ]  # a container may see its own as the top
        found += [
            _read(folder / name)
            for folder in folders
            for name in ("memory.max", "memory.limit_in_bytes")
        ]
    return [int(text) for text in found if text.strip().isdigit()]


def scratch() -> Path:
    """The folder for temporary files, as TMPDIR names it, whether it can be used or not."""
    return Path(settings.read("TMPDIR") or tempfile.gettempdir())


def _disk(folder: Path, written: list[Path]) -> dict:
    said = slurm_nodes.unwritable(one for one in written if one.exists() or one == folder)
    free = {"free_bytes": shutil.disk_usage(folder).free} if folder.exists() else {}
    return {"path": str(folder), **free, **({"trouble": said[0]} if said else {})}


# Cards and packages ---------------------------------------------------------------------------------------------------


def _cards() -> dict:
    """`found` cards, `notes` on them, the `driver`, `capabilities` by UUID. A driver that hangs is not asked again."""
    asked = probe.run(SMI, "--query-gpu=driver_version", FORMAT)
    facts = {
        "found": [],
        "notes": [],
        "capabilities": {},
        **({"trouble": f"{SMI} {asked.trouble}"} if asked.trouble else {}),
    }
    if version := re.match(r"\d+\.[\d.]+", asked.printed):
        facts |= {"driver": version[0], "capabilities": _capabilities()}
    if asked.hangs and not settings.read("RANKWISE_CARDS"):
        return facts
    try:
        there = gpus.found()
        return {
            **facts,
            "found": [card._asdict() for card in there],
            "notes": gpu_lease.notes(there) if there else [],
        }
    except gpus.CardError as error:
        return {**facts, "refused": str(error)}


def _capabilities() -> dict[str, float]:
    """UUID -> compute capability; nothing where the driver is too old to tell."""
    printed = probe.run(SMI, "--query-gpu=uuid,compute_cap", FORMAT).printed
    return {
        uuid: float(number)
        for uuid, number in re.findall(r"^(\S+), (\d+\.\d+)$", printed, re.MULTILINE)
    }


def _torch() -> dict:
    """The installed build, and the CUDA that it is for: None of a build without, as its version.py says."""
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return {"trouble": "not installed"}
    said = re.search(
        r"^cuda\b.*=\s*'?([\d.]+|None)",
        _read(Path(torch.locate_file("torch/version.py"))),
        re.MULTILINE,
    )
    return {"version": torch.version, "cuda": said[1] if said and said[1] != "None" else None}


def _lock(lock: Path) -> dict:
    """How many of a lock's packages are installed otherwise, and the first."""
    differ = [f"{name} {how}" for name, how in environment.differences(lock).items()]
    return {"differ": len(differ), "first": differ[0] if differ else None}


# Around it ------------------------------------------------------------------------------------------------------------


def _hub() -> dict:
    endpoint = sources.hub_endpoint()
    why = sources.unreachable(endpoint) if endpoint else None
    return {"endpoint": endpoint, **({"trouble": why} if why else {})}


def _image(root: Path) -> dict:
    found = {"reference": container.reference(root)}
    try:
        container.check(found["reference"], root)
    except ValueError as error:
        return {**found, "trouble": str(error)}
    return found


def _engine(name: str, arguments: tuple[str, ...]) -> dict:
    """The version of a container engine that answers."""
    said = probe.run(name, *arguments)
    version = re.search(r"\d+(\.\w+)+", said.printed)
    return (
        {"trouble": said.trouble}
        if said.trouble
        else {"version": version[0] if version else said.printed.strip()}
    )


def _slurm() -> dict:
    """`nodes` of a cluster, those that are alike as one with their `count`."""
    said = probe.run("sinfo", "--noheader", "--Node", "--format", slurm_nodes.COLUMNS)
    if said.trouble:
        return {"trouble": f"sinfo {said.trouble}"}
    alike = Counter(
        json.dumps(slurm_nodes.read_node(line)._replace(name="")._asdict())
        for line in said.printed.splitlines()
    )
    return {"nodes": [{**json.loads(node), "count": count} for node, count in alike.items()]}


def _kubernetes() -> dict:
    said = probe.run("kubectl", "version", "--output", "json", f"--request-timeout={KUBECTL_S}s")
    known = json.loads(said.printed) if said.printed.startswith("{") else {}
    versions = {
        kind: known[f"{kind}Version"]["gitVersion"]
        for kind in ("client", "server")
        if f"{kind}Version" in known
    }
    return {**versions, **({"trouble": f"kubectl {said.trouble}"} if said.trouble else {})}
