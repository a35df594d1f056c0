"""Charts of what training reached: quality against memory, quality by rank."""

import pandas as pd

from rankwise.report import style
from rankwise.report.html import marks
from rankwise.report.html.marks import CELL, CURVE, Chart, Panel

RUN = [("curve", "curve"), ("seed", "seed"), ("run", "run"), ("command", "command")]


class Group:
    """Runs of one model on one dataset: the metric that they report, scaled for a reader, and its estimates by curve."""

    def __init__(self, runs: pd.DataFrame, estimates: pd.DataFrame | None):
        accuracy = "accuracy_fraction" in runs and runs["accuracy_fraction"].notna().any()
        self.metric = "accuracy_fraction" if accuracy else "perplexity"
        self.factor, self.title = (100, "accuracy (%)") if accuracy else (1, "perplexity")
        split = runs["split"].dropna() if "split" in runs else []
        self.axis = f"{self.title}, {split.iloc[0]}" if len(split) else self.title
        self.runs = runs.assign(
            value=runs.get(self.metric, pd.Series(dtype=float)).astype(float) * self.factor
        )
        self.curves = self._curves(estimates)

    def _curves(self, estimates: pd.DataFrame | None) -> pd.DataFrame:
        """One row a curve: its mean over seeds, its interval if some table has one, and its first run."""
        ended = self.runs[self.runs["value"].notna()]
        found = ended.groupby(CURVE, sort=False).agg(
            value=("value", "mean"), seeds=("seed", "nunique"), run=("request_digest", "first")
        )
        if estimates is not None:
            own = (
                estimates[estimates["metric"] == self.metric].set_index(CURVE)[
                    ["estimate", "low", "high"]
                ]
                * self.factor
            )
            found = found.join(own.astype(float))
            found["value"] = found.pop("estimate").fillna(found["value"])
        return found.reset_index()


