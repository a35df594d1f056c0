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


VARIANT_MARK = "@"  # between the names of a method and of its variant: lora@fast
WITHOUT_METHODS = ("claims",)  # figures that show no method


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


def shown(figure: str, labels: list[list[str]]) -> tuple[str, str]:
    """Title and text of a figure's caption as the page shows them.

    Args:
        figure: The name of the figure; one without a caption has its name as the title.
        labels: [name, label] of every method, and of the variants of the study.

    Returns:
        Where the study has variants, the text ends with their labels, which say what differs.
    """
    if figure not in CAPTIONS:
        return figure.replace("_", " ").capitalize(), ""
    caption = CAPTIONS[figure]
    variants = [label for name, label in labels if VARIANT_MARK in name]
    if not variants or figure in WITHOUT_METHODS:
        return caption.title, caption.text
    line = f"Other settings of a method, in its colour with another marker: {'; '.join(variants)}."
    return caption.title, f"{caption.text} {line}"


CAPTIONS = {path.stem: read(path) for path in sorted(FOLDER.glob("*.rst"))}
