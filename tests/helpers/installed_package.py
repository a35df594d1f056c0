"""Packages as pip would install them, for tests: a folder with sources and a dist-info beside it."""

import shutil
import textwrap
from pathlib import Path

from helpers.repository import ROOT

EXAMPLE = ROOT / "docs/examples/package/lion_pack"


def install_example(site: Path) -> Path:
    """The package of docs/examples, in a folder that a test puts on the path; returns its sources."""
    shutil.copytree(EXAMPLE, site / "lion_pack", ignore=shutil.ignore_patterns("__pycache__"))
    describe(site, "lion-pack", "1.0", "lion_pack", requires=("torch",))
    return site / "lion_pack"


def install(site: Path, name: str, version: str, requires: tuple = (), **files: str) -> None:
    """A package of one's own: its modules by name, and their texts."""
    folder = site / name.replace("-", "_")
    folder.mkdir(parents=True)
    for module, text in {"__init__": "", **files}.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(text))
    describe(site, name, version, folder.name, requires)


def describe(site: Path, name: str, version: str, module: str, requires: tuple = ()) -> None:
    """Write the dist-info of a package, over an older one."""
    for old in site.glob(f"{name.replace('-', '_')}-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "top_level.txt").write_text(f"{module}\n")
    files = sorted(path.relative_to(site) for path in (site / module).rglob("*") if path.is_file())
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
