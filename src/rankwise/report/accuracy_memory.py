"""Figure: the final metric against the bytes that training keeps between steps, with the front of the two."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankwise.analysis.fronts import is_on_front
from rankwise.report import placing, style

CURVE = ["method", "rank"]
CELL = ["model", "dataset", *CURVE]
PARTS = ["weights_bytes", "quantization_bytes", "gradients_bytes", "optimizer_state_bytes"]
BOTTOM = 0.04  # height of a failed run's cross, as a share of the panel
FRONT = "grey: front of the means (less memory, better)"
DIRECT = 8  # dots that can all be named; beyond, a legend names the methods and a dot at an end of a line its rank


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset of `tables["runs"]` that `tables["memory"]` profiles too: means, and faintly each seed.

    A curve with a failed run is never on the front: the mean of the seeds that survived flatters it.

    Raises:
        ValueError: a run of a panel has no memory profile, or no panel is left; names the cells.
    """
    found = _panels(tables["runs"], tables["memory"], labels)
    curves = {key: _means(rows) for key, rows in found.items()}
    direct = max(len(points) for points in curves.values()) <= DIRECT
    figure, panels = style.panels(found, style.COLUMN, height=3.2, columns=2)
    marks = [
        _panel(axes, found[key], points, labels, direct)
        for axes, (key, points) in zip(panels, curves.items(), strict=True)
    ]
    if not direct:
        _legend(figure, pd.concat(curves.values()), labels)
    figure.draw_without_rendering()
    for axes, named in zip(panels, marks, strict=True):
        pixels = [(*where.transform((x, y)), text, colour) for where, x, y, text, colour in named]
        placing.place(axes, pixels, [point for line in axes.lines for point in _along(line)])
    return figure


