"""Text cells of CSV files are no formulas, numbers stay numbers, and our readers undo it."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.analysis import tables
from rankwise.core import csv_cells

WRITTEN = {
    "=1+1": "'=1+1",
    "+x": "'+x",
    "-x": "'-x",
    "@SUM(A1)": "'@SUM(A1)",
    "\tx": "'\tx",
    "\rx": "'\rx",
    "'quoted": "''quoted",
    "lora@fast": "lora@fast",
    "a=b": "a=b",
    "-1.5e-3": "-1.5e-3",
    "": "",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_formula_is_written_with_a_quote_mark(text: str) -> None:
    assert csv_cells.safe(text) == WRITTEN[text]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="=+-@\t\r'a1. ", max_size=6))
def test_every_text_is_read_as_it_was(text: str) -> None:
    written = csv_cells.safe(text)
    assert csv_cells.plain(written) == text
    first = written[:1]
    assert first not in csv_cells.FORMULA or float(written) == float(text)


@pytest.mark.parametrize("number", [-1.5, -3, float("-inf"), True, None])
def test_numbers_are_not_touched(number: object) -> None:
    assert csv_cells.safe(number) is number


def test_a_table_is_safe_in_its_file_and_right_in_ours(tmp_path: Path) -> None:
    rows = {"method": ["=cmd()", "lora"], "note": ["-a", None], "difference": [-0.5, -1.0]}
    rows["on_front"] = [True, float("nan")]
    frame = pd.DataFrame(rows)
    tables.write(frame, tmp_path / "runs")
    with (tmp_path / "runs.csv").open(newline="") as file:
        written = list(csv.reader(file))
    assert written == [
        ["method", "note", "difference", "on_front"],
        ["'=cmd()", "'-a", "-0.5", "True"],
        ["lora", "", "-1.0", ""],
    ]
    pd.testing.assert_frame_equal(tables.read(tmp_path / "runs.csv"), frame, check_dtype=False)
    _, read = csv_cells.read(tmp_path / "runs.csv")
    assert [row["method"] for row in read] == ["=cmd()", "lora"]
