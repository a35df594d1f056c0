"""Shared fixtures: a clone to edit, small plans, a disk that is full."""

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one core a test process

import pytest
import yaml

from helpers.repository import ROOT, copy_repository
from rankwise.study.plan import Plan


def pytest_collection_finish() -> None:
    """Hide the libraries from the garbage collector: a collection takes a third of a second else."""
    gc.collect()
    gc.freeze()


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
