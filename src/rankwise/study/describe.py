"""How a study describes itself on its page: methods, models, datasets and schedules. No torch."""

import ast
from pathlib import Path

from rankwise.study import variants
from rankwise.study.grids import base_name
from rankwise.study.plan import MEASUREMENTS, Plan
from rankwise.study.resolve import module_path

# Keys of an entry that the page shows. An edit of any other key does not rewrite the page.
SHOWN = {
    "methods": ("label", "source", "note", "module", "weights"),
    "models": ("family", "weights", "licence"),
    "datasets": (
        "task", "hub", "files", "generated", "splits", "report_split", "selection_rows",
        "train_samples", "max_length_tokens", "stride_tokens", "prompt", "prompt_without_input",
        "answer", "messages", "chat", "packing", "licence",
    ),
}  # fmt: skip


def about(plan: Plan) -> dict[str, list[dict]]:
    """The page's description of the study.

    A variant of a method has an item of its own, with the name and label that it has in tables.

    Returns:
        `methods`, `models` and `datasets` that some cell uses, one item each, and `schedules`: one
        item for each group of runs with the same schedule.
    """
    cells = [cell for name in ("train", *MEASUREMENTS) for cell in plan.cells(name)]
    models = _in_library_order(plan, "models", {cell.model for cell in cells})
    datasets = _in_library_order(plan, "datasets", {cell.dataset for cell in cells})
    used = {cell.method_name for cell in cells}
    named = variants.labels(plan.library["methods"], plan.grids.variant_labels)
    return {
        "methods": [_method(plan, name, label) for name, label in named if name in used],
        "models": [_shown(plan, "models", name) for name in models],
        "datasets": [_shown(plan, "datasets", name) for name in datasets],
        "schedules": _schedules(plan),
    }


def _in_library_order(plan: Plan, kind: str, names: set[str]) -> list[str]:
    return [name for name in plan.library[kind] if name in names]


def _shown(plan: Plan, kind: str, name: str) -> dict:
    entry = plan.library[kind][name]
    return {"name": name, **{key: entry[key] for key in SHOWN[kind] if key in entry}}


def _method(plan: Plan, name: str, label: str) -> dict:
    """A method's entry, the ranks that it is used at, and how its modules describe themselves.

    Args:
        plan: The plan of the study.
        name: The method's name in tables, with its variant's.
        label: The name for people.
    """
    ranks, resolved = set(), []
    for measurement in ("train", *MEASUREMENTS):
        for cell in plan.cells(measurement):
            if cell.method_name == name:
                ranks.add(cell.rank)
                # With the overrides of study, grid and variant, which may change what is shown.
                resolved.append(plan.method(measurement, cell))
    shown = _shown(plan, "methods", base_name(name))
    if name in plan.grids.variants:
        changes = f"a variant: {plan.grids.variants[name]}"
        shown["note"] = "; ".join(filter(None, [changes, shown.get("note")]))
    optimizers = dict.fromkeys(method["optimizer"]["module"] for method in resolved)
    steps = [_first_paragraph(module_path("optim", optimizer)) for optimizer in optimizers]
    return {
        **shown,
        "name": name,
        "label": label,
        "weights": ", ".join(dict.fromkeys(method["weights"] for method in resolved)),
        "optimizer": ", ".join(optimizers),
        "ranks": sorted(ranks - {0}),
        "trains": _first_paragraph(module_path("methods", resolved[0]["module"])),
        "steps": " ".join(steps),
    }


def _first_paragraph(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    # The source is parsed, not imported: importing a method would import torch.
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _schedules(plan: Plan) -> list[dict]:
    """Groups of runs with the same schedule: the schedule, and their models, datasets and seeds."""
    groups: list[dict] = []
    for cell in plan.cells("train"):
        group = _group_with(groups, plan.request("train", cell)["schedule"])
        _append_once(group["models"], cell.model)
        _append_once(group["datasets"], cell.dataset)
        _append_once(group["seeds"], cell.seed)
    return groups


def _group_with(groups: list[dict], schedule: dict) -> dict:
    """The group with this schedule; a new one is appended if there is none."""
    for group in groups:
        if group["schedule"] == schedule:
            return group
    groups.append({"schedule": schedule, "models": [], "datasets": [], "seeds": []})
    return groups[-1]


def _append_once(values: list, value: object) -> None:
    if value not in values:
        values.append(value)
