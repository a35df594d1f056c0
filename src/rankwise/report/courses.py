"""What figures of a quantity over the epochs share: the mean over seeds, in a band from the lowest to the highest seed."""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rankwise.report import placing, style

DIRECT = 8  # curves that a panel still shows well
REFERENCES = 4  # methods without a rank that every panel repeats
DECADE = (
    8  # from this ratio on, a logarithmic axis has ticks at 1, 3 and 10; below, also at 2 and 5
)


class Quantity(NamedTuple):
    """A column of the history: its axis' name, what it is multiplied by, whether that is logarithmic, and all have it."""

    column: str
    axis: str
    factor: float = 1.0
    log: bool = False
    common: bool = True


class Part(NamedTuple):
    """One panel: its quantity, what its title adds, the method that this names, history, runs, and what sets limits."""

    quantity: Quantity
    title: str
    method: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    like: pd.DataFrame


def draw(
    figure: str,
    tables: dict[str, pd.DataFrame],
    labels: dict[str, str],
    quantities: tuple[Quantity, ...],
) -> Figure:
    """Panels by model, dataset and quantity, from `tables["history"]`; runs that failed, from `["runs"]`, are named below.

    Raises:
        ValueError: there is no history, at all or for a panel of the runs, or none with a quantity; names the cells.
    """
    found, runs = _found(figure, tables, labels)
    parts = {
        (*key, number): _parts(quantity, rows, runs[key], labels)
        for key, every in found.items()
        for number, quantity in enumerate(quantities)
        if len(rows := _valued(every, quantity))
    }
    drawn = [(key, part) for key, some in parts.items() for part in some]
    if not drawn:
        asked = " or ".join(quantity.column for quantity in quantities)
        raise ValueError(
            f"{figure}: no {asked} in the history of the cells {style.cells(tables['history'])}"
        )
    keys = [key[:2] for key, _ in drawn]
    canvas, panels = style.panels(keys, style.COLUMN, height=2.6, columns=2)
    dashes = _dashes(tables["history"])
    ends = [
        _panel(axes, key, part, labels, dashes)
        for axes, (key, part) in zip(panels, drawn, strict=True)
    ]
    placing.name_ends(canvas, panels, ends)
    return canvas


def _found(
    figure: str, tables: dict[str, pd.DataFrame], labels: dict[str, str]
) -> tuple[dict, dict]:
    """History and runs by model and dataset."""
    history = tables["history"]
    found, runs = style.groups(history, labels), style.groups(tables.get("runs", history), labels)
    missing = pd.concat(
        [history.iloc[:0], *(rows for key, rows in runs.items() if key not in found)]
    )
    if not found or len(missing):
        raise ValueError(
            f"{figure}: no history for the cells of train: {style.cells(missing) or 'there are none'}"
        )
    return found, runs


def _valued(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows that have the quantity, as `value`."""
    if quantity.column not in rows:
        return rows.iloc[:0]
    return rows.assign(value=rows[quantity.column].astype(float) * quantity.factor).dropna(
        subset="value"
    )


def _parts(
    quantity: Quantity, rows: pd.DataFrame, runs: pd.DataFrame, labels: dict[str, str]
) -> list[Part]:
    """The panels of one model and dataset.

    One; with too many curves, one for each method that has ranks, beside those that have none; with too many of those as
    well, as many as it takes, in the order of the methods.
    """
    failed = (
        set(runs.loc[runs["status"] != "ok", "method"])
        if "status" in runs and quantity.common
        else set()
    )
    runs = runs[runs["method"].isin({*rows["method"], *failed})]
    ranked = list(dict.fromkeys(runs.loc[runs["rank"] > 0, "method"]))
    alone = list(dict.fromkeys(runs.loc[runs["rank"] == 0, "method"]))
    curves = rows.groupby("method", sort=False)["rank"].nunique()
    if curves.sum() <= DIRECT or (len(ranked) < 2 and len(alone) <= DIRECT):
        return [Part(quantity, "", "", rows, runs, rows)]
    if len(alone) <= REFERENCES:
        chosen = [
            (f["rank"] == 0) | (f["method"] == method) for method in ranked for f in (rows, runs)
        ]
        pairs = zip(ranked, chosen[::2], chosen[1::2], strict=True)
        return [
            Part(quantity, labels[method], method, rows[mine], runs[ours], rows)
            for method, mine, ours in pairs
        ]
    number = (
        curves.reindex(list(dict.fromkeys(runs["method"])), fill_value=1)
        .cumsum()
        .sub(1)
        .floordiv(DIRECT)
    )
    pages = [number[number == page].index for page in number.unique()]
    titles = [f"{page} of {len(pages)}" for page in range(1, len(pages) + 1)]
    every = zip(titles, pages, strict=True)
    return [
        Part(
            quantity,
            title,
            "",
            rows[rows["method"].isin(some)],
            runs[runs["method"].isin(some)],
            rows,
        )
        for title, some in every
    ]


def _dashes(history: pd.DataFrame) -> dict[int, object]:
    """Line style by rank: the fuller the line, the higher the rank."""
    ranks = sorted(set(history["rank"]) - {0}, reverse=True)
    return {0: "-", **{rank: style.DASHES[i % len(style.DASHES)] for i, rank in enumerate(ranks)}}


def _panel(
    axes: Axes, key: tuple, part: Part, labels: dict[str, str], dashes: dict[int, object]
) -> list[tuple]:
    """Draw the curves; returns each one's last value, name and colour."""
    ends, alone, last = [], [], part.like["epoch"].max()
    own = {**labels, part.method: ""}
    for (method, rank), curve in part.rows.groupby(["method", "rank"], sort=False):
        colour, marker = style.look(method, labels)
        steps = curve.groupby("update")["value"].agg(["min", "mean", "max"])
        steps["epoch"] = curve.groupby("update")["epoch"].first()
        if len(steps) == 1:  # nothing was trained: a level, not a curve
            steps = pd.concat([steps, steps.assign(epoch=last)])
        axes.fill_between(
            steps["epoch"], steps["min"], steps["max"], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(
            steps["epoch"],
            steps["mean"],
            color=colour,
            linestyle=dashes[rank],
            lw=1.2,
            marker=marker,
            ms=2.2,
        )
        ends.append((steps["mean"].iloc[-1], style.name(method, rank, own), style.ink(colour)))
        alone += [ends[-1][1]] * (curve["seed"].nunique() == 1)
    style.entitle(axes, *key[:2], part.title)
    notes = [*style.one_seed(alone, len(ends)), *style.failed(part.runs, own)]
    axes.set_xlabel("\n".join(["epoch", *notes]))
    _axes(axes, part, last)
    return ends


def _axes(axes: Axes, part: Part, last: float) -> None:
    """Limits are common to the panels of one model, dataset and quantity."""
    axes.set_ylabel(part.quantity.axis)
    low, high = part.like["value"].min(), part.like["value"].max()
    if part.quantity.log and low > 0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.15, high * 1.15)
        axes.yaxis.set_major_locator(
            LogLocator(10, subs=(1, 3) if high / low > DECADE else (1, 2, 5))
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        margin = 0.06 * (high - low) or 0.1
        axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6 if last >= 1 else 3, integer=bool(last >= 1)))
    axes.set_xlim(0, last * 1.02 or 1)
