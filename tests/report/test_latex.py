"""LaTeX reads the tables and numbers that are written for it, and its PDF shows the same text."""

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from check_latex import PACKAGES, pdf_text
from rankwise.analysis import latex
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
    """The words of each line of the PDF that is not empty. It raises for what does not fit."""
    return [line.split() for line in pdf_text(body).splitlines() if line.split()]


def texts(body: str) -> list[str]:
    return [" ".join(words) for words in lines(body)]


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
    shown = texts(latex.table(pd.DataFrame(columns), [note]))
    marks = ["", "\N{DAGGER}", "\N{DOUBLE DAGGER}", "", "", "", ""]
    for i, (text, mark) in enumerate(zip(LABELS.values(), marks, strict=True), 1):
        assert shown.count(f"{text} {i} 90.00 [88.50, 91.25]{mark}") == 1, shown
    assert shown.count(note) == 1


def test_letters_of_any_script_compile_and_stay_readable_where_latex_has_them() -> None:
    words = (
        "(IA)\N{SUPERSCRIPT THREE}",
        "Caf\u00e9 \u0141",
        "\N{GREEK CAPITAL LETTER DELTA}W",
        "\u4e2d",
    )
    frame = pd.DataFrame({"method": [*words, "two\nlines"], "n": range(1, 6)})
    shown = texts(latex.table(frame))
    assert "U+4E2D 4" in shown  # no font here has it
    assert "two lines 5" in shown
    assert any(line.startswith("Caf") and line.endswith(" 2") for line in shown)
    assert "\N{INCREMENT}W 3" in shown  # pdftotext's name of the same shape


def test_a_model_and_dataset_is_a_heading_above_its_rows_where_it_varies() -> None:
    frame = pd.DataFrame({"model": ["[m", "[m", "k"], "dataset": "d", "n": [1, 2, 3]})
    table = latex.table(frame)
    assert table.count("\\midrule") == 2
    assert texts(table)[:6] == ["n", "[m", "1", "2", "k", "3"]
    assert "In all rows: dataset d." in texts(table)


def test_constant_columns_are_a_note_and_digests_stay_in_the_csv() -> None:
    frame = pd.DataFrame({
        "method": ["full", "lora"], "n": 3, "batch_size": 32, "status": "ok", "reason": None,
        "request_digest": ["0123456789abcdef", "fedcba9876543210"], "peak_bytes": [3 * 2**20, 2**20],
    })  # fmt: skip
    shown = texts(latex.table(frame))
    assert shown[:4] == ["peak", "method (MiB)", "full 3", "lora 1"]
    assert (
        shown[4] == "In all rows: n 3, batch size 32, status ok. Only in the CSV: request digest."
    )


def test_numbers_are_rounded_have_their_unit_in_the_head_and_their_interval_in_brackets() -> None:
    frame = pd.DataFrame({
        "method": ["a", "b"], "estimate": [0.123456, -0.5], "low": [0.1, -0.61239],
        "high": [0.15, -0.4], "p_value": [0.0000123456, 0.25], "step_time_s": [0.0123456, 0.2],
        "tokens": [1234567, 2], "rank": [0, 1024],
    })  # fmt: skip
    shown = texts(latex.table(frame))
    minus, times = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
    first, second = (next(row for row in shown if row.startswith(f"{name} ")) for name in "ab")
    assert re.match(rf"a 0.1235 \[0.1000, 0.1500\] 1.235 ?{times} ?10", first)
    assert first.endswith("12.35 1,234,567")
    assert "(ms)" in " ".join(shown[: shown.index(first)])
    assert second == f"b {minus}0.5000 [{minus}0.6124, {minus}0.4000] 0.2500 200 2 1024"


def test_a_table_that_is_too_wide_has_panels_that_repeat_what_tells_rows_apart() -> None:
    methods = ["Weight reduction", "LoRA + TopR"]
    rows = [{"method": method, "rank": rank} for method in methods for rank in (2, 8)]
    frame = pd.DataFrame(rows)
    for number in range(20):
        frame[f"measured_{number}_samples"] = [10**8 + 1000 * number + row for row in range(4)]
    table = latex.table(frame)
    shown = texts(table)
    panels = table.count("\\toprule")
    assert panels > 2
    assert sum(line.startswith(f"{methods[0]} 2 ") for line in shown) == panels
    words = {word for line in shown for word in line.split()}
    assert all(f"{value:,}" in words for name in frame.columns[2:] for value in frame[name])


def test_rows_that_no_column_tells_apart_are_numbered() -> None:
    frame = pd.DataFrame({f"quantity_{n}_parameters": [10**9 + n, 10**9] * 2 for n in range(12)})
    table = latex.table(frame)
    panels = table.count("\\toprule")
    assert panels > 1
    assert sum(line.startswith("4 1,000,000,000") for line in texts(table)) == panels


def test_a_table_of_3000_runs_is_ten_pages_long_and_says_how_many_it_leaves_out() -> None:
    frame = pd.DataFrame({
        "model": [f"a model with a long name {n // 600}" for n in range(3000)],
        "dataset": "sst2", "method": [f"method-{n % 20}" for n in range(3000)],
        "rank": [2 ** (n % 5) for n in range(3000)], "seed": range(3000),
        "accuracy_fraction": [n / 3001 for n in range(3000)],
    })  # fmt: skip
    table = latex.table(frame)
    assert "not inside a float" in table.splitlines()[1]
    text = pdf_text(table)
    assert text.count("\f") <= 12  # pages
    rows = [line for line in text.splitlines() if line.split()[:1] and "method-" in line]
    assert 300 < len(rows) <= 500
    assert f"The first {len(rows):,} of 3,000 rows" in " ".join(text.split())


@pytest.mark.parametrize("name", ["x" * 200, "a_b/" * 60, "0123456789abcdef" * 8])
def test_words_without_a_space_break_in_columns_notes_and_headings(name: str) -> None:
    frame = pd.DataFrame({
        "model": [name, "b", "b"], "dataset": "d", "method": [name, "b", "c"],
        "note": [name, name, ""], "n": [1, 2, 3],
    })  # fmt: skip
    pdf_text(latex.table(frame[["method", "note", "n"]], [name]))
    pdf_text(latex.table(frame, [name]))


def test_a_text_that_does_not_fit_is_refused_by_the_check() -> None:
    with pytest.raises(ValueError, match="Overfull"):
        pdf_text(r"\noindent\hbox to 346pt{}")
    assert "Overfull" not in pdf_text(r"\noindent\hbox to 345pt{}")


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
