"""Figure: how far ours are from the published numbers, one strip a system and quantity, one mark a claim."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rankwise.analysis import tables
from rankwise.analysis.claim_verdicts import FAILED, HELD, holds_as_corrected
from rankwise.report import style

# Verdict -> colour (Okabe and Ito), marker, words.
READING = "corrected"
LOOKS = {
    HELD: ("#0072B2", "o", "reproduced"),
    READING: ("#E69F00", "D", "not reproduced, but its corrected reading is"),
    FAILED: ("#D55E00", "X", "not reproduced"),
    "not comparable": ("#7F7F7F", "|", "not comparable"),
}
EXACT, TICKS = 0.1, (-100, -10, -1, 0, 1, 10, 100, 1000)  # percent; up to EXACT the axis is linear
WIDTH, ROW, AROUND = 6.4, 0.19, 1.1  # inches


def claims_figure(request: dict, output: Path) -> None:
    """Draw the table beside the output; the metadata carry the ids of the runs that decide it."""
    folder = output.parent / "tables"
    frames = [tables.read(folder / f"{name}.csv") for name in request["tables"]]
    runs = [
        digest
        for frame in frames
        if "request_digest" in frame
        for digest in frame["request_digest"]
    ]
    style.save(draw(tables.read(output.with_suffix(".csv"))), output, sorted(set(runs)))


@style.styled
def draw(claims: pd.DataFrame) -> Figure:
    """Strips of the quantities that have a number of ours, under a title with the counts of all verdicts."""
    found = claims.assign(kind=kinds(claims), percent=_percent(claims)).dropna(subset=["ours"])
    strips = list(found.groupby(["system", "title"], sort=False))
    figure = style.canvas(WIDTH, ROW * max(len(strips), 2) + AROUND)
    figure.suptitle(counts(claims), x=0.01, ha="left", fontsize=9, fontweight="bold")
    axes = figure.subplots()
    for place, (_, rows) in enumerate(strips):
        _strip(axes, place, rows)
    _axis(axes, ["  ".join(key) for key, _ in strips])
    if not strips:
        axes.text(0.5, 0.5, "no claim is decided yet", transform=axes.transAxes, ha="center")
    shown = [kind for kind in LOOKS if (found["kind"] == kind).any()]
    handles = [
        Line2D([], [], ls="", color=LOOKS[k][0], marker=LOOKS[k][1], ms=5, label=LOOKS[k][2])
        for k in shown
    ]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=2, handletextpad=0.2, columnspacing=1.2
    )
    return figure


def kinds(claims: pd.DataFrame) -> pd.Series:
    """The verdict, with those not reproduced whose corrected reading is set apart."""
    return claims["verdict"].mask(
        (claims["verdict"] == FAILED) & holds_as_corrected(claims), READING
    )


def counts(claims: pd.DataFrame) -> str:
    """How many claims there are, and how many of each verdict: `264 claims: 120 reproduced, ...`."""
    found = claims["verdict"].value_counts()
    return f"{len(claims)} claims: " + ", ".join(
        f"{number} {verdict}" for verdict, number in found.items()
    )


def _percent(claims: pd.DataFrame) -> pd.Series:
    return 100 * (claims["ours"] - claims["published"]) / claims["published"].abs()


def _strip(axes: Axes, place: int, rows: pd.DataFrame) -> None:
    """Marks of one strip, those at one spot fanned out, and how many hold."""
    spots = rows.groupby(rows["percent"].round(2)).cumcount()
    crowd = rows.groupby(rows["percent"].round(2))["percent"].transform("size")
    height = (spots - (crowd - 1) / 2) * (0.7 / crowd.clip(lower=6))
    for kind, (colour, marker, _) in LOOKS.items():
        here = rows["kind"] == kind
        if here.any():
            look = {"color": colour, "marker": marker, "ms": 4, "mew": 0.8}
            axes.plot(rows["percent"][here], place + height[here], ls="", clip_on=False, **look)
    held, judged = (rows["kind"] == HELD).sum(), (rows["kind"] != "not comparable").sum()
    where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    text = f"{held} of {judged}" if judged else ""
    axes.annotate(
        text, (1, place), (40, 0), ha="right", va="center_baseline", annotation_clip=False, **where
    )


def _axis(axes: Axes, names: list[str]) -> None:
    axes.set_xscale("symlog", linthresh=EXACT, linscale=0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(min(1.3 * low, -12), max(1.3 * high, 12))
    axes.xaxis.set_major_locator(
        FixedLocator([tick for tick in TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+,.0f}".replace("-", style.MINUS) if value else "0")
    )
    axes.set_xlabel("ours less the published number, % of it (log scale on both sides of 0)")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color="#4D4D4D", linewidth=0.6, zorder=1)
    axes.annotate(
        "hold",
        (1, -0.6),
        (40, 4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
    )
