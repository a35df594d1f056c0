"""What a check ran on: the device, its driver, and the versions of all that may change a number."""

import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu_check.runner import Check

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "galore-torch", "triton")


def missing(names: Iterable[str]) -> list[str]:
    """Those of some packages that this Python does not have."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def run(check: "Check") -> None:
    """Send one row: the machine.

    Raises:
        RuntimeError: torch finds no GPU.
    """
    import torch  # noqa: PLC0415 - the process that prints messages needs none

    from rankwise.core import environment  # noqa: PLC0415
    from rankwise.measure.speed.meters import device_name  # noqa: PLC0415

    if check.device == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no GPU, or its CUDA does not start")
        torch.ones(1, device="cuda")  # starts CUDA, or says why not
    found = environment.environment(ROOT / "envs/gpu.lock")
    facts = {
        "device": check.device,
        "name": device_name(check.device),
        "rehearsal": check.rehearse,
        **{
            key: found[key] for key in ("driver", "python", "platform", "processor") if key in found
        },
        "cores": len(os.sched_getaffinity(0)),
        "versions": _versions(),
        "commit": _commit(),
    }
    check.row(**facts, **(_gpu() if check.device == "cuda" else {}))


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _gpu() -> dict[str, object]:
    import torch  # noqa: PLC0415

    properties = torch.cuda.get_device_properties(0)
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _commit() -> str:
    """The commit that is checked out, with a + where files differ from it; empty without git."""
    described = "git", "describe", "--always", "--dirty=+", "--exclude=*"
    try:
        done = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def slug(facts: dict) -> str:
    """The name of a report: `nvidia_h200`, or `rehearsal`."""
    if facts["rehearsal"]:
        return "rehearsal"
    words = "".join(letter if letter.isalnum() else " " for letter in facts["name"].lower())
    return "_".join(words.split())


def described(facts: dict) -> str:
    """The machine in a few lines of Markdown."""
    size = f", {facts['memory_bytes'] / 2**30:.1f} GiB" if "memory_bytes" in facts else ""
    driver = f", driver {facts['driver']}" if "driver" in facts else ""
    cuda = f", CUDA {facts['cuda']}" if facts.get("cuda") else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['name']}{size}{driver}{cuda}; {facts['cores']} cores ({facts['processor']}), "
        f"Python {facts['python']}, {platform.system()}.\n\n{versions}."
    )
