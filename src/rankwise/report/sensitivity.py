"""Figure: selection loss against learning rate, one curve for each method and rank.

A ring marks the setting that the search chose. If a rate was tried with several options, the curve
goes through the best of them and dots show the others. A failed trial is a cross at the top.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import label_placement, style
from rankwise.report.label_placement import CurveEnd

MAX_CURVES = 8  # curves that a panel still shows well
DECADE = 8  # from this ratio of highest to lowest loss on, the axis of losses is logarithmic
LOSS = "selection_loss_nats"


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw panels by model and dataset, from `search`; with too many curves, by method as well.

    Raises:
        ValueError: There are no trials.
    """
    trials = _trials(tables["search"])
    parts = _all_parts(trials, labels)
    if not parts:
        raise ValueError("sensitivity: no trials: the study searches nothing")
    is_large = len(parts) > style.MAX_PANELS
    if is_large:
        trials = style.at_highest_rank(trials)
        parts = [(key, rows, "", rows) for key, rows in style.by_panel(trials, labels).items()]
    keys = [key for key, *_ in parts]
    width = 4.6 if len(parts) == 1 or is_large else style.COLUMN_WIDTH
    most = max(rows.groupby(CURVE_IN_GROUP).ngroups for *_, rows in parts)
    height = label_placement.panel_height(most, least=2.6)
    figure, panels = style.panel_grid(keys, width, height, columns=2)
    if is_large:
        figure.supxlabel(style.HIGHEST_RANK, x=0.02, ha="left", fontsize=8)
    dashes = style.line_styles(trials, labels)
    ends = []
    for axes, (key, all_rows, title, rows) in zip(panels, parts, strict=True):
        # Where the title says the method, its curves are named by their rank alone.
        ends.append(_panel(axes, rows, {**labels, title: ""}, dashes))
        last_part = [labels.get(title, title)] if title else []
        axes.set_title(" / ".join([*key, *last_part]))
        _set_axes(axes, all_rows)
    label_placement.name_ends(figure, panels, ends)
    return figure


def _trials(search: pd.DataFrame) -> pd.DataFrame:
    """One row for each trial: mean, lowest and highest loss of its seeds.

    The losses are missing if one of its seeds failed.
    """
    trials = search.groupby(["model", "dataset", *CURVE_IN_GROUP, "trial"], sort=False)
    all_ok = trials["status"].agg(lambda status: (status == "ok").all())
    losses = trials[LOSS].agg(["mean", "min", "max"]).where(all_ok)
    return losses.join(trials[["learning_rate", "selected"]].first()).reset_index()


def _all_parts(
    trials: pd.DataFrame, labels: dict[str, str]
) -> list[tuple[tuple[str, str], pd.DataFrame, str, pd.DataFrame]]:
    """All panels: model and dataset, their rows, the last part of the title, the panel's rows."""
    parts = []
    for key, rows in style.by_panel(trials, labels).items():
        for title, panel_rows in _parts(rows, labels):
            parts.append((key, rows, title, panel_rows))
    return parts


def _parts(rows: pd.DataFrame, labels: dict[str, str]) -> list[tuple[str, pd.DataFrame]]:
    """The panels of one model and dataset: the last part of each title, and its rows.

    The title is a method, or words for the methods without a rank.
    """
    if rows.groupby(CURVE_IN_GROUP).ngroups <= MAX_CURVES:
        return [("", rows)]
    unranked = list(dict.fromkeys(rows.loc[rows["rank"] == 0, "method"]))
    pages = [unranked[i : i + MAX_CURVES] for i in range(0, len(unranked), MAX_CURVES)]
    parts = []
    for number, methods in enumerate(pages, 1):
        title = f"without a rank, {number}" if len(pages) > 1 else "without a rank"
        parts.append((title, rows[rows["method"].isin(methods)]))
    ranked = set(rows.loc[rows["rank"] > 0, "method"])
    return parts + [(name, rows[rows["method"] == name]) for name in labels if name in ranked]


# Curves ----------------------------------------------------------------------------------------


