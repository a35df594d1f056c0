"""Any rows, written by an independent writer, are read as they were written, or refused.

`csv` and `json` of Python write CSV and JSON Lines; TSV without quotes is written by hand. Damage to
a file is refused, or leaves all other rows as they were: a cut file, one quote too many or too few,
two quotes that could join rows, a separator or line end too many or too few. No reader can detect
a file that is cut between two lines, or inside of its last cell, or a changed letter.
"""

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.dataset_files import cells, write

# The four tests of tables and JSON have 2,000 examples.
SETTINGS = settings(max_examples=500, deadline=None, derandomize=True)
OF_DAMAGE = settings(SETTINGS, max_examples=200)
COLUMNS = ("text", "label", "more")
# Characters that some reader takes for a line end, a separator, a quote, a mark or nothing.
ODD = "\",;\t\n\r\0 \\'\x0b\x0c\x1a\x1c\x1d\x1e\x1f\x7f\x85\xa0\u200b\u2028\u2029\ufeff\ufffe"


def characters(without: str = "") -> st.SearchStrategy[str]:
    """Any character, and often an odd one; no half of a surrogate pair, which UTF-8 cannot write."""
    odd = [character for character in ODD if character not in without]
    every = st.characters(exclude_categories=["Cs"], exclude_characters=without)
    return st.one_of(st.sampled_from(odd), every)


CELLS = st.one_of(
    st.text(characters(), max_size=12),
    st.sampled_from(
        ["", "NA", "null", "nan", "None", "007", "1e5", "2020-01-01", '"', '""', '"a"']
    ),
)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6)
REFUSED = re.compile(r"^/\S+/d: (.*row \d+|begins with the bytes|is empty|has no rows|no column)")


def outcome(content: str | bytes, file_format: str, **changes: object) -> list[tuple] | None:
    """The rows of a file; None if it is refused by a sentence with file and row."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "d", content)
        try:
            return cells(path, file_format, **changes)
        except ValueError as error:
            assert REFUSED.match(str(error)), error
            return None


def csv_file(rows: list[tuple], delimiter: str, quoting: int, line_end: str, mark: str) -> str:
    """A table with quotes, by Python's csv."""
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # csv forgets to put such cells into quotes before Python 3.13
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows([COLUMNS, *rows])
    return mark + stream.getvalue()


