"""CSV and TSV files are read as they were written, or refused with file and row."""

import csv
import re
from pathlib import Path

import pytest

from helpers.dataset_files import cells, problems, read, write


def test_a_row_is_the_line_of_the_file_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,label\n"one\ntwo, and a ""half""",1\r\nthree,0\n\n\n')
    assert read(path, "csv") == [
        ("row 2", {"text": 'one\ntwo, and a "half"', "label": "1"}),
        ("row 4", {"text": "three", "label": "0"}),
    ]


def test_cells_keep_what_looks_like_something_else(tmp_path: Path) -> None:
    rows = [("NA", "007"), ("null", "1.0"), (" a ", "2020-01-01"), ("a\u2028b\x0bc\x85\x1c", "é")]
    lines = "".join(f"{text},{label}\n" for text, label in rows)
    assert cells(write(tmp_path, "d.csv", f"text,label\n{lines}"), "csv") == rows
    tabs = lines.replace(",", "\t")
    assert cells(write(tmp_path, "d.tsv", f"text\tlabel\n{tabs}"), "tsv") == rows


def test_a_cell_of_a_million_characters_under_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    long = "word, " * 200_000
    path = write(tmp_path, "d.csv", f'text,label\n"{long}",1\n')
    before = csv.field_size_limit()
    assert cells(path, "csv") == [(long, "1")]
    assert csv.field_size_limit() == before


def test_columns_name_the_cells_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", '"2","a"\n"1","b"\n')
    assert read(path, "csv", columns=["label", "text"]) == [
        ("row 1", {"label": "2", "text": "a"}),
        ("row 2", {"label": "1", "text": "b"}),
    ]
    with pytest.raises(ValueError, match=r"d\.csv: row 1: number of cells: got 2, allowed: 3"):
        read(path, "csv", columns=["label", "text", "other"])


