"""Put a study on its page: one HTML file that opens offline, with its charts, figures, tables, runs and methods inside."""

import base64
import importlib.resources
import json
import re
from collections import Counter
from pathlib import Path

import jinja2
import pandas as pd

from rankwise.analysis import tables
from rankwise.core import provenance, result
from rankwise.report import records
from rankwise.report.html import (
    answer,
    claims,
    costs,
    graph,
    libraries,
    losses,
    marks,
    methods,
    quality,
    runs,
    sheets,
    trials,
)
from rankwise.report.ledger import PARTS
from rankwise.study import jobs as flow
from rankwise.study import outputs, text_outputs
from rankwise.study.describe import about
from rankwise.study.plan import Plan

OWN = ("page.js", "charts.js", "tables.js", "run.js")  # one script, in this order
NARROW = (
    350  # points: up to this width a figure shrinks to a telephone's screen; a wider one scrolls
)
NAMES = {
    "answer": "In short",
    "charts": "Charts",
    "figures": "Figures",
    "tables": "Tables",
    "claims": "Published numbers",
    "runs": "Runs",
    "made": "How it is built",
    "methods": "Methods",
}


def page(request: dict, output: Path) -> None:
    """Write the page from the tables, figures and results of `request["study"]`.

    Raises:
        ValueError: the configuration or a source changed since the workflow was planned.
        StaleResult: a result answers another request than the planned one.
        FileNotFoundError: a figure's SVG is not there.
    """
    plan = Plan(request["study"], Path.cwd(), request["file"])
    if provenance.digest(about(plan)) != request["about"]:
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    found = records.read(plan, Path.cwd())
    result.write_text(output, render(plan, request, found, Path.cwd()))


