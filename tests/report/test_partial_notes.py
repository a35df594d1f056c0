"""What tables, figures and the page say of results that are absent."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from helpers.figure_texts import overlaps, texts
from helpers.repository import ROOT
from helpers.stored import finish
from helpers.table_notes import notes_of
from rankwise.analysis import tables
from rankwise.analysis.gather import gather
from rankwise.report import claims_figure, partial_note
from rankwise.report.html import build
from rankwise.study import jobs
from rankwise.study.partial import PartialPlan
from rankwise.study.plan import Plan


def absent_cell(method: str, seed: int, status: str, reason: str = "", log: str = "") -> dict:
    cell = {"model": "tiny", "dataset": "sst2", "method": method, "rank": 2, "seed": seed}
    return {
        "measurement": "train",
        "cell": cell,
        "title": f"tiny/sst2, {method}, rank 2, seed {seed}",
        "status": status,
        "reason": reason,
        "log": log,
    }


ABSENT = {
    "planned": {"train": 12},
    "cells": [
        absent_cell("lora", 2, "not run"),
        absent_cell("hira", 0, "failed", "options.top: got <0>, allowed: 1", "logs/hira.log"),
    ],
}
SENTENCE = (
    "Partial: of 12 training runs, 1 failed (tiny/sst2 hira r2 seed 0), "
    "1 not run (tiny/sst2 lora r2 seed 2)."
)


# Figures ------------------------------------------------------------------------------------------


def inches(figure: Figure) -> list[tuple[float, float]]:
    """Width and height of each panel."""
    figure.draw_without_rendering()
    return [
        (axes.get_window_extent().width / figure.dpi, axes.get_window_extent().height / figure.dpi)
        for axes in figure.axes
    ]


@pytest.fixture
def claims() -> Figure:
    """A figure with a title at its upper edge and a legend at its lower one."""
    return claims_figure.draw(tables.read(ROOT / "benchmarks/shapes/claims.csv"))


def test_a_figure_says_what_is_absent_and_its_panels_keep_their_size(claims: Figure) -> None:
    before = inches(claims)
    partial_note.add(claims, {"absent": ABSENT})
    assert inches(claims) == [pytest.approx(size, abs=0.02) for size in before]
    assert SENTENCE in " ".join(texts(claims).split())
    assert overlaps(claims) == []


def test_a_figure_of_which_nothing_is_absent_stays_as_it_is(claims: Figure) -> None:
    before = texts(claims), tuple(claims.get_size_inches())
    partial_note.add(claims, {})
    assert (texts(claims), tuple(claims.get_size_inches())) == before


# Tables -------------------------------------------------------------------------------------------


def test_a_table_says_what_is_absent_under_it(tmp_path: Path) -> None:
    request = {"table": "memory", "listed": False, "reads": [], "absent": ABSENT}
    request["variants"] = {}
    gather(request, tmp_path / "memory.csv")
    assert notes_of(tmp_path / "memory.csv") == [SENTENCE]
    assert SENTENCE in (tmp_path / "memory.tex").read_text()
    del request["absent"]
    gather(request, tmp_path / "memory.csv")
    assert notes_of(tmp_path / "memory.csv") == []


def test_no_trial_is_selected_of_a_curve_of_which_one_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = {"models": ["tiny"], "datasets": ["generated_reviews"], "ranks": [2], "seeds": [0]}
    grid |= {"methods": ["full", "lora"], "search": {"learning_rates": [1e-3, 1e-2], "seeds": [5]}}
    study = {"name": "searched", "question": "?", "device": "cpu", "train": [grid]}
    plan = Plan({**study, "schedule": {"updates": 2, "batch_size": 8}}, tmp_path, "study")
    trials = {(job.cell.method, job.cell.trial): job for job in jobs.cell_jobs(plan, "trial")}
    absent = trials.pop(("lora", "lr0.01"))
    losses = {"lr0.001": 0.5, "lr0.01": 0.4}
    for (_, trial), job in trials.items():
        metrics = {"eval_loss_nats": losses[trial], "updates": 2}
        finish(tmp_path, job, status="ok", metrics=metrics, split="selection")
    cells = [
        {**absent_cell("lora", 5, "not run"), "measurement": "trial", "cell": absent.cell.names}
    ]
    reads = [job.path for job in trials.values()]
    request = {"table": "search", "listed": False, "reads": reads, "variants": {}}
    gather(
        {**request, "absent": {"planned": {"trial": 4}, "cells": cells}}, tmp_path / "search.csv"
    )
    table = tables.read(tmp_path / "search.csv")
    selected = table[table["selected"]]
    assert list(zip(selected["method"], selected["trial"], strict=True)) == [("full", "lr0.01")]
    gather(request, tmp_path / "search.csv")  # nothing absent: lora's only trial is the best
    assert tables.read(tmp_path / "search.csv")["selected"].sum() == 2


# The page -----------------------------------------------------------------------------------------


def test_the_page_has_a_row_for_each_absent_cell(demo: dict) -> None:
    whole = Plan(demo, ROOT, "config/demo.yaml")
    request = {"labels": [], "tables": [], "data": [], "figures": {}}
    plan = PartialPlan(whole, ABSENT)
    page = build.render(plan, request, [], ROOT / whole.results)
    assert SENTENCE in page
    assert page.index('id="missing"') < page.index('id="methods"')
    assert '<a href="#missing">' in page
    assert "options.top: got &lt;0&gt;, allowed: 1" in page
    for part in ("logs/hira.log", "tiny/sst2, lora, rank 2, seed 2"):
        assert part in page
    request["not_drawn"] = {"loss": "loss: no runs"}
    assert "<li>loss: loss: no runs</li>" in build.render(plan, request, [], ROOT / whole.results)
    complete = build.render(whole, request, [], ROOT / whole.results)
    assert "<li>loss: loss: no runs</li>" in complete
    assert "Missing results" not in complete
    del request["not_drawn"]
    assert 'id="missing"' not in build.render(whole, request, [], ROOT / whole.results)
