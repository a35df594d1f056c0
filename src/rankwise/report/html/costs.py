"""Charts of what training costs, bytes in stacked bars; and of comparisons, how far each curve is from the best."""

import pandas as pd

from rankwise.report import style
from rankwise.report.html import marks
from rankwise.report.html.marks import CURVE, Chart, Panel
from rankwise.report.html.quality import Group
from rankwise.report.ledger import PARTS

KEPT = {name: PARTS[name] for name in marks.KEPT}
ROW = 24  # pixels a bar
STACKS = {
    "ledger": (
        "Memory of a step",
        "What a training step holds at its peak, predicted from shapes; the mark is the measured peak, where there is one.",
        PARTS,
    ),
    "memory": (
        "Memory kept between steps",
        "Counted from shapes, to the byte. Activations are not in it.",
        KEPT,
    ),
}
VERDICTS = {
    "better": ("#009E73", "^"),
    "tied": ("#0072B2", "o"),
    "undecided": ("#7F7F7F", "D"),
    "worse": ("#D55E00", "v"),
}


def stacks(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """A chart of stacked bars for each table of bytes that there is."""
    return [
        _stack(name, frames[name], labels)
        for name in STACKS
        if name in frames and len(frames[name])
    ]


def _stack(name: str, frame: pd.DataFrame, labels: dict[str, str]) -> Chart:
    title, caption, parts = STACKS[name]
    columns = [
        column
        for column in parts
        if column in frame and frame[column].fillna(0).astype(float).sum() > 0
    ]
    entries = marks.parts_legend(parts, columns)
    panels = [
        _bars(key, rows, columns, parts, entries, labels, title)
        for key, rows in style.by_panel(frame, labels).items()
    ]
    shown = [
        ("curve", "curve"),
        ("part", "part"),
        ("size", "size"),
        ("unit", "unit"),
        ("run", "run"),
    ]
    return Chart(name, title, caption, panels, entries, shown, "parts")


def _bars(
    key: tuple,
    rows: pd.DataFrame,
    columns: list,
    parts: dict,
    entries: list,
    labels: dict,
    title: str,
) -> Panel:
    rows = rows.assign(curve=marks.named(rows, labels))
    ended = rows[rows["status"] == "ok"]
    one, unit = style.byte_unit(ended[columns].astype(float).sum(axis=1).max() if len(ended) else 1)
    long = ended.melt(["curve", *CURVE, "request_digest"], columns, "column", "bytes").dropna(
        subset=["bytes"]
    )
    long = long[long["bytes"] > 0]
    places = {column: i for i, column in enumerate(columns)}
    long = long.assign(
        part=[parts[column][0] for column in long["column"]], size=long["bytes"].astype(float) / one, unit=unit,
        order=long["column"].map(places), bytes=[f"{int(value):,} B" for value in long["bytes"]],
    ).rename(columns={"request_digest": "run"})  # fmt: skip
    order = list(dict.fromkeys(ended["curve"]))
    y = {
        "field": "curve",
        "type": "nominal",
        "title": None,
        "sort": order,
        "axis": {"labelLimit": 150, "ticks": False},
    }
    x = marks.quantity("size", unit, zero=True, stack="zero")
    x["scale"] = {"zero": True, "nice": True}
    said = [
        ("curve", "curve"),
        ("part", "part"),
        ("bytes", "bytes"),
        ("run", "run"),
        ("command", "command"),
    ]
    bar = marks.layer(
        "parts", {"type": "bar", "cursor": "pointer", "height": {"band": 0.72}}, y=y, x=x, color=marks.by("part", entries),
        order={"field": "order", "type": "quantitative"}, opacity=marks.faded(1, "part", 0.15), tooltip=marks.tooltip(said),
    )  # fmt: skip
    data = {"parts": marks.records(long.drop(columns="column"))}
    layers = [bar, *_measured(ended, one, y, data)]
    spec = marks.chart(
        layers, data, f"{title}, stacked by kind, {' on '.join(key)}.", ROW * len(order)
    )
    return Panel(" on ".join(key), spec, marks.failures(rows, labels))


def _measured(ended: pd.DataFrame, one: int, y: dict, data: dict) -> list[dict]:
    """A tick a measured peak."""
    if "measured_peak_bytes" not in ended or ended["measured_peak_bytes"].isna().all():
        return []
    found = ended.dropna(subset=["measured_peak_bytes"]).rename(columns={"request_digest": "run"})
    found = found.assign(
        size=found["measured_peak_bytes"].astype(float) / one, part="measured peak"
    )
    found = found.assign(bytes=[f"{int(value):,} B" for value in found["measured_peak_bytes"]])
    data["measured"] = marks.records(found[[*CURVE, "curve", "part", "size", "bytes", "run"]])
    said = [
        ("curve", "curve"),
        ("part", "part"),
        ("bytes", "bytes"),
        ("run", "run"),
        ("command", "command"),
    ]
    tick = {"type": "tick", "thickness": 2, "color": marks.INK, "height": {"band": 0.95}}
    return [
        marks.layer(
            "measured",
            tick,
            y=y,
            x={"field": "size", "type": "quantitative"},
            tooltip=marks.tooltip(said),
        )
    ]


# Comparisons ------------------------------------------------------------------------------------------------------------


def comparisons(
    found: dict[tuple[str, str], Group], table: pd.DataFrame | None, labels: dict[str, str]
) -> list[Chart]:
    """Every curve against the best of its model and dataset: difference, interval, verdict."""
    if table is None or not len(table):
        return []
    panels = []
    for key, group in found.items():
        pairs = against_best(table, key, group)
        if len(pairs):
            panels.append(_forest(key, pairs, group, labels))
    entries = [
        {"name": v, "label": v, "colour": c, "shape": marks.SHAPES[s]}
        for v, (c, s) in VERDICTS.items()
    ]
    caption = (
        "Difference of every curve to the one with the best estimate, paired by seed and example, with its 95 % interval. "
        "Left of zero is worse. The shaded band is the margin within which curves count as tied."
    )
    columns = [("curve", "curve"), ("best", "best"), ("difference", "difference"), ("low", "from"), ("high", "to"),
               ("verdict", "verdict"), ("p_holm", "p (Holm)")]  # fmt: skip
    return (
        [Chart("comparisons", "Difference to the best", caption, panels, entries, columns, "pairs")]
        if panels
        else []
    )


def against_best(table: pd.DataFrame, key: tuple[str, str], group: Group) -> pd.DataFrame:
    """The comparisons of a model and dataset that name its best curve; signs and verdicts are the other curve's."""
    lower = group.metric == "perplexity"
    best = group.curves.sort_values("value", ascending=lower, kind="stable").iloc[0]
    own = table[
        (table["model"] == key[0])
        & (table["dataset"] == key[1])
        & (table["metric"] == group.metric)
    ]
    is_a, is_b = (
        ((own[f"method_{s}"] == best["method"]) & (own[f"rank_{s}"] == best["rank"])) for s in "ab"
    )
    turned = own[is_a].rename(
        columns={"method_b": "method", "rank_b": "rank", "low": "high", "high": "low"}
    )
    turned = turned.assign(
        **{name: -turned[name].astype(float) for name in ("difference", "low", "high")}
    )
    turned = turned.assign(
        verdict=turned["verdict"]
        .map({"a better": "worse", "b better": "better"})
        .fillna(turned["verdict"])
    )
    straight = own[is_b].rename(columns={"method_a": "method", "rank_a": "rank"})
    straight = straight.assign(
        verdict=straight["verdict"]
        .map({"a better": "better", "b better": "worse"})
        .fillna(straight["verdict"])
    )
    pairs = pd.concat([turned, straight])
    return pairs.assign(best_method=best["method"], best_rank=best["rank"])


def _forest(key: tuple, pairs: pd.DataFrame, group: Group, labels: dict[str, str]) -> Panel:
    pairs = style.ordered(pairs, labels)
    factor = 100 if group.metric == "accuracy_fraction" else 1
    best = style.curve_name(pairs["best_method"].iloc[0], pairs["best_rank"].iloc[0], labels)
    numbers = {name: pairs[name].astype(float) * factor for name in ("difference", "low", "high")}
    rows = pairs.assign(curve=marks.named(pairs, labels), best=best, **numbers)
    runs = group.curves[[*CURVE, "run"]]
    rows = rows.merge(runs, on=CURVE, how="left").sort_values(
        "difference", ascending=False, kind="stable"
    )
    margin = float(rows["margin"].dropna().max() * factor) if rows["margin"].notna().any() else 0
    axis = "points of accuracy" if factor == 100 else "log of the perplexities' ratio"
    x, order = marks.quantity("difference", axis, zero=True), list(rows["curve"])
    y = {
        "field": "curve",
        "type": "nominal",
        "title": None,
        "sort": order,
        "axis": {"labelLimit": 150, "ticks": False},
    }
    entries = [{"name": v, "colour": c, "shape": marks.SHAPES[s]} for v, (c, s) in VERDICTS.items()]
    look = {"color": marks.by("verdict", entries), "opacity": marks.faded(1, "verdict", 0.12)}
    said = [("curve", "curve"), ("difference", "difference"), ("low", "from"), ("high", "to"), ("verdict", "verdict"),
            ("p_holm", "p (Holm)"), ("p_equivalence", "p (equivalence)"), ("seeds", "seeds"), ("examples", "examples"),
            ("seeds_needed", "seeds needed"), ("run", "first run")]  # fmt: skip
    dot = {"type": "point", "filled": True, "size": 80, "cursor": "pointer"}
    layers = [
        marks.layer(
            "margin",
            {"type": "rect", "color": marks.QUIET, "opacity": 0.1},
            x={"field": "from", "type": "quantitative"},
            x2={"field": "to"},
        ),
        marks.layer(
            "zero",
            {"type": "rule", "color": marks.QUIET},
            x={"field": "at", "type": "quantitative"},
        ),
        marks.layer(
            "pairs",
            {"type": "rule", "strokeWidth": 1.6},
            x={**x, "field": "low"},
            x2={"field": "high"},
            y=y,
            **look,
        ),
        marks.layer(
            "pairs",
            dot,
            x=x,
            y=y,
            shape=marks.by("verdict", entries, "shape"),
            tooltip=marks.tooltip(said),
            **look,
        ),
    ]
    kept = [name for name, _ in said if name in rows]
    data = {
        "pairs": marks.records(rows[[*CURVE, "best", *kept]]),
        "zero": [{"at": 0}],
        "margin": [{"from": -margin, "to": margin}],
    }
    text = f"Difference of every curve to {best}, {' on '.join(key)}."
    return Panel(
        f"{' on '.join(key)}, against {best}", marks.chart(layers, data, text, ROW * len(order)), []
    )
