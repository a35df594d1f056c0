"""The clone that faults strike: a small study, run by the real Snakemake.

A tiny encoder with random weights and a small dataset lie in the clone as a user's own files. The
study prepares both, trains by two methods, measures their memory, and makes two tables and the
figure that reads them. Trainings write a checkpoint many times a second, so that a strike can hit
one being written, read or deleted.
"""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from helpers import file_inputs
from helpers.repository import CLEAN, copy_repository, edit

STUDY_FILE = "config/struck.yaml"
RESULTS = Path("results/struck")
STORE = Path("results/store")
FIGURE = RESULTS / "figures/accuracy_memory.png"
TABLES = (RESULTS / "tables/runs.csv", RESULTS / "tables/memory.csv")  # the figure reads them
INPUTS = "inputs"  # in the clone: the user's files
SAID = "said.txt"  # beside the clone: what Snakemake prints
RETRIES = 20  # of a job that fails
SAVE_EVERY_S = 0.1  # between two checkpoints
# Every process of a clone inherits this variable, whose value is the clone's folder.
MARK = "FAULT_SUITE_CLONE"

CELLS = {"models": ["mine"], "datasets": ["mine"], "ranks": [2]}
STUDY = {
    "name": "struck",
    "question": "Is anything lost, or false, after a strike?",
    "device": "cpu",
    "environment": "cpu",
    "cpu_threads": 1,
    "schedule": {
        "updates": 60,
        "batch_size": 8,
        "eval_batch_size": 16,
        "evaluate_every_updates": 20,
    },
    "train": [
        {**CELLS, "methods": ["full"], "seeds": [0]},
        {**CELLS, "methods": ["lora"], "seeds": [0], "keep": "adapter"},
    ],
    "profile": [{**CELLS, "methods": ["full", "lora"], "measurements": ["memory"]}],
}
# Keys whose values two correct runs need not share: times, the machine, and the digest of all.
TIMES = ("_s", "_per_second", "_joules", "_watts")
UNLIKE = ("environment", "cost", "reason", "content_sha256")
KEPT = ("adapter", "model", "tokenizer")  # folders whose JSON files are other libraries'
RESULT_FILES = ("train.json", "memory.json", "model.json", "dataset.json")


def make_clone(folder: Path) -> Path:
    """A clone with the study, smaller inputs, and frequent checkpoints.

    Args:
        folder: A new folder.
    """
    root = copy_repository(folder)
    (root / STUDY_FILE).write_text(yaml.safe_dump(STUDY))
    file_inputs.write_dataset(root / INPUTS / "dataset")
    models = yaml.safe_load((root / "config/models.yaml").read_text())
    model = file_inputs.write_model(root / INPUTS / "model", models["tiny"])
    model["weights"]["files"] = f"{INPUTS}/model"
    dataset = {**file_inputs.DATASET, "files": {"folder": f"{INPUTS}/dataset", "format": "tsv"}}
    for file, entry in {"models": model, "datasets": dataset}.items():
        with (root / f"config/{file}.yaml").open("a") as stream:
            stream.write("\n" + yaml.safe_dump({"mine": entry}))
    checkpoint = root / "src/rankwise/training/checkpoint.py"
    edit(checkpoint, "SAVE_EVERY_S = 600", f"SAVE_EVERY_S = {SAVE_EVERY_S}")
    return root


def environment(root: Path) -> dict[str, str]:
    """The environment variables of a command in the clone."""
    return {**CLEAN, MARK: str(root), "OMP_NUM_THREADS": "1"}


def command(*options: str, target: Path = FIGURE) -> list[str]:
    """The command line that makes the study's files."""
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    return [snakemake, str(target), "--configfile", STUDY_FILE, "--cores", "2", *options]


def start(root: Path) -> subprocess.Popen:
    """Start the study as a user does: the process leads a group of its own, as in a terminal.

    A job that fails is started again, so that a strike on a job leaves Snakemake at work.
    """
    with (root.parent / SAID).open("w") as stream:
        return subprocess.Popen(
            command("--retries", str(RETRIES)),
            cwd=root,
            env=environment(root),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def said(root: Path) -> str:
    """The end of what the study's last Snakemake has printed."""
    return (root.parent / SAID).read_text()[-5000:]


def run(root: Path, *options: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the study to its end; never raises."""
    return subprocess.run(
        command(*options),
        cwd=root,
        env={**environment(root), **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def reset(root: Path) -> None:
    """Remove every file that a run has made."""
    for name in ("results", "logs", ".snakemake"):
        shutil.rmtree(root / name, ignore_errors=True)


# What a run has made ------------------------------------------------------------------------------


def fingerprints(root: Path) -> dict[str, str]:
    """A digest of every file in the store, of the tables and of the figures, without times.

    Returns:
        Path relative to the clone -> digest of what every correct run must share.
    """
    found = {}
    for folder in (STORE, RESULTS / "tables", RESULTS / "figures"):
        for file in sorted((root / folder).rglob("*")):
            if file.is_file():
                found[str(file.relative_to(root))] = _fingerprint(file)
    return found


def _fingerprint(file: Path) -> str:
    """The digest of one file; of a table's Markdown and LaTeX, which hold times, the lines count."""
    content = file.read_bytes()
    if file.suffix == ".json" and file.parent.name not in KEPT:
        with contextlib.suppress(ValueError):  # a damaged file is compared as it is
            content = json.dumps(without_times(json.loads(content)), sort_keys=True).encode()
    elif file.suffix in (".csv", ".parquet"):
        frame = pd.read_csv(file, dtype=str) if file.suffix == ".csv" else pd.read_parquet(file)
        shared = [name for name in frame.columns if not name.endswith(TIMES)]
        content = frame[shared].to_csv().encode()
    elif file.suffix in (".md", ".tex"):
        content = str(len(content.splitlines())).encode()
    return hashlib.sha256(content).hexdigest()


def without_times(value: object) -> object:
    """A JSON value without the keys in which two correct runs may differ."""
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key not in UNLIKE and not key.endswith(TIMES)
        }
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def results(root: Path) -> dict[str, tuple[int, int]]:
    """The results that are in the store.

    Returns:
        Path relative to the clone -> number and time of last change of the file on its disk. They
        change if the file is written again, also with the same content.
    """
    found = {}
    for file in (root / STORE).rglob("*.json"):
        is_hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if not is_hidden and file.name in RESULT_FILES:
            facts = file.stat()
            found[str(file.relative_to(root))] = (facts.st_ino, facts.st_ctime_ns)
    return found
