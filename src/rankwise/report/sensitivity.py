"""Figure: selection loss against learning rate, a curve a method and rank; a ring marks what the search chose.

With several options a rate, the curve takes the best of them and dots show the others. A failed trial is a cross at the top.
"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from rankwise.report import placing, style

DIRECT = 8  # curves that a panel still shows well
DECADE = 8  # from this ratio of losses on, their axis is logarithmic
LOSS = "selection_loss_nats"
CURVE = ["method", "rank"]


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["search"]`; with too many curves, by method as well.

    Raises:
        ValueError: there are no trials.
    """
    found = style.groups(_trials(tables["search"]), labels)
    parts = [(key, rows, *part) for key, rows in found.items() for part in _parts(rows, labels)]
    if not parts:
        raise ValueError("sensitivity: no trials: the study searches nothing")
    figure, panels = style.panels(
        [key for key, *_ in parts], 4.6 if len(parts) == 1 else style.COLUMN, height=2.6, columns=2
    )
    ranks = sorted(set(tables["search"]["rank"]) - {0}, reverse=True)
    dashes = {0: "-", **{rank: style.DASHES[i % len(style.DASHES)] for i, rank in enumerate(ranks)}}
    ends = []
    for axes, (key, like, title, rows) in zip(panels, parts, strict=True):
        ends.append(_panel(axes, rows, {**labels, title: ""}, dashes))
        axes.set_title(" / ".join([*key, *([labels.get(title, title)] if title else [])]))
        _axes(axes, like)
    placing.name_ends(figure, panels, ends)
    return figure


def _trials(search: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: mean, lowest and highest loss of its seeds; none of them, if one failed."""
    keys = ["model", "dataset", *CURVE, "trial"]
    some = search.groupby(keys, sort=False)
    losses = (
        some[LOSS]
        .agg(["mean", "min", "max"])
        .where(some["status"].agg(lambda status: (status == "ok").all()))
    )
    return losses.join(some[["learning_rate", "selected"]].first()).reset_index()


def _parts(rows: pd.DataFrame, labels: dict[str, str]) -> list[tuple[str, pd.DataFrame]]:
    """The panels of one model and dataset: what each title adds, a method or words, and its rows."""
    if rows.groupby(CURVE).ngroups <= DIRECT:
        return [("", rows)]
    alone = list(dict.fromkeys(rows.loc[rows["rank"] == 0, "method"]))
    pages = [alone[i : i + DIRECT] for i in range(0, len(alone), DIRECT)]
    named = [
        (f"without a rank, {i}" if len(pages) > 1 else "without a rank", page)
        for i, page in enumerate(pages, 1)
    ]
    named += [
        (method, [method])
        for method in labels
        if method in set(rows.loc[rows["rank"] > 0, "method"])
    ]
    return [(title, rows[rows["method"].isin(page)]) for title, page in named]


def _panel(
    axes: Axes, rows: pd.DataFrame, labels: dict[str, str], dashes: dict[int, object]
) -> list[tuple]:
    """Draw the curves and the notes below; returns each one's last loss (nats), name and colour."""
    ends, edge, failed = [], [], []
    for (method, rank), trials in rows.groupby(CURVE, sort=False):
        colour, marker = style.look(method, labels)
        name = style.name(method, rank, labels)
        sound, bad = trials.dropna(subset="mean"), trials[trials["mean"].isna()]
        if len(sound):
            last = _curve(axes, sound, colour, marker, dashes[rank]).iloc[-1]
            axes.plot(
                [last["learning_rate"], _span(rows)[1]],
                [last["mean"]] * 2,
                ":",
                color=colour,
                lw=0.6,
            )
            ends.append((last["mean"], name, style.ink(colour)))
            edge += [name] * _at_end(trials)
        for rate in dict.fromkeys(bad["learning_rate"]):
            height = 0.97 - 0.035 * (
                len(failed) % 4
            )  # those of other curves at the same rate stay visible
            axes.plot(
                rate,
                height,
                "x",
                color=colour,
                ms=4.5,
                mew=1.2,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
        failed += [name] * bool(len(bad))
    notes = {"crosses, trials that failed": failed, "chosen at the end of the rates tried": edge}
    axes.set_xscale("log")
    axes.set_xlim(*_span(rows))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("\n".join(["learning rate (log scale); rings: chosen", *_notes(notes)]))
    return ends


def _at_end(trials: pd.DataFrame) -> bool:
    """Whether the chosen rate is the lowest or highest of several tried: a better one may lie beyond."""
    rates = trials["learning_rate"]
    return rates.nunique() > 1 and bool(
        rates[trials["selected"].astype(bool)].isin([rates.min(), rates.max()]).any()
    )


def _notes(notes: dict[str, list[str]]) -> list[str]:
    """A line each, with the curves that it is on, or how many."""
    return [
        f"{text}: {', '.join(names) if len(names) <= style.NAMED else f'{len(names)} curves'}"
        for text, names in notes.items()
        if names
    ]


def _curve(
    axes: Axes, sound: pd.DataFrame, colour: str, marker: str, dashes: object
) -> pd.DataFrame:
    """Draw one curve, the lowest loss at each rate; returns its points."""
    best = (
        sound.sort_values("mean", kind="stable")
        .drop_duplicates("learning_rate")
        .sort_values("learning_rate")
    )
    axes.fill_between(
        best["learning_rate"], best["min"], best["max"], color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(best["learning_rate"], best["mean"], marker, ls=dashes, color=colour, lw=1.2, ms=2.4)
    others = sound.drop(index=best.index)
    axes.plot(others["learning_rate"], others["mean"], ".", color=colour, ms=2.4, alpha=0.6)
    chosen = sound[sound["selected"].astype(bool)]
    axes.plot(
        chosen["learning_rate"],
        chosen["mean"],
        "o",
        ms=7,
        mfc="none",
        mec=style.ink(colour),
        mew=1.1,
        zorder=4,
    )
    return best


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """The ends of a panel, a little beyond the rates tried."""
    low, high = rows["learning_rate"].min(), rows["learning_rate"].max()
    room = (high / low) ** 0.06 if high > low else 2.0
    return low / room, high * room


def _axes(axes: Axes, like: pd.DataFrame) -> None:
    """Losses have common limits in the panels of one model and dataset."""
    axes.set_ylabel("selection loss (nats)")
    low, high = like["min"].min(), like["max"].max()
    if math.isnan(low):  # every trial failed
        axes.set_yticks([])
        return
    room = 0.14 if like["mean"].isna().any() else 0.06
    if low > 0 and high / low > DECADE:
        axes.set_yscale("log")
        axes.set_ylim(low * (low / high) ** 0.06, high * (high / low) ** room)
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        span = (high - low) or 1.0
        axes.set_ylim(low - 0.06 * span, high + room * span)
