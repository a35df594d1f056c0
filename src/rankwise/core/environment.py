"""Compare the installed packages with a lock file, and record where a job ran.

Standard library only: the Snakefile imports this module.
"""

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from rankwise.core import settings
from rankwise.core.lock import lock_digest
from rankwise.core.provenance import SourceChanged

CPUINFO = Path("/proc/cpuinfo")
DRIVER = Path("/proc/driver/nvidia/version")
OWN = "RANKWISE_ENVIRONMENT"  # set to RECORDED to let any environment work
CAPABILITY = "ATEN_CPU_CAPABILITY"
RECORDED = "recorded"
LIBRARIES = ("torch", "transformers", "peft")  # whose versions every result records
VERSION = re.compile(r"^Version: *(\S+)", re.MULTILINE)  # in a package's METADATA
MOST_NAMED = 3  # packages that a message names


class EnvironmentDiffers(RuntimeError):
    """A package is not installed in the version of the job's lock."""


# Installed against locked -------------------------------------------------------------------------


def locked_versions(path: Path) -> dict[str, str]:
    """Name -> version of every pin of a lock file."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", text, flags=re.MULTILINE))


def differences(lock: Path) -> dict[str, str]:
    """Packages of a lock that are missing or have another version: name -> `2.0, locked 2.1`.

    The name of a build (+cpu, +cu130) does not count: a lock serves machines with any of them.
    """
    found = {}
    for name, locked in locked_versions(lock).items():
        installed = _installed(name)
        if installed is None:
            found[name] = f"not installed, locked {locked}"
        elif installed.split("+")[0] != locked:
            found[name] = f"{installed}, locked {locked}"
    return found


def refusal(lock: Path) -> str | None:
    """Why this environment may not do a job of this lock, in a sentence; None if it may.

    RANKWISE_ENVIRONMENT=recorded lets any environment work: its results record the differences.
    """
    own = settings.read(OWN)
    if own not in ("", RECORDED):
        return f"{OWN}: got {own!r}, allowed: {RECORDED}, or not set"
    differing = [f"{name} {how}" for name, how in differences(lock).items()]
    if own == RECORDED or not differing:
        return None
    named = "; ".join(differing[:MOST_NAMED])
    more = "; ..." if len(differing) > MOST_NAMED else ""
    file = f"{lock.parent.name}/{lock.name}"
    return (
        f"{file}: {len(differing)} installed otherwise than locked: {named}{more}; "
        f"allowed: the locked versions (pip install -r {file}), "
        f"or {OWN}={RECORDED}, which records the differences in each result"
    )


def verify_environment(planned: dict[str, str], root: Path) -> None:
    """Refuse to work if the lock file changed, or the installed packages differ from it.

    Args:
        planned: `lock`, the path of the lock file, and `digest`, that of its pins.
        root: The folder that the path is relative to.

    Raises:
        SourceChanged: The lock file has changed.
        EnvironmentDiffers: Names the packages with their installed and locked versions.
    """
    lock = root / planned["lock"]
    if lock_digest(lock) != planned["digest"]:
        raise SourceChanged(f"{lock}: changed since the workflow was planned; run snakemake again")
    reason = refusal(lock)
    if reason:
        raise EnvironmentDiffers(reason)


def _installed(name: str) -> str | None:
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    # `package.version` parses the whole description, and every job asks for all packages of a lock.
    found = VERSION.search(package.read_text("METADATA") or "")
    return found[1] if found else package.version


# Where a job ran ----------------------------------------------------------------------------------


def environment(lock: Path) -> dict[str, object]:
    """Where this job runs: interpreter, platform, processor, packages, GPU and its lease."""
    versions = {name: _installed(name) for name in LIBRARIES}
    place = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        **_cpu(),
        "packages": {name: version for name, version in versions.items() if version},
        "differs_from_lock": differences(lock),
        **_gpu(),
    }
    lease = json.loads(settings.read("RANKWISE_CARD"))
    return {**place, "card": lease} if lease else place


def processor() -> str:
    """The vendor's name of the processor, or its architecture where the system does not tell."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cpu() -> dict[str, object]:
    """Which of torch's CPU kernels this process used; empty if it has not imported torch.

    Kernels of another instruction set add in another order, so they give other last digits.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    facts = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    asked = settings.read(CAPABILITY)
    return {**facts, CAPABILITY: asked} if asked else facts


def _gpu() -> dict[str, str]:
    """The GPU that this process has used, and its driver; empty if it has used none."""
    # A job that has not imported torch has used no GPU, and must not pay for the import here.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    gpu = {"device_name": torch.cuda.get_device_name()}
    text = DRIVER.read_text(encoding="utf-8") if DRIVER.is_file() else ""
    version = re.search(r"[\d.]{5,}", text)
    return {**gpu, "driver": version[0]} if version else gpu
