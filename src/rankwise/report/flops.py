"""Figure: FLOPs of an update by phase, by method and rank: forward, backward, the optimizer's step, its refreshes spread out.

Bars are on a linear axis, so that lengths add up; what the optimizer adds is mostly too little to see, and stands as a number.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rankwise.report import bars, style

TOTAL, SHARE = 36, 82  # points right of the panel where the two columns of text end
PHASES = {
    "forward": style.COLOURS[3],
    "backward": style.COLOURS[6],
    "optimizer": style.COLOURS[2],
    "refresh, spread over its interval": style.COLOURS[5],
}
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """One panel a model and dataset, from `tables["flops"]`.

    Raises:
        ValueError: the table is empty.
    """
    found = style.groups(tables["flops"], labels)
    if not found:
        raise ValueError("flops: no FLOPs profile: no cell of profile has the measurement flops")
    figure, grid = bars.panels(found, foot=0.3, around=0.78)
    for axes, (key, rows) in zip(grid, found.items(), strict=True):
        axes.set_title(" / ".join(key), pad=15)
        _panel(axes, rows.reset_index(drop=True), labels)
    handles = [Patch(color=colour, label=phase) for phase, colour in PHASES.items()]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=4,
        columnspacing=1.0,
        handlelength=1.0,
        handletextpad=0.4,
    )
    return figure


def phases(rows: pd.DataFrame) -> pd.DataFrame:
    """FLOPs of an update by phase, a column each; what a method does by itself every so many steps is with the refreshes.

    Rows that did not end well are empty, whatever they hold.
    """
    names = (
        "forward_flops",
        "backward_flops",
        "accumulation_steps",
        "optimizer_flops",
        "optimizer_amortised_flops",
    )
    sound = rows["status"] == "ok"
    forward, backward, steps, plain, amortised = (
        (rows[name] if name in rows else pd.Series(float("nan"), rows.index))
        .where(sound)
        .astype(float)
        for name in names
    )
    return pd.DataFrame(
        dict(
            zip(PHASES, (steps * forward, steps * backward, plain, amortised - plain), strict=True)
        )
    )


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    parts = phases(rows)
    totals = parts.sum(axis="columns", min_count=1)
    one, prefix = _prefix(totals.max())
    start = pd.Series(0.0, rows.index)
    for phase, colour in PHASES.items():
        axes.barh(
            rows.index, parts[phase] / one, left=start / one, color=colour, height=0.72, linewidth=0
        )
        start += parts[phase]
    _beside(axes, -0.9, f"{prefix}FLOP", TOTAL)
    _beside(axes, -0.9, "optimizer", SHARE)
    for place, row in rows.iterrows():
        if place and row["method"] != rows["method"][place - 1]:
            axes.axhline(place - 0.5, color=style.GUIDE, linewidth=0.6)
        if row["status"] != "ok":
            _beside(axes, place, row["status"].replace("_", " "), SHARE)
            continue
        _beside(axes, place, style.number(totals[place] / one), TOTAL)
        _beside(axes, place, _percent(parts.iloc[place, 2:].sum() / totals[place]), SHARE)
    _axes(axes, rows, labels, totals.max() / one)
    axes.set_xlabel(f"matrix products of an update ({prefix}FLOP)")


def _axes(axes: Axes, rows: pd.DataFrame, labels: dict[str, str], longest: float) -> None:
    axes.set_yticks(range(len(rows)), _names(rows, labels))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.03 if longest > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="y", length=0, pad=3)
    axes.grid(axis="y", visible=False)


def _beside(axes: Axes, place: float, text: str, right: float) -> None:
    """Text that ends `right` points right of the panel."""
    where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(
        text,
        (1, place),
        (right, 0),
        ha="right",
        va="center_baseline",
        annotation_clip=False,
        **where,
    )


def _prefix(flops: float) -> tuple[float, str]:
    """The largest SI prefix that is no larger than `flops`: its value and its letter."""
    return next((both for both in PREFIXES if flops >= both[0]), PREFIXES[-1])


def _percent(share: float) -> str:
    """Two significant digits below ten percent; what is there never reads 0."""
    percent = 100 * share
    if not percent:
        return "0 %"
    return (
        "< 0.01 %" if percent < 0.01 else f"{percent:.2f} %" if percent < 1 else f"{percent:.1f} %"
    )


def _names(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A method's name at its first row only; then the ranks alone."""
    repeated = rows["method"].eq(rows["method"].shift())
    return [
        style.rank_name(rank) if again and rank else style.name(method, rank, labels)
        for method, rank, again in zip(rows["method"], rows["rank"], repeated, strict=True)
    ]
