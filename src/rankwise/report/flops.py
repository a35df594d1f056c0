"""Figure: FLOPs of an update by phase, by method and rank.

The phases are forward, backward, the optimizer's step, and its refreshes spread over their
interval. Bars are on a linear axis, so that their lengths add up. The optimizer's share is mostly
too small to see, and so it is also written as a number.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rankwise.report import bars, palettes, style

TOTAL_END, SHARE_END = 36, 82  # points right of the panel at which the two columns of texts end
FORWARD, BACKWARD, STEP = "forward", "backward", "optimizer"
REFRESH = "refresh, spread over its interval"
PHASES = {
    FORWARD: palettes.PHASES["forward"],
    BACKWARD: palettes.PHASES["backward"],
    STEP: palettes.PHASES["optimizer"],
    REFRESH: palettes.PHASES["refresh"],
}
SI_PREFIXES = (
    (1e18, "E"),
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1, ""),
)


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Draw one panel for each model and dataset, from `flops`.

    Raises:
        ValueError: The table is empty.
    """
    rows_by_panel = style.by_panel(tables["flops"], labels)
    if not rows_by_panel:
        raise ValueError("flops: no FLOPs profile: no cell of profile has the measurement flops")
    rows_by_panel, notes = bars.fewer(rows_by_panel)
    figure, panels = bars.panels(rows_by_panel, foot=0.3, has_heads=True)
    for axes, rows in zip(panels, rows_by_panel.values(), strict=True):
        _panel(axes, rows.reset_index(drop=True), labels)
    handles = [Patch(color=colour, label=phase) for phase, colour in PHASES.items()]
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=4,
        columnspacing=1.0,
        handlelength=1.0,
        handletextpad=0.4,
        **style.legend_notes(notes),
    )
    return figure


def phases(rows: pd.DataFrame) -> pd.DataFrame:
    """FLOPs of an update by phase, one column for each.

    The second forward pass of an optimizer without a backward (MeZO) counts as forward, and what a
    method itself computes every so many steps as a refresh. Rows that did not end well are empty,
    whatever their columns hold.
    """
    is_sound = rows["status"] == "ok"

    def column(name: str) -> pd.Series:
        values = rows[name] if name in rows else pd.Series(float("nan"), rows.index)
        return values.where(is_sound).astype(float)

    steps = column("accumulation_steps")
    step = column("optimizer_flops")
    return pd.DataFrame(
        {
            FORWARD: steps * (column("forward_flops") + column("second_forward_flops").fillna(0)),
            BACKWARD: steps * column("backward_flops"),
            STEP: step,
            REFRESH: column("optimizer_amortised_flops") - step,
        }
    )


def _panel(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    parts = phases(rows)
    totals = parts.sum(axis="columns", min_count=1)
    unit_flops, prefix = style.largest_unit(totals.max(), SI_PREFIXES)
    _draw_bars(axes, parts, unit_flops)
    style.text_right_of_panel(axes, -0.9, f"{prefix}FLOP", TOTAL_END)
    style.text_right_of_panel(axes, -0.9, "optimizer", SHARE_END)
    optimizer = parts[STEP] + parts[REFRESH]
    for place, row in rows.iterrows():
        if row["status"] != "ok":
            text = style.status_text(row["status"])
            style.text_right_of_panel(axes, place, text, SHARE_END)
            continue
        total = style.number(totals[place] / unit_flops)
        share = _percent_text(optimizer[place] / totals[place])
        style.text_right_of_panel(axes, place, total, TOTAL_END)
        style.text_right_of_panel(axes, place, share, SHARE_END)
    bars.separate_methods(axes, rows)
    style.rows_axis(axes, bars.row_names(rows, labels), pad=3)
    longest = totals.max() / unit_flops
    axes.set_xlim(0, longest * 1.03 if longest > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"matrix products of an update ({prefix}FLOP)")


def _draw_bars(axes: Axes, parts: pd.DataFrame, unit_flops: float) -> None:
    start = pd.Series(0.0, parts.index)
    for phase, colour in PHASES.items():
        width, left = parts[phase] / unit_flops, start / unit_flops
        axes.barh(parts.index, width, left=left, color=colour, height=bars.BAR, linewidth=0)
        start += parts[phase]


def _percent_text(share: float) -> str:
    """A share in percent, with more digits if it is small; only 0 reads `0 %`."""
    percent = 100 * share
    if percent == 0:
        return "0 %"
    if percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f} %" if percent < 1 else f"{percent:.1f} %"