def render(plan: Plan, request: dict, results: list[dict], root: Path) -> str:
    """The page of a study whose tables and figures lie below `root`."""
    labels = dict(request["labels"])
    files = {
        name: root / f"{outputs.table_stem(name)}.csv"
        for name in dict.fromkeys([*request["tables"], *request["data"]])
    }
    frames = {name: tables.read(path) for name, path in files.items()}
    found = quality.groups(frames, labels)
    charts = [
        *quality.charts(frames, labels),
        *losses.charts(frames, labels),
        *costs.comparisons(found, frames.get("comparisons"), labels),
    ]
    charts += [*costs.stacks(frames, labels), *trials.charts(frames, labels)]
    shown = {name: frames[name] for name in request["tables"] if name not in ("claims", "runs")}
    parts = {
        "answer": answer.answer(found, frames, labels),
        "charts": charts,
        "figures": [
            _figure(name, said, root)
            for name, said in request["figures"].items()
            if name != "claims"
        ],
        "verdicts": [_figure("claims", request["figures"]["claims"], root)]
        if "claims" in request["figures"]
        else [],
        "sheets": [_sheet(name, frame, labels) for name, frame in shown.items()],
        "claims": claims.sheet(frames["claims"], labels, _link("claims"))
        if "claims" in frames
        else None,
        "runs": _sheet("runs", frames["runs"], labels) if "runs" in frames else None,
    }
    said = {**_study(plan, results), **_built(plan), **_methods(plan, frames, results)}
    return _template().render(
        **parts, **said, contents=_contents(parts), **_code(charts, runs.collected(results, labels))
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(asset("page.html"))


def asset(name: str) -> str:
    """The text of a file beside this module."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


# Parts ------------------------------------------------------------------------------------------------------------------


def _link(name: str) -> str:
    """A table's path from the page, without its ending."""
    return outputs.table_stem(name).partition("/")[2]


def _sheet(name: str, frame: pd.DataFrame, labels: dict[str, str]) -> sheets.Sheet:
    return sheets.sheet(name, frame, labels, _link(name))


def _figure(name: str, said: list[str], root: Path) -> dict[str, object]:
    stem = outputs.figure_stem(name)
    image = (root / f"{stem}.svg").read_bytes()
    width, height = (
        float(re.search(rb'%s="([\d.]+)pt"' % side, image)[1]) for side in (b"width", b"height")
    )
    return {
        "key": name, "title": said[0], "caption": said[1], "data": base64.b64encode(image).decode(), "narrow": width <= NARROW,
        "width": round(width * 4 / 3), "height": round(height * 4 / 3), "link": stem.partition("/")[2], "ends": outputs.DRAWN,
    }  # fmt: skip


def _contents(parts: dict) -> list[tuple[str, str, list]]:
    """(anchor, name, the parts inside) of each section that there is."""
    inside = {
        "charts": [(f"chart-{one.key}", one.title) for one in parts["charts"]],
        "figures": [(f"figure-{one['key']}", one["title"]) for one in parts["figures"]],
        "tables": [(f"table-{one.key}", one.title) for one in parts["sheets"]],
    }
    there = {**parts, "tables": parts["sheets"], "made": True, "methods": True}
    return [(key, name, inside.get(key, [])) for key, name in NAMES.items() if there[key]]


def _study(plan: Plan, results: list[dict]) -> dict:
    kinds = Counter(one["measurement"] for one in results)
    profiled = kinds.total() - kinds["train"] - kinds["trial"]
    failed = sum(one["status"] != "ok" for one in results)
    seeds = len({cell.seed for cell in plan.cells("train")})
    facts = [
        f"{kinds['train']:,} training runs" if kinds["train"] else "",
        f"{kinds['trial']:,} trials" if kinds["trial"] else "",
        f"{profiled:,} profiles" if profiled else "",
    ]
    facts += [
        f"{seeds} seed{'s' * (seeds > 1)}" if seeds else "",
        f"{failed} did not end well" if failed else "",
    ]
    facts += [methods.devices(results), plan.file]
    return {"study": plan.study, "facts": [fact for fact in facts if fact]}


def _built(plan: Plan) -> dict:
    jobs, edges = flow.jobs(plan), flow.edges(plan)
    rules = [
        (rule, count, [one for one, other in edges if other == rule])
        for rule, count in sorted(jobs.items())
    ]
    return {
        "graph": graph.picture(jobs, edges),
        "rules": rules,
        "command": text_outputs.command(plan),
    }


def _methods(plan: Plan, frames: dict[str, pd.DataFrame], results: list[dict]) -> dict:
    said = about(plan)
    there = dict.fromkeys(one["measurement"] for one in results)
    return {
        "schedules": methods.schedules(said["schedules"], frames.get("search")),
        "profiles": [(name, text) for name, text in methods.PROFILES.items() if name in there],
        "statistics": methods.statistics(frames),
        "methods": methods.methods(said["methods"], frames.get("runs")),
        "datasets": methods.datasets(said["datasets"]),
        "models": methods.models(said["models"]),
        "devices": methods.devices(results),
        "machines": methods.machines(results),
    }


# Scripts and their data -------------------------------------------------------------------------------------------------


def _code(charts: list[marks.Chart], kept: dict) -> dict:
    """Everything that runs, and what it runs on."""
    theme, own = asset("theme.js"), "\n".join(map(asset, OWN))
    scripts = [*libraries.scripts(), own]
    carried = {
        **kept,
        "charts": [_compact(chart) for chart in charts],
        "curve": losses.curve(),
        "dark": marks.DARK,
        "kinds": [(column, name, colour) for column, (name, colour) in PARTS.items()],
    }
    text = json.dumps(carried, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    policy = libraries.policy([theme, *scripts])
    more = {
        "css": asset("page.css"),
        "theme": theme,
        "dark": marks.DARK,
        "licences": libraries.licences(),
    }
    return {"scripts": scripts, "data": text, "policy": policy, **more}


def _compact(chart: marks.Chart) -> dict:
    """A chart with its rows as columns and values."""
    panels = [
        {"title": one.title, "spec": {**one.spec, "datasets": _columnar(one.spec["datasets"])}}
        for one in chart.panels
    ]
    return {
        "key": chart.key,
        "title": chart.title,
        "panels": panels,
        "columns": chart.columns,
        "table": chart.table,
    }


def _columnar(datasets: dict[str, list[dict]]) -> dict[str, dict]:
    names = {
        key: list(dict.fromkeys(name for row in rows for name in row))
        for key, rows in datasets.items()
    }
    return {
        key: {"columns": names[key], "rows": [[row.get(n) for n in names[key]] for row in rows]}
        for key, rows in datasets.items()
    }
