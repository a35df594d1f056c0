r"""Tables as LaTeX that fits the page of a one-column article (345 pt wide, 550 pt high).

A table that is too wide is split into panels that repeat the columns which tell its rows apart. A
table that is too high for a page is a longtable; of a very long one the first rows are shown, and a
note says how many there are. The type has a fixed size, so that a table is as wide in every class.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import latex_text
from rankwise.analysis.latex_columns import Column, choose, identifiers
from rankwise.core.keys import GROUP

PAGE_WIDTH = 345  # points: \textwidth of LaTeX's article at 10 pt
COLUMN_WIDTH = 240  # points: a column of a two-column page is mostly a little wider
SAFETY = 3  # points: kerning can make a text a little wider than its letters
RULES = 12  # points: the rules of a panel and the room around them
MAX_HEIGHT = 480  # points: higher tables do not fit onto a page together with a caption
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


def table(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table as LaTeX, with its notes below it.

    Args:
        frame: The table.
        notes: Paragraphs for below the table.
    """
    columns, own_notes = choose(frame, MAX_LINES)
    headings, row_count = _headings(frame), len(frame)
    frame = frame.head(MAX_LINES)
    columns = [column for column in columns if column.name not in headings]
    columns = columns or [_row_numbers(len(frame))]
    layout = _layout(frame, columns)
    most = _rows_that_fit(layout)
    if most < row_count:
        count = f"The first {most:,} of {row_count:,} rows; the CSV has all of them."
        own_notes = [count, *own_notes]
        frame = frame.head(most)
        layout = _layout(frame, [_first(column, most) for column in columns])
    groups = _groups(frame, headings)
    notes = [*notes, " ".join(own_notes)] if own_notes else [*notes]
    is_long = _height(layout, groups, notes) > MAX_HEIGHT
    body = [_panel(panel, groups, is_long, layout.type) for panel in layout.panels]
    return "\n".join(
        [_comment(layout, groups, is_long), *_around(body, notes, is_long, layout.type), ""]
    )


def _first(column: Column, count: int) -> Column:
    return column._replace(texts=column.texts[:count], is_bold=column.is_bold[:count])


def _comment(layout: Layout, groups: dict[int, str], is_long: bool) -> str:
    """What the table needs, and where it fits."""
    widths = [panel.width for panel in layout.panels]
    widths += [layout.type.scale * latex_text.width(text) for text in groups.values()]
    width = math.ceil(min(max(widths), PAGE_WIDTH))
    packages = "booktabs,array,longtable" if is_long else "booktabs,array"
    if is_long:
        where = "a longtable over several pages: not inside a float, and in one-column mode"
    elif width <= COLUMN_WIDTH:
        where = "fits a column of a two-column page: table"
    else:
        where = f"fits a page of {PAGE_WIDTH} pt: table, or table* in a two-column class"
    return f"% \\usepackage{{{packages}}}\n% {width} pt wide, {where}"


def _around(body: list[str], notes: Sequence[str], is_long: bool, font: Type) -> list[str]:
    """The panels and notes in a group with the table's type."""
    start = rf"\begingroup\fontsize{{{font.size:g}}}{{{font.line:g}}}\selectfont"
    start += rf"\setlength{{\tabcolsep}}{{{font.between / 2:g}pt}}\setlength{{\parindent}}{{0pt}}%"
    lines = [start]
    if is_long:
        # All rows in one chunk: columns are aligned in the first run of LaTeX.
        lines.append(rf"\setcounter{{LTchunksize}}{{{2 * MAX_LINES}}}\setlength{{\LTleft}}{{0pt}}%")
    between = "" if is_long else "\\par\\medskip\n"
    lines.append(f"{between}".join(f"{panel}\n" for panel in body).rstrip("\n"))
    for note in notes:
        text = latex_text.breakable(note)
        lines.append(rf"\par\smallskip{{\raggedright {text}\par}}")
    return [*lines, r"\par\endgroup"]


# Layout -------------------------------------------------------------------------------------------


def _layout(frame: pd.DataFrame, columns: list[Column]) -> Layout:
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
        return [_slot(_row_numbers(len(frame)), NORMAL)], slots
    return keys, [slot for slot in slots if slot.column.name not in names]


