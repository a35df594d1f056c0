"""`rankwise doctor`, asked in a process of its own or in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import CLEAN
from rankwise.checks import doctor

DEMO, PAPER = "config/demo.yaml", "config/config.yaml"
GIB = 2**30
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "RANKWISE_ENVIRONMENT": "recorded",
}  # leave the hub and the locks out of a case
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # where this machine has one


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "rankwise.cli.main", "doctor", *arguments]
    clean = {name: value for name, value in CLEAN.items() if name != "CUDA_VISIBLE_DEVICES"}
    own = {**clean, "PYTHONPATH": str(root / "src"), **environment}
    return subprocess.run(
        command, cwd=root, env=own, capture_output=True, text=True, timeout=300, check=False
    )


def facts_of(root: Path, study: str, code: int, **environment: str) -> dict:
    """What the doctor finds with these environment variables; `code` is the command's exit status."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name not in CLEAN or name == "CUDA_VISIBLE_DEVICES":
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        found = json.loads(json.dumps(doctor.examine(root, study)))
    assert int(found["runs"] is None) == code, found["missing"]
    return found


def said(found: dict) -> str:
    return "\n".join(one["what"] for one in found["missing"])
