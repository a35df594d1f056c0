"""Every method entry on one model, counted from shapes: `rankwise methods`, docs/methods.md.

The page is made of the entries, the docstrings of the modules and the counts; none of it is typed
by hand.
"""

import ast
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.optim import Optimizer

from rankwise.core import csv_cells, plugins
from rankwise.core.config import ConfigError
from rankwise.core.errors import BrokenModule, Unsupported
from rankwise.core.paths import PACKAGE
from rankwise.measure.memory.persistent import predict
from rankwise.methods.parts.base import Method, method_class, optimizer_class
from rankwise.study.options import REQUIRED
from rankwise.study.plan import Plan
from rankwise.study.resolve import (
    module_names,
    module_options,
    module_path,
    resolve_method,
    takes_rank,
)

HEAD = """# Methods

Written by `rankwise methods --page`: from the entries of `config/methods.yaml`, the docstrings of the modules, and counts from
shapes. An entry says what trains (`module`), how the base is stored (`weights`), and how it steps (`optimizer`); any method
goes with any storage and any optimizer that can do it.

Legend. W, G: a weight and its gradient, m rows (outputs) by n columns (inputs). s, L: the shorter and the longer side, or the
projected one and the other. r: rank. k: length of a vector. d: hidden size. h: layers. B A, or A and B: low-rank factors.
"""  # noqa: E501 - lines of the page
# Written by benchmarks/publish.py, from the study of the same name.
DEFAULT_RATES = "benchmarks/default_rates/runs.csv"
AT_CHANCE = "chance level"  # as analysis/flags.py has it, which needs pandas
NUMBERS = ("rank", "trainable_parameters", "optimizer_state_bytes")
LINKED = ("trains", "steps")  # columns whose values are sections of the page
PAGE_COLUMNS = ["entry", "trains", "stored", "steps", *NUMBERS[1:], "source"]


@dataclass(frozen=True)
class Row:
    """One entry on one model.

    Attributes:
        entry: its name.
        trains: the method's module.
        stored: how the base is stored.
        steps: the optimizer's module.
        rank: of the row; 0 for a method without one.
        trainable_parameters: None if the entry could not be counted.
        optimizer_state_bytes: None if the entry could not be counted.
        source: paper or system.
        state: formula of the numbers that the optimizer keeps for a matrix.
        reason: why the entry could not be counted.
    """

    entry: str
    trains: str
    stored: str
    steps: str
    source: str
    rank: int = 0
    trainable_parameters: int | None = None
    optimizer_state_bytes: int | None = None
    state: str = ""
    reason: str = ""


def catalogue(root: Path, model: str, dataset: str, rank: int) -> list[Row]:
    """A row for every entry, in the order of the library.

    An entry that cannot be counted, because its file is broken or the model is unsupported, has a
    row with the reason.

    Args:
        root: the user's project.
        model: name of a model.
        dataset: name of a dataset, whose task decides on the head.
        rank: of entries that do not fix their own.

    Raises:
        ConfigError: there is no such model or dataset, or the model cannot do the dataset's task.
    """
    profile = {
        "models": [model],
        "datasets": [dataset],
        "methods": ["frozen"],
        "measurements": ["memory"],
    }
    study = {"name": "methods", "question": "?", "device": "cpu", "profile": [profile]}
    plan = Plan(study, root, "rankwise methods")
    request = plan.request("memory", plan.cells("memory")[0])
    return [_row(name, entry, request, rank) for name, entry in plan.library["methods"].items()]


def _row(name: str, entry: dict, request: dict, rank: int) -> Row:
    """The row of one entry, whose method replaces the one in a memory profile's `request`."""
    optimizer = entry["optimizer"]["module"]
    values = {
        "entry": name,
        "trains": entry["module"],
        "stored": entry["weights"],
        "steps": optimizer,
        "source": entry.get("source", ""),
    }
    try:
        values["rank"] = rank if takes_rank(entry, name) else 0
        method = resolve_method(name, entry, request["model"], rank, "rankwise methods: --rank")
        options = {key: value for key, value in method["optimizer"].items() if key != "module"}
        values["state"] = _state_formula(optimizer, options)
        counts = predict({**request, "method": method})
    except (ConfigError, Unsupported, BrokenModule) as error:
        return Row(**values, reason=str(error))
    return Row(
        **values,
        trainable_parameters=counts["trainable_parameters"],
        optimizer_state_bytes=counts["optimizer_state_bytes"],
    )


def _state_formula(optimizer: str, options: dict) -> str:
    """The optimizer's own formula; an optimizer of a user's need not have one."""
    formula = getattr(optimizer_class(optimizer), "formula", None)
    return formula(**options) if formula else ""


def table(rows: list[Row], columns: list[str], link: bool = False) -> str:
    """The rows as a Markdown table; the last column of a row that could not be counted says why."""
    lines = [
        [column.replace("_", " ") for column in columns],
        ["---:" if column in NUMBERS else "---" for column in columns],
    ]
    for row in rows:
        lines.append([_cell(asdict(row), column, link) for column in columns])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(values: dict, column: str, link: bool) -> str:
    value = values[column]
    if value is None:
        return "unsupported" if column == "trainable_parameters" else values["reason"]
    if column in LINKED and link and not plugins.is_reference(value):
        return f"[{value}](#{value})"
    return f"{value:,}" if isinstance(value, int) else str(value)


