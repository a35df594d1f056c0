"""Figure: how far our numbers are from the published ones.

There is one strip for each system and quantity, and one mark for each claim.
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rankwise.analysis import tables
from rankwise.analysis.claim_verdicts import FAILED, HELD, holds_as_corrected
from rankwise.report import palettes, partial_note, style

NOT_COMPARABLE = "not comparable"
CORRECTED = "corrected"  # not reproduced, but the corrected reading of the published number is
LOOKS = {  # kind -> colour, marker, words
    HELD: (palettes.CLAIMS["reproduced"], "o", "reproduced"),
    CORRECTED: (palettes.CLAIMS["corrected"], "D", "not reproduced, but its corrected reading is"),
    FAILED: (palettes.CLAIMS["not reproduced"], "X", "not reproduced"),
    NOT_COMPARABLE: (palettes.CLAIMS["not comparable"], "|", "not comparable"),
}
LINEAR = 0.1  # percent; between minus and plus this value the axis is linear
TICKS = (-100, -10, -1, 0, 1, 10, 100, 1000)  # percent
WIDTH, ROW_HEIGHT, AROUND = 6.4, 0.19, 1.1  # inches: figure, row, title and axis
COUNT_END = 40  # points right of the panel at which the column of counts ends


def claims_figure(request: dict, output: Path) -> None:
    """Draw the table of claims in the folder of the output.

    The metadata of the files name the runs of `request["tables"]`, which decide the claims.
    """
    folder = output.parent / "tables"
    frames = [tables.read(folder / f"{name}.csv") for name in request["tables"]]
    figure = draw(tables.read(output.with_suffix(".csv")))
    partial_note.add(figure, request)
    style.save(figure, output, style.run_digests(frames))


@style.styled
def draw(claims: pd.DataFrame) -> Figure:
    """Draw a strip for each quantity that we have, below the counts of all verdicts."""
    with_kind = claims.assign(kind=kinds(claims), percent=_percent(claims))
    known = with_kind.dropna(subset=["ours"])
    strips = list(known.groupby(["system", "title"], sort=False))
    figure = style.empty_figure(WIDTH, ROW_HEIGHT * max(len(strips), 2) + AROUND)
    figure.suptitle(counts(claims), x=0.01, ha="left", fontsize=9, fontweight="bold")
    axes = figure.subplots()
    for place, (_, rows) in enumerate(strips):
        _draw_strip(axes, place, rows)
    _set_axes(axes, ["  ".join(key) for key, _ in strips])
    if not strips:
        axes.text(0.5, 0.5, "no claim is decided yet", transform=axes.transAxes, ha="center")
    handles = []
    for kind, (colour, marker, text) in LOOKS.items():
        if (known["kind"] == kind).any():
            handles.append(Line2D([], [], ls="", color=colour, marker=marker, ms=5, label=text))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=2, handletextpad=0.2, columnspacing=1.2
    )
    return figure


def kinds(claims: pd.DataFrame) -> pd.Series:
    """The verdict on each claim, where `corrected` replaces it if the corrected reading holds."""
    is_corrected = (claims["verdict"] == FAILED) & holds_as_corrected(claims)
    return claims["verdict"].mask(is_corrected, CORRECTED)


def counts(claims: pd.DataFrame) -> str:
    """The number of claims, and of each verdict: `264 claims: 120 reproduced, ...`."""
    by_verdict = claims["verdict"].value_counts()
    texts = [f"{count} {verdict}" for verdict, count in by_verdict.items()]
    return f"{len(claims)} claims: {', '.join(texts)}"


def _percent(claims: pd.DataFrame) -> pd.Series:
    return 100 * (claims["ours"] - claims["published"]) / claims["published"].abs()


def _draw_strip(axes: Axes, place: int, rows: pd.DataFrame) -> None:
    """The marks of one strip, and how many of its claims hold.

    Marks at the same place are spread over the height of the strip.
    """
    same_place = rows.groupby(rows["percent"].round(2))
    number, crowd = same_place.cumcount(), same_place["percent"].transform("size")
    height = (number - (crowd - 1) / 2) * (0.7 / crowd.clip(lower=6))
    for kind, (colour, marker, _) in LOOKS.items():
        here = rows["kind"] == kind
        if here.any():
            look = {"color": colour, "marker": marker, "ms": 4, "mew": 0.8}
            axes.plot(rows["percent"][here], place + height[here], ls="", clip_on=False, **look)
    held, judged = (rows["kind"] == HELD).sum(), (rows["kind"] != NOT_COMPARABLE).sum()
    text = f"{held} of {judged}" if judged else ""
    style.text_right_of_panel(axes, place, text, COUNT_END)


def _set_axes(axes: Axes, names: list[str]) -> None:
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    low, high = axes.get_xlim()
    low, high = min(1.3 * low, -12), max(1.3 * high, 12)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_text))
    axes.set_xlabel("ours less the published number, % of it (log scale on both sides of 0)")
    style.rows_axis(axes, names, pad=6)
    axes.axvline(0, color="#4D4D4D", linewidth=0.6, zorder=1)
    axes.annotate(
        "hold",
        (1, -0.6),
        (COUNT_END, 4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
    )


def _tick_text(percent: float, _: int) -> str:
    return f"{percent:+,.0f}".replace("-", style.MINUS) if percent else "0"
