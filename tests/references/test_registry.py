"""Everything that computes an update is held to an independent reference, by a test that exists."""

import ast
from pathlib import Path

import pytest
import yaml

import rankwise.optim
from helpers.repository import ROOT
from references.registry import ENTRIES, METHODS, OPTIMIZERS

TESTS = ROOT / "tests"
LINES = {
    *ENTRIES.values(),
    *METHODS.values(),
    *(line for both in OPTIMIZERS.values() for line in both),
}
# What a reference computes with; only draws may be spied on, and a method or an optimizer loaded.
HELPERS = [TESTS / f"helpers/{name}.py" for name in ("lockstep", "formulas", "encoders")]
MAY_IMPORT = {
    "rankwise.optim",
    "rankwise.optim.parts.projectors",
    "rankwise.methods.parts.base",
    "rankwise.models",
}


def functions(file: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(file.read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_optimizer_has_a_reference() -> None:
    assert set(OPTIMIZERS) == set(dir(rankwise.optim))


def test_every_method_has_a_reference() -> None:
    modules = {path.stem for path in (ROOT / "src/rankwise/methods").glob("*.py")} - {"__init__"}
    assert set(METHODS) == modules


def test_every_entry_has_a_reference() -> None:
    assert set(ENTRIES) == set(yaml.safe_load((ROOT / "config/methods.yaml").read_text()))


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_line_names_a_test(line: str) -> None:
    file, _, function = line.partition("::")
    assert function.startswith("test_")
    assert function in functions(TESTS / file)


@pytest.mark.parametrize(
    "entry", [name for name, line in ENTRIES.items() if line.startswith("references/")]
)
def test_the_test_of_an_entry_runs_with_it(entry: str) -> None:
    """It takes its cases from the registry, or names the entry itself."""
    file, _, function = ENTRIES[entry].partition("::")
    source = ast.unparse(functions(TESTS / file)[function])
    takes_cases = f"entries('{Path(file).name}::{function}')" in source
    assert takes_cases or f"'{entry}'" in source


@pytest.mark.parametrize(
    "file", [*sorted((TESTS / "references").glob("*.py")), *HELPERS], ids=lambda file: file.name
)
def test_a_reference_has_no_piece_of_ours(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {node.module} if node.module in MAY_IMPORT else whole
    ours = {name for name in imported if name.startswith("rankwise")}
    assert ours <= MAY_IMPORT
