"""The repository under test: copy it, edit the copy, run the real snakemake in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rankwise.core import source_facts

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    "results",
    ".snakemake",
    ".git",
    ".venv",
    "logs",
    "site",
    "*.pyc.*",  # being written by another test
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    "*.sif",
)
# What a user's shell may hold must not decide a test.
CLEAN = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("RANKWISE_", "HF_", "PYTHONPATH", "SNAKEMAKE"))
}


def copy_repository(target: Path) -> Path:
    """A copy as a clone is, with what Python and Rankwise have read of the sources already."""
    shutil.copytree(ROOT, target, ignore=LEFT_OUT)
    if (ROOT / source_facts.KEPT).is_file():
        (target / source_facts.KEPT).parent.mkdir(parents=True)
        shutil.copy(ROOT / source_facts.KEPT, target / source_facts.KEPT)
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
