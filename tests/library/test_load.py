"""`rankwise.load`: a study's results as data frames, one result a cell."""

from pathlib import Path

import pytest

import rankwise
from helpers.stored import change, finish
from rankwise.core import result
from rankwise.core.yaml_files import read_yaml
from rankwise.study import jobs
from rankwise.study.plan import Plan
from rankwise.study.settle import settle

FILE = "config/mine.yaml"
STUDY = """
name: mine
question: What does LoRA keep?
device: cpu
schedule: {updates: 4}
train:
  - {models: [tiny], datasets: [generated_reviews], methods: [full, lora], ranks: [2], seeds: [0, 1]}
profile:
  - {models: [tiny], datasets: [generated_reviews], methods: [lora], ranks: [2], measurements: [ledger]}
"""
# Which of four examples each run has right.
RIGHT = {("full", 0): [1, 1, 1, 0], ("full", 1): [1, 1, 1, 1],
         ("lora", 0): [1, 0, 1, 0], ("lora", 1): [1, 1, 1, 0]}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / FILE).write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(project: Path) -> Plan:
    """All results of the study as its file is now."""
    plan = Plan(read_yaml(project / FILE, FILE), project, FILE)
    settle(plan)  # writes down whose folder it is
    for job in jobs.cell_jobs(plan, "train"):
        right = RIGHT[job.cell.method, job.cell.seed]
        finish(
            project, job, metrics={"accuracy_fraction": sum(right) / 4, "updates": 4}, split="test",
            history=[{"update": 0, "selection_loss_nats": 0.7}, {"update": 4, "selection_loss_nats": 0.5}],
            examples={"loss_nats": [0.5] * 4, "correct_fraction": right, "predictions": [1] * 4},
        )  # fmt: skip
    for job in jobs.cell_jobs(plan, "ledger"):
        finish(project, job, metrics={"peak_bytes": 1000, "weights_bytes": 600})
    return plan


def test_frames_have_what_the_results_say(project: Path) -> None:
    finished(project)
    study = rankwise.load("results/mine")
    assert repr(study) == "<results of results/mine: 4 training runs, 1 ledger>"
    keys = ["method", "rank", "seed", "accuracy_fraction"]
    assert study.runs[keys].to_numpy().tolist() == [
        ["full", 0, 0, 0.75], ["full", 0, 1, 1.0], ["lora", 2, 0, 0.5], ["lora", 2, 1, 0.75],
    ]  # fmt: skip
    assert study.history.groupby("method")["selection_loss_nats"].min().to_dict() == {
        "full": 0.5,
        "lora": 0.5,
    }
    assert study.ledgers[["method", "peak_bytes"]].to_numpy().tolist() == [["lora", 1000]]
    curves = study.curves.set_index("method")
    assert curves["estimate"].to_dict() == {"full": 0.875, "lora": 0.625}
    assert curves["seeds"].tolist() == [2, 2]


ASKED = """
name: asked
question: What does LoRA keep of a language model's answers?
device: cpu
schedule: {updates: 4}
train:
  - {models: [tiny_decoder], datasets: [generated_prompts], methods: [lora], ranks: [2], seeds: [0, 1], keep: merged}
  - {models: [tiny_decoder], datasets: [generated_prompts], methods: [frozen], seeds: [0, 1]}
evaluate: [{tasks: [small_arithmetic]}]
"""
SOLVED = {("frozen", 0): [0, 0, 0, 1], ("frozen", 1): [0, 0, 0, 1],
          ("lora", 0): [1, 0, 1, 1], ("lora", 1): [1, 1, 1, 1]}  # fmt: skip


@pytest.fixture
def asked(project: Path) -> Path:
    """A study of which all evaluations have ended."""
    (project / FILE).write_text(ASKED)
    plan = Plan(read_yaml(project / FILE, FILE), project, FILE)
    settle(plan)
    for job in jobs.cell_jobs(plan, "evaluate"):
        right = [float(score) for score in SOLVED[job.cell.method, job.cell.seed]]
        row = {
            "evaluation": "small_arithmetic",
            "metric": "exact_match_fraction",
            "score_fraction": sum(right) / 4,
            "samples": 4,
        }
        examples = {"document": list("abcd"), "exact_match_fraction": right}
        finish(project, job, rows=[row], examples=examples, metrics={"truncated_rows": 0})
    return project


