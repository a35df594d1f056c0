"""The figure of evaluations: scores, intervals, the reference and the verdicts against it."""

import math

import pandas as pd
import pytest
from matplotlib.text import Text

from helpers.figure_texts import overlaps
from rankwise.report import evaluations

LABELS = {"frozen": "Frozen", "full": "Full AdamW", "lora": "LoRA", "rsvd": "rSVD"}
GROUP = {"model": "m", "dataset": "d"}
SCORES = {
    ("frozen", 0): 0.1,
    ("full", 0): 0.8,
    ("lora", 4): 0.79,
    ("lora", 8): 0.85,
    ("rsvd", 8): 0.6,
}
# Full against each other curve: a is full, so "a better" means that the other one is worse.
AGAINST_FULL = {("frozen", 0): "a better", ("lora", 4): "tied", ("lora", 8): "b better", ("rsvd", 8): "undecided"}  # fmt: skip
WORDS = ["worse", "reference", "tied", "better", "undecided"]  # in the order of LABELS


def tables(
    *names: str, seeds: int = 3, metric: str = "accuracy_fraction"
) -> dict[str, pd.DataFrame]:
    """Five curves on each evaluation, with intervals of 5 points to each side."""
    summary, compared = [], []
    for name in names:
        shared = {**GROUP, "evaluation": name, "metric": metric, "seeds": seeds, "examples": 50}
        for (method, rank), score in SCORES.items():
            low, high = (score - 0.05, score + 0.05) if seeds > 1 else (math.nan, math.nan)
            curve = {"method": method, "rank": rank, "estimate": score, "low": low, "high": high}
            summary.append({**shared, **curve, "note": None})
        for (method, rank), verdict in AGAINST_FULL.items():
            pair = {"method_a": "full", "rank_a": 0, "method_b": method, "rank_b": rank}
            ratios = {"ratio": 1.1, "ratio_low": 0.9, "ratio_high": 1.2, "margin": 0.01}
            needed = 7 if verdict == "undecided" else None
            row = {**shared, **pair, **ratios, "verdict": verdict, "seeds_needed": needed}
            compared.append({**row, "note": None})
    return {
        "evaluations_summary": pd.DataFrame(summary),
        "evaluations_comparisons": pd.DataFrame(compared),
    }


def written(axes) -> list[str]:
    return [text.get_text() for text in axes.findobj(Text) if text.get_text()]


def test_each_curve_has_its_score_its_interval_and_a_verdict_against_the_reference() -> None:
    figure = evaluations.draw(tables("boolq"), LABELS)
    (axes,) = figure.axes
    texts = written(axes)
    assert [text for text in texts if text in WORDS] == WORDS
    shown = [text for text in texts if text in ("10.0", "80.0", "79.0", "85.0", "60.0")]
    assert shown == ["10.0", "80.0", "79.0", "85.0", "60.0"]
    assert "rSVD r=8: 7 seeds would decide" in axes.get_xlabel()
    level = [line for line in axes.lines if len(set(line.get_xdata())) == 1 < len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in level] == pytest.approx([80])  # the reference's score
    bars = [line.get_xdata() for line in axes.lines if len(set(line.get_xdata())) == 2]
    in_rows = [bar for bar in bars if not set(bar) <= {0, 1}]  # separators span the panel
    assert [list(bar) for bar in in_rows] == [
        pytest.approx(ends) for ends in ([5, 15], [75, 85], [74, 84], [80, 90], [55, 65])
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "Frozen", "Full AdamW", "LoRA r=4", "r=8", "rSVD r=8",
    ]  # fmt: skip


def test_a_study_may_name_the_reference() -> None:
    figure = evaluations.draw(tables("boolq"), LABELS, reference={"method": "lora", "rank": 8})
    words = [text for text in written(figure.axes[0]) if text in (*WORDS, "no shared seed")]
    # Only the pair with full is in these tables, and full is worse there.
    assert words == ["no shared seed", "worse", "no shared seed", "reference", "no shared seed"]


def test_one_seed_is_hollow_and_decides_nothing() -> None:
    frames = tables("boolq", seeds=1)
    frames["evaluations_comparisons"]["verdict"] = "undecided"
    (axes,) = evaluations.draw(frames, LABELS).axes
    dots = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [dot.get_markerfacecolor() for dot in dots] == ["white"] * 5
    assert "one seed: no interval" in axes.get_xlabel()


def test_a_failed_run_is_said_and_a_curve_without_one_that_ended_well_too() -> None:
    frames = tables("boolq")
    summary = frames["evaluations_summary"]
    failed = summary["method"] == "rsvd"
    summary.loc[failed, "seeds"] = 0
    summary.loc[failed, ["estimate", "low", "high"]] = math.nan
    summary.loc[failed, "note"] = "seed 0 diverged"
    (axes,) = evaluations.draw(frames, LABELS).axes
    assert evaluations.FAILED in written(axes)
    assert "rSVD r=8: seed 0 diverged" in axes.get_xlabel()


def test_every_evaluation_has_a_panel_and_texts_do_not_overlap() -> None:
    figure = evaluations.draw(tables("boolq", "piqa", "commonsense"), LABELS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["boolq", "piqa", "commonsense"]
    assert "m / d" in written(figure)  # what the panels share
    assert not overlaps(figure)


def test_a_metric_of_the_harness_has_its_name() -> None:
    figure = evaluations.draw(tables("hellaswag", metric="accuracy_norm_fraction"), LABELS)
    assert figure.axes[0].get_xlabel().startswith("length-normalised accuracy (%)")


def test_where_no_evaluation_ended_well_the_figure_says_so() -> None:
    frames = tables("boolq")
    frames["evaluations_summary"]["seeds"] = 0
    figure = evaluations.draw(frames, LABELS)
    assert written(figure) == [evaluations.NOTHING]
    assert not figure.axes
