"""What the page can be filtered by: model, dataset, family of methods, rank.

The family of a method says what trains. It follows from what the method's module imports, so that a
method of the user's own has one, too.
"""

import ast
from collections import Counter
from pathlib import Path

from rankwise.core.keys import CURVE
from rankwise.report import style
from rankwise.study.resolve import module_path

# What a method's module imports -> its family; the first that fits.
METHOD_FAMILIES = {"lora_base": "LoRA", "prompt_base": "prompts", "peft": "other adapters of peft"}
WHOLE_MODEL = "full"  # the module with which every weight trains: its optimizer makes the family
PROJECTING = "subspace"  # what every optimizer imports that projects gradients
NO_RANK = "none"


def families(methods: list[dict]) -> dict[str, str]:
    """Family of each method.

    Args:
        methods: entries with `name`, `module` and `optimizer`, the names of their files.
    """
    return {entry["name"]: family(entry["module"], entry["optimizer"]) for entry in methods}


def family(module: str, optimizer: str) -> str:
    """Family of a method, from the names of its module and of its optimizer's."""
    if module == WHOLE_MODEL:
        is_projected = PROJECTING in _imported(module_path("optim", optimizer))
        return "projected gradients" if is_projected else "full fine-tuning"
    imported = _imported(module_path("methods", module))
    known = (name for part, name in METHOD_FAMILIES.items() if part in imported)
    return next(known, module.rpartition(":")[2].replace("_", " "))


def _imported(path: Path) -> set[str]:
    """The last parts of the names of all modules that a file imports, and what it takes of them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(alias.name for alias in node.names)}
    return {name.rpartition(".")[2] for name in names}


def facets(records: list[dict], family_by_method: dict[str, str]) -> dict:
    """What the page's filters need.

    Args:
        records: the records of all results.
        family_by_method: as `families` returns it.

    Returns:
        `facets`: a list of `key`, `label` and `values`, only of facets with several values;
        `families`: family of each method and variant; `counts`: model, dataset, method, rank and
        number of runs of each curve (number of results in a study without runs); `counted`: what
        these numbers count.
    """
    trained = [record for record in records if record["measurement"] == "train"]
    curves = Counter(
        tuple(record["request"]["cell"][name] for name in CURVE) for record in trained or records
    )
    all_cells = [record["request"]["cell"] for record in records]
    method_names = dict.fromkeys(cell["method"] for cell in all_cells)
    of_method = {name: family_by_method[style.base(name)] for name in method_names}
    ranks = sorted({cell["rank"] for cell in all_cells})
    values = {
        "model": list(dict.fromkeys(cell["model"] for cell in all_cells)),
        "dataset": list(dict.fromkeys(cell["dataset"] for cell in all_cells)),
        "family": list(dict.fromkeys(of_method.values())),
        "rank": [str(rank) if rank else NO_RANK for rank in ranks],
    }
    return {
        "facets": [
            {"key": key, "label": "what trains" if key == "family" else key, "values": own}
            for key, own in values.items()
            if len(own) > 1
        ],
        "families": of_method,
        "counts": [[*curve, count] for curve, count in curves.items()],
        "counted": "runs" if trained else "results",
    }
