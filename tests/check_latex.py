"""After the demo: LaTeX accepts every table and number below results/ unchanged.

It needs pdflatex, booktabs and pdftotext.
"""

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREAMBLE = (
    r"\documentclass{article}\usepackage{booktabs}"
    r"\pdfpagewidth=60in\pdfpageheight=60in\hsize=59in\begin{document}"
)
PACKAGES = "texlive-latex-base texlive-latex-recommended poppler-utils"
ERROR_STARTS = ("!", "l.", "Missing character")  # of lines in LaTeX's output


def pdf_text(body: str) -> str:
    """The text of the PDF that LaTeX makes of a document's body.

    Raises:
        ValueError: LaTeX reports an error or has no glyph for a character. The message has its
            words.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text.tex").write_text(f"{PREAMBLE}\n{body}\n\\end{{document}}\n")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "text"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
        errors = [line for line in done.stdout.splitlines() if line.startswith(ERROR_STARTS)]
        if done.returncode or errors:
            raise ValueError("\n".join(errors) or done.stdout[-500:])
        command = ["pdftotext", "-layout", "text.pdf", "-"]
        read = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return read.stdout


def main() -> None:
    """Exit with the files that LaTeX does not accept."""
    files = sorted((ROOT / "results").rglob("*.tex"))
    refused = []
    for path in files:
        try:
            pdf_text(f"\\input{{{path.with_suffix('')}}}")
        except ValueError as error:
            refused.append(f"{path.relative_to(ROOT)}: {error}")
    if refused or not files:
        raise SystemExit("\n".join(refused) or "no .tex file below results/")
    print(f"LaTeX accepts all {len(files)} files")


if __name__ == "__main__":
    main()
