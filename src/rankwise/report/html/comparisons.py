"""The chart of comparisons: how far each curve is from the best of its model and dataset."""

import pandas as pd

from rankwise.core.keys import CURVE_IN_GROUP
from rankwise.report import style
from rankwise.report.html import groups, vega
from rankwise.report.html.groups import Group, Key
from rankwise.report.html.vega import CURVE_COLUMN, Chart, Column, Panel

ROW = 24  # pixels for each curve
# Verdict -> marker. A verdict has no colour: the colour of a mark is that of its method.
VERDICTS = {"better": "^", "tied": "o", "undecided": "D", "worse": "v"}
TOOLTIP: list[Column] = [
    CURVE_COLUMN,
    ("difference", "difference"),
    ("low", "from"),
    ("high", "to"),
    ("verdict", "verdict"),
    ("p_adjusted", "p (adjusted)"),
    ("p_equivalence_adjusted", "p (equivalence, adjusted)"),
    ("seeds", "seeds"),
    ("examples", "examples"),
    ("seeds_needed", "seeds needed"),
    ("run", "first run"),
]


def charts(
    groups_by_panel: dict[Key, Group], table: pd.DataFrame | None, labels: dict[str, str]
) -> list[Chart]:
    """Every curve against the best of its model and dataset: difference, interval, verdict."""
    if table is None or not len(table):
        return []
    legend = vega.named_legend({name: (vega.INK, marker) for name, marker in VERDICTS.items()})
    methods = vega.method_legend(groups.methods_of(groups_by_panel), labels)
    panels = []
    for key, group in groups_by_panel.items():
        pairs = against_best(table, key, group)
        if len(pairs):
            panels.append(_panel(key, pairs, group, labels, (legend, methods)))
    if not panels:
        return []
    caption = (
        "Difference of every curve to the curve with the best estimate, paired by seed and "
        "example, with its simultaneous 95 % interval. Left of zero is worse. The shaded band is "
        "the margin within which curves count as tied. The shape is the verdict, the colour the "
        "method."
    )
    columns = [
        CURVE_COLUMN,
        ("best", "best"),
        ("difference", "difference"),
        ("low", "from"),
        ("high", "to"),
        ("verdict", "verdict"),
        ("p_adjusted", "p (adjusted)"),
    ]
    title = "Difference to the best"
    return [Chart("comparisons", title, caption, panels, legend, columns, "pairs")]


def against_best(table: pd.DataFrame, key: Key, group: Group) -> pd.DataFrame:
    """The comparisons of a group's curves with its best curve.

    Each row is about the other curve, `method` and `rank`: its difference is positive and its
    verdict is `better` if that curve is better than the best estimate.
    """
    best = group.best
    model, dataset = key
    own = table[(table["model"] == model) & (table["dataset"] == dataset)]
    own = own[own["metric"] == group.metric.name]
    best_is_a = (own["method_a"] == best["method"]) & (own["rank_a"] == best["rank"])
    best_is_b = (own["method_b"] == best["method"]) & (own["rank_b"] == best["rank"])
    # The table has the difference of a to b. Where the best curve is a, the sign is turned.
    turned = own[best_is_a].rename(
        columns={"method_b": "method", "rank_b": "rank", "low": "high", "high": "low"}
    )
    for name in ("difference", "low", "high"):
        turned[name] = -turned[name].astype(float)
    turned = _with_verdict(turned, {"a better": "worse", "b better": "better"})
    straight = own[best_is_b].rename(columns={"method_a": "method", "rank_a": "rank"})
    straight = _with_verdict(straight, {"a better": "better", "b better": "worse"})
    pairs = pd.concat([turned, straight])
    return pairs.assign(best_method=best["method"], best_rank=best["rank"])


def _with_verdict(pairs: pd.DataFrame, words: dict[str, str]) -> pd.DataFrame:
    return pairs.assign(verdict=pairs["verdict"].map(words).fillna(pairs["verdict"]))


def _panel(
    key: Key,
    pairs: pd.DataFrame,
    group: Group,
    labels: dict[str, str],
    legends: tuple[list[dict], list[dict]],
) -> Panel:
    """A forest plot: a dot and an interval for each curve, the best first."""
    best_name = style.curve_name(group.best["method"], group.best["rank"], labels)
    rows = _rows(pairs, group, labels).assign(best=best_name)
    order = list(rows["curve"])
    columns = [name for name, _ in TOOLTIP if name in rows]
    margin = 0
    if rows["margin"].notna().any():
        margin = float(rows["margin"].dropna().max() * group.metric.factor)
    data = {
        "pairs": vega.plain_rows(rows[[*CURVE_IN_GROUP, "best", *columns]]),
        "zero": [{"at": 0}],
        "margin": [{"from": -margin, "to": margin}],
    }
    description = f"Difference of every curve to {best_name}, {' on '.join(key)}."
    layers = _layers(group, order, *legends)
    spec = vega.chart_spec(layers, data, description, {"step": ROW})
    return Panel(key, spec, [], detail=f", against {best_name}")


def _rows(pairs: pd.DataFrame, group: Group, labels: dict[str, str]) -> pd.DataFrame:
    """The comparisons with names, in the units of the chart, from the best to the worst."""
    rows = style.ordered(pairs, labels)
    rows = rows.assign(curve=vega.curve_names(rows, labels))
    for name in ("difference", "low", "high"):
        rows[name] = rows[name].astype(float) * group.metric.factor
    rows = rows.merge(group.curves[[*CURVE_IN_GROUP, "run"]], on=CURVE_IN_GROUP, how="left")
    return rows.sort_values("difference", ascending=False, kind="stable")


def _axis(group: Group) -> str:
    """The unit of a difference, in words."""
    if group.metric.is_fraction:
        return f"points of {group.metric.label}"
    if group.metric.is_log:
        return f"log of the ratio of {group.metric.label}"
    return f"difference of {group.metric.label}"


def _layers(
    group: Group, order: list[str], verdicts: list[dict], methods: list[dict]
) -> list[dict]:
    x = vega.quantity("difference", _axis(group), zero=True)
    y = vega.curve_axis(order)
    look = {
        "color": vega.encoded("method", methods),
        "opacity": vega.focus_opacity(1, "verdict", 0.12),
    }
    margin = vega.layer(
        "margin",
        {"type": "rect", "color": vega.QUIET, "opacity": 0.1},
        x={"field": "from", "type": "quantitative"},
        x2={"field": "to"},
    )
    zero = vega.layer(
        "zero",
        {"type": "rule", "color": vega.QUIET},
        x={"field": "at", "type": "quantitative"},
    )
    interval = vega.layer(
        "pairs",
        {"type": "rule", "strokeWidth": 1.6},
        x={**x, "field": "low"},
        x2={"field": "high"},
        y=y,
        **look,
    )
    dot = vega.layer(
        "pairs",
        {"type": "point", "filled": True, "size": 80, "cursor": "pointer"},
        x=x,
        y=y,
        shape=vega.encoded("verdict", verdicts, "shape"),
        tooltip=vega.tooltip(TOOLTIP),
        **look,
    )
    return [margin, zero, interval, dot]