def _panel(
    axes: Axes, rows: pd.DataFrame, labels: dict[str, str], dashes: dict[tuple[str, int], object]
) -> list[CurveEnd]:
    """Draw the curves of a panel and the notes below it; returns the curves' ends."""
    ends: list[CurveEnd] = []
    with_failures: list[str] = []
    at_the_edge: list[str] = []
    lowest, highest = _limits(rows["learning_rate"])
    for (method, rank), trials in rows.groupby(CURVE_IN_GROUP, sort=False):
        colour, marker = style.look(method, labels)
        name = style.curve_name(method, rank, labels)
        sound, failed = trials.dropna(subset="mean"), trials[trials["mean"].isna()]
        if len(sound):
            last = _draw_curve(axes, sound, colour, marker, dashes[method, rank]).iloc[-1]
            x, y = [last["learning_rate"], highest], [last["mean"]] * 2
            axes.plot(x, y, ":", color=colour, lw=0.6)
            ends.append(CurveEnd(last["mean"], name, style.ink(colour)))
            if _is_at_edge(trials):
                at_the_edge.append(name)
        _draw_failures(axes, failed, colour, len(with_failures))
        if len(failed):
            with_failures.append(name)
    lines = ["learning rate (log scale); rings: chosen"]
    lines += _note("crosses, trials that failed", with_failures)
    lines += _note("chosen at the end of the rates tried", at_the_edge)
    axes.set_xscale("log")
    axes.set_xlim(lowest, highest)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("\n".join(lines))
    return ends


def _draw_curve(
    axes: Axes, sound: pd.DataFrame, colour: str, marker: str, line_style: object
) -> pd.DataFrame:
    """Draw one curve through the lowest loss at each rate; returns its points."""
    by_loss = sound.sort_values("mean", kind="stable")
    best = by_loss.drop_duplicates("learning_rate").sort_values("learning_rate")
    rates = best["learning_rate"]
    axes.fill_between(rates, best["min"], best["max"], color=colour, alpha=0.15, linewidth=0)
    look = {"marker": marker, "ls": line_style, "color": colour}
    axes.plot(rates, best["mean"], lw=1.2, ms=2.4, **look)
    others = sound.drop(index=best.index)
    axes.plot(others["learning_rate"], others["mean"], ".", color=colour, ms=2.4, alpha=0.6)
    chosen = sound[sound["selected"].astype(bool)]
    ring = {"ms": 7, "mfc": "none", "mec": style.ink(colour), "mew": 1.1, "zorder": 4}
    axes.plot(chosen["learning_rate"], chosen["mean"], "o", **ring)
    return best


def _draw_failures(axes: Axes, failed: pd.DataFrame, colour: str, curves_before: int) -> None:
    """Draw a cross at the top for each rate at which a trial failed.

    The height depends on how many curves with failures were drawn before, so that crosses of
    several curves at one rate stay visible.
    """
    height = 0.97 - 0.035 * (curves_before % 4)
    for rate in dict.fromkeys(failed["learning_rate"]):
        cross = {"color": colour, "ms": 4.5, "mew": 1.2, "clip_on": False}
        axes.plot(rate, height, "x", transform=axes.get_xaxis_transform(), **cross)


def _is_at_edge(trials: pd.DataFrame) -> bool:
    """Whether the chosen rate is the lowest or highest of several: a better one may be beyond."""
    rates = trials["learning_rate"]
    chosen = rates[trials["selected"].astype(bool)]
    return rates.nunique() > 1 and bool(chosen.isin([rates.min(), rates.max()]).any())


def _note(text: str, names: list[str]) -> list[str]:
    """A line with the curves that it is about, or with their number if they are many."""
    if not names:
        return []
    which = ", ".join(names) if len(names) <= style.MAX_NAMED else f"{len(names)} curves"
    return [f"{text}: {which}"]


# Axes ------------------------------------------------------------------------------------------


def _limits(rates: pd.Series) -> tuple[float, float]:
    """The limits of the axis of learning rates, a little beyond the rates that were tried."""
    low, high = rates.min(), rates.max()
    room = (high / low) ** 0.06 if high > low else 2.0
    return low / room, high * room


def _set_axes(axes: Axes, all_rows: pd.DataFrame) -> None:
    """Set limits of the loss that are common to the panels of one model and dataset."""
    axes.set_ylabel("selection loss (nats)")
    low, high = all_rows["min"].min(), all_rows["max"].max()
    if math.isnan(low):  # every trial failed
        axes.set_yticks([])
        return
    room_above = 0.14 if all_rows["mean"].isna().any() else 0.06  # crosses need more room
    if low > 0 and high / low > DECADE:
        axes.set_yscale("log")
        axes.set_ylim(low * (low / high) ** 0.06, high * (high / low) ** room_above)
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        span = (high - low) or 1.0
        axes.set_ylim(low - 0.06 * span, high + room_above * span)
