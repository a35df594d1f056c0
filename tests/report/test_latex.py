"""LaTeX reads the tables and numbers that are written for it, and its PDF shows the same text."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from check_latex import PACKAGES, pdf_text
from rankwise.analysis import tables
from rankwise.report import numbers

UNCHANGED = ("<a> | b", "--configfile", "[first]", "*star", "LoRA+ \N{PLUS-MINUS SIGN}1")
LABELS = {  # label -> how pdftotext reads it: an underscore is drawn as a rule
    r"50 % & $x$ #1_a{b}": "50 % & $x$ #1 a{b}",
    r"~^\ back": "\N{SMALL TILDE}\N{MODIFIER LETTER CIRCUMFLEX ACCENT}\\ back",
    **{label: label for label in UNCHANGED},
}


@pytest.fixture(autouse=True, scope="module")
def _latex() -> None:
    if shutil.which("pdflatex") is None or shutil.which("pdftotext") is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"LaTeX is not installed; on Debian: {PACKAGES}")


def lines(body: str) -> list[list[str]]:
    """The words of each line of the PDF that is not empty."""
    return [line.split() for line in pdf_text(body).splitlines() if line.split()]


def test_a_table_shows_what_it_holds_whatever_the_labels_are() -> None:
    columns = {
        "method": list(LABELS),
        "n": range(1, 8),
        "accuracy_percent": 90.0,
        "accuracy_low_percent": 88.5,
        "accuracy_high_percent": 91.25,
        "best": ["best", "tied", "undecided", "", "", "", ""],
    }
    note = "5 % & <more>, one -- two."
    shown = [" ".join(words) for words in lines(tables.latex(pd.DataFrame(columns), [note]))]
    marks = ["", "\N{DAGGER}", "\N{DOUBLE DAGGER}", "", "", "", ""]
    for i, (text, mark) in enumerate(zip(LABELS.values(), marks, strict=True), 1):
        assert shown.count(f"{text} {i} 90.00 [88.50, 91.25]{mark}") == 1, shown
    assert shown.count(note) == 1


def test_every_model_and_dataset_has_a_rule_above_it() -> None:
    frame = pd.DataFrame({"model": ["[m", "[m", "k"], "dataset": "d", "n": [1, 2, 3]})
    table = tables.latex(frame)
    assert table.count("\\midrule") == 2
    assert lines(table)[1:4] == [["[m", "d", "1"], ["[m", "d", "2"], ["k", "d", "3"]]


def test_a_text_finds_a_number_by_its_name_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    no_interval = {"low": None, "high": None}
    by_name = {
        "m/d_x/lora/r8/accuracy_percent": {"value": 81.25, "text": "81.25", **no_interval},
        "m/d/full/r0/step_time_s": {"value": -1e-7, "text": "-1e-07", **no_interval},
    }
    (tmp_path / "numbers.tex").write_text(numbers.latex(by_name))
    begin = f"\\input{{{tmp_path / 'numbers'}}}"
    text = pdf_text(f"{begin} so \\rankwise{{m/d_x/lora/r8/accuracy_percent}} \\%")
    assert "so 81.25 %" in text
    text = pdf_text(f"{begin} \\rankwise{{m/d/full/r0/step_time_s}}")
    assert "1 \N{MULTIPLICATION SIGN} 10" in text
    with pytest.raises(ValueError, match="m/d/full/r0/accuracy"):
        pdf_text(f"{begin} \\rankwise{{m/d/full/r0/accuracy}}")
