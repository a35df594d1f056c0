"""Tables, sentences and figures of metrics that are neither accuracies nor perplexities."""

import numpy as np
import pandas as pd
import pytest

from helpers.planted import MARGINS
from rankwise.analysis.costs import costs
from rankwise.analysis.evidence import comparisons, estimates
from rankwise.analysis.latex_columns import choose
from rankwise.analysis.metrics import value
from rankwise.analysis.scores import groups
from rankwise.analysis.summary import summary
from rankwise.analysis.summary_notes import notes
from rankwise.core.metrics import METRICS
from rankwise.report import accuracy_memory, metric_by_rank
from rankwise.report.html.answer import answer
from rankwise.report.html.groups import by_panel
from rankwise.report.html.sheets import sheet

LABELS = {"full": "Full AdamW", "lora": "LoRA"}
ALL_MARGINS = {
    **MARGINS,
    "correlation": 0.01,
    "f1_fraction": 0.01,
    "mean_squared_error_ratio": 1.02,
}
NOISE = {"full": 0.2, "lora": 0.9}
EXAMPLES, SEEDS = 120, 3


def drawn(metric: str, method: str, seed: int) -> dict[str, list[float]]:
    """Scores of a run: numbers with noise, or classes of which some are wrong; full is always better."""
    label = np.random.default_rng(0).normal(size=EXAMPLES)
    chance = np.random.default_rng((seed, len(method)))
    predicted = label + NOISE[method] * chance.normal(size=EXAMPLES)
    if metric in ("matthews_correlation", "macro_f1_fraction"):
        label, predicted = (np.digitize(values, [-0.5, 0.5]) for values in (label, predicted))
    return {"label": list(label), "predicted": list(predicted), "predictions": [1.0] * EXAMPLES}


def frames_of(metric: str) -> dict[str, pd.DataFrame]:
    runs, examples = [], []
    for method in NOISE:
        for seed in range(SEEDS):
            cell = {
                "model": "m",
                "dataset": "d",
                "method": method,
                "rank": 4 * (method == "lora"),
                "seed": seed,
            }
            scores = drawn(metric, method, seed)
            measured = {metric: value(METRICS[metric], scores), "accuracy_fraction": 0.5}
            ended = {
                "status": "ok",
                "request_digest": f"{method}{seed}",
                "split": "test",
                "metric": metric,
            }
            runs.append({**cell, **ended, **measured, "trainable_parameters": 10, "updates": 3})
            examples.append(pd.DataFrame({**cell, "example": range(EXAMPLES), **scores}))
    frames = {"runs": pd.DataFrame(runs)}
    found = groups(frames["runs"], pd.concat(examples, ignore_index=True))
    return {**frames, "estimates": estimates(found), "comparisons": comparisons(found, ALL_MARGINS)}


@pytest.fixture(
    scope="module",
    params=[
        "matthews_correlation",
        "macro_f1_fraction",
        "spearman_correlation",
        "mean_squared_error",
    ],
)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, pd.DataFrame]]:
    return request.param, frames_of(request.param)


def test_the_better_curve_is_best_in_the_summary(case):
    metric, frames = case
    table = summary(frames, costs(frames), LABELS)
    column, low, high = METRICS[metric].shown
    assert list(table["best"]) == ["best", ""]
    of_full = frames["runs"].query("method == 'full'")[metric]
    assert table[low][0] < table[column][0] < table[high][0]
    if metric != "mean_squared_error":  # that is the exponential of a mean of logarithms
        assert table[column][0] == pytest.approx(of_full.mean() * METRICS[metric].factor)
    choice = choose(table, 10)
    assert METRICS[metric].title in [shown.head for shown in choice.columns]
    assert METRICS[metric].label in METRICS[metric].title
    assert "simultaneous" in notes(table, costs(frames), ALL_MARGINS)[0]


def test_the_page_says_which_metric_and_that_the_curve_is_worse(case):
    metric, frames = case
    (_, sentences), *_ = answer(frames, LABELS)
    assert METRICS[metric].phrase in sentences[0] or METRICS[metric].label in sentences[1]
    assert "accuracy" not in " ".join(sentences)
    assert sentences[1].rstrip(".").endswith("worse")


def test_the_best_curve_of_the_page_is_the_better_one(case):
    metric, frames = case
    group = by_panel(frames, LABELS)["m", "d"]
    assert group.best["method"] == "full"
    assert group.axis.startswith(METRICS[metric].title)


def test_the_figure_names_the_metric_and_the_split(case):
    metric, frames = case
    axes = metric_by_rank.draw(frames, LABELS).axes[0]
    assert axes.get_ylabel().startswith(f"{METRICS[metric].label} on test")
    assert ("lower is better" in axes.get_ylabel()) == (metric == "mean_squared_error")


def test_a_sheet_of_estimates_has_the_unit_of_the_metric(case):
    metric, frames = case
    found = sheet("estimates", frames["estimates"], LABELS, "tables/estimates")
    titles = " ".join(str(column) for column in found.columns)
    assert ("%" in titles) == METRICS[metric].is_fraction


def test_a_mean_in_the_figure_of_memory_is_that_of_the_tables(
    case: tuple[str, dict[str, pd.DataFrame]],
) -> None:
    metric, frames = case
    parts = dict.fromkeys(accuracy_memory.PARTS, 1.0)
    memory = frames["runs"].drop_duplicates(["method"]).assign(**parts)
    (axes,) = accuracy_memory.draw({**frames, "memory": memory}, LABELS).axes
    drawn_means = [line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 1]
    wanted = frames["estimates"]["estimate"] * METRICS[metric].factor
    assert sorted(drawn_means) == pytest.approx(sorted(wanted), rel=1e-9)


def test_a_page_without_estimates_shows_the_same_mean(
    case: tuple[str, dict[str, pd.DataFrame]],
) -> None:
    _, frames = case
    with_estimates = by_panel(frames, LABELS)["m", "d"].curves
    without = by_panel({"runs": frames["runs"]}, LABELS)["m", "d"].curves
    assert list(without["value"]) == pytest.approx(list(with_estimates["value"]), rel=1e-9)
    assert list(without["method"]) == list(with_estimates["method"])
