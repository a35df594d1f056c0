"""MkDocs hook: add the generated pages, and fill the generated blocks of the written ones.

Nothing that follows from the code is committed. Pages and blocks are made when the site is built,
so none of them can be out of date. `mkdocs.yml` names this file under `hooks`.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # MkDocs loads a hook by its path, outside of any package

from generate import (  # noqa: E402
    api,
    architecture,
    commands,
    entries,
    methods,
    notebook,
    rerun_table,
    schemas,
)

# A line such as `<!-- generated: reruns -->` in a written page is replaced by that block.
BLOCK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
OUTSIDE = re.compile(r"\]\((?:\.\./)+(benchmarks/[\w/.-]+\.png)\)")
LONG_PAGE = re.compile(r"\]\(((?:\.\./)*)methods\.md")  # split into pages, see methods.py


def pages() -> dict[str, str]:
    """Every generated page: its path below docs/ -> its Markdown."""
    return {
        "index.md": home(),
        "contributing.md": from_root("CONTRIBUTING.md"),
        "changelog.md": from_root("CHANGELOG.md"),
        "notebook.md": notebook.page(),
        "reference/study.md": schemas.study_page(ROOT),
        "reference/entries.md": entries.page(ROOT),
        "reference/cli.md": commands.page(ROOT),
        "reference/environment.md": commands.environment_page(ROOT),
        "reference/optim.md": api.page(ROOT),
        **methods.pages(ROOT),
    }


def blocks() -> dict[str, str]:
    """Every generated block, by the name that the written pages use."""
    return {
        "reruns": rerun_table.table(ROOT),
        "layers": architecture.picture(ROOT),
        "packages": architecture.package_table(ROOT),
        "modules": architecture.module_table(ROOT),
    }


def home() -> str:
    """The README as the first page."""
    return from_root("README.md")


def from_root(name: str) -> str:
    """A page that lies in the repository's root, with its links as seen from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/([\w/-]+\.md(?:#[\w-]+)?)\)", r"](\1)", text)
    text = text.replace("](docs/notebook.ipynb)", "](notebook.md)")
    for file in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = text.replace(f"]({file})", f"]({file.lower()})")
    return text


# MkDocs' events ---------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """List the generated pages of the methods in the navigation."""
    for place, item in enumerate(config.nav):
        if "Methods" in item:
            config.nav[place] = {"Methods": methods.navigation(ROOT)}
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the measured pictures that written pages show."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - tests read this module without MkDocs

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    for picture in sorted((ROOT / "benchmarks").rglob("*.png")):
        path = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, path, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill the generated blocks, and point pictures of benchmarks/ at their copies in the site."""
    if "<!-- generated:" in markdown:
        filled = blocks()
        markdown = BLOCK.sub(lambda match: filled[match[1]], markdown)
    markdown = LONG_PAGE.sub(r"](\1methods/index.md", markdown)
    up = "../" * page.file.src_uri.count("/")
    return OUTSIDE.sub(rf"]({up}\1)", markdown)
