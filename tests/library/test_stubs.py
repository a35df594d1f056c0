"""The stubs, which editors and type checkers read, have the names that can be imported."""

import ast
from pathlib import Path

import pytest

import rankwise
import rankwise.optim

PACKAGE = Path(rankwise.__file__).parent


def imported(stub: Path) -> dict[str, str]:
    """Name -> the module that a stub imports it from."""
    sources = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                # Only a name that is imported as itself is public in a stub.
                assert name.asname == name.name
                sources[name.name] = str(node.module)
    return sources


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize(
    ("stub", "module"),
    [("__init__.pyi", rankwise), ("optim/__init__.pyi", rankwise.optim)],
)
def test_a_stub_names_what_can_be_imported(stub: str, module: object) -> None:
    sources = imported(PACKAGE / stub)
    assert sorted(sources) == sorted(dir(module))
    for name, source in sources.items():
        if source != "rankwise":  # `optim` is a module
            assert getattr(module, name).__module__ == source
