"""What a file of a study is made of: from figures and pages to tables, from tables to measurements. Standard library only."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from rankwise.study import outputs
from rankwise.study.plan import FOLDERS, RESULTS, Plan

NUMBERS = ("summary", "claims")  # what numbers.json and numbers.tex are made from
EXAMPLES = {"examples": "train"}  # gathered by a rule of its own


def tables(plan: Plan, file: str) -> dict[str, str]:
    """Table of results -> its measurement, for everything that `file` (relative to the root) is made of."""
    path = PurePosixPath(file)
    if path.parent.name == "figures":
        names = drawn_from(plan, file)
    elif path.parent.name == "tables" or path.stem in ("claims", "numbers"):
        names = [path.stem]
    else:
        names = outputs.export_tables(plan) if file == outputs.EXPORTS else outputs.tables(plan)
    return measured(plan, names)


def drawn_from(plan: Plan, file: str) -> list[str]:
    """The tables that a figure is drawn from: the run ids in them are those that its metadata name."""
    stem = PurePosixPath(file).stem
    return outputs.claim_tables(plan) if stem == "claims" else list(outputs.FIGURE_TABLES[stem])


def measured(plan: Plan, names: Iterable[str]) -> dict[str, str]:
    """Table of results -> its measurement, for everything that these tables are made of."""
    sources = {**EXAMPLES, **outputs.TABLE_SOURCES}
    return {name: sources[name] for name in _roots(plan, names) if plan.cells(sources[name])}


def _roots(plan: Plan, names: Iterable[str]) -> list[str]:
    """The tables of results behind `names`, each once."""
    found: dict[str, None] = {}
    for name in names:
        made_of = _made_of(plan, name)
        found |= dict.fromkeys([name] if made_of is None else _roots(plan, made_of))
    return list(found)


def _made_of(plan: Plan, name: str) -> Iterable[str] | None:
    """The tables that a table is made from; None if it is made from results."""
    if name in outputs.DERIVED:
        return outputs.made_from(plan, name)
    return {"claims": outputs.claim_inputs(plan), "numbers": NUMBERS}.get(name)


def is_result(file: str) -> bool:
    """Whether a file is the result of one job."""
    return file.startswith(
        tuple(f"{RESULTS}/{folder}/" for folder in (*FOLDERS.values(), "profiles", "inputs"))
    )
