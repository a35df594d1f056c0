"""Build the page of a study: one HTML file that opens offline.

It contains the study's charts, figures, tables, runs and methods.
"""

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
    comparisons,
    graph,
    groups,
    libraries,
    losses,
    memory_bars,
    methods,
    missing,
    quality,
    runs,
    sheets,
    splits,
    trials,
    vega,
)
from rankwise.report.ledger import PARTS
from rankwise.study import outputs, text_outputs
from rankwise.study.describe import about
from rankwise.study.jobs import rule_counts, rule_edges
from rankwise.study.partial import replanned
from rankwise.study.plan import Plan

OWN_SCRIPTS = ("page.js", "charts.js", "tables.js", "run.js")  # joined to one script, in this order
NARROW = 350  # points: a figure up to this width shrinks to a phone's screen; a wider one scrolls
PIXELS_PER_POINT = 4 / 3  # as CSS defines it
SECTIONS = {
    "missing": "What is missing",
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
        ValueError: The configuration or a source changed since the workflow was planned.
        StoreError: A result answers another request than the planned one.
        FileNotFoundError: The SVG of a figure is missing.
    """
    root = Path.cwd()
    plan = replanned(Plan(request["study"], root, request["file"]), request)
    if provenance.digest(about(plan)) != request["about"]:
        raise ValueError(
            "config/ or a source changed since the workflow was planned; run snakemake again"
        )
    results = records.read_results(plan, root)
    result.write_text(output, render(plan, request, results, root / plan.results))


def render(plan: Plan, request: dict, results: list[dict], folder: Path) -> str:
    """The page of a study.

    Args:
        plan: the study's plan.
        request: the request of the page.
        results: the records of all results.
        folder: the study's folder, which has tables and figures.
    """
    labels = dict(request["labels"])
    frames = {}
    for name in dict.fromkeys([*request["tables"], *request["data"]]):
        frames[name] = tables.read(folder / f"{outputs.table_stem(name)}.csv")
    charts = _charts(frames, labels)
    parts = {
        "answer": answer.answer(groups.by_panel(frames, labels), frames, labels),
        "missing": missing.block(plan, results, request.get("not_drawn", {})),
        "charts": charts,
        **_figures(request["figures"], folder),
        **_sheets(request["tables"], frames, labels),
    }
    return _template().render(
        **parts,
        **_study(plan, results),
        **_built(plan),
        **_methods(plan, frames, results),
        **_code(charts, runs.collected(results, labels)),
        contents=_contents(parts),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def _asset(name: str) -> str:
    """The text of a file beside this module."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


# Parts -----------------------------------------------------------------------------------------


def _charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[vega.Chart]:
    groups_by_panel = groups.by_panel(frames, labels)
    return [
        *quality.charts(frames, labels),
        *losses.charts(frames, labels),
        *comparisons.charts(groups_by_panel, frames.get("comparisons"), labels),
        *memory_bars.charts(frames, labels),
        *trials.charts(frames, labels),
    ]


def _figures(captions: dict[str, list[str]], folder: Path) -> dict[str, list[dict]]:
    """The figures, and the figure of claims for the section of published numbers."""
    figures, verdicts = [], []
    for name, (title, caption) in captions.items():
        target = verdicts if name == "claims" else figures
        target.append(_figure(name, title, caption, folder))
    return {"figures": figures, "verdicts": verdicts}


def _figure(name: str, title: str, caption: str, folder: Path) -> dict[str, object]:
    stem = outputs.figure_stem(name)
    svg = (folder / f"{stem}.svg").read_bytes()
    width = float(re.search(rb'width="([\d.]+)pt"', svg)[1])
    height = float(re.search(rb'height="([\d.]+)pt"', svg)[1])
    return {
        "key": name,
        "title": title,
        "caption": caption,
        "data": base64.b64encode(svg).decode(),
        "narrow": width <= NARROW,
        "width": round(width * PIXELS_PER_POINT),
        "height": round(height * PIXELS_PER_POINT),
        "link": stem,
        "ends": outputs.DRAWN,
    }


def _sheets(
    shown: list[str], frames: dict[str, pd.DataFrame], labels: dict[str, str]
) -> dict[str, object]:
    """The tables; claims and runs have sections of their own."""
    others = [name for name in shown if name not in ("claims", "runs")]
    claims_sheet, runs_sheet = None, None
    if "claims" in frames:
        claims_sheet = claims.sheet(frames["claims"], labels, outputs.table_stem("claims"))
    if "runs" in frames:
        runs_sheet = sheets.sheet("runs", frames["runs"], labels, outputs.table_stem("runs"))
    return {
        "sheets": [
            sheets.sheet(name, frames[name], labels, outputs.table_stem(name)) for name in others
        ],
        "claims": claims_sheet,
        "runs": runs_sheet,
    }


def _contents(parts: dict) -> list[tuple[str, str, list]]:
    """(anchor, name, its parts) of each section that the page has."""
    inner = {
        "charts": [(f"chart-{chart.key}", chart.title) for chart in parts["charts"]],
        "figures": [(f"figure-{figure['key']}", figure["title"]) for figure in parts["figures"]],
        "tables": [(f"table-{sheet.key}", sheet.title) for sheet in parts["sheets"]],
    }
    has_section = {**parts, "tables": parts["sheets"], "made": True, "methods": True}
    return [(key, name, inner.get(key, [])) for key, name in SECTIONS.items() if has_section[key]]


def _study(plan: Plan, results: list[dict]) -> dict:
    """The study and a line of facts about it."""
    counts = Counter(record["measurement"] for record in results)
    seeds = len({cell.seed for cell in plan.cells("train")})
    named_counts = (
        (counts["train"], "training runs"),
        (counts["trial"], "trials"),
        (counts.total() - counts["train"] - counts["trial"], "profiles"),
        (seeds, "seeds" if seeds > 1 else "seed"),
        (sum(record["status"] != "ok" for record in results), "did not end well"),
    )
    facts = [f"{count:,} {name}" for count, name in named_counts if count]
    facts += [methods.devices(results), plan.file]
    return {"study": plan.study, "facts": [fact for fact in facts if fact]}


def _built(plan: Plan) -> dict:
    """The rules that build the page, and the command that runs them."""
    jobs, edges = rule_counts(plan), rule_edges(plan)
    rules = []
    for rule, count in sorted(jobs.items()):
        sources = [source for source, reader in edges if reader == rule]
        rules.append((rule, count, sources))
    return {
        "graph": graph.picture(jobs, edges),
        "rules": rules,
        "command": text_outputs.command(plan),
    }


def _methods(plan: Plan, frames: dict[str, pd.DataFrame], results: list[dict]) -> dict:
    entries = about(plan)
    measurements = {record["measurement"] for record in results}
    return {
        "schedules": methods.schedules(entries["schedules"], frames.get("search")),
        "profiles": [item for item in methods.PROFILES.items() if item[0] in measurements],
        "statistics": methods.statistics(frames),
        "methods": methods.methods(entries["methods"], frames.get("runs")),
        "datasets": methods.datasets(entries["datasets"]),
        "splits": splits.splits(results),
        "splits_note": splits.NOTE,
        "models": methods.models(entries["models"]),
        "devices": methods.devices(results),
        "machines": methods.machines(results),
    }


# Scripts and their data ------------------------------------------------------------------------


def _code(charts: list[vega.Chart], kept_results: dict) -> dict:
    """The scripts, the data that they show, and the policy that allows them to run."""
    theme = _asset("theme.js")
    scripts = [*libraries.scripts(), "\n".join(map(_asset, OWN_SCRIPTS))]
    data = {
        **kept_results,
        "charts": [_compact(chart) for chart in charts],
        "curve": losses.run_spec(),
        "dark": vega.DARK,
        "kinds": [(column, name, colour) for column, (name, colour) in PARTS.items()],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return {
        "scripts": scripts,
        "data": text.replace("<", "\\u003c"),  # a `<` could end the script element
        "policy": libraries.policy([theme, *scripts]),
        "css": _asset("page.css"),
        "theme": theme,
        "dark": vega.DARK,
        "licences": libraries.licences(),
    }


def _compact(chart: vega.Chart) -> dict:
    """What the scripts need of a chart; its rows are column names and lists of values."""
    panels = []
    for panel in chart.panels:
        datasets = {name: _columnar(rows) for name, rows in panel.spec["datasets"].items()}
        panels.append({"title": panel.title, "spec": {**panel.spec, "datasets": datasets}})
    return {
        "key": chart.key,
        "title": chart.title,
        "panels": panels,
        "columns": chart.columns,
        "table": chart.table,
    }


def _columnar(rows: list[dict]) -> dict[str, list]:
    names: dict[str, None] = {}  # a dict, for the order of first appearance
    for row in rows:
        names |= dict.fromkeys(row)
    return {"columns": list(names), "rows": [[row.get(name) for name in names] for row in rows]}