def groups(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> dict[tuple[str, str], Group]:
    """Model and dataset -> its runs, where some ended well."""
    if "runs" not in frames:
        return {}
    estimates = frames.get("estimates")
    found = {}
    for key, rows in style.by_panel(frames["runs"], labels).items():
        own = (
            None
            if estimates is None
            else estimates[(estimates["model"] == key[0]) & (estimates["dataset"] == key[1])]
        )
        found[key] = Group(rows, own)
    return {key: group for key, group in found.items() if len(group.curves)}


def charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[Chart]:
    """Those that the study has the tables for."""
    found = groups(frames, labels)
    return [
        one
        for one in (against_memory(found, frames.get("memory"), labels), by_rank(found, labels))
        if one and one.panels
    ]


# Quality against memory -------------------------------------------------------------------------------------------------


def against_memory(
    found: dict, memory: pd.DataFrame | None, labels: dict[str, str]
) -> Chart | None:
    """Means and, faintly, every run, over the bytes kept between steps; bars are intervals."""
    if memory is None:
        return None
    kept = memory.assign(kept=memory[marks.KEPT].astype(float).sum(axis=1, skipna=False)).set_index(
        CELL
    )["kept"]
    sized = {
        key: group
        for key, group in found.items()
        if set(_keys(group.curves, key)) & set(kept.dropna().index)
    }
    entries = marks.legend([m for group in sized.values() for m in group.curves["method"]], labels)
    panels = [_memory_panel(key, group, kept, labels, entries) for key, group in sized.items()]
    caption = (
        "Each large mark is a method at a rank, the mean over its seeds; bars are 95 % intervals where the study has them. "
        "Small marks are single runs: click one to see it. Memory is what training keeps between steps: weights, gradients "
        "and optimizer state."
    )
    columns = [*RUN[:2], ("value", "quality"), ("size", "memory kept"), *RUN[2:]]
    return Chart(
        "against-memory", "Quality against memory", caption, panels, entries, columns, "runs"
    )


def _keys(rows: pd.DataFrame, key: tuple[str, str]) -> list[tuple]:
    return [(*key, method, rank) for method, rank in zip(rows["method"], rows["rank"], strict=True)]


def _memory_panel(
    key: tuple, group: Group, kept: pd.Series, labels: dict[str, str], entries: list[dict]
) -> Panel:
    one, unit = style.byte_unit(max(kept.get(cell, 0) for cell in _keys(group.curves, key)))
    curves, runs = (
        rows.assign(
            curve=marks.named(rows, labels),
            size=[kept.get(cell, float("nan")) / one for cell in _keys(rows, key)],
        )
        for rows in (group.curves, group.runs)
    )
    runs, curves = (rows.dropna(subset=["size", "value"]) for rows in (runs, curves))
    x = marks.quantity("size", f"kept between steps ({unit})", zero=True)
    y = marks.quantity("value", group.axis)
    columns = [
        *RUN[:1],
        ("value", group.title),
        ("low", "from"),
        ("high", "to"),
        ("seeds", "seeds"),
        ("size", f"memory ({unit})"),
    ]
    line = marks.layer(
        "curves",
        {"type": "line", "strokeWidth": 1.2},
        x=x,
        y=y,
        color=marks.by("method", entries),
        opacity=marks.faded(0.6),
    )
    run = [*RUN[:2], ("value", group.title), ("size", f"memory ({unit})"), *RUN[2:]]
    dots = _dots(x, y, entries, columns, run, _intervals(curves))
    curves = curves.assign(text=_texts(curves))
    text = f"{group.title} against memory kept between steps, {' on '.join(key)}."
    data = {"curves": marks.records(_kept(curves, ["size", "text"])), "runs": _runs(runs, ["size"])}
    return Panel(
        " on ".join(key),
        marks.chart([line, *dots, _ranks(x, y)], data, text),
        marks.failures(group.runs, labels),
    )


def _kept(curves: pd.DataFrame, more: list[str]) -> pd.DataFrame:
    return curves[
        [c for c in (*CURVE, "curve", "value", "low", "high", "seeds", "run", *more) if c in curves]
    ]


def _runs(runs: pd.DataFrame, more: list[str]) -> list[dict]:
    return marks.records(
        runs[[*CURVE, "curve", "seed", "value", "request_digest", *more]].rename(
            columns={"request_digest": "run"}
        )
    )


def _intervals(curves: pd.DataFrame) -> bool:
    return "low" in curves and bool(curves["low"].notna().any())


def _dots(
    x: dict, y: dict, entries: list[dict], columns: list, run_columns: list, intervals: bool
) -> list[dict]:
    """Intervals if there are any, single runs, means."""
    look = {"color": marks.by("method", entries), "shape": marks.by("method", entries, "shape")}
    low, high = {"field": "low", "type": "quantitative"}, {"field": "high"}
    faint = {"type": "point", "filled": True, "size": 26, "cursor": "pointer"}
    large = {"type": "point", "filled": True, "size": 90, "cursor": "pointer"}
    rule = {"type": "rule", "strokeWidth": 1.4}
    ends = marks.layer(
        "curves", rule, x=x, y={**y, **low}, y2=high, color=look["color"], opacity=marks.faded(0.9)
    )
    return [
        *[ends] * intervals,
        marks.layer(
            "runs",
            faint,
            x=x,
            y=y,
            **look,
            opacity=marks.faded(0.45),
            tooltip=marks.tooltip(run_columns),
        ),
        marks.layer(
            "curves",
            large,
            x=x,
            y=y,
            **look,
            opacity=marks.faded(1),
            tooltip=marks.tooltip(columns),
        ),
    ]


def _texts(curves: pd.DataFrame) -> list[str]:
    """Each dot's rank, or nothing beside a dot that has a text near it."""
    spans = [max(curves[name].max() - curves[name].min(), 1e-12) for name in ("size", "value")]
    placed, texts = [], []
    for x, y, rank in zip(
        curves["size"] / spans[0], curves["value"] / spans[1], curves["rank"], strict=True
    ):
        free = rank > 0 and all(
            abs(x - there) > 0.06 or abs(y - height) > 0.08 for there, height in placed
        )
        placed += [(x, y)] * free
        texts.append(style.rank_name(rank) if free else "")
    return texts


def _ranks(x: dict, y: dict) -> dict:
    text = {
        "type": "text",
        "align": "left",
        "dx": 8,
        "dy": -7,
        "fontSize": 11,
        "color": marks.QUIET,
    }
    return marks.layer(
        "curves", text, x=x, y=y, text={"field": "text", "type": "nominal"}, opacity=marks.faded(1)
    )


# Quality by rank --------------------------------------------------------------------------------------------------------


def by_rank(found: dict, labels: dict[str, str]) -> Chart:
    """A line a method over its ranks; methods without a rank are level lines."""
    ranked = {
        key: group
        for key, group in found.items()
        if (group.curves.groupby("method")["rank"].nunique() > 1).any()
    }
    entries = marks.legend([m for group in ranked.values() for m in group.curves["method"]], labels)
    panels = [_rank_panel(key, group, labels, entries) for key, group in ranked.items()]
    caption = "Mean over seeds by rank; bars are 95 % intervals where the study has them. Level lines are methods without a rank."
    columns = [*RUN[:2], ("value", "quality"), *RUN[2:]]
    return Chart("by-rank", "Quality by rank", caption, panels, entries, columns, "runs")


def _rank_panel(key: tuple, group: Group, labels: dict[str, str], entries: list[dict]) -> Panel:
    curves, runs = (
        rows.assign(curve=marks.named(rows, labels))
        for rows in (group.curves, group.runs.dropna(subset=["value"]))
    )
    level, curves = curves[curves["rank"] == 0], curves[curves["rank"] > 0]
    ranks = sorted(set(curves["rank"].astype(int)))
    scale = {"type": "log", "base": 2, "nice": False, "padding": 24}
    x = {
        "field": "rank",
        "type": "quantitative",
        "title": "rank",
        "scale": scale,
        "axis": {"values": ranks, "format": "d"},
    }
    y = marks.quantity("value", group.axis)
    columns = [
        *RUN[:1],
        ("value", group.title),
        ("low", "from"),
        ("high", "to"),
        ("seeds", "seeds"),
    ]
    colour, flat = (
        marks.by("method", entries),
        {"type": "rule", "strokeDash": [5, 3], "strokeWidth": 1.6, "cursor": "pointer"},
    )
    lines = [
        marks.layer(
            "level",
            flat,
            y=y,
            color=colour,
            opacity=marks.faded(0.9),
            tooltip=marks.tooltip([*columns, *RUN[2:]]),
        ),
        marks.layer(
            "curves",
            {"type": "line", "strokeWidth": 1.6},
            x=x,
            y=y,
            color=colour,
            opacity=marks.faded(0.8),
        ),
    ]
    dots = _dots(
        x, y, entries, columns, [*RUN[:2], ("value", group.title), *RUN[2:]], _intervals(curves)
    )
    data = {
        name: marks.records(_kept(rows, []))
        for name, rows in (("level", level), ("curves", curves))
    }
    data["runs"] = _runs(runs[runs["rank"] > 0], [])
    text = f"{group.title} by rank, {' on '.join(key)}."
    layers = [*lines[0 if len(level) else 1 :], *dots]
    return Panel(
        " on ".join(key), marks.chart(layers, data, text), marks.failures(group.runs, labels)
    )
