"""The layers, the packages and their modules, from the import contract and from the code's imports.

grimp, which import-linter uses, reads the imports; nothing is drawn by hand.
"""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import grimp

PACKAGE = "rankwise"
BOX_HEIGHT, GAP, WIDTH = 46, 12, 860
# What each package is for. A test holds this to the packages that exist.
PURPOSE = {
    "cli": "the commands and their terminal text",
    "library": "results as data frames and predictions, for notebooks and scripts",
    "evaluation": "kept weights asked a task: the harness, answer patterns, generated answers",
    "checks": "can this machine or cluster run the study?",
    "training": "one run: loop, checkpoint, pre-training",
    "audit": "what would rerun and why; which runs made a file; merging clones",
    "report": "figures, the report page, texts for a paper, exports",
    "measure": "one quantity of one training step: memory, FLOPs, times",
    "analysis": "result files to tables and statistics, without matplotlib",
    "execution": "a job, its worker process, GPUs and leases, SLURM, the container",
    "data": "sources to prepared inputs",
    "methods": "what trains: one file a method",
    "study": "YAML to planned jobs and requests, without torch",
    "optim": "how it steps: one file an optimizer",
    "models": "build, store and score a base model",
    "core": "configuration, provenance, results, units, paths, errors",
}


def layers(root: Path) -> list[list[str]]:
    """The layers of the import contract in pyproject.toml, the top one first."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    contract = next(contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


@cache
def graph() -> grimp.ImportGraph:
    """Every import between the modules of the package."""
    return grimp.build_graph(PACKAGE)


def imports(packages: list[str]) -> dict[str, dict[str, int]]:
    """Package -> packages that its modules import -> the number of such imports."""
    found: dict[str, dict[str, int]] = {name: {} for name in packages}
    for module in sorted(graph().modules):
        importer = _package(module)
        for imported in graph().find_modules_directly_imported_by(module):
            target = _package(imported)
            if importer in found and target in found and target != importer:
                found[importer][target] = found[importer].get(target, 0) + 1
    return found


def _package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def picture(root: Path) -> str:
    """The layers as an SVG: each package may import the packages in the rows below it."""
    boxes = []
    rows = layers(root)
    for row, names in enumerate(rows):
        width = (WIDTH - GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            left, top = column * (width + GAP), row * (BOX_HEIGHT + GAP)
            middle = left + width / 2
            boxes.append(
                f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{BOX_HEIGHT}" rx="4"/>'
                f'<text x="{middle:g}" y="{top + 20}">{name}</text>'
                f'<text class="small" x="{middle:g}" y="{top + 36}">{PURPOSE[name]}</text>'
            )
    height = len(rows) * (BOX_HEIGHT + GAP)
    title = "The packages in layers; each imports only packages in the rows below it"
    return (
        f'<svg class="layers" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        + "".join(boxes)
        + "</svg>\n"
    )


def package_table(root: Path) -> str:
    """Each package, its modules and the packages that it imports."""
    names = [name for layer in layers(root) for name in layer]
    found = imports(names)
    lines = ["| package | modules | imports (how often) |\n", "| --- | ---: | --- |\n"]
    for name in names:
        used = [f"{target} ({count})" for target, count in sorted(found[name].items())]
        row = [f"`{name}`", str(len(_modules(root, name))), ", ".join(used) or "none"]
        lines.append(f"| {' | '.join(row)} |\n")
    return "".join(lines)


def module_table(root: Path) -> str:
    """Each package's modules with the first sentence of their docstrings."""
    parts = []
    for name in [name for layer in layers(root) for name in layer]:
        purpose = PURPOSE[name][0].upper() + PURPOSE[name][1:].removesuffix("?")
        parts.append(f"\n### {name}\n\n{purpose}.\n\n")
        parts.append("| module | what it holds |\n| --- | --- |\n")
        for path in _modules(root, name):
            module = path.relative_to(root / "src" / PACKAGE / name).with_suffix("").as_posix()
            parts.append(f"| `{module}` | {_first_sentence(path)} |\n")
    return "".join(parts)


def _modules(root: Path, package: str) -> list[Path]:
    files = sorted((root / "src" / PACKAGE / package).rglob("*.py"))
    return [path for path in files if path.name != "__init__.py"]


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
    return re.split(r"(?<=[.?]) (?=[A-Z])", paragraph)[0]
