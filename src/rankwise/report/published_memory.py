"""Figure: relative error of predicted memory peaks against peaks that others published."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rankwise.report import palettes, style

PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")  # columns of the ledger
UNIT_BYTES = {"B": 1, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
BAND = 5  # percent: the tolerance of published reserved memory
REACH = 10  # percent: a mark beyond it stands at the edge, with its number
FILLED, OPEN = "full", "none"  # allocated and reserved memory


def cases(claims: pd.DataFrame) -> pd.DataFrame:
    """The published peaks for which there is a prediction.

    Args:
        claims: The table of claims.

    Returns:
        Their rows, with the column `meter` of the ledger, `published_bytes`, `predicted_bytes` and
        `error_percent`: predicted less published, in percent of published.
    """
    # A claim may add columns to the peak, such as a second optimizer's state.
    meter = claims["column"].fillna("").astype(str).str.split(" + ", regex=False).str[0]
    is_peak = meter.isin(PEAKS) & claims["unit"].isin(UNIT_BYTES)
    is_decided = claims["verdict"].isin(["reproduced", "not reproduced"])
    rows = claims.assign(meter=meter)[is_peak & is_decided].dropna(subset=["ours"])
    unit_bytes = rows["unit"].map(UNIT_BYTES).astype(float)
    published, predicted = rows["published"] * unit_bytes, rows["ours"] * unit_bytes
    return rows.assign(
        published_bytes=published,
        predicted_bytes=predicted,
        error_percent=100 * (predicted - published) / published,
    )


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:  # noqa: ARG001
    """Draw one panel for all published peaks, from `claims`.

    Raises:
        ValueError: There is no published peak that the study's ledger predicts.
    """
    rows = cases(tables["claims"])
    if rows.empty:
        raise ValueError(
            "published_memory: no claim on a peak of memory is decided; the ledger has no cell "
            "that a claim names"
        )
    figure = style.empty_figure(6.0, 3.4)
    axes = figure.subplots()
    axes.axhspan(-BAND, BAND, color=palettes.GUIDE, alpha=0.5, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    for place, (source, points) in enumerate(rows.groupby("system", sort=False)):
        colour = palettes.METHODS[place % len(palettes.METHODS)]
        marker = palettes.MARKERS[place % len(palettes.MARKERS)]
        _draw_source(axes, points, colour, marker, f"{source} ({len(points)})")
    _set_axes(axes)
    distance = rows["error_percent"].abs()
    axes.set_title(
        f"{len(rows)} published peaks: median {distance.median():.1f} % off, "
        f"{(distance <= BAND).sum()} within {BAND} %"
    )
    figure.legend(loc="outside right upper", title="measured by", alignment="left")
    figure.text(0.99, 0.02, "filled: allocated\nopen: reserved", ha="right", va="bottom")
    return figure


def _draw_source(axes: Axes, points: pd.DataFrame, colour: str, marker: object, name: str) -> None:
    """The marks of one source; those beyond the axis stand at its edge with their number."""
    for column, fill in zip(PEAKS, (FILLED, OPEN), strict=True):
        here = points[points["meter"] == column]
        if here.empty:
            continue
        look = {"ls": "", "color": colour, "marker": marker, "ms": 4, "mew": 0.8, "fillstyle": fill}
        inside = here["error_percent"].clip(-REACH, REACH)
        axes.plot(here["published_bytes"] / 10**9, inside, label=name, clip_on=False, **look)
        name = "_"  # one entry of the legend for a source
    for point in points[points["error_percent"].abs() > REACH].itertuples():
        is_above = point.error_percent > 0
        axes.annotate(
            f"{point.error_percent:+.0f}".replace("-", style.MINUS),
            (point.published_bytes / 10**9, REACH if is_above else -REACH),
            (0, -5 if is_above else 5),
            textcoords="offset points",
            ha="center",
            va="top" if is_above else "bottom",
            color=style.ink(colour),
            fontsize=7,
        )


def _set_axes(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-REACH, REACH)
    axes.set_xlabel("published peak (GB)")
    axes.set_ylabel("predicted less published (%)")
