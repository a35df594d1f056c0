"""The chart of quality against cost; a reader chooses both axes.

A row of its data has a value for each choice. The page puts the chosen ones into the fields `x` and
`y`, titles the axes, and draws the front: means that no other mean beats on both axes.
"""

import pandas as pd

from rankwise.analysis.costs import costs
from rankwise.core.keys import CURVE_IN_GROUP, GROUP
from rankwise.report import style
from rankwise.report.html import groups, quality, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.units import FLOP_UNITS
from rankwise.report.html.vega import CURVE_COLUMN, RUN_COLUMN, SEED_COLUMN, Chart, Note, Panel
from rankwise.report.latency import TIME_UNITS

FIRST_COST = "kept_bytes"  # the axis at first, if the study has it
COST_NAMES = {
    "kept_bytes": "memory kept between steps",
    "peak_bytes": "peak memory, predicted",
    "measured_peak_bytes": "peak memory, measured",
    "step_flops": "compute of a step",
    "update_time_s": "time of an update",
    "step_time_s": "time of a step in the runs",
}
LOSS = "eval_loss_nats"
CAPTION = (
    "Each large mark is a method at a rank: the mean over its seeds. Bars are 95 % intervals, if "
    "the study has them. Small marks are single runs: click one to see it. The grey line joins the "
    "means that no other mean beats on both axes; it is no test."
)


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """The chart, if the study has runs and some cost of them."""
    groups_by_panel = groups.by_panel(frames, labels)
    if not groups_by_panel:
        return []
    table, notes = costs(frames)
    if table.empty or not len(table.columns):
        return []
    names = sorted(table.columns, key=lambda name: name != FIRST_COST)
    priced = {
        key: group
        for key, group in groups_by_panel.items()
        if table.xs(key, level=GROUP).notna().any(axis=None)
    }
    if not priced:
        return []
    legend = vega.method_legend(groups.methods_of(priced), labels)
    panels = [
        _panel(key, group, table, labels, legend, [Note(notes[key])] if key in notes else [])
        for key, group in priced.items()
    ]
    choices = {"x": [(name, cost_name(name)) for name in names], "y": [("value", "quality")]}
    if any(LOSS in group.runs and group.runs[LOSS].notna().any() for group in priced.values()):
        choices["y"].append((LOSS, "loss"))
    columns = [CURVE_COLUMN, SEED_COLUMN, ("y", "quality"), ("x", "cost"), RUN_COLUMN]
    covered = ("accuracy_memory",) if FIRST_COST in names else ()
    title = "Quality against cost"
    return [Chart("front", title, CAPTION, panels, legend, columns, "runs", covered, choices)]


def cost_name(cost: str) -> str:
    """A cost in words: `optimizer state` for `optimizer_state_bytes`."""
    has_unit = cost.endswith(("_bytes", "_s", "_flops", "_joules"))
    stem = cost.rpartition("_")[0] if has_unit else cost
    return COST_NAMES.get(cost, stem.replace("_", " "))


def scale(cost: str, largest: float) -> tuple[float, str]:
    """The unit that fits the largest value of a cost: what values are divided by, and its name."""
    if cost.endswith("_bytes"):
        return style.byte_unit(largest)
    if cost.endswith("_flops"):
        return style.largest_unit(largest, FLOP_UNITS)
    if cost.endswith("_s"):
        return style.largest_unit(largest, TIME_UNITS)
    return 1, "J" if cost.endswith("_joules") else ""


def _panel(
    key: Key,
    group: Group,
    table: pd.DataFrame,
    labels: dict[str, str],
    legend: list[dict],
    notes: list[Note],
) -> Panel:
    own_costs = table.xs(key, level=GROUP)
    axes = {
        "value": {"title": group.axis, "better": "higher" if group.metric.sign > 0 else "lower"}
    }
    scaled = {}
    for cost in own_costs:
        divisor, unit = scale(cost, own_costs[cost].max())
        scaled[cost] = own_costs[cost] / divisor
        axes[cost] = {"title": f"{cost_name(cost)} ({unit})" if unit else cost_name(cost)}
    runs, curves = group.runs.dropna(subset=["value"]), group.curves
    if LOSS in runs:
        means = runs.groupby(CURVE_IN_GROUP)[LOSS].mean().rename(LOSS)
        curves = curves.join(means, on=CURVE_IN_GROUP)
        axes[LOSS] = {"title": "loss (nats)", "better": "lower"}
    # A table of runs may have the same costs by seed; the mean of the curve is what is drawn.
    runs = runs.drop(columns=[cost for cost in scaled if cost in runs])
    costs_of_curves = pd.DataFrame(scaled, index=own_costs.index)
    data = {"front": [{"x": 0, "y": 0}]}
    for name, rows in (("curves", curves), ("runs", runs)):
        named = rows.join(costs_of_curves, on=CURVE_IN_GROUP)
        named = named.assign(curve=vega.curve_names(named, labels))
        more = [column for column in (LOSS, *scaled) if column in named]
        shown = quality.curve_rows if name == "curves" else quality.run_rows
        data[name] = shown(named, more)
    description = f"{group.title} against cost, {' on '.join(key)}."
    spec = vega.chart_spec(_layers(legend, curves), data, description)
    return Panel(key, spec, [*vega.failure_notes(group.runs, labels), *notes], axes=axes)


def _layers(legend: list[dict], curves: pd.DataFrame) -> list[dict]:
    """The front, lines through the ranks of a method, dots with intervals, and texts of ranks."""
    x, y = vega.quantity("x", "x"), vega.quantity("y", "y")
    front = vega.layer(
        "front",
        {
            "type": "line",
            "interpolate": "step-after",
            "strokeWidth": 5,
            "color": vega.QUIET,
            "opacity": 0.25,
        },
        x=x,
        y=y,
    )
    line = vega.layer(
        "curves",
        {"type": "line", "strokeWidth": 1.2},
        x=x,
        y=y,
        order={"field": "rank", "type": "quantitative"},
        color=vega.encoded("method", legend),
        opacity=vega.focus_opacity(0.6),
    )
    value, cost = ("y", "y"), ("x", "x")
    dots = quality.dots(
        x,
        y,
        legend,
        curve_columns=[CURVE_COLUMN, value, *quality.INTERVAL_COLUMNS, cost],
        run_columns=[CURVE_COLUMN, SEED_COLUMN, value, cost, RUN_COLUMN],
        with_intervals=quality.has_intervals(curves),
    )
    text = vega.layer(
        "curves",
        {"type": "text", "align": "left", "dx": 8, "dy": -7, "fontSize": 11, "color": vega.QUIET},
        x=x,
        y=y,
        text={"field": "text", "type": "nominal"},
        opacity=vega.focus_opacity(1),
    )
    return [front, line, *dots, text]
