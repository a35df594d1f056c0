"""The example of a metric in docs, in a project of its own: value, interval, tables, requests, mistakes."""

import contextlib
import functools
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers.repository import CLEAN, ROOT
from helpers.stored import finish
from rankwise.analysis import metrics, tables
from rankwise.analysis.evidence import comparisons, estimates, evidence
from rankwise.analysis.gather import gather
from rankwise.analysis.scores import groups
from rankwise.analysis.summary import summarise
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.core.metrics import METRICS
from rankwise.report import metric_by_rank
from rankwise.report.html.answer import answer
from rankwise.report.html.sheets import sheet
from rankwise.study import jobs
from rankwise.study.plan import Plan
from rankwise.training import evaluation

NAME = "weighted_accuracy_fraction"
MODULE = f"rankwise.analysis.own_metrics.{NAME}"
FILE = f"metrics/{NAME}.py"
SEEDS, EXAMPLES = 3, 150
RIGHT = {"full": 0.95, "lora": 0.7}  # share of the examples that a run predicts rightly
STUDY = {
    "name": "own", "question": "?", "device": "cpu", "schedule": {"updates": 4, "batch_size": 8},
    "train": [{"models": ["tiny"], "datasets": ["my_reviews"], "methods": list(RIGHT), "seeds": [0, 1, 2]}],
    "profile": [{"models": ["tiny"], "datasets": ["my_reviews"], "methods": ["full"], "measurements": ["memory"]}],
}  # fmt: skip


@contextlib.contextmanager
def project_in(folder: Path, metric: str = NAME) -> Iterator[Path]:
    """A copy of the examples in docs whose dataset names the metric; what runs inside runs in it."""
    root = folder / "mine"
    folder.mkdir(exist_ok=True)
    shutil.copytree(
        ROOT / "docs/examples", root, ignore=shutil.ignore_patterns("__pycache__", "package")
    )
    entries = root / "config/datasets.yaml"
    entries.write_text(
        entries.read_text().replace("my_reviews:\n", f"my_reviews:\n  metric: {metric}\n")
    )
    package = importlib.import_module("rankwise.analysis.own_metrics")
    path = list(package.__path__)
    with contextlib.chdir(root):
        yield root
    package.__path__[:] = path
    for name in list(sys.modules):
        if name.startswith(f"{package.__name__}."):
            del sys.modules[name]
    provenance.code_digests.cache_clear()  # by a module's name, whichever project it is in


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    with project_in(tmp_path) as root:
        yield root