def _split(keys: list[Slot], others: list[Slot], width: float) -> list[list[Slot]]:
    """The other columns of each panel that is at most so wide, or has one column besides keys."""
    parts: list[list[Slot]] = [[]]
    for slot in others:
        if parts[-1] and _least([*keys, *parts[-1], slot], NORMAL) > width:
            parts.append([])
        parts[-1].append(slot)
    return parts


def _headings(frame: pd.DataFrame) -> list[str]:
    """The columns that are headings between rows instead: model and dataset, where they vary."""
    if not set(GROUP) <= set(frame.columns):
        return []
    return [name for name in GROUP if frame[name].nunique(dropna=False) > 1]


def _row_numbers(count: int) -> Column:
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


def _height(layout: Layout, groups: dict[int, str], notes: Sequence[str]) -> float:
    """About how high the table is, in points."""
    lines = 0.0
    for panel in layout.panels:
        heads = max(len(_head_lines(column)) for column in panel.columns)
        lines += heads + len(groups) + sum(_row_lines(panel, layout.type)) + 1
    for note in notes:
        width = layout.type.scale * latex_text.width(note)
        lines += math.ceil(width / (0.9 * PAGE_WIDTH)) + 0.5
    return lines * layout.type.line + RULES * len(layout.panels)


def _rows_that_fit(layout: Layout) -> int:
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


# Rows ---------------------------------------------------------------------------------------------


def _groups(frame: pd.DataFrame, headings: list[str]) -> dict[int, str]:
    """Row -> the heading above it, where its model or dataset is another than in the row before.

    Args:
        frame: The rows that are shown.
        headings: The columns that the headings are made of.
    """
    if not headings:
        return {}
    texts = [" / ".join(map(str, keys)) for keys in frame[headings].itertuples(index=False)]
    return {
        number: text
        for number, text in enumerate(texts)
        if number == 0 or text != texts[number - 1]
    }


def _panel(panel: Panel, groups: dict[int, str], is_long: bool, font: Type) -> str:
    alignment = "".join(map(_alignment, panel.columns, panel.widths))
    heads = " & ".join(map(_head, panel.columns)) + r" \\"
    rows = []
    for number, cells in enumerate(zip(*map(_cells, panel.columns, panel.widths), strict=True)):
        if number in groups:
            rows.append(_group_row(groups[number], panel, number, font))
        rows.append(" & ".join(cells) + r" \\")
    name = "longtable" if is_long else "tabular"
    end = r"\endhead" if is_long else ""
    foot = [r"\bottomrule\endfoot"] if is_long else []
    last = [] if is_long else [r"\bottomrule"]
    return "\n".join([
        rf"\begin{{{name}}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        heads,
        rf"\midrule{end}",
        *foot,
        *rows,
        *last,
        rf"\end{{{name}}}",
    ])  # fmt: skip


def _alignment(column: Column, width: float | None) -> str:
    if width:
        return rf">{{\raggedright\arraybackslash}}p{{{width:.1f}pt}}"
    return "r" if column.is_number else "l"


def _group_row(text: str, panel: Panel, number: int, font: Type) -> str:
    """A heading over all columns; one that is wider than a page has several lines."""
    rule = "\\midrule\n" if number else ""
    span = len(panel.columns)
    kind = "@{}l@{}"
    room = PAGE_WIDTH - SAFETY
    if font.scale * latex_text.width(text, is_bold=True) > room:
        kind = rf"@{{}}>{{\raggedright\arraybackslash}}p{{{room}pt}}@{{}}"
    return rf"{rule}\multicolumn{{{span}}}{{{kind}}}{{\itshape {latex_text.breakable(text)}}} \\*"


def _head_lines(column: Column) -> list[str]:
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


def _head(column: Column) -> str:
    lines = [latex_text.escape(line) for line in _head_lines(column)]
    if len(lines) == 1:
        return lines[0]
    side = "r" if column.is_number else "l"
    inner = r"\\".join(lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{inner}\end{{tabular}}"


def _cells(column: Column, width: float | None) -> list[str]:
    """The escaped texts of a column."""
    write = latex_text.number if column.is_number else latex_text.escape
    if width:
        write = latex_text.breakable
    return [
        rf"\textbf{{{write(text)}}}" if bold else write(text)
        for text, bold in zip(column.texts, column.is_bold, strict=True)
    ]
