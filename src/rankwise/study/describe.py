"""What a study says of itself: its methods, models, datasets and schedules, from the configuration. No torch."""

import ast
from pathlib import Path

from rankwise.study.plan import MEASUREMENTS, Cell, Plan
from rankwise.study.resolve import module_path

# What is told of an entry: an edit of anything else does not rewrite the report.
TOLD = {
    "methods": ("label", "source", "note", "module", "weights"),
    "models": ("family", "weights", "licence"),
    "datasets": (
        "task", "hub", "files", "generated", "splits", "report_split", "selection_rows", "train_samples", "max_length_tokens",
        "licence",
    ),
}  # fmt: skip


def about(plan: Plan) -> dict[str, list[dict]]:
    """What the report tells of the study: an item a method, model, dataset, and a group of runs with one schedule."""
    cells = [cell for name in ("train", *MEASUREMENTS) for cell in plan.cells(name)]
    used = {kind: _used(plan, kind, cells) for kind in ("models", "datasets", "methods")}
    return {
        "methods": [
            _method(plan, name, [cell for cell in cells if cell.method == name])
            for name in used["methods"]
        ],
        "models": [_told(plan, "models", name) for name in used["models"]],
        "datasets": [_told(plan, "datasets", name) for name in used["datasets"]],
        "schedules": _schedules(plan),
    }


def _used(plan: Plan, kind: str, cells: list[Cell]) -> list[str]:
    """Names of the entries that some cell uses, in the library's order."""
    names = {getattr(cell, kind[:-1]) for cell in cells}
    return [name for name in plan.library[kind] if name in names]


def _told(plan: Plan, kind: str, name: str) -> dict:
    entry = plan.library[kind][name]
    return {"name": name, **{key: entry[key] for key in TOLD[kind] if key in entry}}


def _method(plan: Plan, name: str, cells: list[Cell]) -> dict:
    """An entry with the ranks that it is used at, and how its modules describe themselves."""
    entry = plan.library["methods"][name]
    optimizer = entry["optimizer"]["module"]
    return {
        **_told(plan, "methods", name),
        "optimizer": optimizer,
        "ranks": sorted({cell.rank for cell in cells} - {0}),
        "trains": _says(module_path("methods", entry["module"])),
        "steps": _says(module_path("optim", optimizer)),
    }


def _says(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _schedules(plan: Plan) -> list[dict]:
    """Runs whose schedules are the same: models, datasets, seeds, and the schedule."""
    found: list[dict] = []
    for cell in plan.cells("train"):
        schedule = plan.request("train", cell)["schedule"]
        group = next((one for one in found if one["schedule"] == schedule), None)
        if group is None:
            group = {"schedule": schedule, "models": [], "datasets": [], "seeds": []}
            found.append(group)
        for key, value in (
            ("models", cell.model),
            ("datasets", cell.dataset),
            ("seeds", cell.seed),
        ):
            group[key] += [value] * (value not in group[key])
    return found
