r"""Tables as LaTeX that fits the page of a one-column article (345 pt wide, 550 pt high).

A table that is too wide is split into panels that repeat the columns which tell its rows apart. A
table that is too high for a page is a longtable; of a very long one the first rows are shown, and a
note says how many there are. The type has a fixed size, so that a table is as wide in every class.
"""

import math
from collections.abc import Sequence

import pandas as pd

from rankwise.analysis import latex_text
from rankwise.analysis.latex_columns import Column, choose
from rankwise.analysis.latex_layout import (
    MAX_LINES,
    PAGE_WIDTH,
    SAFETY,
    Layout,
    Panel,
    Type,
    head_lines,
    height,
    lay_out,
    row_numbers,
    rows_that_fit,
)
from rankwise.core.keys import GROUP

COLUMN_WIDTH = 240  # points: a column of a two-column page is mostly a little wider
MAX_HEIGHT = 480  # points: higher tables do not fit onto a page together with a caption


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
    columns = columns or [row_numbers(len(frame))]
    layout = lay_out(frame, columns)
    most = rows_that_fit(layout)
    if most < row_count:
        count = f"The first {most:,} of {row_count:,} rows; the CSV has all of them."
        own_notes = [count, *own_notes]
        frame = frame.head(most)
        layout = lay_out(frame, [_first(column, most) for column in columns])
    groups = _groups(frame, headings)
    notes = [*notes, " ".join(own_notes)] if own_notes else [*notes]
    is_long = height(layout, groups, notes) > MAX_HEIGHT
    body = [_panel(panel, groups, is_long, layout.type) for panel in layout.panels]
    return "\n".join(
        [_comment(layout, groups, is_long), *_around(body, notes, is_long, layout.type), ""]
    )


def _first(column: Column, count: int) -> Column:
    return column._replace(texts=column.texts[:count], is_bold=column.is_bold[:count])


def _comment(layout: Layout, groups: dict[int, str], is_long: bool) -> str:
    """The packages that the table needs, and the widths that it fits."""
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


def _headings(frame: pd.DataFrame) -> list[str]:
    """The columns that are headings between rows instead: model and dataset, where they vary."""
    if not set(GROUP) <= set(frame.columns):
        return []
    return [name for name in GROUP if frame[name].nunique(dropna=False) > 1]


def _head(column: Column) -> str:
    lines = [latex_text.escape(line) for line in head_lines(column)]
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
