"""A label means one thing in the whole column, or the dataset is refused with file and row."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.core.config import ConfigError
from rankwise.data import datasets, labels
from rankwise.study.plan import Plan

Values = list[object]


@pytest.fixture
def entry(tmp_path: Path) -> Callable[..., dict]:
    """An entry of a dataset in JSON Lines, from its labels in both splits."""

    def make(train: Values, test: Values = (), classes: tuple = ("no", "yes"), **changes) -> dict:
        for split, values in {"train": train, "test": test}.items():
            rows = [{"text": f"{split} {row}", "label": value} for row, value in enumerate(values)]
            lines = [json.dumps(row) + "\n" for row in rows]
            (tmp_path / f"{split}.jsonl").write_text("".join(lines))
        return {
            "task": "classification",
            "files": {"folder": str(tmp_path), "format": "jsonl"},
            "splits": {split: {"path": f"{split}.jsonl"} for split in ("train", "test")},
            "report_split": "test",
            "text": "text",
            "label": "label",
            "first_label": 0,
            "classes": list(classes),
            "selection_rows": 2,
            "train_rows": None,
            **changes,
        }

    return make


def read(dataset: dict) -> tuple[list[int], list[int]]:
    """The classes of the rows of train and of the reported split."""
    rows = datasets.read(dataset).rows
    return [row["label"] for row in rows["train"]], [row["label"] for row in rows["test"]]


def refusal(dataset: dict) -> str:
    with pytest.raises(ValueError) as caught:
        datasets.read(dataset)
    return str(caught.value)


# One reading for the column -----------------------------------------------------------------------


@pytest.mark.parametrize(("train", "test", "settings", "expected"), [
    (["no", "yes"], ["yes"], {}, ([0, 1], [1])),
    (["0", "1"], ["1"], {}, ([0, 1], [1])),
    ([0, 1], [1], {}, ([0, 1], [1])),
    ([0.0, 1.0], [1], {}, ([0, 1], [1])),
    (["1", "2"], ["2"], {"first_label": 1}, ([0, 1], [1])),
    ([-1, 0], [-1], {"first_label": -1}, ([0, 1], [0])),
    # Names that are numbers: every label is a name, so names are meant.
    (["1", "2"], ["2"], {"classes": ("1", "2")}, ([0, 1], [1])),
    # "0" is no name, so all labels are numbers. This read as class 0 twice.
    (["0", "1"], ["1"], {"classes": ("1", "2")}, ([0, 1], [1])),
    # The label that decides may be in the other split.
    (["1", "1"], ["0"], {"classes": ("1", "2")}, ([1, 1], [0])),
    (["1", "1"], ["2"], {"classes": ("1", "2")}, ([0, 0], [1])),
    # Both readings agree.
    (["0", "1"], ["1"], {"classes": ("0", "1")}, ([0, 1], [1])),
    # Both readings fit and differ: the entry decides.
    (["0", "1"], ["1"], {"classes": ("1", "0"), "labels": "names"}, ([1, 0], [0])),
    (["0", "1"], ["1"], {"classes": ("1", "0"), "labels": "numbers"}, ([0, 1], [1])),
    ([False, True], [True], {"classes": ("false", "true")}, ([0, 1], [1])),
    ([True, False], [True], {"classes": ("True", "False")}, ([0, 1], [0])),
])  # fmt: skip
def test_one_reading_holds_for_every_split(train, test, settings, expected, entry) -> None:
    assert read(entry(train, test, **settings)) == expected


def test_what_both_readings_fit_is_refused_unless_the_entry_decides(entry, tmp_path: Path) -> None:
    said = refusal(entry(["0", "1"], ["1"], classes=("1", "0")))
    assert said == (
        f"{tmp_path / 'train.jsonl'}: row 1: label: got '0', which is class '0' as a name and '1' as "
        "a number, and every label ('0', '1') can be both; allowed: an entry that says which, by "
        "labels: names or labels: numbers"
    )


@pytest.mark.parametrize("values", [[0.0, 1.0], [0, 1]], ids=str)
def test_typed_numbers_that_could_be_names_are_refused_too(values: Values, entry) -> None:
    assert "every label" in refusal(entry(values, values[1:], classes=("1", "0")))
    assert read(entry(values, values[1:], classes=("1", "0"), labels="names")) == ([1, 0], [0])
    assert read(entry(values, values[1:], classes=("1", "0"), labels="numbers")) == ([0, 1], [1])


def test_a_label_of_thousands_of_digits_is_refused_with_its_row(entry) -> None:
    assert "row 2: label: got " in refusal(entry(["0", "9" * 5000], ["1"]))


def test_names_and_numbers_in_one_column_are_refused_with_both_rows(entry, tmp_path: Path) -> None:
    said = refusal(entry(["yes", "no"], ["no", "1"]))
    assert said == (
        f"{tmp_path / 'test.jsonl'}: row 2: label: got '1', a number, but 'yes', a name, in "
        f"{tmp_path / 'train.jsonl'}: row 1; allowed: the names 'no', 'yes' or the numbers 0, 1, "
        "in all splits"
    )


# Labels that mean no class ------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "sentence"), [
    ("maybe", "got 'maybe', allowed: the names 'no', 'yes' or the numbers 0, 1; correct the row"),
    (" yes", "got ' yes', allowed: the names 'no', 'yes' or the numbers 0, 1; remove the white space"),
    ("1.0", "got '1.0', allowed: the names 'no', 'yes' or the numbers 0, 1; write whole numbers"),
    ("01", "got '01', allowed"), ("+1", "got '+1', allowed"), ("\u0661", "got '\u0661', allowed"),
    (2, "got 2 (int), allowed"), (0.5, "got 0.5 (float), allowed"),
    (True, "got True (bool), allowed: the names 'no', 'yes' or the numbers 0, 1; a boolean is a name"),
    (None, "got nothing, allowed"), ("", "got nothing, allowed"),
    (["yes"], "got \"['yes']\", allowed"),
    (-1, "got -1 (int), allowed: the names 'no', 'yes' or the numbers 0, 1; rows labelled -1 have no labels"),
])  # fmt: skip
def test_a_label_that_means_no_class_is_refused_with_its_row(
    label, sentence, entry, tmp_path
) -> None:
    said = refusal(entry(["yes", "no"], ["yes", label, label]))
    assert said.startswith(f"{tmp_path / 'test.jsonl'}: row 2: label: got ")
    assert sentence in said.replace(" (2 rows in all)", "")


def test_a_chosen_reading_refuses_the_other(entry) -> None:
    said = refusal(entry(["yes", "no"], ["yes"], labels="numbers"))
    assert "row 1: label: got 'yes' (2 rows in all), allowed: the numbers 0, 1; " in said


def test_a_row_without_the_column_of_labels_is_refused(entry, tmp_path: Path) -> None:
    dataset = entry(["yes", "no"], ["yes"])
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": "yes"}\n{"text": "b"}\n')
    assert refusal(dataset) == f"{tmp_path / 'test.jsonl'}: row 2: no column 'label', allowed: text"


def test_a_parquet_column_of_floats_holds_numbers_and_its_gaps_are_refused(entry, tmp_path) -> None:
    dataset = entry(["yes"], ["yes"])
    dataset["files"]["format"] = "parquet"
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1.0, 0.0]})
    frame.to_parquet(tmp_path / "train.jsonl")
    frame.to_parquet(tmp_path / "test.jsonl")
    assert read(dataset) == ([1, 0], [1, 0])
    frame.assign(label=[1.0, None]).to_parquet(tmp_path / "test.jsonl")
    assert "row 2: label: got nothing" in refusal(dataset)


# What is reported ---------------------------------------------------------------------------------


def test_the_mapping_is_reported(entry) -> None:
    source = datasets.read(entry(["2", "1", "2"], ["1"], first_label=1))
    assert source.labels == [{"label": "1", "class": "no"}, {"label": "2", "class": "yes"}]


def test_every_label_that_means_no_class_is_listed_once(entry) -> None:
    dataset = entry(["yes", "a", "b", "a"], ["c", "no"])
    found = datasets.problems(dataset, "entry")
    assert [sentence.partition(": label: ")[2].partition(",")[0] for sentence in found] == [
        "got 'a' (2 rows in all)", "got 'b'", "got 'c'",
    ]  # fmt: skip
    many = entry([f"x{number}" for number in range(25)], ["no"])
    found = datasets.problems(many, "entry")
    assert len(found) == 21
    assert found[-1] == "label: and 5 more labels that mean no class"


def test_classes_with_one_name_are_refused_while_planning(tmp_path: Path, entry) -> None:
    (tmp_path / "config").mkdir()
    own = {**entry(["yes"], ["no"]), "classes": ["no", "no"], "max_length_tokens": 8}
    (tmp_path / "config/datasets.yaml").write_text(json.dumps({"mine": own}))
    with pytest.raises(
        ConfigError, match=r"mine\.classes: got .*allowed: names of the classes, each once"
    ):
        Plan({"name": "x", "question": "?", "device": "cpu"}, tmp_path, "config/x.yaml")


# Any labels ---------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["-1", "0", "1", "2", "3", "a", "b"])


@settings(max_examples=500, deadline=None)
@given(
    st.lists(TEXTS, min_size=2, max_size=4, unique=True),
    st.integers(-1, 1),
    st.lists(TEXTS, min_size=1, max_size=6),
)
def test_a_column_is_read_in_one_way_or_refused(
    classes: list[str], first: int, column: list[str]
) -> None:
    """The two readings are written out here, each as a table of a few lines."""
    dataset = {"classes": classes, "first_label": first, "label": "label"}
    names = {name: index for index, name in enumerate(classes)}
    numbers = {str(first + index): index for index in range(len(classes))}
    readings = []
    for table in (names, numbers):
        if set(column) <= set(table):
            readings.append([table[label] for label in column])
    found = labels.Column()
    keys = [found.add(label, f"row {row}") for row, label in enumerate(column)]
    if len(readings) == 0 or readings[0] != readings[-1]:
        with pytest.raises(ValueError, match=r"^row \d+: label: got "):
            labels.indices(dataset, found)
    else:
        indices = labels.indices(dataset, found)
        assert [indices[key] for key in keys] == readings[0]
