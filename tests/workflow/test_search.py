"""Searches in the real workflow: an edit reruns exactly the jobs that it changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.repository import copy_repository, edit, run_snakemake

YAML = """\
name: searched
question: Which edit reruns which trial?
device: cpu
schedule: {updates: 2, batch_size: 8, eval_batch_size: 64}
train:
  - models: [tiny]
    datasets: [generated_reviews]
    methods: [full, lora]
    ranks: [2]
    seeds: [0]
    search: {learning_rates: [1.0e-3, 1.0e-2], schedule: {updates: 1}}
  - {models: [tiny], datasets: [generated_reviews], methods: [head_only], seeds: [0]}
"""
FILE = "config/searched.yaml"
TARGETS = ("results/searched/figures/sensitivity.png", "results/searched/tables/runs.csv")
CURVE = "results/searched/search/tiny/generated_reviews/lora/r2"
TABLES = {"table search", "table runs", "figure sensitivity"}
TRIALS = {name: {f"trial {name} lr0.001", f"trial {name} lr0.01"} for name in ("full", "lora")}
AFTER = {name: {f"selected {name}", f"train {name}"} for name in ("full", "lora")}
# Edit -> (file, old text, new text, the jobs that rerun).
PROMISES = {
    "one method": ("src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha", TRIALS["lora"] | AFTER["lora"] | TABLES),
    "a value added before the others": (FILE, "[1.0e-3, 1.0e-2]", "[3.0e-4, 1.0e-3, 1.0e-2]", {"trial full lr0.0003", "trial lora lr0.0003", *AFTER["full"], *AFTER["lora"], *TABLES}),
    "the order of the values": (FILE, "[1.0e-3, 1.0e-2]", "[1.0e-2, 1.0e-3]", {"table search", "figure sensitivity"}),
    "a method's own rate, which no trial uses": ("config/methods.yaml", "dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4", set()),
    "the schedule of the trials": (FILE, "{updates: 1}", "{updates: 2}", {*TRIALS["full"], *TRIALS["lora"], *AFTER["full"], *AFTER["lora"], *TABLES}),
    "a new seed of the runs": (FILE, "ranks: [2]\n    seeds: [0]", "ranks: [2]\n    seeds: [0, 1]", {"train full seed1", "train lora seed1", "table runs"}),
    "the choice": ("src/rankwise/study/search_choice.py", "= min(candidates)", "= sorted(candidates)[0]", {*AFTER["full"], *AFTER["lora"], *TABLES}),
    "the lock of the report": ("envs/report.lock", "matplotlib==", "matplotlib==0", TABLES),
    "a comment": ("src/rankwise/study/search_choice.py", "import math", "# chosen here\nimport math", set()),
}  # fmt: skip


def job_name(path: str) -> str | None:
    """The name of the job that writes a file. None for a table's or figure's second file.

    Example: `results/searched/search/tiny/generated_reviews/lora/r2/lr0.01/seed0/{digest}/trial.json`
    is `trial lora lr0.01`.
    """
    file = Path(path).relative_to("results/searched")
    parts, stem = file.parts, file.stem
    if parts[0] in ("runs", "search"):
        details = [part for part in parts[5:-2] if part != "seed0"]
        return " ".join([stem, parts[3], *details])
    kinds = {"tables": "table", "figures": "figure"}
    if parts[0] in kinds:
        return f"{kinds[parts[0]]} {stem}" if path.endswith((".csv", ".png")) else None
    return " ".join(parts[1:])


def pending(root: Path) -> set[str]:
    """The names of the jobs that Snakemake would run now."""
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--summary")
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    plan_column = head.index("plan")
    names = {job_name(row[0]) for row in rows if row[plan_column] != "no update"}
    return names - {None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a study with a search has been run.

    The tiny model is pre-trained for two updates only.
    """
    root = copy_repository(tmp_path_factory.mktemp("searched") / "clone")
    (root / FILE).write_text(YAML)
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    assert pending(root) == set()
    return root


@pytest.mark.slow
def test_runs_use_the_best_learning_rate_of_their_search(finished: Path) -> None:
    search = pd.read_csv(finished / "results/searched/tables/search.csv")
    runs = pd.read_csv(finished / "results/searched/tables/runs.csv").set_index("method")
    assert len(search) == 4
    assert set(search["split"]) == {"selection"}
    for method, trials in search.groupby("method"):
        best = trials.loc[trials["selection_loss_nats"].idxmin()]
        assert best["selected"] and trials["selected"].sum() == 1
        assert runs.loc[method, "learning_rate"] == best["learning_rate"]
    assert runs.loc["head_only", "learning_rate"] == 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_an_edit_reruns_exactly_the_promised_jobs(promise: str, finished: Path) -> None:
    file, old, new, expected = PROMISES[promise]
    path = finished / file
    content, stat = path.read_bytes(), path.stat()
    try:
        edit(path, old, new)
        assert pending(finished) == expected
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "trial"])
def test_a_result_is_rebuilt_alone_to_the_byte(kind: str, finished: Path, tmp_path: Path) -> None:
    stored = next(path for path in finished.glob(f"results/searched/*/**/lora/**/{kind}.json"))
    again = tmp_path / "again.json"
    command = [sys.executable, f"workflow_scripts/{kind}.py"]
    command += ["--request", f"@{stored}", "--output", str(again)]
    environment = {**os.environ, "PYTHONPATH": str(finished / "src")}
    done = subprocess.run(
        command, cwd=finished, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    old, new = (json.loads(path.read_text()) for path in (stored, again))
    for name in ("metrics", "history", "request", "selected", "examples"):
        assert old.get(name) == new.get(name)
    assert ("selected" in new) == (kind == "train")


@pytest.mark.slow
def test_a_dry_run_shows_a_search_and_names_the_nearest_trial(finished: Path) -> None:
    target = f"{CURVE}/selected.json"
    done = run_snakemake(finished, target, "--configfile", FILE, "-n", "--forceall")
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert "rule choose:" in printed
    assert printed.count("rule trial:") == 2
    unknown_trial = f"{CURVE}/lr0.1/seed0/trial.json"
    wrong = run_snakemake(finished, unknown_trial, "--configfile", FILE, "-n")
    assert f"nearest: {CURVE}/lr0.01/seed0/trial.json" in wrong.stderr