@pytest.mark.parametrize("has_study", [True, False])
def test_evaluations_are_frames_with_and_without_the_study(asked: Path, has_study: bool) -> None:
    if not has_study:
        (asked / FILE).unlink()
    study = rankwise.load("results/asked")
    assert repr(study) == "<results of results/asked: 0 training runs, 4 evaluations>"
    keys = ["method", "seed", "evaluation", "metric", "score_fraction", "samples"]
    rows = study.evaluations.sort_values(["method", "seed"])[keys].to_numpy().tolist()
    task = ["small_arithmetic", "exact_match_fraction"]
    assert rows == [
        ["frozen", 0, *task, 0.25, 4], ["frozen", 1, *task, 0.25, 4],
        ["lora", 0, *task, 0.75, 4], ["lora", 1, *task, 1.0, 4],
    ]  # fmt: skip
    curves = study.evaluation_curves.set_index("method")
    assert curves["estimate"].to_dict() == {"frozen": 0.25, "lora": 0.875}
    assert set(curves["evaluation"]) == {"small_arithmetic"}
    assert curves["seeds"].tolist() == [2, 2]


def test_a_study_without_evaluations_has_none(project: Path) -> None:
    finished(project)
    study = rankwise.load("results/mine")
    assert len(study.evaluations) == len(study.evaluation_curves) == 0


def edit_rate(project: Path, rate: str) -> None:
    override = f"override: {{lora: {{learning_rate: {rate}}}}}\n"
    (project / FILE).write_text(STUDY + override)


def test_of_two_results_of_a_cell_the_present_studys_is_taken(project: Path) -> None:
    finished(project)
    edit_rate(project, "1.0e-3")
    finished(project)
    runs = rankwise.load("results/mine").runs
    assert len(runs) == 4
    assert set(runs.loc[runs["method"] == "lora", "learning_rate"]) == {1e-3}


def test_older_results_are_taken_with_a_warning(project: Path) -> None:
    finished(project)
    edit_rate(project, "1.0e-3")
    with pytest.warns(UserWarning, match=r"2 results \(train\) .* not those that config/mine.yaml"):
        runs = rankwise.load("results/mine").runs
    assert set(runs.loc[runs["method"] == "lora", "learning_rate"]) == {2e-4}


def test_cells_that_the_study_no_longer_has_are_left_out_with_a_warning(project: Path) -> None:
    finished(project)
    (project / FILE).write_text(STUDY.replace("methods: [full, lora]", "methods: [lora]"))
    with pytest.warns(UserWarning, match=r"left out: 2 cells .* tiny/generated_reviews/full/r0"):
        assert set(rankwise.load("results/mine").runs["method"]) == {"lora"}


def test_without_the_study_two_results_of_a_cell_are_refused(project: Path) -> None:
    finished(project)
    edit_rate(project, "1.0e-3")
    finished(project)
    (project / FILE).unlink()
    with pytest.raises(ValueError, match=r"got 2 results of tiny/generated_reviews/lora/r2/seed0"):
        _ = rankwise.load("results/mine").runs


def test_a_study_that_is_only_planned_has_no_results(project: Path) -> None:
    settle(Plan(read_yaml(project / FILE, FILE), project, FILE))
    with pytest.raises(
        ValueError, match="got 'results/mine', allowed: a folder of a study, such as results/demo"
    ):
        rankwise.load("results/mine")


def test_an_outdated_file_is_refused(project: Path) -> None:
    plan = finished(project)
    job = next(iter(jobs.cell_jobs(plan, "train")))
    file = (project / job.path).resolve()
    file.chmod(0o644)
    changed = result.read(file)["request"]
    changed["schedule"]["updates"] = 5
    change(file, request=changed)
    with pytest.raises(ValueError, match=r"train\.json"):
        _ = rankwise.load("results/mine").runs


@pytest.mark.parametrize(("wrong", "expected"), [
    (lambda: rankwise.load("results/mien"), "rankwise.load: got 'results/mien', allowed: results/mine (nearest: 'results/mine')"),
    (lambda: rankwise.load("results/mine").table("sumary"), "results/mine/tables: got 'sumary', allowed: nothing"),
    (lambda: rankwise.load("results/mine").profile("ledgers"), "results/mine.profile: got 'ledgers', allowed: memory, flops, forward, ledger, fits, throughput (nearest: 'ledger')"),
    (lambda: rankwise.load("results/mine").run, "results/mine: got 'run', allowed: runs, history, examples, curves, evaluations, evaluation_curves, ledgers, profile, table (nearest: 'runs')"),
    (lambda: rankwise.predcit, "rankwise: got 'predcit', allowed: load, load_trained, predict, optim (nearest: 'predict')"),
    (lambda: rankwise.optim.AdmW, "(nearest: 'AdamW')"),
])  # fmt: skip
def test_a_misspelt_name_says_which_there_are(wrong: object, expected: str, project: Path) -> None:
    finished(project)
    with pytest.raises((ValueError, AttributeError)) as caught:
        wrong()
    assert expected in str(caught.value)
