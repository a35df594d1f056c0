"""Shared fixtures: a clone to edit, the real snakemake, small plans."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one core a test process

import pytest
import yaml

from rankwise.study.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    "results",
    ".snakemake",
    ".git",
    ".venv",
    "logs",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    "*.sif",
)
# What a user's shell may hold must not decide a test.
CLEAN = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("RANKWISE_", "HF_", "PYTHONPATH", "SNAKEMAKE"))
}


def copy_repository(target: Path) -> Path:
    shutil.copytree(ROOT, target, ignore=LEFT_OUT)
    return target


def run_snakemake(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The real thing, in `root`; never raises."""
    command = [str(Path(sys.executable).with_name("snakemake")), *arguments]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, env={**CLEAN, **environment}, check=False
    )


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "clone")


@pytest.fixture
def demo() -> dict:
    return yaml.safe_load((ROOT / "config/demo.yaml").read_text())


@pytest.fixture
def plan(demo: dict) -> Plan:
    return Plan(demo, ROOT, "config/demo.yaml")


@pytest.fixture(params=["ro", "size=64k"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A disk that is read-only, or too small; mounting needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "none", folder]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield request.param, folder
    subprocess.run(["umount", folder], check=True)
