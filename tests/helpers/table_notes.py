"""The notes under a table, as people read them."""

from pathlib import Path


def notes_of(path: Path) -> list[str]:
    """The notes in the Markdown beside the table's CSV at `path`."""
    lines = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("|")]
