"""The layout of a table in LaTeX: how wide its columns are, its panels, and how high it is.

Widths are those of the letters (`latex_text`), because a table is written where no LaTeX runs.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import latex_text
from rankwise.analysis.latex_columns import Column, identifiers

PAGE_WIDTH = 345  # points: \textwidth of LaTeX's article at 10 pt
SAFETY = 3  # points: kerning can make a text a little wider than its letters
RULES = 12  # points: the rules of a panel and the room around them
MAX_LINES = 500  # of all panels together: about ten pages
WIDE_TEXT = 84  # points: a column of longer texts may break its lines
LEAST_TEXT = 64  # points: the least width of such a column
MAX_KEYS = 0.6  # share of the width that columns which tell rows apart may take in every panel
ROW_NUMBER = "row"


class Type(NamedTuple):
    r"""The type that a table is set in; lengths are in points.

    Attributes:
        size: of the letters.
        line: the distance of two lines.
        between: the room between two columns, twice \tabcolsep.
        scale: widths of texts in this size, relative to those in 8 pt type. Smaller letters are
            a little wider for their size; the bound is that of cmr7 and cmbx7.
    """

    size: float
    line: float
    between: float
    scale: float


NORMAL = Type(8, 9.6, 8, 1.0)
SMALL = Type(7, 8.4, 6, 7 / 8 * 1.07)  # used where it makes one panel of two


class Slot(NamedTuple):
    """A column with its place in the layout.

    Attributes:
        column: its heading and texts.
        least: the least width in points.
        natural: the width in points without line breaks.
    """

    column: Column
    least: float
    natural: float


class Panel(NamedTuple):
    """Columns side by side.

    Attributes:
        columns: from left to right.
        widths: the width of each column whose lines may break, None for the others.
        width: the width of the panel in points.
    """

    columns: list[Column]
    widths: list[float | None]
    width: float


class Layout(NamedTuple):
    """A table's panels, one below the other, and their type."""

    type: Type
    panels: list[Panel]


def lay_out(frame: pd.DataFrame, columns: list[Column]) -> Layout:
    """One panel if the columns fit in small type; otherwise several panels in normal type."""
    for font in (NORMAL, SMALL):
        slots = [_slot(column, font) for column in columns]
        if _least(slots, font) <= PAGE_WIDTH - SAFETY:
            return Layout(font, [_laid_out(slots, font)])
    keys, others = _keys(frame, columns)
    width, parts = PAGE_WIDTH - SAFETY, _split(keys, others, PAGE_WIDTH - SAFETY)
    # The least width that needs no more panels makes the panels about equally wide.
    while len(narrower := _split(keys, others, width - 5)) == len(parts):
        width, parts = width - 5, narrower
    return Layout(NORMAL, [_laid_out([*keys, *part], NORMAL) for part in parts])


def _keys(frame: pd.DataFrame, columns: list[Column]) -> tuple[list[Slot], list[Slot]]:
    """The columns that every panel repeats, and the others: numbers of rows where none are fit."""
    slots = [_slot(column, NORMAL) for column in columns]
    names = identifiers(frame, [column.name for column in columns])
    keys = [slot for slot in slots if slot.column.name in (names or [])]
    if not keys or _least(keys, NORMAL) > MAX_KEYS * PAGE_WIDTH:
        return [_slot(row_numbers(len(frame)), NORMAL)], slots
    return keys, [slot for slot in slots if slot.column.name not in names]


def _split(keys: list[Slot], others: list[Slot], width: float) -> list[list[Slot]]:
    """The other columns of each panel that is at most so wide, or has one column besides keys."""
    parts: list[list[Slot]] = [[]]
    for slot in others:
        if parts[-1] and _least([*keys, *parts[-1], slot], NORMAL) > width:
            parts.append([])
        parts[-1].append(slot)
    return parts


def row_numbers(count: int) -> Column:
    """A column that numbers the rows, for panels whose rows no other column tells apart."""
    texts = [str(number) for number in range(1, count + 1)]
    return Column(ROW_NUMBER, ROW_NUMBER, texts, True, [False] * count)


def _slot(column: Column, font: Type) -> Slot:
    head_words = column.head.split() or [""]
    longest_word = font.scale * max(map(latex_text.width, head_words))
    cells = zip(column.texts, column.is_bold, strict=True)
    measure = latex_text.number_width if column.is_number else latex_text.width
    values = font.scale * max((measure(text, bold) for text, bold in cells), default=0)
    natural = max(values, longest_word)
    if column.is_number or values <= WIDE_TEXT:
        return Slot(column, natural, natural)
    words = [word for text in set(column.texts) for word in text.split()]
    parts = {part for word in words for part in latex_text.pieces(word)}
    longest_part = font.scale * max(map(latex_text.width, parts), default=0) + 2
    return Slot(column, max(LEAST_TEXT, longest_word, longest_part), natural + 1)


def _least(slots: list[Slot], font: Type) -> float:
    """The least width of a panel of these columns in points."""
    return sum(slot.least for slot in slots) + font.between * (len(slots) - 1)


def _laid_out(slots: list[Slot], font: Type) -> Panel:
    """A panel of these columns; columns of long texts share the room that is left."""
    room = PAGE_WIDTH - SAFETY - _least(slots, font)
    wishes = [slot.natural - slot.least for slot in slots]
    share = min(1.0, max(room, 0) / sum(wishes)) if sum(wishes) else 0.0
    widths: list[float | None] = []
    total = font.between * (len(slots) - 1)
    for slot, wish in zip(slots, wishes, strict=True):
        can_break = slot.natural > slot.least
        width = slot.least + share * wish
        widths.append(width if can_break and share < 1 else None)
        total += width
    return Panel([slot.column for slot in slots], widths, total)


def height(layout: Layout, groups: dict[int, str], notes: Sequence[str]) -> float:
    """About how high the table is, in points."""
    lines = 0.0
    for panel in layout.panels:
        heads = max(len(head_lines(column)) for column in panel.columns)
        lines += heads + len(groups) + sum(_row_lines(panel, layout.type)) + 1
    for note in notes:
        width = layout.type.scale * latex_text.width(note)
        lines += math.ceil(width / (0.9 * PAGE_WIDTH)) + 0.5
    return lines * layout.type.line + RULES * len(layout.panels)


def rows_that_fit(layout: Layout) -> int:
    """How many of the first rows have MAX_LINES lines in all panels together; at least one."""
    by_panel = [_row_lines(panel, layout.type) for panel in layout.panels]
    lines = itertools.accumulate(map(sum, zip(*by_panel, strict=True)))
    return max(1, sum(count <= MAX_LINES for count in lines))


def _row_lines(panel: Panel, font: Type) -> list[int]:
    """How many lines each row of a panel has."""
    counts = [1] * len(panel.columns[0].texts)
    for column, width in zip(panel.columns, panel.widths, strict=True):
        if width:
            # Lines that break at words are not full: a sixth is added.
            sizes = [1.15 * font.scale * latex_text.width(text) for text in column.texts]
            needed = [max(1, math.ceil(size / width)) for size in sizes]
            counts = [max(pair) for pair in zip(counts, needed, strict=True)]
    return counts


def head_lines(column: Column) -> list[str]:
    """The heading in lines that are no wider than the column's values or its longest word."""
    words = column.head.split() or [""]
    values = max(map(latex_text.width, column.texts), default=0)
    limit = max(values, *(latex_text.width(word) for word in words))
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if latex_text.width(longer) <= limit:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