def _panels(
    runs: pd.DataFrame, memory: pd.DataFrame, labels: dict[str, str]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Runs by panel, with `kept_bytes` and the metric that the panel shows as `value`."""
    sizes = memory[CELL].assign(kept_bytes=memory[PARTS].astype(float).sum(axis=1, skipna=False))
    joined = runs.merge(sizes, on=CELL, how="left", validate="many_to_one")
    profiled = set(style.groups(memory, labels))
    lacking = joined[joined["kept_bytes"].isna() & (joined["status"] == "ok")]
    found = {
        key: _valued(rows) for key, rows in style.groups(joined, labels).items() if key in profiled
    }
    missing = (
        lacking[[key in found for key in zip(lacking["model"], lacking["dataset"], strict=True)]]
        if found
        else joined
    )
    if len(missing) or not found:
        named = style.cells(missing) or "there are none"
        raise ValueError(f"accuracy_memory: no memory profile for the cells of train: {named}")
    return found


def _valued(rows: pd.DataFrame) -> pd.DataFrame:
    empty = pd.Series(np.nan, rows.index)
    accuracy = rows.get("accuracy_fraction", empty).astype(float)
    is_accuracy = accuracy.notna().any()
    value = 100 * accuracy if is_accuracy else rows.get("perplexity", empty).astype(float)
    return rows.assign(value=value, accuracy=is_accuracy)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a method and rank: mean value over its seeds, kept bytes, and what became of the runs that failed."""
    found = rows.groupby(CURVE, sort=False)
    means = found.agg(kept_bytes=("kept_bytes", "first"), value=("value", "mean"))
    return means.assign(failed=found["status"].agg(_failed)).reset_index()


def _failed(status: pd.Series) -> str:
    bad = status[status != "ok"].str.replace("_", " ")
    words = [
        f"{n} of {len(status)} {word}" if n < len(status) else word
        for word, n in bad.value_counts(sort=False).items()
    ]
    return ", ".join(words)


def _panel(
    axes: Axes, rows: pd.DataFrame, points: pd.DataFrame, labels: dict[str, str], direct: bool
) -> list[tuple]:
    """Draw the dots; returns what to label: transform, x, y, text, colour."""
    one, unit = style.unit(rows["kept_bytes"].max())
    marks = []
    _front(
        axes, points.assign(size=points["kept_bytes"] / one), -1 if rows["accuracy"].iloc[0] else 1
    )
    for method, part in points.groupby("method", sort=False):
        seeds, curve = rows[rows["method"] == method], part.assign(size=part["kept_bytes"] / one)
        colour, marker = style.look(method, labels)
        axes.plot(
            seeds["kept_bytes"] / one,
            seeds["value"],
            marker,
            color=colour,
            alpha=0.35,
            markersize=2.5,
            mew=0,
        )
        drawn = curve.dropna(subset=["size", "value"])
        axes.plot(
            drawn["size"],
            drawn["value"],
            "-",
            marker=marker,
            color=colour,
            ms=4.5,
            lw=0.8,
            zorder=3,
        )
        ends = drawn if direct else drawn.iloc[sorted({0, len(drawn) - 1})]
        marks += [
            (axes.transData, p.size, p.value, _text(p, labels, direct), style.ink(colour))
            for p in ends.itertuples()
        ]
        bottom, bad = (
            axes.get_xaxis_transform(),
            curve[(curve["failed"] != "") & curve["size"].notna()],
        )
        axes.plot(
            bad["size"], [BOTTOM] * len(bad), "x", transform=bottom, color=colour, ms=5, zorder=3
        )
        words = [f"{_text(p, labels, direct)}: {p.failed}" for p in bad.itertuples()]
        marks += [
            (bottom, x, BOTTOM, text, style.ink(colour))
            for x, text in zip(bad["size"], words, strict=True)
        ]
    _axes(axes, rows, unit, points)
    unseen = points[(points["failed"] != "") & points["kept_bytes"].isna()]
    lines = [
        f"{style.name(p.method, p.rank, labels)}: {p.failed}, no memory profile"
        for p in unseen.itertuples()
    ]
    axes.set_xlabel("\n".join([axes.get_xlabel(), FRONT, *lines]))
    return marks


def _front(axes: Axes, points: pd.DataFrame, sign: int) -> None:
    """Steps through the points that no other dominates; `sign` is 1 where less is better."""
    sound = points[(points["failed"] == "") & points["size"].notna() & points["value"].notna()]
    if len(sound):
        best = sound[is_on_front(sound["size"], -sign * sound["value"])].sort_values(
            ["size", "value"]
        )
        x, y = [*best["size"], points["size"].max()], [*best["value"], best["value"].iloc[-1]]
        axes.plot(
            x,
            y,
            drawstyle="steps-post",
            color=style.FRONT,
            lw=3.5,
            solid_capstyle="round",
            zorder=1,
        )


def _along(line: Line2D) -> np.ndarray:
    """Points on a drawn line and its markers, in pixels, (n, 2)."""
    corners = line.get_transform().transform(line.get_xydata())
    if line.get_linestyle() == "None" or len(corners) < 2:
        return corners
    place = np.linspace(0, len(corners) - 1, 6 * len(corners))
    return np.column_stack(
        [np.interp(place, range(len(corners)), corners[:, axis]) for axis in (0, 1)]
    )


def _text(point: tuple, labels: dict[str, str], direct: bool) -> str:
    return (
        style.name(point.method, point.rank, labels)
        if direct or not point.rank
        else style.rank_name(point.rank)
    )


def _axes(axes: Axes, rows: pd.DataFrame, unit: str, points: pd.DataFrame) -> None:
    split = "" if rows["split"].dropna().empty else f" on {rows['split'].dropna().iloc[0]}"
    axes.set_ylabel(
        f"accuracy{split} (%)"
        if rows["accuracy"].iloc[0]
        else f"perplexity{split}\n(lower is better)"
    )
    axes.set_xlabel(
        f"weights + gradients + optimizer state ({unit}),\nkept between steps, without activations"
    )
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    low, high = axes.get_ylim()
    axes.set_ylim(
        low - (0.14 if (points["failed"] != "").any() else 0.03) * (high - low),
        high + 0.05 * (high - low),
    )


def _legend(figure: Figure, points: pd.DataFrame, labels: dict[str, str]) -> None:
    """Each method's colour and its ranks, in the order in which the line joins them."""
    curves = style.ordered(points, labels).groupby("method", sort=False)
    ranks = {method: sorted(set(rows["rank"]) - {0}) for method, rows in curves}
    looks = [style.look(method, labels) for method in ranks]
    dots = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5)
        for colour, marker in looks
    ]
    names = [
        f"{labels[m]}, r={', '.join(f'{rank:.0f}' for rank in some)}" if some else labels[m]
        for m, some in ranks.items()
    ]
    figure.legend(dots, names, loc="outside lower center", ncols=3, handletextpad=0.2)
