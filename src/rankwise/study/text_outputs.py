"""Requests of the texts that are made from a study's records, and the command that makes anything. Standard library only."""

import tomllib

from rankwise.core.config import without
from rankwise.study import outputs
from rankwise.study.plan import FOLDERS, MEASUREMENTS, RESULTS, Plan

# Tables of what was found, where the study has them.
FINDINGS = tuple(
    f"{RESULTS}/{name}.csv" for name in ("tables/estimates", "tables/comparisons", "claims")
)
EVERY = (*FOLDERS, *MEASUREMENTS)
# Of an entry, what says where it comes from.
SHOWN = {"models": ("weights", "licence"), "methods": ("label", "source")}


def command(plan: Plan, target: str = "") -> str:
    """What builds a target of the study, or all of it."""
    study = "" if plan.file == "config/config.yaml" else f"--configfile {plan.file} "
    return f".venv/bin/snakemake {target}{' ' * bool(target)}{study}--cores all"


def findings(plan: Plan) -> list[str]:
    """Files of the tables that say what was found: intervals, comparisons, claims."""
    return [file for file in FINDINGS if file in outputs.targets(plan)]


def results(plan: Plan) -> list[str]:
    """Paths of every result of the study."""
    return [
        plan.path(measurement, cell) for measurement in EVERY for cell in plan.cells(measurement)
    ]


def numbers_request(plan: Plan) -> dict:
    """The numbers for use in a text."""
    sources = [name for name in outputs.made_from(plan, "summary") if name in outputs.TABLE_SOURCES]
    claims = [f"{outputs.CLAIMS}.csv"] if outputs.claim_tables(plan) else []
    files = [f"{RESULTS}/tables/{name}.csv" for name in ("summary", *sources)]
    settings = {"labels": outputs.labels(plan), "tables": [*files, *claims]}
    return {
        **settings,
        "code": plan.digests("paper_numbers"),
        "environment": plan.environment("report"),
    }


def artifact_request(plan: Plan) -> dict:
    """The checklist and the appendix: the study, and of the entries it uses what says where they come from."""
    cells = [cell for measurement in EVERY for cell in plan.cells(measurement)]
    names = {
        kind: dict.fromkeys(getattr(cell, kind[:-1]) for cell in cells)
        for kind in ("models", "datasets", "methods")
    }
    names["datasets"] |= {name: None for kind, name in plan.inputs() if kind == "dataset"}
    entries = {
        kind: {name: plan.library[kind][name] for name in found} for kind, found in names.items()
    }
    for kind, keys in SHOWN.items():
        entries[kind] = {
            name: {key: entry[key] for key in keys if key in entry}
            for name, entry in entries[kind].items()
        }
    settings = {
        "study": without(plan.study, ("tracker", "share")),
        "file": plan.file,
        "project": _project(plan),
        **entries,
    }
    planned = {name: plan.digest(name) for name in EVERY if plan.cells(name)}
    commands = {"study": command(plan), "page": command(plan, outputs.ARTIFACT)}
    locks = [
        plan.environment(name)
        for name in dict.fromkeys((plan.study["environment"], "cpu", "report"))
    ]
    settings |= {"planned": planned, "commands": commands, "locks": locks, "tables": findings(plan)}
    return {**settings, "code": plan.digests("artifact"), "environment": plan.environment("report")}


def _project(plan: Plan) -> dict[str, str]:
    """What pyproject.toml says about the code."""
    found = tomllib.loads((plan.workflow / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {"name": found["name"], "version": found["version"], "python": found["requires-python"]}
    return {
        **known,
        "licence": found.get("license", ""),
        "address": next(iter(found.get("urls", {}).values()), ""),
    }