# The page -----------------------------------------------------------------------------------------


def page(root: Path, model: str, dataset: str, rank: int) -> str:
    """The text of docs/methods.md; arguments as for `catalogue`."""
    rows = catalogue(root, model, dataset, rank)
    where = f"Counted on {model} for {dataset}, at rank {rank} where the entry leaves it open."
    parts = [HEAD, f"## Entries\n\n{where}\n", table(rows, PAGE_COLUMNS, link=True)]
    parts += _default_rates(root)
    parts.append("## What trains\n")
    parts += [_method_section(module, rows) for module in _modules("methods")]
    parts += ["## How it is stored\n", _docstring(PACKAGE / "models" / "storage.py")]
    parts += ["## How it steps\n", _docstring(PACKAGE / "optim" / "parts" / "release.py")]
    parts += [_optimizer_section(module, rows) for module in _modules("optim")]
    return "\n".join(parts)


def _default_rates(root: Path) -> list[str]:
    """The entries that their default rate left at chance in a short study; none without its file.

    Args:
        root: the user's project; only a clone of Rankwise has the measured files.
    """
    file = root / DEFAULT_RATES
    if not file.is_file():
        return []
    _, rows = csv_cells.read(file)
    at_chance = []
    for row in rows:
        if AT_CHANCE in row["flags"]:
            accuracy, rate = float(row["accuracy_fraction"]), float(row["learning_rate"])
            at_chance.append(f"| {row['method']} | {rate:g} | {100 * accuracy:.1f} |")
    trained = sum(row["status"] == "ok" for row in rows)
    text = (
        "An entry's learning rate is its paper's, for larger models and longer training. "
        f"`config/default_rates.yaml` gave {trained} entries one short training each: MiniLM, "
        "four classes of AG News, 60 updates of 16 texts, one seed. After it these were still at "
        "chance, that is, had no more right answers than naming one class may have by luck. They "
        "may need a longer training or another rate elsewhere, too; `search: auto` in a study "
        "gives each method six to choose from.\n"
    )
    head = "| entry | learning rate | accuracy (%) |\n| --- | ---: | ---: |"
    return ["## Default learning rates\n", text, "\n".join([head, *at_chance, ""])]


def _modules(folder: str) -> list[str]:
    """The modules that hold a method or optimizer; broken ones are left out, their rows say why."""
    return [module for module in module_names(folder) if _has_class(folder, module)]


def _has_class(folder: str, module: str) -> bool:
    try:
        module_options(folder, module, module)
        return folder == "methods" or issubclass(optimizer_class(module), Optimizer)
    except (ConfigError, BrokenModule):
        return False


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "No description."
    return text + "\n"


def _equations(path: Path) -> str:
    """The docstring of the optimizer's class, up to its arguments."""
    name = path.stem.replace("_", "")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == name:
            text = ast.get_docstring(node) or ""
            return text.partition("\nArgs:")[0].rstrip() + "\n"
    return ""


def _opening(folder: str, module: str) -> list[str]:
    """Heading, docstring and options of a section."""
    path = module_path(folder, module)
    lines = [f"### {module}\n", _docstring(path)]
    if folder == "optim":
        lines.append(_equations(path))
    options = []
    for option in module_options(folder, module, module).values():
        default = "" if option.default is REQUIRED else f": {option.default}"
        options.append(f"`{option.name}{default}`")
    return [*lines, f"Options: {', '.join(options)}.\n"] if options else lines


def _method_section(module: str, rows: list[Row]) -> str:
    entries = [row.entry for row in rows if row.trains == module]
    names = ", ".join(f"`{entry}`" for entry in entries) or "none"
    lines = [f"Trains: {_trained(module)}.\n", f"Entries: {names}.\n"]
    return "\n".join([*_opening("methods", module), *lines])


def _trained(module: str) -> str:
    """The declared number of trained parameters, in words."""
    method = method_class(module)
    if isinstance(method.TRAINABLE, property):
        return _trained_by_type(method)
    parts = []
    if method.TRAINABLE != "0":
        parts.append(f"`{method.TRAINABLE}` numbers a target matrix")
    if method.MODEL != "0":
        parts.append(f"`{method.MODEL}` a model")
    return " and ".join(parts) or "see above"


def _trained_by_type(method: type[Method]) -> str:
    """The declared numbers of a method that has a formula for each of its types."""
    parts = [f"{kind} `{formula}`" for kind, formula in method.FORMULAS.items()]
    of_model = [f"{kind} `{formula}`" for kind, formula in method.MODEL_FORMULAS.items()]
    return f"{', '.join(parts)} numbers a target matrix; {', '.join(of_model)} a model"


def _optimizer_section(module: str, rows: list[Row]) -> str:
    entries_by_formula: dict[str, list[str]] = {}
    for row in rows:
        if row.steps == module and row.state:
            entries_by_formula.setdefault(row.state, []).append(f"`{row.entry}`")
    lines = []
    for formula, entries in entries_by_formula.items():
        lines.append(f"Keeps `{formula}` numbers a matrix: {', '.join(entries)}.\n")
    return "\n".join([*_opening("optim", module), *lines])
