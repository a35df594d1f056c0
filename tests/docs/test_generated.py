"""The generated parts of the site hold everything that they are generated from, and the site builds strictly."""

import copy
import importlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

from helpers.repository import ROOT
from rankwise.core import environment

sys.path.insert(0, str(ROOT / "docs"))
from generate import (
    api,
    architecture,
    commands,
    entries,
    methods,
    notebook,
    rerun_table,
    schemas,
)

try:
    metadata.version("mkdocs-material")
    MKDOCS = True
except metadata.PackageNotFoundError:
    MKDOCS = False


def test_the_study_page_has_every_key_of_the_demo(demo: dict) -> None:
    page = schemas.study_page(ROOT)
    keys = [*demo, "train[].seeds", "profile[].measured", "schedule.epochs", "train[].search.seeds"]
    assert [key for key in keys if f"| `{key}` |" not in page] == []
    assert "| `schedule.epochs` | integer ≥ 1 | `3` |" in page
    assert page.count("schedule.epochs`") == 1


def test_the_entries_page_has_the_keys_of_each_file() -> None:
    page = entries.page(ROOT)
    for key in (
        "NAME.learning_rate",
        "NAME.weights.pretrain.dataset",
        "NAME.hub.revision",
        "NAME.tolerance.reason",
        "gpu_partition",
    ):
        assert f"| `{key}` |" in page


def test_every_section_of_the_long_page_of_methods_is_a_page() -> None:
    pages = methods.pages(ROOT)
    titles = [
        line.removeprefix("### ")
        for line in (ROOT / "docs/methods.md").read_text().splitlines()
        if line.startswith("### ")
    ]
    assert set(pages) == {"methods/index.md", *(f"methods/{title}.md" for title in titles)}
    assert "(lora.md)" in pages["methods/index.md"]
    assert "](#" not in pages["methods/index.md"]


def test_every_command_has_its_help() -> None:
    page = commands.page(ROOT)
    for name in ("methods", "fits", "trace", "plan", "collect", "doctor"):
        assert f"usage: rankwise {name}" in page


def test_every_optimizer_is_in_the_reference() -> None:
    found = api.optimizers(ROOT)
    assert {"adamw", "projected_adam", "lomo"} <= {module for module, _ in found}
    optim = importlib.import_module("rankwise.optim")
    for module, name in found:
        assert getattr(importlib.import_module(f"rankwise.optim.{module}"), name) is getattr(
            optim, name
        )


def test_every_package_is_drawn_and_described() -> None:
    packages = {
        path.name for path in (ROOT / "src/rankwise").iterdir() if (path / "__init__.py").is_file()
    }
    drawn = [name for layer in architecture.layers(ROOT) for name in layer]
    assert sorted(drawn) == sorted(packages) == sorted(architecture.PURPOSE)
    table = architecture.module_table(ROOT)
    assert all(f"### {name}\n" in table for name in packages)


def test_no_import_is_drawn_upwards() -> None:
    rows = {name: row for row, layer in enumerate(architecture.layers(ROOT)) for name in layer}
    for package, targets in architecture.imports(list(rows)).items():
        assert all(rows[target] > rows[package] for target in targets), package


def test_the_rerun_table_has_every_promise() -> None:
    table = rerun_table.table(ROOT)
    promises = rerun_table.promises(ROOT).PROMISES
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == list(promises)
    assert "| a comment | nothing |" in table


def test_every_environment_variable_is_described() -> None:
    page = commands.environment_page(ROOT)
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'"(RANKWISE_[A-Z]+)"', sources))
    assert "RANKWISE_LEASES" in named
    assert [name for name in sorted(named) if f"| `{name}` |" not in page] == []


def test_the_lock_changes_no_package_of_another() -> None:
    docs = environment.locked_versions(ROOT / "envs/docs.lock")
    for name in ("cpu", "report", "dev"):
        other = environment.locked_versions(ROOT / f"envs/{name}.lock")
        assert {
            package: docs[package] for package in docs if package in other
        }.items() <= other.items()


@pytest.mark.skipif(not MKDOCS, reason="run `make docs` once: it installs envs/docs.lock")
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text()
        assert "<!-- generated:" not in text, page
        assert 'src="http' not in text, page
        assert "fonts.g" not in text, page


def test_the_notebook_was_run_and_its_page_shows_what_it_printed() -> None:
    kept = nbformat.read(notebook.NOTEBOOK, as_version=4)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    page = notebook.page()
    assert all(cell.source in page for cell in kept.cells)
    # LoRA of rank 8 on q and v of 6 layers, and the new head: 8 bytes of Adam's a number, in MiB.
    numbers = 6 * 2 * 2 * 8 * 768 + (768 * 768 + 768) + (2 * 768 + 2)
    assert f"optimizer state{8 * numbers / 2**20:>17,.2f} MiB" in page
    assert "site-packages" not in page


def test_a_cell_that_prints_something_else_is_found() -> None:
    kept = nbformat.read(notebook.NOTEBOOK, as_version=4)
    fresh = copy.deepcopy(kept)
    assert notebook.differences(kept, fresh) == []
    (cell,) = [one for one in fresh.cells if "print(ledger)" in one.source]
    cell.outputs[0]["text"] = cell.outputs[0]["text"].replace("peak", "top")
    (found,) = notebook.differences(kept, fresh)
    assert "print(ledger)" in found