@pytest.mark.parametrize(("content", "message"), [
    # seen: the text was cut at its first comma, and the label was the rest of the text
    ("text,label\na,1\nb, c,0\n", "row 3: number of cells: got 3, allowed: 2 (text, label); a cell with a separator"),
    ("text,label\nalone\n", "row 2: number of cells: got 1, allowed: 2 (text, label)"),
    ("text,label\na,1\n\nb,0\n", "row 3: a blank line"),
    # quotes
    ('text,label\na,1\n"b,0\nc,1\n', "row 3: the quote before 'b,0\\nc,1' is never closed"),
    ('text,label\n"a\nb",1\n"c\n\n"",0\n', "row 4: the quote before"),
    ('text,label\n"so" he,1\nb,0\n', "row 2: ' he,1' follows a closing quote (opened in row 2)"),
    ('text,label\nso he "did",1\n', "row 2: a quote inside of the cell 'so he \"did\",1'"),
    ('text,label\n5\'10" tall,1\nb,0\nc,0\n', "row 2: a quote inside of the cell"),
    ('text,label\na, "b"\n', "row 2: a quote inside of the cell"),
    ('text,label\n"a,1\nb,0\nc",1\nd,0\n', "row 2: a quoted cell joins 3 lines, each of which could be a row of its own; correct the quotes, or set `quotes: true`"),
    ('text,label\na,"1\nb,0\n"', "row 2: a quoted cell joins 2 lines"),
    # the header
    ("", "is empty, allowed: a header and rows"),
    ("\ufeff", "is empty"),
    ("text,label\n", "has no rows, allowed: at least one"),
    ("text,label,text\na,1,b\n", "row 1: two columns are named 'text'"),
    (",text,label\n0,a,1\n", "row 1: column 1 has no name (pandas: to_csv(index=False))"),
    ("text;label\na;1\n", "no column 'text', allowed: text;label"),
    ("text, label\na,1\n", "no column 'label', allowed: text, ' label'"),
    ("text,label\ra,1\rb,0\r", "row 1: a carriage return that ends no line"),
])  # fmt: skip
def test_csv_that_does_not_fit_is_one_sentence(content: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(path, "csv")
    assert problems(path, "csv")[0].startswith(message)


def test_two_hundred_rows_with_a_stray_quote_each_tenth_are_refused(tmp_path: Path) -> None:
    """Seen: such a file became 21 rows, and the study said that all was well."""
    lines = [f'"so he said {n},1' if n % 10 == 0 else f"text {n},{n % 2}" for n in range(200)]
    path = write(tmp_path, "d.csv", "\n".join(["text,label", *lines]) + "\n")
    with pytest.raises(
        ValueError, match=r"d\.csv: row 12: 'so he s.*closing quote \(opened in row 2\)"
    ):
        read(path, "csv")


def test_the_option_says_that_joined_lines_are_one_text(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,label\n"roses, red\nviolets",1\n')
    assert problems(path, "csv") == [
        "row 2: a quoted cell joins 2 lines, each of which could be a row of its own; correct the "
        "quotes, or set `quotes: true` in the entry if they hold one text"
    ]
    assert cells(path, "csv", quotes=True) == [("roses, red\nviolets", "1")]


def test_quotes_that_mean_nothing_in_csv(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,label\n5\'10" tall,1\n"so" he,0\n')
    assert cells(path, "csv", quotes=False) == [("5'10\" tall", "1"), ('"so" he', "0")]


def test_quotes_inside_of_unquoted_cells_are_letters_if_the_option_says_so(tmp_path: Path) -> None:
    """A question of MMLU has lost its first quote."""
    path = write(tmp_path, "d.csv", 'text,label\n5\'10" tall,1\n"a\n""c""",0\nTruth?",1\n')
    assert [line.split(" of the cell")[0] for line in problems(path, "csv")] == [
        "row 2: a quote inside",
        "row 5: a quote inside",
    ]
    assert cells(path, "csv", quotes=True) == [
        ("5'10\" tall", "1"),
        ('a\n"c"', "0"),
        ('Truth?"', "1"),
    ]
    wrong = write(tmp_path, "e.csv", 'text,label\n"a" b,1\n"open,1\n')
    with pytest.raises(ValueError, match=r"e\.csv: row 2: ' b,1' follows a closing quote"):
        read(wrong, "csv", quotes=True)
    assert problems(wrong, "csv", quotes=True)[1].startswith("row 3: the quote before 'open,1' is")


def test_quotes_in_tsv_are_letters_until_they_could_be_more(tmp_path: Path) -> None:
    letters = write(tmp_path, "a.tsv", 'text\tlabel\n"so" he\t1\nsay "a"\t0\n"\t1\n"open\t0\n')
    assert cells(letters, "tsv") == [('"so" he', "1"), ('say "a"', "0"), ('"', "1"), ('"open', "0")]
    both = write(tmp_path, "b.tsv", 'text\tlabel\na\t1\n"a ""b"" c"\t1\n')
    assert problems(both, "tsv") == [
        'row 3: cell \'"a ""b"" c"\' begins and ends with a quote; set `quotes: true` in the '
        "entry if these quotes are no part of the text, or `quotes: false` if they are"
    ]
    assert cells(both, "tsv", quotes=True) == [("a", "1"), ('a "b" c', "1")]
    assert cells(both, "tsv", quotes=False) == [("a", "1"), ('"a ""b"" c"', "1")]


def test_a_quoted_separator_in_tsv_names_the_option(tmp_path: Path) -> None:
    path = write(tmp_path, "d.tsv", 'text\tlabel\n"a\tb"\t1\n')
    message = "row 2: number of cells: got 3, allowed: 2 (text, label); if quotes hold cells together in this file, set `quotes: true`"
    assert problems(path, "tsv") == [message]
    assert cells(path, "tsv", quotes=True) == [("a\tb", "1")]


def test_every_bad_row_is_listed_up_to_twenty(tmp_path: Path) -> None:
    lines = ["text,label", *(f"{n},1,extra" if n % 2 else f"{n},1" for n in range(50))]
    path = write(tmp_path, "d.csv", "\n".join(lines) + "\n")
    found = problems(path, "csv")
    rows = [int(re.match(r"row (\d+): number of cells: got 3", line)[1]) for line in found[:-1]]
    assert rows == list(range(3, 43, 2))
    assert found[-1] == "and 5 more"


def test_after_an_unclear_end_of_a_row_no_more_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", 'text,label\na\nb "c",1\n"e,1\nf,1,2\n')
    assert [line[:6] for line in problems(path, "csv")] == ["row 2:", "row 3:", "row 4:"]
