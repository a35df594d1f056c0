"""How much of a split has been trained on: counted by hand on small splits, and in a result."""

import unicodedata
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.data import overlap


def rows(*texts: str) -> list[dict]:
    return [{"text": text} for text in texts]


TRAIN = rows(
    "A good film.",
    "Not bad",
    "caf\u00e9 noir",
    "\uff26\uff55\uff4c\uff4c width",
    "...",
    "Stra\u00dfe",
)


@pytest.mark.parametrize(("text", "exact", "normalised"), [
    ("A good film.", True, True),
    ("a GOOD film", False, True),  # case and punctuation
    ("  a good\n film !", False, True),  # white space
    ("a-good film", False, False),  # another word: the hyphen is dropped, not replaced
    ("cafe\u0301 noir", False, True),  # the accent as a character of its own
    ("cafe noir", False, False),
    ("full width", False, True),  # compatibility forms
    ("STRASSE", False, True),
    ("!!!", False, False),  # nothing is left of it, so it equals nothing
    ("...", True, True),
    ("good film", False, False),  # a part of a text is another text
])  # fmt: skip
def test_a_text_of_train(text: str, exact: bool, normalised: bool) -> None:
    found = overlap.count("test", rows(text), TRAIN, running_text=False)
    assert (found["exact_rows"], found["normalised_rows"]) == (exact, normalised)


def test_rows_are_counted_as_often_as_they_stand_in_the_split() -> None:
    found = overlap.count("test", rows("Not bad", "not bad", "NEW", "Not bad"), TRAIN, False)
    assert found == {
        "split": "test", "compared": "texts", "compared_rows": 4,
        "exact_rows": 2, "exact_fraction": 0.5, "normalised_rows": 3, "normalised_fraction": 0.75,
    }  # fmt: skip


def test_long_lines_of_running_text_are_compared() -> None:
    long, other = "a line that has more than twenty characters\n", "another line of running text\n"
    train = rows("= Title =\n", long, "short line\n")
    found = overlap.count(
        "valid", rows("= Title =\n", long, "\n", other, f"x\n{long}"), train, True
    )
    assert found == {
        "split": "valid", "compared": "lines of more than 20 characters", "compared_rows": 3,
        "exact_rows": 2, "exact_fraction": 2 / 3, "normalised_rows": 2, "normalised_fraction": 2 / 3,
    }  # fmt: skip


def test_a_split_without_long_lines_has_no_overlap() -> None:
    found = overlap.count("valid", rows("short\n"), rows("short\n"), running_text=True)
    assert (found["compared_rows"], found["exact_fraction"]) == (0, 0)


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text())
def test_normalising_drops_what_copies_differ_in(text: str, other: str) -> None:
    normal = overlap.normalise(text)
    assert overlap.normalise(normal) == normal
    assert not any(unicodedata.category(character).startswith("P") for character in normal)
    assert overlap.normalise(f"\n{unicodedata.normalize('NFD', text)} !") == normal
    if text == other:
        assert overlap.normalise(other) == normal


def test_the_demos_reviews_overlap(tmp_path: Path, plan) -> None:
    """Counted here by plain Python, over the rows that the job wrote."""
    from rankwise.data import datasets
    from rankwise.data.arrow import read_rows

    request = {
        "dataset": plan.library["datasets"]["generated_reviews"],
        "name": "generated_reviews",
    }
    record = datasets.prepare_dataset(request, tmp_path)
    texts = {
        split: [row["text"] for row in read_rows(tmp_path / f"{split}.arrow")]
        for split in ("train", "selection", "validation")
    }
    for found in record["data"]["overlap"]:
        mine = texts[found["split"]]
        count = len([text for text in mine if text in texts["train"]])
        assert found["exact_rows"] == count
        assert Fraction(found["exact_fraction"]).limit_denominator(10_000) == Fraction(
            count, len(mine)
        )
    assert {found["split"] for found in record["data"]["overlap"]} == {"selection", "validation"}
    assert record["data"]["overlap"][1]["exact_rows"] > 50