def drawn(method: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of two classes, and the predictions of a run."""
    label = (np.random.default_rng(1).random(EXAMPLES) < 0.3).astype(float)
    chance = np.random.default_rng((seed, len(method)))
    return label, np.where(chance.random(EXAMPLES) < RIGHT[method], label, 1 - label)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """Tables of planted runs; those of runs are written by the job, in a process of its own."""
    with project_in(tmp_path_factory.mktemp("own")) as root:
        plan = Plan(STUDY, root)
        for job in jobs.cell_jobs(plan, "train"):
            label, predicted = drawn(job.cell.method, job.cell.seed)
            scores = {
                "label": label,
                "predicted": predicted,
                "correct_fraction": label == predicted,
            }
            every = {"loss_nats": [1.0] * EXAMPLES, "predictions": [1] * EXAMPLES}
            found = {name: list(map(float, values)) for name, values in scores.items()}
            accuracy = float(np.mean(label == predicted))
            measured = {"accuracy_fraction": accuracy, "updates": 4, "trainable_parameters": 10}
            finish(root, job, metrics=measured, examples={**found, **every}, split="test")
        for name, write in (
            ("tables/runs.csv", run_job),
            ("tables/examples.parquet", gather),
            ("tables/estimates.csv", evidence),
        ):
            write(jobs.document(plan, name).request, root / plan.output(name))
        folder = root / plan.output("tables")
        names = ("runs", "estimates", "comparisons")
        frames = {name: tables.read(folder / f"{name}.csv") for name in names}
        request = {**jobs.document(plan, "tables/summary.csv").request, "tables": list(names)}
        summarise(request, folder / "summary.csv")
        labels = {"full": "Full AdamW", "lora": "LoRA"}
        yield {**frames, "folder": folder, "labels": labels}


def run_job(request: dict, output: Path) -> None:
    """Run the script of the table of runs, which verifies every source that it loads."""
    Path("request.json").write_text(json.dumps(request))
    script = ROOT / "workflow_scripts/collect.py"
    command = [sys.executable, script, "--request", "@request.json", "--output", output]
    done = subprocess.run(command, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


# Values -------------------------------------------------------------------------------------------


def by_hand(label: np.ndarray, predicted: np.ndarray) -> float:
    cost = np.where(label == 1, 5.0, 1.0)
    return sum(cost[label == predicted]) / sum(cost)


def pseudo_values(method: str, seed: int) -> list[float]:
    label, predicted = drawn(method, seed)
    without = [by_hand(np.delete(label, i), np.delete(predicted, i)) for i in range(EXAMPLES)]
    return [
        by_hand(label, predicted) + (EXAMPLES - 1) * (np.mean(without) - value)
        for value in without
    ]  # fmt: skip


@functools.cache
def interval_by_hand(method: str) -> tuple[float, float, float]:
    """The interval of seeds crossed with examples (variance.py), from the mean squares of its table."""
    table = np.array([pseudo_values(method, seed) for seed in range(SEEDS)])
    value = table.mean()
    of_seeds, of_examples = table.mean(1), table.mean(0)
    rest = table - of_seeds[:, None] - of_examples + value
    ms_seed = EXAMPLES * ((of_seeds - value) ** 2).sum() / (SEEDS - 1)
    ms_example = SEEDS * ((of_examples - value) ** 2).sum() / (EXAMPLES - 1)
    ms_rest = (rest**2).sum() / ((SEEDS - 1) * (EXAMPLES - 1))
    b = ms_seed / (SEEDS * EXAMPLES)
    a = max(ms_example - ms_rest, 0) / (SEEDS * EXAMPLES)
    share, z, t = b / (a + b), stats.norm.ppf(0.975), stats.t.ppf(0.975, SEEDS - 1)
    last = min(t**2 - z**2, 6.5 * (t - z)) * share * (1 - share) ** 2
    half = np.sqrt((z**2 + (t**2 - z**2) * share - last) * (a + b))
    return value, value - half, min(value + half, 1.0)  # HIGHEST


@pytest.mark.parametrize("method", RIGHT)
def test_value_and_interval_are_those_computed_by_hand(made: dict, method: str) -> None:
    row = made["estimates"].query("method == @method").iloc[0]
    assert row["metric"] == NAME
    assert list(row[["estimate", "low", "high"]]) == pytest.approx(interval_by_hand(method))
    runs = made["runs"].query("method == @method").set_index("seed")
    assert list(runs[NAME]) == pytest.approx(
        [by_hand(*drawn(method, seed)) for seed in range(SEEDS)]
    )


def test_pairs_are_compared_by_it_with_the_margin_of_the_file(made: dict) -> None:
    row = made["comparisons"].iloc[0]
    expected = np.mean(
        [by_hand(*drawn("full", s)) - by_hand(*drawn("lora", s)) for s in range(SEEDS)]
    )
    assert row["difference"] == pytest.approx(expected)
    assert (row["margin"], row["verdict"]) == (0.01, "a better")


def test_tables_figures_latex_and_page_show_it(made: dict) -> None:
    value, low, high = (100 * number for number in interval_by_hand("full"))
    shown = f"**{value:.2f} [{low:.2f}, {high:.2f}]**"
    markdown = (made["folder"] / "summary.md").read_text()
    assert "| weighted accuracy (%) |" in markdown
    assert shown in markdown
    latex = (made["folder"] / "summary.tex").read_text()
    assert "weighted accuracy" in latex
    assert f"{value:.2f}" in latex
    axes = metric_by_rank.draw(made, made["labels"]).axes[0]
    assert axes.get_ylabel() == "weighted accuracy on test (%)"
    frames = {name: made[name] for name in ("runs", "estimates", "comparisons")}
    (_, sentences), *_ = answer(frames, made["labels"])
    assert "a weighted accuracy of" in sentences[0]
    found = sheet("runs", made["runs"], made["labels"], "tables/runs")
    assert any("weighted accuracy" in str(column) for column in found.columns)


def test_a_metric_of_which_less_is_better_is_bounded_below(project: Path) -> None:
    declare("cost_score", "return scores['loss_nats'].mean()", better=False, bounds=(0, None))
    metric = METRICS["cost_score"]
    losses = np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 2.0]])
    found = metrics.by_example(metric, {"loss_nats": losses, "predictions": np.ones((2, 4))})
    np.testing.assert_allclose(found, losses, atol=1e-12)  # pseudo-values of a mean
    assert (metric.sign, metric.lowest, metric.shown[0]) == (-1, 0, "cost_score")
    assert metric.axis(" on test") == "own on test\n(lower is better)"


def test_a_fraction_of_which_less_is_better_is_ranked_and_said_so(project: Path) -> None:
    declare("miss_fraction", "return 1 - scores['loss_nats'].mean()", better=False, bounds=(0, 1))
    runs, examples = [], []
    for method, right in (("full", 0.9), ("lora", 0.5)):
        for seed in range(SEEDS):
            cell = {"model": "m", "dataset": "d", "method": method, "rank": 0, "seed": seed}
            ended = {"status": "ok", "request_digest": f"{method}{seed}", "split": "test"}
            runs.append({**cell, **ended, "metric": "miss_fraction", "trainable_parameters": 1})
            scores = (np.random.default_rng(seed).random(EXAMPLES) < right).astype(float)
            rows = {**cell, "example": range(EXAMPLES), "loss_nats": scores, "predictions": 1}
            examples.append(pd.DataFrame(rows))
    frames = {"runs": pd.DataFrame(runs)}
    found = groups(frames["runs"], pd.concat(examples, ignore_index=True))
    margins = {"miss_fraction": 0.01}
    frames |= {"estimates": estimates(found), "comparisons": comparisons(found, margins)}
    row = frames["comparisons"].iloc[0]
    assert row["verdict"] == "a better"
    assert row["difference"] > 0.3
    axes = metric_by_rank.draw(frames, {"full": "Full", "lora": "LoRA"}).axes[0]
    assert axes.get_ylabel() == "own on test (%)\n(lower is better)"
    (_, sentences), *_ = answer(frames, {"full": "Full", "lora": "LoRA"})
    assert " has " in sentences[1]
    assert sentences[1].rstrip(".").endswith("worse")


# Requests -----------------------------------------------------------------------------------------


def digests(root: Path) -> dict[str, str]:
    plan = Plan(STUDY, root)
    files = ("tables/runs.csv", "tables/estimates.csv", "tables/summary.csv", "report.html", "figures/metric_by_rank.png", "numbers.json", "tables/examples.parquet", "tables/memory.csv", "figures/memory.png")  # fmt: skip
    found = {name: json.dumps(jobs.document(plan, name).request) for name in files}
    return {**found, "train": plan.cell_digest("train", plan.cells("train")[0])}


def test_an_edit_makes_anew_what_shows_the_metric_and_trains_nothing(tmp_path: Path) -> None:
    edits = {
        "as it is": ("", ""),
        "comment": ("# the smallest", "# now another comment: the smallest"),
        "costs": ("1.0, 5.0", "1.0, 6.0"),
    }
    found = {}
    for name, edit in edits.items():
        with project_in(tmp_path / name) as root:
            rewrite(root, *edit)
            found[name] = digests(root)
    before, after = found["as it is"], found["costs"]
    assert found["comment"] == before
    kept = ["tables/examples.parquet", "tables/memory.csv", "figures/memory.png", "train"]
    assert [name for name in before if after[name] == before[name]] == kept


def test_a_task_that_reports_it_has_it_in_the_requests_of_its_runs(project: Path) -> None:
    task = (ROOT / "src/rankwise/models/tasks/classification.py").read_text()
    task = task.replace(
        'METRICS = ("accuracy_fraction"', f'METRICS = ("{NAME}", "accuracy_fraction"'
    )
    (project / "tasks/reviewed.py").write_text(task)
    entries = project / "config/datasets.yaml"
    entries.write_text(
        entries.read_text()
        .replace(f"  metric: {NAME}\n", "")
        .replace("task: classification", "task: reviewed")
    )
    plan = Plan(STUDY, project)
    assert MODULE in plan.request("train", plan.cells("train")[0])["code"]
    assert MODULE in jobs.document(plan, "tables/estimates.csv").request["code"]
    label, predicted = drawn("lora", 0)
    scores = {"loss_nats": [0.5] * EXAMPLES, "predictions": [1] * EXAMPLES, "label": list(label), "predicted": list(predicted)}  # fmt: skip
    found = evaluation.metrics(scores, [NAME])
    assert found == {"eval_loss_nats": 0.5, NAME: pytest.approx(by_hand(label, predicted))}


# Mistakes -----------------------------------------------------------------------------------------


def rewrite(root: Path, old: str, new: str) -> None:
    text = (root / FILE).read_text()
    assert old in text
    (root / FILE).write_text(text.replace(old, new))


def declare(name: str, body: str, better: bool = True, bounds: tuple = (None, None)) -> None:
    Path(f"metrics/{name}.py").write_text(
        f"LABEL = 'own'\nSCORES = ('loss_nats',)\nHIGHER_IS_BETTER = {better}\n"
        f"LOWEST, HIGHEST = {bounds}\nMARGIN = 0.1\ndef compute(scores):\n    {body}\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('LABEL = "weighted accuracy"', "", "LABEL: got 'nothing', allowed: a text"),
        ('("label", "predicted")', '"label"', "SCORES: got 'label', allowed: a tuple of the columns"),
        ('("label", "predicted")', '("label", "guess")', "SCORES: got 'guess', allowed: scores of classification: correct_fraction, label"),
        ("= True", "= 1", "HIGHER_IS_BETTER: got 1, allowed: True or False"),
        ("LOWEST, HIGHEST = 0, 1", "LOWEST, HIGHEST = 0, 100", "LOWEST and HIGHEST: got '0 and 100', allowed: LOWEST below HIGHEST, both from 0 to 1"),
        ("MARGIN = 0.01", "MARGIN = 0", "MARGIN: got 0, allowed: a number above 0"),
        ("def compute(", "def computed(", "compute: got 'nothing', allowed: a function: compute(scores)"),
        ("def compute(", "def compute(:", "line 18: got 'invalid syntax', allowed: Python"),
        ("import numpy as np", "import numpie as np", "line 7: got 'import of numpie', allowed: packages that are installed here"),
        ("is_right).sum()", "is_wrong).sum()", "line 22: got 'is_wrong', allowed: a name that the file defines or imports"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_sentence_before_any_job(
    project: Path, old: str, new: str, sentence: str
) -> None:
    rewrite(project, old, new)
    with pytest.raises(ConfigError) as error:
        Plan(STUDY, project)
    assert f"{FILE}: {sentence}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("accuracy_fraction", "metrics/accuracy_fraction.py: file name: got 'accuracy_fraction', allowed: a name that no metric of Rankwise has"),
        ("accuracy_low_fraction", "allowed: another one: a metric of Rankwise has the column accuracy_low_percent"),
        ("cost", "metrics/cost.py: file name: got 'cost', allowed: small letters, digits and '_', and one of the endings _fraction, _correlation, _score"),
        ("Cost_score", "metrics/Cost_score.py: file name: got 'Cost_score', allowed: small letters"),
    ],
)  # fmt: skip
def test_a_name_is_a_column_that_nothing_else_has(tmp_path: Path, name: str, sentence: str) -> None:
    with project_in(tmp_path, metric=name) as root:
        (root / FILE).rename(root / f"metrics/{name}.py")
        with pytest.raises(ConfigError) as error:
            Plan(STUDY, root)
    assert sentence in str(error.value)


def test_a_metric_without_a_file_is_refused(tmp_path: Path) -> None:
    with project_in(tmp_path, metric="gain_score") as root:
        (root / "metrics/unrelated.py").write_text("this is no Python")  # is nobody's business
        with pytest.raises(ConfigError) as error:
            Plan(STUDY, root)
    assert "my_reviews.metric: got 'gain_score', allowed: a metric of classification" in str(
        error.value
    )
    assert "your own metrics/NAME.py" in str(error.value)


def test_files_that_declare_no_metric_are_passed_over_until_they_are_named(project: Path) -> None:
    before = list(METRICS)
    assert before[-1] == NAME
    (project / "metrics/latin_score.py").write_bytes(b"LABEL = '\xe9'")
    (project / "metrics/helper.py").write_text("def plot(): ...")
    (project / "metrics/perplexity.py").write_text((project / FILE).read_text())
    assert list(METRICS) == before
    with pytest.raises(
        ConfigError, match=r"metrics/latin_score\.py: file: got .*, allowed: Python in UTF-8"
    ):
        METRICS["latin_score"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 1.5", "gain_fraction.py: compute, of 3 examples: got 1.5, allowed: one number from 0 to 1"),
        ("return float('nan')", "compute, of 3 examples: got nan, allowed: one number from 0 to 1"),
        ("return scores['loss_nats']", "allowed: one number from 0 to 1"),
        ("return None", "compute, of 3 examples: got None"),
        ("return scores['loss']", "compute, of 3 examples: KeyError: 'loss'"),
        ("scores['loss_nats'].sort(); return 0.5", "compute, of 3 examples: ValueError: sort array is read-only"),
        ("return 0.5 if len(scores['loss_nats']) > 2 else -1.0", "compute, of 2 examples: got -1.0"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_the_metric_ends_the_job(
    project: Path, body: str, sentence: str
) -> None:
    declare("gain_fraction", body, bounds=(0, 1))
    columns = {"loss_nats": np.array([[0.1, 0.2, 0.3]]), "predictions": np.ones((1, 3))}
    with pytest.raises(ValueError) as error:
        metrics.by_example(METRICS["gain_fraction"], columns)
    assert sentence in str(error.value)


def test_a_score_that_a_task_does_not_give_is_named(project: Path) -> None:
    declare("gain_score", "return 1.0")
    with pytest.raises(
        ValueError, match=r"gain_score\.py: SCORES: got 'loss_nats', allowed: label"
    ):
        metrics.value(METRICS["gain_score"], {"label": [1.0], "predicted": [1.0]})
