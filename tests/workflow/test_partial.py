"""A sweep of twelve cells: two crash, one diverges, three are not run. All of it is named.

The real workflow runs it in a copy of the repository: first nine cells, of which two crash; then
three cells are added and `rankwise report --partial` is called; then the crashes are mended.
"""

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from helpers.repository import CLEAN, ROOT, copy_repository, run_snakemake

sys.path.insert(0, str(ROOT / "benchmarks"))
import partial as sweep

pytestmark = pytest.mark.slow

PLACE = "tiny/generated_reviews"
RESULTS = "results/sweep"
FAILED = f"2 failed ({PLACE} no_such_layer seed 0; typo seed 0)"
REFUSAL = "options.layer: got 'top', allowed: those of DistilBertForSequenceClassification"
MISTAKE = "AttributeError: 'DistilBertForSequenceClassification' object has no attribute"
NINE = f"Partial: of 9 training runs, {FAILED}, 1 diverged."
TWELVE = f"Partial: of 12 training runs, {FAILED}, 3 not run ({PLACE} rsvd r2 seeds 0, 1, 2)"


def said(file: Path) -> str:
    """The text of a file with single spaces; of a figure, its lines of text, which are comments."""
    text = file.read_text()
    if file.suffix == ".svg":
        text = " ".join(re.findall(r"<!-- (.*?) -->", text))
    return " ".join(html.unescape(text).split())


def rankwise(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The command of the copy, on the sweep."""
    return subprocess.run(
        [sys.executable, "-c", sweep.RUN, *arguments, "--study", sweep.STUDY],
        cwd=project,
        env={**CLEAN, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def trainings(project: Path) -> int:
    return len(list((project / "results/store/runs").rglob("train.json")))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy_repository(tmp_path_factory.mktemp("partial") / "clone")
    sweep.prepare(project)
    return project


class FirstRun(NamedTuple):
    """What the first run printed, and what its files said."""

    done: subprocess.CompletedProcess
    files: dict[str, str]


@pytest.fixture(scope="module")
def first_run(project: Path) -> FirstRun:
    """Nine cells are run; two crash. The files are read before the next run changes them."""
    done = run_snakemake(project, "--configfile", sweep.STUDY)
    files = ("tables/runs.md", "report.html")
    return FirstRun(done, {name: said(project / RESULTS / name) for name in files})


@pytest.fixture(scope="module")
def second(project: Path, first_run: FirstRun) -> subprocess.CompletedProcess:
    """Three cells and a profile are added, and a report is asked for."""
    sweep.add_grids(project)
    return rankwise(project, "report", "--partial")


def test_a_failed_job_is_one_line(first_run: FirstRun) -> None:
    assert first_run.done.returncode == 1
    printed = first_run.done.stdout + first_run.done.stderr
    lines = [line for line in printed.splitlines() if "failed: rule train: " in line]
    assert len(lines) == 2
    for method, reason in (("no_such_layer", REFUSAL), ("typo", MISTAKE)):
        (line,) = (line for line in lines if f" {method}, " in line)
        assert f"rule train: {PLACE}, {method}, rank 0, seed 0" in line
        assert reason in line
        assert f"(logs/sweep/train/{PLACE}/{method}/r0/seed0/" in line
    for noise in ("Traceback", "CalledProcessError", "--request", '{"', "Logfile"):
        assert noise not in printed
    assert max(map(len, printed.splitlines())) < 450


def test_after_a_failure_the_report_is_made_by_itself(
    first_run: FirstRun,
) -> None:
    assert NINE in first_run.done.stderr
    assert f"{RESULTS}/report.html: made from 9 of 11 results" in first_run.done.stderr
    for text in first_run.files.values():
        assert NINE in text


def test_a_partial_report_trains_nothing_and_names_all_that_is_absent(
    project: Path, second: subprocess.CompletedProcess
) -> None:
    assert second.returncode == 0, second.stderr
    assert trainings(project) == 7
    assert f"{TWELVE}, 1 diverged." in second.stdout
    assert "Partial: of 1 flops profiles, 1 not run" in second.stdout
    left_out = f"{RESULTS}/tables/flops.csv, {RESULTS}/figures/flops.png"
    assert f"Left out, because no result is there: {left_out}" in second.stdout
    assert f"{RESULTS}/report.html: made from 9 of 15 results" in second.stdout


def test_tables_figures_page_and_numbers_name_what_is_absent(
    project: Path, second: subprocess.CompletedProcess
) -> None:
    folder = project / RESULTS
    for table in ("runs", "estimates", "comparisons", "summary", "fronts", "views"):
        assert f"{TWELVE}, 1 diverged." in said(folder / f"tables/{table}.md"), table
    assert "of 12 training runs, 2 failed" in said(folder / "tables/summary.tex")
    assert "Partial" not in said(folder / "tables/memory.md")  # all of it is there
    for figure in ("loss", "metric_by_rank", "accuracy_memory", "heatmap"):
        assert f"{TWELVE}." in said(folder / f"figures/{figure}.svg"), figure
    assert "Partial" not in said(folder / "figures/memory.svg")
    page = said(folder / "report.html")
    for part in (f"{TWELVE}, 1 diverged.", REFUSAL, MISTAKE, "made from 9 of 15 results"):
        assert part in page
    assert "too_hot seed 0: diverged" in page
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["absent/train/failed"]["value"] == 2
    assert numbers["absent/train/not_run"]["value"] == 3


def test_a_second_partial_report_makes_nothing_anew(
    project: Path, second: subprocess.CompletedProcess
) -> None:
    times = {file: file.stat().st_mtime_ns for file in (project / RESULTS / "tables").iterdir()}
    done = rankwise(project, "report", "--partial", "--json")
    assert json.loads(done.stdout)["made"] == []
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_a_report_without_partial_is_refused(
    project: Path, second: subprocess.CompletedProcess
) -> None:
    done = rankwise(project, "report")
    assert done.returncode == 1
    assert "config/sweep.yaml: 6 of 15 results are absent, allowed: all" in done.stderr


def test_when_all_is_there_the_whole_documents_are_made(
    project: Path, second: subprocess.CompletedProcess
) -> None:
    for name in ("no_such_layer", "typo"):
        file = project / f"methods/{name}.py"
        head = file.read_text().partition('        """')[0]
        file.write_text(f"{head}        return model\n")
    study = yaml.safe_load((project / sweep.STUDY).read_text())
    trained = [method for grid in study["train"] for method in grid["methods"]]
    study["profile"][0]["methods"] = trained  # a figure needs the memory of all that is trained
    (project / sweep.STUDY).write_text(yaml.safe_dump(study))
    done = run_snakemake(project, "--configfile", sweep.STUDY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert trainings(project) == 12
    folder = project / RESULTS
    for file in (
        *folder.glob("tables/*.md"),
        *folder.glob("figures/*.svg"),
        folder / "report.html",
    ):
        assert "Partial: of" not in said(file), file
    assert (folder / "figures/flops.png").is_file()
    again = run_snakemake(project, "-n", "--configfile", sweep.STUDY)
    assert "Nothing to be done" in again.stdout + again.stderr
