"""Figure: the score of each curve on each evaluation, and how it compares with the reference.

The verdicts are those of the table of comparisons, which are read off simultaneous intervals of the
difference. A curve's own interval, which is drawn, decides nothing.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankwise.analysis.standings import (
    NO_PAIR,
    UNDECIDED,
    EvaluationKey,
    Standing,
    Standings,
    of_evaluations,
)
from rankwise.report import bars, palettes, style

REFERENCE = "reference"
SCORE_END, VERDICT_END = 34, 88  # points right of the panel at which scores and verdicts end
REFERENCE_LINE = {"color": palettes.SAMPLE, "lw": 0.9, "ls": (0, (4, 2))}
NOTHING = "No evaluation ended well."
FAILED = "no run ended well"
IN_SHORT = {NO_PAIR: "no shared seed"}  # a verdict in fewer words


@style.styled
def draw(
    tables: dict[str, pd.DataFrame], labels: dict[str, str], reference: dict | None = None
) -> Figure:
    """Draw one panel for each model, dataset and evaluation, means last.

    Args:
        tables: `evaluations_summary` and `evaluations_comparisons`.
        labels: The label of each method.
        reference: The study's `reference`, if it names one.
    """
    found = of_evaluations(tables, reference)
    if not found:
        figure = style.empty_figure(bars.WIDTH, 0.5)
        figure.text(0.02, 0.4, NOTHING)
        return figure
    rows_by_panel = {key: _rows(group, labels) for key, group in found.items()}
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    shared, titles = _titles(list(rows_by_panel))
    titled = dict(zip(titles, rows_by_panel.values(), strict=True))
    figure, panels = bars.panels(titled, foot=0.5, has_heads=True)
    for axes, (key, rows) in zip(panels, rows_by_panel.items(), strict=True):
        _panel(axes, rows.reset_index(drop=True), found[key], labels)
    _legend(figure, [*shared, *notes])
    return figure


def _rows(group: Standings, labels: dict[str, str]) -> pd.DataFrame:
    """One row for each curve, in the order of the methods; its standing is in the last column."""
    curves = [group.reference, *group.others]
    rows = [{"method": curve.method, "rank": curve.rank, "standing": curve} for curve in curves]
    return style.ordered(pd.DataFrame(rows), labels)


def _titles(keys: list[EvaluationKey]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Titles of panels, without the model or dataset that all panels share; these are a line."""
    shared = [part for part in range(2) if len({key[part] for key in keys}) == 1]
    line = " / ".join(keys[0][part] for part in shared)
    titles = [tuple(text for part, text in enumerate(key) if part not in shared) for key in keys]
    return [line] if line else [], titles


def _panel(axes: Axes, rows: pd.DataFrame, group: Standings, labels: dict[str, str]) -> None:
    """Draw the curves of one evaluation, with scores and verdicts beside them."""
    factor = group.metric.factor
    axes.axvline(group.reference.value * factor, **REFERENCE_LINE, zorder=1)
    for place, curve in enumerate(rows["standing"]):
        if not curve.seeds:
            style.text_right_of_panel(axes, place, FAILED, VERDICT_END)
            continue
        _draw_score(axes, place, curve, factor, labels)
        style.text_right_of_panel(axes, place, f"{curve.value * factor:.1f}", SCORE_END)
        style.text_right_of_panel(axes, place, _verdict(curve), VERDICT_END)
    unit = "%" if group.metric.is_fraction else ""
    style.text_right_of_panel(axes, -1, unit, SCORE_END)
    bars.separate_methods(axes, rows)
    style.rows_axis(axes, bars.row_names(rows, labels), pad=6)
    axes.set_xlabel("\n".join([group.metric.axis(""), *_notes(rows, labels)]))


def _draw_score(
    axes: Axes, place: int, curve: Standing, factor: int, labels: dict[str, str]
) -> None:
    """A score with its own interval; hollow where one seed gives none."""
    colour, marker = style.look(curve.method, labels)
    has_interval = not math.isnan(curve.low)
    if has_interval:
        ends = [curve.low * factor, curve.high * factor]
        axes.plot(ends, [place, place], color=colour, lw=1.2, solid_capstyle="butt", zorder=2)
    look = {"color": colour, "mfc": colour if has_interval else "white", "ms": 4.5, "zorder": 3}
    axes.plot(curve.value * factor, place, marker, **look)


def _verdict(curve: Standing) -> str:
    """The verdict of the comparison with the reference, in a word."""
    if curve.against is None:
        return REFERENCE
    return IN_SHORT.get(curve.against.verdict, curve.against.verdict)


def _notes(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """Lines below a panel: curves with one seed, failed runs, seeds that would decide."""
    one_seed, failed, undecided = [], [], []
    for curve in rows["standing"]:
        name, against = style.curve_name(curve.method, curve.rank, labels), curve.against
        if curve.seeds == 1:
            one_seed.append(name)
        if curve.note:
            failed.append(f"{name}: {curve.note}")
        if against is not None and against.verdict == UNDECIDED and against.seeds_needed:
            undecided.append(f"{name}: {against.seeds_needed} seeds would decide")
    shown = sum(curve.seeds > 0 for curve in rows["standing"])
    return [
        *style.one_seed_notes(one_seed, shown),
        *_few(failed, "curves have failed runs"),
        *_few(undecided, "curves that more seeds would decide"),
    ]


def _few(notes: list[str], what: str) -> list[str]:
    """The notes, or their number where they are too many for a panel."""
    if len(notes) <= style.MAX_NAMED:
        return notes
    return [f"{len(notes)} {what}: in the tables"]


def _legend(figure: Figure, notes: list[str]) -> None:
    score = Line2D([], [], color=palettes.SAMPLE, marker="o", ms=4.5, lw=1.2)
    score.set_label("score with its own 95 % interval")
    reference = Line2D([], [], **REFERENCE_LINE, label="the reference's score")
    figure.legend(
        handles=[score, reference], loc="outside lower left", ncols=2, **style.legend_notes(notes)
    )
