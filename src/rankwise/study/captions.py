"""What is said below each figure: the files of rules/captions, which `snakemake --report` shows
too. Standard library only.
"""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[3] / "rules" / "captions"
FORM = re.compile(
    r"\.\. category: (?P<category>.+)\n\n\*\*(?P<title>.+?)\.\*\* (?P<text>.+)", re.DOTALL
)


class Caption(NamedTuple):
    """A figure's title, one or two sentences, and its chapter: Quality, Memory, Compute, Claims or
    Training.
    """

    title: str
    text: str
    category: str


def read(path: Path) -> Caption:
    """The caption in one file.

    Raises:
        ValueError: the file is not of the form `.. category: C`, an empty line, `**Title.** Text`.
    """
    found = FORM.fullmatch(path.read_text(encoding="utf-8").strip())
    if found is None:
        raise ValueError(
            f"{path}: allowed is `.. category: Memory`, an empty line, then `**Title.** One or two sentences.`"
        )
    return Caption(found["title"], " ".join(found["text"].split()), found["category"])


CAPTIONS = {path.stem: read(path) for path in sorted(FOLDER.glob("*.rst"))}
TITLES = {name: (found.title, found.text) for name, found in CAPTIONS.items()}
