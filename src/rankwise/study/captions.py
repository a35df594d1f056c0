"""Captions of figures, from the files in the folder `captions`; `snakemake --report` shows them,
too.

Standard library only.
"""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_suffix("")  # the folder `captions` beside this module
PATTERN = re.compile(
    r"\.\. category: (?P<category>.+)\n\n\*\*(?P<title>.+?)\.\*\* (?P<text>.+)", re.DOTALL
)


class Caption(NamedTuple):
    """The caption of one figure."""

    title: str
    text: str  # one or two sentences
    category: str  # its chapter: Quality, Memory, Compute, Claims or Training


def read(path: Path) -> Caption:
    """The caption in one file.

    Raises:
        ValueError: the file is not `.. category: C`, an empty line, and `**Title.** Text`.
    """
    match = PATTERN.fullmatch(path.read_text(encoding="utf-8").strip())
    if match is None:
        raise ValueError(
            f"{path}: allowed is `.. category: Memory`, an empty line, "
            "then `**Title.** One or two sentences.`"
        )
    return Caption(match["title"], " ".join(match["text"].split()), match["category"])


CAPTIONS = {path.stem: read(path) for path in sorted(FOLDER.glob("*.rst"))}
# Figure -> its title and text, as the page shows them.
TITLES = {name: (caption.title, caption.text) for name, caption in CAPTIONS.items()}
