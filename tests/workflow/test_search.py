"""Searches by the real workflow: exactly the reruns that an edit asks for."""

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
FILE, TARGETS = (
    "config/searched.yaml",
    ("results/figures/sensitivity.png", "results/tables/runs.csv"),
)
TABLES = {"table search", "table runs", "figure sensitivity"}
TRIALS = {name: {f"trial {name} lr0.001", f"trial {name} lr0.01"} for name in ("full", "lora")}
AFTER = {name: {f"selected {name}", f"train {name}"} for name in ("full", "lora")}
PROMISES = {
    "one method": ("src/rankwise/methods/lora.py", "lora_alpha=self.alpha", "lora_alpha=1 * self.alpha", TRIALS["lora"] | AFTER["lora"] | TABLES),
    "a value added before the others": (FILE, "[1.0e-3, 1.0e-2]", "[3.0e-4, 1.0e-3, 1.0e-2]", {"trial full lr0.0003", "trial lora lr0.0003", *AFTER["full"], *AFTER["lora"], *TABLES}),
    "the order of the values": (FILE, "[1.0e-3, 1.0e-2]", "[1.0e-2, 1.0e-3]", {"table search", "table runs", "figure sensitivity"}),
    "a method's own rate, which no trial uses": ("config/methods.yaml", "dropout: 0.1}\n  learning_rate: 2.0e-4", "dropout: 0.1}\n  learning_rate: 3.0e-4", set()),
    "the schedule of the trials": (FILE, "{updates: 1}", "{updates: 2}", {*TRIALS["full"], *TRIALS["lora"], *AFTER["full"], *AFTER["lora"], *TABLES}),
    "a new seed of the runs": (FILE, "ranks: [2]\n    seeds: [0]", "ranks: [2]\n    seeds: [0, 1]", {"train full seed1", "train lora seed1", "table search", "table runs", "figure sensitivity"}),
    "the choice": ("src/rankwise/study/search_choice.py", "= min(candidates)", "= sorted(candidates)[0]", {*AFTER["full"], *AFTER["lora"], *TABLES}),
    "the lock of the report": ("envs/report.lock", "matplotlib==", "matplotlib==0", TABLES),
    "a comment": ("src/rankwise/study/search_choice.py", "import math", "# chosen here\nimport math", set()),
}  # fmt: skip


def name_of(path: str) -> str | None:
    """`results/search/tiny/generated_reviews/lora/r2/lr0.01/seed0/trial.json` -> `trial lora lr0.01`."""
    parts = Path(path).parts
    if parts[1] in ("runs", "search"):
        return " ".join(
            [Path(path).stem, parts[4], *(part for part in parts[6:-1] if part != "seed0")]
        )
    kinds = {"tables": "table", "figures": "figure"}
    if parts[1] in kinds:
        return f"{kinds[parts[1]]} {Path(path).stem}" if path.endswith((".csv", ".png")) else None
    return " ".join(parts[2:])


def pending(root: Path) -> set[str]:
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--summary")
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    plan = head.index("plan")
    return {name for row in rows if row[plan] != "no update" and (name := name_of(row[0]))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which a study with a search has been run; the tiny model is pre-trained for two updates."""
    root = copy_repository(tmp_path_factory.mktemp("searched") / "clone")
    (root / FILE).write_text(YAML)
    edit(root / "config/models.yaml", "schedule: {updates: 900", "schedule: {updates: 2")
    edit(root / "config/datasets.yaml", "rows: {train: 12000", "rows: {train: 1200")
    done = run_snakemake(root, *TARGETS, "--configfile", FILE, "--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    assert pending(root) == set()
    return root


@pytest.mark.slow
def test_a_search_runs_and_its_runs_follow_it(finished: Path) -> None:
    search = pd.read_csv(finished / "results/tables/search.csv")
    runs = pd.read_csv(finished / "results/tables/runs.csv").set_index("method")
    assert len(search) == 4
    assert set(search["split"]) == {"selection"}
    for method, tried in search.groupby("method"):
        best = tried.loc[tried["selection_loss_nats"].idxmin()]
        assert best["selected"] and tried["selected"].sum() == 1
        assert runs.loc[method, "learning_rate"] == best["learning_rate"]
    assert runs.loc["head_only", "learning_rate"] == 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_an_edit_reruns_exactly(promise: str, finished: Path) -> None:
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
    stored = next(path for path in finished.glob(f"results/*/**/lora/**/{kind}.json"))
    again = tmp_path / "again.json"
    command = [
        sys.executable,
        f"workflow_scripts/{kind}.py",
        "--request",
        f"@{stored}",
        "--output",
        str(again),
    ]
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
def test_what_would_run_is_shown(finished: Path) -> None:
    done = run_snakemake(
        finished,
        "results/search/tiny/generated_reviews/lora/r2/selected.json",
        "--configfile",
        FILE,
        "-n",
        "--forceall",
    )
    assert done.returncode == 0, done.stderr
    assert "rule choose:" in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("rule trial:") == 2
    wrong = run_snakemake(
        finished,
        "results/search/tiny/generated_reviews/lora/r2/lr0.1/seed0/trial.json",
        "--configfile",
        FILE,
        "-n",
    )
    assert (
        "nearest: results/search/tiny/generated_reviews/lora/r2/lr0.01/seed0/trial.json"
        in wrong.stderr
    )
