"""Texts of a split that train has, too: a model may know their answers by heart.

Nothing is removed, because published splits are what published numbers are about. The counts are
reported with every result.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator

MIN_CHARACTERS = 20  # a line of running text must have more: short lines, such as titles, recur


def normalise(text: str) -> str:
    """A text without what copies often differ in: case, width and form of characters, punctuation
    and white space.

    Source: The Unicode Standard, section 3.13, D146, "compatibility caseless match".
    """
    if text.isascii():
        words = text.casefold().translate(_without_punctuation())
    else:
        folded = _decomposed(unicodedata.normalize("NFD", text).casefold()).casefold()
        # Decomposed once more, because marks may meet where punctuation stood between them.
        words = _decomposed(_decomposed(folded).translate(_without_punctuation()))
    return " ".join(words.split())


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFKD", text)


@functools.cache
def _without_punctuation() -> dict[int, None]:
    """Every punctuation character (Unicode's general category P), for `str.translate`."""
    codes = range(sys.maxunicode + 1)
    return {code: None for code in codes if unicodedata.category(chr(code)).startswith("P")}


def count(split: str, rows: list[dict], train: list[dict], running_text: bool) -> dict:
    """How much of a split is in train.

    Args:
        split: The name of the split.
        rows: Its rows, with `text`.
        train: The rows that are trained on.
        running_text: Compare lines of more than `MIN_CHARACTERS` characters, not whole texts.

    Returns:
        `compared`: in words, what was; `compared_rows`: how many; `exact_rows` and
        `exact_fraction`: the rows that train has letter by letter; `normalised_rows` and
        `normalised_fraction`: the rows that train has after `normalise`, exact ones included.
    """
    pieces = list(_pieces(rows, running_text))
    trained = set(_pieces(train, running_text))
    trained_normalised = {normalise(piece) for piece in trained} - {""}
    exact = sum(piece in trained for piece in pieces)
    normalised = 0
    for piece in pieces:
        normalised += piece in trained or normalise(piece) in trained_normalised
    compared = f"lines of more than {MIN_CHARACTERS} characters" if running_text else "texts"
    divisor = max(len(pieces), 1)
    return {
        "split": split,
        "compared": compared,
        "compared_rows": len(pieces),
        "exact_rows": exact,
        "exact_fraction": exact / divisor,
        "normalised_rows": normalised,
        "normalised_fraction": normalised / divisor,
    }


def _pieces(rows: Iterable[dict], running_text: bool) -> Iterator[str]:
    """The pieces that are compared: whole texts, or the long lines of running text."""
    for row in rows:
        if not running_text:
            yield row["text"]
            continue
        for line in re.split(r"[\r\n]+", row["text"]):
            if len(line.strip()) > MIN_CHARACTERS:
                yield line.strip()
