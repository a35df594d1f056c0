"""The text of a row is a text: nothing that is missing or of another kind becomes words."""

from pathlib import Path

import pytest

from helpers.dataset_files import entry
from rankwise.data import texts
from rankwise.data.record import Record

PATH = Path("d.jsonl")


def text(cells: dict, **changes: object) -> str | None:
    dataset = entry(Path(), "jsonl", "d.jsonl", **changes)
    return texts.text(Record("row 7", cells), dataset, PATH)


def test_a_text_stays_as_it_is_written() -> None:
    assert text({"text": " a\r\n\u2028NA "}) == " a\r\n\u2028NA "


@pytest.mark.parametrize(
    "value", ["\u200bx", "\U0001f44d\u200d\U0001f3fd", ".", "\u0301", "\u65e5"]
)
def test_what_a_reader_sees_is_a_text(value: str) -> None:
    assert text({"text": value}) == value


def test_columns_are_joined_by_a_space() -> None:
    assert text({"a": "x ", "b": " y", "c": "z"}, text=["c", "a", "b"]) == "z x   y"


# seen: a model was trained on the words None and nan
MISSING = [
    None,
    float("nan"),
    "",
    " ",
    "\t\r\n",
    "\u2003\u2028\x85\x1c",
    "\u200b\u200b",
    "\ufeff",
    "\u00ad \u2060",
    "\x00",
    "\u3164",
    "\u2800",
]


@pytest.mark.parametrize("value", MISSING)
def test_a_missing_text_is_refused_or_dropped_as_the_entry_says(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"d\.jsonl: row 7: column 'text' is .*`missing_text: drop`"
    ):
        text({"text": value})
    assert text({"text": value}, missing_text="drop") is None


@pytest.mark.parametrize("value", MISSING)
def test_one_missing_part_of_a_text_of_two_columns(value: object) -> None:
    cells = {"question": "What?", "passage": value}
    with pytest.raises(ValueError, match=r"row 7: column 'passage' is"):
        text(cells, text=["question", "passage"])
    assert text(cells, text=["question", "passage"], missing_text="drop") is None


def test_blank_lines_are_part_of_running_text_but_a_null_is_not() -> None:
    running = {"task": "language_modelling", "label": None}
    assert text({"text": "\n"}, **running) == "\n"
    assert text({"text": ""}, **running) == ""
    with pytest.raises(ValueError, match="column 'text' is null"):
        text({"text": None}, **running)


@pytest.mark.parametrize(("cells", "message"), [
    ({"text": 5}, "column 'text' is 5 \\(int\\), allowed: a text"),
    ({"text": 5.5}, "column 'text' is 5.5 \\(float\\)"),
    ({"text": ["a", "b"]}, "column 'text' is \\['a', 'b'\\] \\(list\\)"),
    ({"text": b"a"}, "column 'text' is b'a' \\(bytes\\)"),
    ({"text": "a\ud800"}, "column 'text' has U\\+D800, half of a surrogate pair"),
    ({"txt": "a"}, "no column 'text', allowed: txt"),
])  # fmt: skip
@pytest.mark.parametrize("missing_text", ["refuse", "drop"])
def test_what_is_no_text_is_refused_and_never_dropped(
    cells: dict, message: str, missing_text: str
) -> None:
    with pytest.raises(ValueError, match=f"row 7: {message}"):
        text(cells, missing_text=missing_text)
