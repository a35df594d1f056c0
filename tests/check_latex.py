"""After the demo: LaTeX accepts every table and number below results/ unchanged, and all fit.

A table must fit the page of a one-column article: no line or page may be overfull by more than
0.1 pt, and no float may be higher than the page. It needs pdflatex, booktabs and pdftotext.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREAMBLE = (
    r"\documentclass{article}\usepackage{booktabs,array,longtable}"
    r"\hfuzz=0.1pt\vfuzz=0.1pt\begin{document}"
)
PACKAGES = "texlive-latex-base texlive-latex-recommended poppler-utils"
# Starts of lines in LaTeX's output that name an error, a lack or a text that does not fit.
ERROR_STARTS = ("!", "l.", "Missing character", "Overfull", "LaTeX Warning: Float too large")


def pdf_text(body: str) -> str:
    """The text of the PDF that LaTeX makes of a document's body, on pages of an article.

    Raises:
        ValueError: LaTeX reports an error, has no glyph for a character, or a text does not fit.
            The message has its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text.tex").write_text(f"{PREAMBLE}\n{body}\n\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "text"]
        for _ in range(2):  # a longtable is aligned in the second run
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
            )
        errors = [line for line in done.stdout.splitlines() if line.startswith(ERROR_STARTS)]
        if done.returncode or errors:
            raise ValueError("\n".join(errors) or done.stdout[-500:])
        command = ["pdftotext", "-layout", "text.pdf", "-"]
        read = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return read.stdout


def document_body(path: Path) -> str:
    """A body that reads one file: a table that is not a longtable stands in a float."""
    name = path.resolve().with_suffix("")
    read = f"\\input{{{name}}}"
    is_float = "\\begin{tabular}" in path.read_text() and "{longtable}" not in path.read_text()
    return f"\\begin{{table}}{read}\\end{{table}}" if is_float else read


def main() -> None:
    """Exit with the files that LaTeX does not accept, below the given folders or results/."""
    folders = [Path(name) for name in sys.argv[1:]] or [ROOT / "results"]
    files = sorted(path for folder in folders for path in folder.rglob("*.tex"))
    refused = []
    for path in files:
        try:
            pdf_text(document_body(path))
        except ValueError as error:
            refused.append(f"{path}: {error}")
    if refused or not files:
        raise SystemExit("\n".join(refused) or "no .tex file below results/")
    print(f"LaTeX accepts all {len(files)} files")


if __name__ == "__main__":
    main()
