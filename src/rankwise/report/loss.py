"""Figure: loss on the selection slice by epoch, the mean over seeds in a band from the lowest to the highest seed."""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankwise.report import placing, style

DASHES = ("-", (0, (6, 1.2)), (0, (3, 1.2)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (1, 2.5)))  # from the highest rank down
DIRECT = 8  # curves that a panel still shows well
REFERENCES = 4  # methods without a rank that every panel repeats


class Part(NamedTuple):
    """One panel: what its title adds, the method that the title names, history, runs."""

    title: str
    method: str
    rows: pd.DataFrame
    runs: pd.DataFrame


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["history"]`; runs that failed, from `tables["runs"]`, are named below.

    Raises:
        ValueError: there is no history, at all or for a panel of the runs; names the cells.
    """
    history = tables["history"]
    found, runs = style.groups(history, labels), style.groups(tables.get("runs", history), labels)
    missing = pd.concat([history.iloc[:0], *(rows for key, rows in runs.items() if key not in found)])
    if not found or len(missing):
        raise ValueError(f"loss: no history for the cells of train: {style.cells(missing) or 'there are none'}")
    drawn = [(key, part) for key, rows in found.items() for part in _parts(rows, runs[key], labels)]
    figure, panels = style.panels([key for key, _ in drawn], width=4.6 if len(drawn) == 1 else 3.5, height=2.6, columns=2)
    dashes, ends = _dashes(history), []
    for axes, (key, part) in zip(panels, drawn, strict=True):
        ends.append(_panel(axes, part.rows, {**labels, part.method: ""}, dashes))
        axes.set_title(" / ".join([*key, *([part.title] if part.title else [])]))
        axes.set_ylim(*_limits(found[key]))
        axes.set_xlabel("\n".join(["epoch", *_failed(part.runs, labels)]))
    placing.name_ends(figure, panels, ends)
    return figure


def _parts(rows: pd.DataFrame, runs: pd.DataFrame, labels: dict[str, str]) -> list[Part]:
    """The panels of one model and dataset.

    One; with too many curves, one for each method that has ranks, beside those that have none; with too many of those as
    well, as many as it takes, in the order of the methods.
    """
    ranked = list(dict.fromkeys(runs.loc[runs["rank"] > 0, "method"]))
    alone = list(dict.fromkeys(runs.loc[runs["rank"] == 0, "method"]))
    curves = rows.groupby("method", sort=False)["rank"].nunique()
    if curves.sum() <= DIRECT or (len(ranked) < 2 and len(alone) <= DIRECT):
        return [Part("", "", rows, runs)]
    if len(alone) <= REFERENCES:
        chosen = [(f["rank"] == 0) | (f["method"] == method) for method in ranked for f in (rows, runs)]
        pairs = zip(ranked, chosen[::2], chosen[1::2], strict=True)
        return [Part(labels[method], method, rows[mine], runs[tried]) for method, mine, tried in pairs]
    number = curves.reindex(list(dict.fromkeys(runs["method"])), fill_value=1).cumsum().sub(1).floordiv(DIRECT)
    pages = [number[number == page].index for page in number.unique()]
    titles = [f"{page} of {len(pages)}" for page in range(1, len(pages) + 1)]
    every = zip(titles, pages, strict=True)
    return [Part(title, "", rows[rows["method"].isin(some)], runs[runs["method"].isin(some)]) for title, some in every]


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Common to the panels of one model and dataset."""
    low, high = rows["selection_loss_nats"].min(), rows["selection_loss_nats"].max()
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _dashes(history: pd.DataFrame) -> dict[int, object]:
    """Line style by rank: the fuller the line, the higher the rank."""
    ranks = sorted(set(history["rank"]) - {0}, reverse=True)
    return {0: "-", **{rank: DASHES[i % len(DASHES)] for i, rank in enumerate(ranks)}}


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str], dashes: dict[int, object]) -> list[tuple]:
    """Draw the curves; returns each one's last loss (nats), name and colour."""
    ends, last = [], rows["epoch"].max()
    for (method, rank), curve in rows.groupby(["method", "rank"], sort=False):
        colour, marker = style.look(method, labels)
        steps = curve.groupby("update").agg(
            epoch=("epoch", "first"), low=("selection_loss_nats", "min"), mean=("selection_loss_nats", "mean"),
            high=("selection_loss_nats", "max"),
        )  # fmt: skip
        if len(steps) == 1:  # nothing was trained: a level, not a curve
            steps = pd.concat([steps, steps.assign(epoch=last)])
        axes.fill_between(steps["epoch"], steps["low"], steps["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps["epoch"], steps["mean"], color=colour, linestyle=dashes[rank], lw=1.2, marker=marker, ms=2.2)
        ends.append((steps["mean"].iloc[-1], style.name(method, rank, labels), style.ink(colour)))
    axes.set_ylabel("selection loss (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(6 if last >= 1 else 3, integer=bool(last >= 1)))
    axes.set_xlim(0, last * 1.02 or 1)
    return ends


def _failed(runs: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A line for each curve of which runs are missing, and why."""
    bad = runs[runs["status"] != "ok"] if "status" in runs else runs.iloc[:0]
    seeds = bad.groupby(["method", "rank", "status"], sort=False)["seed"].agg(lambda seed: ", ".join(f"{s:.0f}" for s in seed))
    return [f"{style.name(m, rank, labels)}: {why.replace('_', ' ')}, seed {some}" for (m, rank, why), some in seeds.items()]
