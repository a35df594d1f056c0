"""After the demo: LaTeX takes every table and number below results/ as it is; needs pdflatex, booktabs and pdftotext."""

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = r"\documentclass{article}\usepackage{booktabs}\pdfpagewidth=60in\pdfpageheight=60in\hsize=59in\begin{document}"
PACKAGES = "texlive-latex-base texlive-latex-recommended poppler-utils"


def shown(body: str) -> str:
    """The text of the PDF that LaTeX makes of a document's body.

    Raises:
        ValueError: LaTeX refuses it or has no glyph for a character; with its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text.tex").write_text(f"{PAGE}\n{body}\n\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "text"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        words = [
            line
            for line in done.stdout.splitlines()
            if line.startswith(("!", "l.", "Missing character"))
        ]
        if done.returncode or words:
            raise ValueError("\n".join(words) or done.stdout[-500:])
        command = ["pdftotext", "-layout", "text.pdf", "-"]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        ).stdout


def main() -> None:
    """Exit with the files that LaTeX refuses."""
    files = sorted((ROOT / "results").rglob("*.tex"))
    refused = []
    for path in files:
        try:
            shown(f"\\input{{{path.with_suffix('')}}}")
        except ValueError as error:
            refused.append(f"{path.relative_to(ROOT)}: {error}")
    if refused or not files:
        raise SystemExit("\n".join(refused) or "no .tex file below results/")
    print(f"LaTeX takes all {len(files)} files")


if __name__ == "__main__":
    main()