TABLES = st.tuples(
    ROWS,
    st.sampled_from([(",", "csv"), ("\t", "tsv")]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)


@SETTINGS
@given(TABLES)
def test_tables_with_quotes(table: tuple) -> None:
    rows, (delimiter, file_format), *style = table
    content = csv_file(rows, delimiter, *style)
    found = outcome(content, file_format, quotes=True)
    if "\0" in content:
        assert found is None
    else:
        assert found == rows


@SETTINGS
@given(TABLES)
def test_tables_without_the_option(table: tuple) -> None:
    """What quotes mean is not said, so what could mean two things is refused."""
    rows, (delimiter, file_format), *style = table
    assert outcome(csv_file(rows, delimiter, *style), file_format) in (rows, None)


PLAIN = st.text(characters(without="\t\r\n\0"), max_size=12)


@SETTINGS
@given(
    st.lists(st.tuples(PLAIN, PLAIN, PLAIN), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_tsv_in_which_quotes_are_letters(rows: list[tuple], line_end: str, mark: str) -> None:
    content = mark + "".join("\t".join(row) + line_end for row in [COLUMNS, *rows])
    assert outcome(content, "tsv", quotes=False) == rows
    could_be_quoting = any(
        len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
        for row in rows
        for cell in row
    )
    assert outcome(content, "tsv") == (None if could_be_quoting else rows)


VALUES = st.one_of(CELLS, st.none(), st.integers(), st.booleans(), st.lists(CELLS, max_size=2))


@SETTINGS
@given(
    st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["lines", "array", "indented array"]),
)
def test_json(rows: list[tuple], is_ascii: bool, line_end: str, mark: str, form: str) -> None:
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    if form == "lines":
        lines = [json.dumps(value, ensure_ascii=is_ascii) + line_end for value in objects]
        content = "".join(lines)
    else:
        indent = 2 if form == "indented array" else None
        content = json.dumps(objects, ensure_ascii=is_ascii, indent=indent)
    assert outcome(mark + content, "jsonl") == rows


@OF_DAMAGE
@given(st.text(characters(without="\0"), min_size=1))
def test_running_text(content: str) -> None:
    found = outcome("\ufeff" + content, "text", label=None)
    assert "".join(line for (line,) in found) == content
    assert all(line.endswith("\n") for (line,) in found[:-1])
    assert not any("\n" in line[:-1] for (line,) in found)


# Damage -------------------------------------------------------------------------------------------

# Rows of one line each, whose cells have no quotes and no separators of their own.
SIMPLE = st.text(characters(without='",\t\r\n\0'), min_size=1, max_size=6)
SIMPLE_ROWS = st.lists(st.tuples(SIMPLE, SIMPLE, SIMPLE), min_size=2, max_size=6)


def write_csv(rows: list[tuple]) -> str:
    return csv_file(rows, ",", csv.QUOTE_MINIMAL, "\n", "")


def write_quoted(rows: list[tuple]) -> str:
    return csv_file(rows, ",", csv.QUOTE_ALL, "\n", "")


def write_json(rows: list[tuple]) -> str:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in rows]
    return "".join(f"{line}\n" for line in lines)


WRITERS = st.sampled_from([(write_csv, "csv"), (write_quoted, "csv"), (write_json, "jsonl")])


@OF_DAMAGE
@given(ROWS, WRITERS, st.data())
def test_a_cut_file_has_the_rows_before_the_cut(
    rows: list[tuple], writer: tuple[Callable, str], data: st.DataObject
) -> None:
    """Of the row that is cut, only the last cell can be shorter without a sentence."""
    write_rows, file_format = writer
    content = write_rows(rows).encode()
    length = data.draw(st.integers(0, len(content)))
    found = outcome(content[:length], file_format)
    if found is None:
        return
    *whole, last = found
    assert whole == rows[: len(whole)]
    written = rows[len(whole)]
    assert last[:-1] == written[:-1]
    assert written[-1].removesuffix("\r").startswith(last[-1].removesuffix("\r"))
    if file_format == "jsonl":
        assert last == written


@OF_DAMAGE
@given(ROWS, st.sampled_from([write_csv, write_quoted]), st.data())
def test_one_quote_more_or_less_is_always_refused_in_csv(
    rows: list[tuple], write_rows: Callable, data: st.DataObject
) -> None:
    content = write_rows(rows)
    place = data.draw(st.integers(0, len(content)))
    assert outcome(content[:place] + '"' + content[place:], "csv") is None
    quotes = [match.start() for match in re.finditer('"', content)]
    if quotes:
        place = data.draw(st.sampled_from(quotes))
        assert outcome(content[:place] + content[place + 1 :], "csv") is None


@OF_DAMAGE
@given(SIMPLE_ROWS, st.data())
def test_two_stray_quotes_never_join_rows(rows: list[tuple], data: st.DataObject) -> None:
    content = write_csv(rows)
    places = data.draw(st.lists(st.integers(0, len(content)), min_size=2, max_size=2))
    for place in sorted(places, reverse=True):
        content = content[:place] + '"' + content[place:]
    found = outcome(content, "csv")
    if found is not None:
        # A quote behind the last line end makes it a part of the last cell.
        found[-1] = (*found[-1][:2], found[-1][2].removesuffix("\n"))
        assert found == rows


@OF_DAMAGE
@given(SIMPLE_ROWS, st.sampled_from([(",", "csv"), ("\t", "tsv")]), st.data())
def test_a_separator_or_a_line_end_more_or_less_is_always_refused(
    rows: list[tuple], table: tuple[str, str], data: st.DataObject
) -> None:
    separator, file_format = table
    content = "".join(separator.join(row) + "\n" for row in [COLUMNS, *rows])
    place = data.draw(st.integers(0, len(content)))
    more = content[:place] + separator + content[place:]
    marks = [match.start() for match in re.finditer(f"[{separator}\n]", content[:-1])]
    place = data.draw(st.sampled_from(marks))
    less = content[:place] + content[place + 1 :]
    assert outcome(more, file_format) is None
    assert outcome(less, file_format) is None
