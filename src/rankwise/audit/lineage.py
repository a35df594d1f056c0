"""Which tables and measurements a file of a study is made from.

Figures and pages are made from tables, tables from other tables or from the results of one
measurement. Standard library only.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

from rankwise.core import store
from rankwise.study import outputs
from rankwise.study.plan import Plan

NUMBERS_TABLES = ("summary", "claims")  # what numbers.json and numbers.tex are made from
# The scores by example are gathered from the training runs, by a rule of their own.
EXAMPLES = {"examples": "train"}


def tables(plan: Plan, file: str) -> dict[str, str]:
    """The gathered tables behind a file.

    Args:
        plan: The study.
        file: Path of a figure, table, text or page, relative to the project.

    Returns:
        Gathered table -> the measurement whose results it gathers.
    """
    path = PurePosixPath(file)
    if path.parent.name == "figures":
        names = drawn_from(plan, file)
    elif path.parent.name == "tables" or path.stem in ("claims", "numbers"):
        names = [path.stem]
    elif file == plan.output(outputs.EXPORTS):
        names = outputs.export_tables(plan)
    else:  # the page and the artifact are about everything
        names = outputs.tables(plan)
    return measurements_of(plan, names)


def drawn_from(plan: Plan, file: str) -> list[str]:
    """The tables that a figure is drawn from. Its metadata name the runs in these tables."""
    figure = PurePosixPath(file).stem
    return outputs.claim_tables(plan) if figure == "claims" else list(outputs.FIGURE_TABLES[figure])


def measurements_of(plan: Plan, names: Iterable[str]) -> dict[str, str]:
    """The gathered tables behind other tables -> the measurement that each gathers."""
    sources = {**EXAMPLES, **outputs.TABLE_SOURCES}
    gathered = _gathered(plan, names)
    return {name: sources[name] for name in gathered if plan.cells(sources[name])}


def _gathered(plan: Plan, names: Iterable[str]) -> list[str]:
    """The gathered tables that the tables `names` are made from in the end, each once."""
    gathered: dict[str, None] = {}
    for name in names:
        made_from = _made_from(plan, name)
        leaves = [name] if made_from is None else _gathered(plan, made_from)
        gathered.update(dict.fromkeys(leaves))
    return list(gathered)


def _made_from(plan: Plan, name: str) -> Iterable[str] | None:
    """The tables that a table is made from; None if it is gathered from results."""
    if name in outputs.DERIVED:
        return outputs.made_from(plan, name)
    if name == "claims":
        return outputs.claim_inputs(plan)
    return NUMBERS_TABLES if name == "numbers" else None


def is_result(plan: Plan, file: str) -> bool:
    """Whether a file is the result of one job."""
    return file.startswith(tuple(f"{plan.results}/{part}/" for part in store.PARTS))
