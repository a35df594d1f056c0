"""Requests of the texts that are made from a study's results, and the command that builds a target.

Standard library only.
"""

import tomllib

from rankwise.core.config import without
from rankwise.study import outputs, own_metrics
from rankwise.study.grids import base_name
from rankwise.study.measurements import EVALUATE
from rankwise.study.plan import FOLDERS, MEASUREMENTS, Plan

EVERY = (*FOLDERS, EVALUATE, *MEASUREMENTS)  # the measurements that a study asks for by name
# Keys of an entry that say where it comes from. The artifact shows only these of a model or a
# method; it shows all of a dataset.
SHOWN = {"models": ("weights", "licence"), "methods": ("label", "source")}


def command(plan: Plan, target: str = "") -> str:
    """The shell command that builds a target of the study, or the whole study.

    Args:
        plan: The plan of the study.
        target: A file, relative to the project; empty for the whole study.
    """
    words = [".venv/bin/snakemake"]
    if target:
        words.append(target)
    if plan.file != "config/config.yaml":  # Snakemake reads this one if it is given none
        words += ["--configfile", plan.file]
    return " ".join([*words, "--cores", "all"])


def findings(plan: Plan) -> list[str]:
    """CSV files of the tables that answer the study's question: intervals, comparisons, claims."""
    files = []
    if plan.cells("train"):
        files += ["tables/estimates.csv", "tables/comparisons.csv"]
    if outputs.claim_tables(plan):
        files.append(f"{outputs.CLAIMS}.csv")
    return [plan.output(file) for file in files]


def results(plan: Plan) -> list[str]:
    """Paths of every result that the study asks for."""
    return [
        plan.path(measurement, cell) for measurement in EVERY for cell in plan.cells(measurement)
    ]


def numbers_tables(plan: Plan) -> list[str]:
    """CSV files in the study's folder that the numbers for use in a text are read from."""
    gathered = [
        name for name in outputs.made_from(plan, "summary") if name in outputs.TABLE_SOURCES
    ]
    files = [f"{outputs.table_stem(name)}.csv" for name in ("summary", *gathered)]
    if outputs.claim_tables(plan):
        files.append(f"{outputs.CLAIMS}.csv")
    return files


def numbers_request(plan: Plan) -> dict:
    """Request of numbers.json and numbers.tex: the study's numbers for use in a text."""
    return {
        "labels": outputs.labels(plan),
        "tables": numbers_tables(plan),
        "code": plan.digests("paper_numbers", *own_metrics.modules(plan, ["summary"])),
        "environment": plan.environment("report"),
    }


def artifact_request(plan: Plan) -> dict:
    """Request of artifact.md: the study, and where each entry that it uses comes from."""
    lock_names = dict.fromkeys([plan.study["environment"], "cpu", "report"])
    return {
        "study": without(plan.study, ("tracker", "share")),
        "file": plan.file,
        "project": _project(plan),
        **_entries(plan),
        "commands": {"study": command(plan), "page": command(plan, plan.output(outputs.ARTIFACT))},
        "locks": [plan.environment(name) for name in lock_names],
        "tables": findings(plan),
        "code": plan.digests("artifact"),
        "environment": plan.environment("report"),
    }


def _entries(plan: Plan) -> dict[str, dict[str, dict]]:
    """Kind -> name -> entry of the models, datasets and methods that the study uses.

    A variant is there beside its method, with the name and label that it has in tables.
    """
    cells = [cell for measurement in EVERY for cell in plan.cells(measurement)]
    # A model may be pre-trained on a dataset that no cell names.
    corpora = [name for kind, name in plan.inputs() if kind == "dataset"]
    names = {
        "models": dict.fromkeys(cell.model for cell in cells),
        "datasets": dict.fromkeys([*(cell.dataset for cell in cells), *corpora]),
    }
    entries: dict[str, dict[str, dict]] = {}
    for kind, used in names.items():
        entries[kind] = {name: _shown(kind, plan.library[kind][name]) for name in used}
    labels = dict(outputs.labels(plan))
    entries["methods"] = {}
    for name in dict.fromkeys(cell.method_name for cell in cells):
        entry = _shown("methods", plan.library["methods"][base_name(name)])
        entries["methods"][name] = {**entry, "label": labels[name]}
    for name, entry in entries["datasets"].items():
        entries["datasets"][name] = {**entry, **plan.dataset_entry(name)}  # with files' digests
    return entries


def _shown(kind: str, entry: dict) -> dict:
    """The keys of an entry that the artifact shows."""
    if kind not in SHOWN:
        return entry
    return {key: entry[key] for key in SHOWN[kind] if key in entry}


def _project(plan: Plan) -> dict[str, str]:
    """Name, version, supported Pythons, licence and address of the code, from pyproject.toml."""
    text = (plan.workflow / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    addresses = list(project.get("urls", {}).values())
    return {
        "name": project["name"],
        "version": project["version"],
        "python": project["requires-python"],
        "licence": project.get("license", ""),
        "address": addresses[0] if addresses else "",
    }
