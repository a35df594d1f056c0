"""What is installed against what a lock has, and the record of where a job ran.

Standard library only: the Snakefile imports this module.
"""

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from rankwise.core import settings
from rankwise.core.provenance import SourceChanged, lock_digest

CPUINFO = Path("/proc/cpuinfo")
OWN = "RANKWISE_ENVIRONMENT"  # set to RECORDED where the environment is a machine's own
RECORDED = "recorded"


class EnvironmentDiffers(RuntimeError):
    """A package is not installed in the version that the job's lock has."""


def locked_versions(path: Path) -> dict[str, str]:
    """Name -> version of every pin of a lock file."""
    return dict(
        re.findall(
            r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    )


def differences(lock: Path) -> dict[str, str]:
    """Each package of a lock that is not installed, or in another version; a build's name (+cpu, +cu130) does not count."""
    installed = {name: _installed(name) for name in locked_versions(lock)}
    return {
        name: f"{installed[name] or 'not installed'}, locked {version}"
        for name, version in locked_versions(lock).items()
        if (installed[name] or "").split("+")[0] != version
    }


def refusal(lock: Path) -> str | None:
    """Why this environment may not do a job of this lock, in a sentence; None if it may.

    RANKWISE_ENVIRONMENT=recorded lets any environment: results record what differs.
    """
    if (own := settings.read(OWN)) not in ("", RECORDED):
        return f"{OWN}: got {own!r}, allowed: {RECORDED}, or not set"
    found = [] if own else [f"{name} {how}" for name, how in differences(lock).items()]
    file = f"{lock.parent.name}/{lock.name}"
    return (
        f"{file}: {len(found)} installed otherwise than locked: {'; '.join(found[:3])}{'; ...' if found[3:] else ''}; "
        f"allowed: what the lock has (pip install -r {file}), or {OWN}={RECORDED}, and results record what differs"
        if found
        else None
    )


def verify_environment(planned: dict[str, str], root: Path) -> None:
    """Refuse to work when the lock is not the `planned` one, or when its packages are not what is installed.

    Raises:
        SourceChanged: the lock file has changed.
        EnvironmentDiffers: names the packages, the versions installed and those locked.
    """
    lock = root / planned["lock"]
    if lock_digest(lock) != planned["digest"]:
        raise SourceChanged(f"{lock}: changed since the workflow was planned; run snakemake again")
    if reason := refusal(lock):
        raise EnvironmentDiffers(reason)


def environment(lock: Path) -> dict[str, object]:
    """Where a job ran: interpreter, platform, processor, locked packages whose installed version is another, its card."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "packages": {
            name: found for name in ("torch", "transformers", "peft") if (found := _installed(name))
        },
        "differs_from_lock": differences(lock),
        **_card(),
        **({"card": lease} if (lease := json.loads(settings.read("RANKWISE_CARD"))) else {}),
    }


def processor() -> str:
    """What the vendor calls the processor."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _card() -> dict[str, str]:
    """The GPU that this process has used, and its driver."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    version = Path("/proc/driver/nvidia/version")
    driver = (
        re.search(r"[\d.]{5,}", version.read_text(encoding="utf-8")) if version.is_file() else None
    )
    return {
        "device_name": torch.cuda.get_device_name(),
        **({"driver": driver[0]} if driver else {}),
    }


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
