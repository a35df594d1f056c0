"""Build the page of a study: one HTML file that opens offline.

It contains the study's charts, figures, tables, runs and methods.
"""

import base64
import importlib.resources
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from rankwise.analysis import tables
from rankwise.core import provenance, result
from rankwise.core.config import without
from rankwise.core.words import counted
from rankwise.report import records, style
from rankwise.report.html import (
    answer,
    claims,
    comparisons,
    facets,
    front,
    graph,
    groups,
    libraries,
    losses,
    memory_bars,
    methods,
    missing,
    payload,
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

# Joined to one script, in this order.
OWN_SCRIPTS = (
    "page.js",
    "filters.js",
    "charts.js",
    "front.js",
    "tables.js",
    "run.js",
    "compare.js",
    "route.js",
)
NO_PROFILES = ("train", "trial", "evaluate")  # measurements of a cell that are no profile
MAX_FIGURE_BYTES = 300_000  # of a figure in the page; a larger one is a link
NARROW = 350  # points: a figure up to this width shrinks to a phone's screen; a wider one scrolls
CODE = re.compile(r"`([^`]+)`")  # in sentences
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
    covered = {name for chart in charts for name in chart.figures}
    parts = {
        "answer": answer.answer(
            frames, labels, plan.study.get("reference"), plan.evaluations.means
        ),
        "missing": missing.block(plan, results, request.get("not_drawn", {})),
        "charts": charts,
        "chart_files": {name: outputs.figure_stem(name) for name in covered},
        **_figures(without(request["figures"], covered), folder),
        **_sheets(request["tables"], frames, labels),
    }
    family_by_method = facets.families(about(plan)["methods"])
    shared = {**facets.facets(results, family_by_method), "looks": _looks(family_by_method, labels)}
    all_sheets = [*parts["sheets"], *filter(None, (parts["claims"], parts["runs"]))]
    return _template().render(
        **parts,
        **_study(plan, results),
        **_built(plan),
        **_methods(plan, frames, results),
        **_code(charts, shared),
        facets=shared["facets"],
        drawn=outputs.DRAWN,
        contents=_contents(parts),
        payloads={
            **{f"sheet-{sheet.key}": payload.packed(sheet.content()) for sheet in all_sheets},
            "details": payload.packed(runs.collected(results, labels)),
        },
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["in_html"] = _in_html
    return environment.get_template("page.html")


def _in_html(sentence: str) -> Markup:
    """A sentence with its code as such, and without a line break between a number and its `%`."""
    unbroken = str(escape(sentence)).replace(" %", "\u00a0%")
    return Markup(CODE.sub(r"<code>\1</code>", unbroken))  # escaped above


def _asset(name: str) -> str:
    """The text of a file beside this module."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


# Parts -----------------------------------------------------------------------------------------


def _charts(frames: dict[str, pd.DataFrame], labels: dict[str, str]) -> list[vega.Chart]:
    groups_by_panel = groups.by_panel(frames, labels)
    return [
        *front.charts(frames, labels),
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
    is_small = len(svg) <= MAX_FIGURE_BYTES
    width = float(re.search(rb'width="([\d.]+)pt"', svg)[1])
    height = float(re.search(rb'height="([\d.]+)pt"', svg)[1])
    return {
        "key": name,
        "title": title,
        "caption": caption,
        "data": base64.b64encode(svg).decode() if is_small else None,
        "megabytes": len(svg) / 1e6,
        "narrow": width <= NARROW,
        "width": round(width * PIXELS_PER_POINT),
        "height": round(height * PIXELS_PER_POINT),
        "link": stem,
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
        (counts["train"], "training run"),
        (counts["trial"], "trial"),
        (counts["evaluate"], "evaluation"),
        (counts.total() - sum(counts[kind] for kind in NO_PROFILES), "profile"),
        (seeds, "seed"),
    )
    facts = [counted(count, name) for count, name in named_counts if count]
    failed = sum(record["status"] != "ok" for record in results)
    facts.append(f"{failed:,} did not end well" if failed else "")
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


def _looks(methods: Collection[str], labels: dict[str, str]) -> dict[str, str]:
    """Colour of each method and variant, the same in every chart."""
    used = [name for name in labels if style.base(name) in methods]
    return {entry["name"]: entry["colour"] for entry in vega.method_legend(used, labels)}


def _code(charts: list[vega.Chart], shared: dict) -> dict:
    """The scripts, the data that they need at once, and the policy that allows them to run."""
    theme = _asset("theme.js")
    scripts = [*libraries.scripts(), "\n".join(map(_asset, OWN_SCRIPTS))]
    data = {
        **shared,
        "charts": [_compact(chart) for chart in charts],
        "curve": losses.run_spec(),
        "dark": vega.DARK,
        "kinds": [(column, name, colour) for column, (name, colour) in PARTS.items()],
    }
    return {
        "scripts": scripts,
        "data": payload.packed(data),
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
        rows_by_name = panel.spec["datasets"].items()
        datasets = {name: payload.columnar(rows) for name, rows in rows_by_name}
        spec = {**panel.spec, "datasets": datasets}
        panels.append({"title": panel.title, "key": panel.key, "axes": panel.axes, "spec": spec})
    return {
        "key": chart.key,
        "title": chart.title,
        "panels": panels,
        "columns": chart.columns,
        "table": chart.table,
        "choices": chart.choices,
    }
