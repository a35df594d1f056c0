"""Run docs/notebook.ipynb, and show it as a page.

    .venv/bin/python docs/generate/notebook.py            run it, and keep what it prints
    .venv/bin/python docs/generate/notebook.py --check    run it, and change nothing

It needs the demo's results (`make demo`). What a cell prints stands in the file, so the page and
GitHub show it without running anything. `--check` fails if a cell does, or if a cell that is tagged
`exact` prints anything else than the file has: what follows from shapes is the same everywhere,
what was trained depends on the processor.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
EXACT = "exact"
TIMEOUT_S = 600
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)  # of pandas; the site has its own


def page(file: Path = NOTEBOOK) -> str:
    """The notebook as Markdown: its texts, its code, and what each cell printed."""
    parts = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_shown(output) for output in cell.outputs]
    return "\n\n".join([*parts, "This page is `docs/notebook.ipynb`.\n"])


def _shown(output: nbformat.NotebookNode) -> str:
    """An output of a cell: a table as HTML, a figure as SVG, anything else as text."""
    data = output.get("data", {})
    if "text/html" in data:
        return STYLE.sub("", data["text/html"])
    if "image/svg+xml" in data:
        return data["image/svg+xml"]
    return f"```text\n{(output.get('text') or data['text/plain']).rstrip()}\n```"


def run(file: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in the project's folder.

    Raises:
        CellExecutionError: A cell fails; the message has its code and the error.
    """
    from nbclient import NotebookClient  # noqa: PLC0415 - building the site does not run it

    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(ROOT)}}
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=resources)
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
        if cell.cell_type == "code":  # warnings name paths of this machine
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def differences(kept: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> list[str]:
    """The cells tagged `exact` that print something else now, in words."""
    found = []
    for old, new in zip(kept.cells, fresh.cells, strict=True):
        if EXACT in old.metadata.get("tags", []) and _texts(old) != _texts(new):
            found.append(f"{old.source}\nkept: {_texts(old)}\nnow:  {_texts(new)}")
    return found


def _texts(cell: nbformat.NotebookNode) -> list[str]:
    return [_shown(output) for output in cell.outputs]


def main() -> int:
    """Run the notebook; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    checks_only = parser.parse_args().check
    fresh = run()
    if not checks_only:
        nbformat.write(fresh, NOTEBOOK)
        return 0
    found = differences(nbformat.read(NOTEBOOK, as_version=4), fresh)
    print("\n\n".join(found) or "Every cell runs, and the exact ones print what the file has.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
