"""What is written for LaTeX, read by a real one: its PDF shows the same text."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from check_latex import PACKAGES, shown
from rankwise.analysis import tables
from rankwise.report import numbers

LABELS = {  # and how pdftotext reads them: an underscore is drawn as a rule
    r"50 % & $x$ #1_a{b}": "50 % & $x$ #1 a{b}",
    r"~^\ back": "\N{SMALL TILDE}\N{MODIFIER LETTER CIRCUMFLEX ACCENT}\\ back",
    **{
        one: one
        for one in ("<a> | b", "--configfile", "[first]", "*star", "LoRA+ \N{PLUS-MINUS SIGN}1")
    },
}


@pytest.fixture(autouse=True, scope="module")
def _latex() -> None:
    if not all(map(shutil.which, ("pdflatex", "pdftotext"))):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"LaTeX is not here; on Debian: {PACKAGES}"
        )


def test_a_table_shows_what_it_holds_whatever_the_labels_are() -> None:
    frame = pd.DataFrame({"method": list(LABELS), "n": range(1, 8), "accuracy_percent": 90.0, "accuracy_low_percent": 88.5,
                          "accuracy_high_percent": 91.25, "best": ["best", "tied", "undecided", *[""] * 4]})  # fmt: skip
    lines = [
        " ".join(line.split())
        for line in shown(tables.latex(frame, ["5 % & <more>, one -- two."])).splitlines()
    ]
    marks = ["", "\N{DAGGER}", "\N{DOUBLE DAGGER}", *[""] * 4]
    for i, (text, mark) in enumerate(zip(LABELS.values(), marks, strict=True), 1):
        assert lines.count(f"{text} {i} 90.00 [88.50, 91.25]{mark}") == 1, lines
    assert lines.count("5 % & <more>, one -- two.") == 1


def test_every_model_and_dataset_has_a_rule_above_it() -> None:
    frame = pd.DataFrame({"model": ["[m", "[m", "k"], "dataset": "d", "n": [1, 2, 3]})
    assert tables.latex(frame).count("\\midrule") == 2
    assert [line.split() for line in shown(tables.latex(frame)).splitlines() if line.split()][
        1:4
    ] == [
        ["[m", "d", "1"],
        ["[m", "d", "2"],
        ["k", "d", "3"],
    ]


def test_a_text_finds_a_number_by_its_name_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    def one(value: float, text: str) -> dict:
        return {"value": value, "text": text, "low": None, "high": None}

    made = numbers.latex(
        {
            "m/d_x/lora/r8/accuracy_percent": one(81.25, "81.25"),
            "m/d/full/r0/step_time_s": one(-1e-7, "-1e-07"),
        }
    )
    (tmp_path / "numbers.tex").write_text(made)
    begin = f"\\input{{{tmp_path / 'numbers'}}}"
    assert "so 81.25 %" in shown(f"{begin} so \\rankwise{{m/d_x/lora/r8/accuracy_percent}} \\%")
    assert "1 \N{MULTIPLICATION SIGN} 10" in shown(f"{begin} \\rankwise{{m/d/full/r0/step_time_s}}")
    with pytest.raises(ValueError, match="m/d/full/r0/accuracy"):
        shown(f"{begin} \\rankwise{{m/d/full/r0/accuracy}}")
