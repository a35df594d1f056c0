"""Every method entry on one model: what trains, how it is stored, how it steps, counted from shapes. And docs/methods.md.

The page is made of the entries, the modules' docstrings and these counts; nothing in it is typed by hand.
"""

import ast
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.optim import Optimizer

from rankwise.core.config import ConfigError
from rankwise.core.errors import Unsupported
from rankwise.measure.memory.persistent import predict
from rankwise.methods.parts.base import method_class, optimizer_class
from rankwise.study.options import REQUIRED, Option
from rankwise.study.plan import Plan
from rankwise.study.resolve import PACKAGE_DIR, module_options, resolve_method, takes_rank

HEAD = """# Methods

Written by `rankwise methods --page`: from the entries of `config/methods.yaml`, the docstrings of the modules, and counts from
shapes. An entry says what trains (`module`), how the base is stored (`weights`), and how it steps (`optimizer`); any method
goes with any storage and any optimizer that can do it.

Legend. W, G: a weight and its gradient, m rows (outputs) by n columns (inputs). s, L: the shorter and the longer side, or the
projected one and the other. r: rank. k: length of a vector. d: hidden size. h: layers. B A, or A and B: low-rank factors.
"""


NUMBERS = ("rank", "trainable_parameters", "optimizer_state_bytes")


@dataclass(frozen=True)
class Row:
    """One entry on one model."""

    entry: str
    trains: str
    stored: str
    steps: str
    rank: int
    trainable_parameters: int | None
    optimizer_state_bytes: int | None
    source: str
    state: str = ""  # numbers kept a matrix
    reason: str = ""


def catalogue(root: Path, model: str, dataset: str, rank: int) -> list[Row]:
    """A row for every entry, in the file's order.

    Raises:
        ConfigError: no such model or dataset, or the model cannot do the dataset's task.
    """
    grid = {
        "models": [model],
        "datasets": [dataset],
        "methods": ["frozen"],
        "measurements": ["memory"],
    }
    study = {"name": "methods", "question": "?", "device": "cpu", "profile": [grid]}
    plan = Plan(study, root, "rankwise methods")  # says what is wrong with the model or the dataset
    shapes = plan.request("memory", plan.cells("memory")[0])
    return [_row(name, entry, shapes, rank) for name, entry in plan.library["methods"].items()]


def _row(name: str, entry: dict, shapes: dict, rank: int) -> Row:
    """`shapes` is the request of a profile, whose method is left out of account."""
    trains, stored, steps = entry["module"], entry["weights"], entry["optimizer"]["module"]
    said: dict = {
        "entry": name,
        "trains": trains,
        "stored": stored,
        "steps": steps,
        "source": entry.get("source", ""),
    }
    said["rank"] = rank if takes_rank(entry, name) else 0
    try:
        method = resolve_method(name, entry, shapes["model"], rank, "rankwise methods: --rank")
        options = {key: value for key, value in method["optimizer"].items() if key != "module"}
        said["state"] = optimizer_class(steps).formula(**options)
        found = predict({**shapes, "method": method})
    except (ConfigError, Unsupported) as error:
        return Row(**said, trainable_parameters=None, optimizer_state_bytes=None, reason=str(error))
    counts = {key: found[key] for key in ("trainable_parameters", "optimizer_state_bytes")}
    return Row(**said, **counts)


def table(rows: list[Row], columns: list[str], link: bool = False) -> str:
    """The rows as a Markdown table; a cell that could not be counted says why."""
    lines = [
        [column.replace("_", " ") for column in columns],
        ["---:" if column in NUMBERS else "---" for column in columns],
    ]
    lines += [[_cell(asdict(row), column, link) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(values: dict, column: str, link: bool) -> str:
    value = values[column]
    if value is None:
        return "unsupported" if column == "trainable_parameters" else values["reason"]
    if column in ("trains", "steps") and link:
        return f"[{value}](#{value})"
    return f"{value:,}" if isinstance(value, int) else str(value)


# The page -------------------------------------------------------------------------------------------------------------


def page(root: Path, model: str, dataset: str, rank: int) -> str:
    """docs/methods.md."""
    rows = catalogue(root, model, dataset, rank)
    columns = [
        "entry",
        "trains",
        "stored",
        "steps",
        "trainable_parameters",
        "optimizer_state_bytes",
        "source",
    ]
    parts = [
        HEAD,
        f"## Entries\n\nCounted on {model} for {dataset}, at rank {rank} where the entry leaves it open.\n",
    ]
    parts += [table(rows, columns, link=True), "## What trains\n"]
    parts += [_section("methods", path.stem, rows) for path in _modules("methods")]
    parts += [
        "## How it is stored\n",
        _docstring(PACKAGE_DIR / "models/storage.py"),
        "## How it steps\n",
    ]
    parts += [_docstring(PACKAGE_DIR / "optim/release.py")]
    parts += [_section("optim", path.stem, rows) for path in _modules("optim")]
    return "\n".join(parts)


def _modules(folder: str) -> list[Path]:
    """The files that hold a method or an optimizer, and not only parts of them."""
    return [
        path
        for path in sorted((PACKAGE_DIR / folder).glob("*.py"))
        if _has_class(folder, path.stem)
    ]


def _has_class(folder: str, module: str) -> bool:
    try:
        module_options(folder, module, module)
    except ConfigError:
        return False
    return folder == "methods" or issubclass(optimizer_class(module), Optimizer)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) + "\n"


def _section(folder: str, module: str, rows: list[Row]) -> str:
    used = [row for row in rows if module == (row.trains if folder == "methods" else row.steps)]
    options = ", ".join(
        _option(option) for option in module_options(folder, module, module).values()
    )
    lines = [f"### {module}\n", _docstring(PACKAGE_DIR / folder / f"{module}.py")]
    lines += [f"Options: {options}.\n"] if options else []
    if folder == "methods":
        lines.append(f"Trains: {_trained(module)}.\n")
        lines.append(f"Entries: {', '.join(f'`{row.entry}`' for row in used) or 'none'}.\n")
        return "\n".join(lines)
    kept = {
        formula: [row.entry for row in used if row.state == formula]
        for formula in dict.fromkeys(row.state for row in used)
    }
    lines += [
        f"Keeps `{formula}` numbers a matrix: {', '.join(f'`{n}`' for n in names)}.\n"
        for formula, names in kept.items()
    ]
    return "\n".join(lines)


def _trained(module: str) -> str:
    """The declared number of trained parameters, in words."""
    method = method_class(module)
    each = [] if method.TRAINABLE == "0" else [f"`{method.TRAINABLE}` numbers a target matrix"]
    return (
        " and ".join([*each, *([] if method.MODEL == "0" else [f"`{method.MODEL}` a model"])])
        or "see above"
    )


def _option(option: Option) -> str:
    return (
        f"`{option.name}`" if option.default is REQUIRED else f"`{option.name}: {option.default}`"
    )
