"""Figure: median seconds of a training update by part, with the samples per second.

Stacked bars: the parts add up to the whole, and the axis starts at zero. The whisker shows the
quartiles of the whole update. Its median is near the end of the bar but need not be on it, for the
sum of medians is not the median of sums.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rankwise.report import bars, palettes, style
from rankwise.report.latency import DAGGER, add_legend, is_tainted, time_unit

PARTS = {part: palettes.PHASES[part] for part in ("forward", "backward", "optimizer")}
WHISKER = {"color": "black", "lw": 0.8, "marker": "|", "ms": 3.5}
RATE_END = 46  # points right of the panel at which the column of rates ends


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset, from `throughput`.

    Raises:
        ValueError: The table is empty.
    """
    rows_by_panel = style.by_panel(tables["throughput"], labels)
    if not rows_by_panel:
        raise ValueError(
            "throughput: no training update was timed: no cell of profile has the measurement "
            "throughput"
        )
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    figure, panels = bars.panels(rows_by_panel, foot=0.3, width=4.9, has_heads=True)
    for axes, rows in zip(panels, rows_by_panel.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    handles = [Patch(color=colour, label=part) for part, colour in PARTS.items()]
    handles.append(Line2D([], [], label="quartiles", **WHISKER))
    add_legend(figure, pd.concat(rows_by_panel.values()), handles, 4, notes)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    sound = rows[rows["status"] == "ok"]
    unit_seconds, unit = time_unit(sound["update_time_s"].median() if len(sound) else 1)
    for place, row in rows.iterrows():
        if row["status"] == "ok":
            _draw_bar(axes, place, row, unit_seconds)
        else:
            where = {"xycoords": axes.get_yaxis_transform(), "va": "center_baseline"}
            axes.annotate(style.status_text(row["status"]), (0.015, place), **where)
    if len(sound):
        style.text_right_of_panel(axes, -1, "samples/s", RATE_END)
    bars.separate_methods(axes, rows)
    names = []
    for row, tainted in zip(rows.itertuples(), is_tainted(rows), strict=True):
        name = style.curve_name(row.method, row.rank, labels)
        names.append(f"{name}{DAGGER}" if tainted else name)
    style.rows_axis(axes, names, pad=6)
    axes.set_xlim(0, _longest(sound) / unit_seconds * 1.03 if len(sound) else 1)
    axes.set_xlabel(f"a training update ({unit}){_size_text(sound)}")


def _draw_bar(axes: Axes, place: int, row: pd.Series, unit_seconds: float) -> None:
    start = 0.0
    for part, colour in PARTS.items():
        seconds = row.get(f"{part}_time_s")
        if pd.notna(seconds):
            width = seconds / unit_seconds
            axes.barh(place, width, left=start, height=0.62, color=colour)
            start += width
    quartiles = [row["update_time_q1_s"] / unit_seconds, row["update_time_q3_s"] / unit_seconds]
    axes.plot(quartiles, [place, place], mew=0.8, clip_on=True, **WHISKER)
    rate = style.number(row["throughput_samples_per_s"])
    style.text_right_of_panel(axes, place, rate, RATE_END)


def _longest(rows: pd.DataFrame) -> float:
    """Seconds that the axis must hold.

    An upper quartile far beyond every median is cut off, so that the bars stay readable.
    """
    columns = [f"{part}_time_s" for part in PARTS if f"{part}_time_s" in rows]
    longest_bar = rows[columns].sum(axis=1).max()
    return min(max(longest_bar, rows["update_time_q3_s"].max()), 1.5 * longest_bar)


def _size_text(rows: pd.DataFrame) -> str:
    """The size of an update, if it is the same in all rows: ` of 2 x 8 x 32 tokens`."""
    columns = ["accumulation_steps", "batch_size", "sequence_length_tokens"]
    sizes = rows.reindex(columns=columns).drop_duplicates()
    if len(sizes) != 1:
        return ""
    steps, batch_size, length = sizes.iloc[0]
    steps_text = f"{steps:.0f} x " if steps > 1 else ""
    return f" of {steps_text}{batch_size:.0f} x {length:.0f} tokens"
