"""Files for which no entry is proposed: one sentence says why, and what to choose."""

from pathlib import Path

import pytest

from helpers.proposing import csv_file, proposed, reviews, sentence, tar_file


def test_two_columns_that_could_be_the_label_are_named(tmp_path: Path) -> None:
    rows = [(text, label, index % 3) for index, (text, label) in enumerate(reviews())]
    csv_file(tmp_path / "d.csv", rows, header="review,mood,source")
    found = sentence(tmp_path, "d.csv")
    assert "the label could be mood (2 distinct short texts)" in found
    assert "or source (3 distinct short texts)" in found
    assert found.endswith("choose: --label mood")
    assert proposed(tmp_path, "d.csv", label="source").entry["classes"] == ["0", "1", "2"]


def test_two_columns_that_could_be_the_text_are_named_and_can_be_joined(tmp_path: Path) -> None:
    rows = [
        (f"a premise of row {index}", text, label) for index, (text, label) in enumerate(reviews())
    ]
    csv_file(tmp_path / "d.csv", rows, header="premise,claim,label")
    found = sentence(tmp_path, "d.csv")
    assert "the text could be premise" in found
    assert "--text premise claim" in found
    joined = proposed(tmp_path, "d.csv", text=["premise", "claim"])
    assert joined.entry["text"] == ["premise", "claim"]
    assert joined.examples[0]["text"] == "a premise of row 0 a fine and lovely film 0"


def many_values(number: int) -> list[tuple[str, str]]:
    return [(f"words of row {index}", f"value {index}") for index in range(number)]


@pytest.mark.parametrize(("make", "given", "choices", "expected"), [
    (lambda root: None, "none.csv", {}, "none.csv: no such file or folder"),
    (lambda root: (root / "d.csv").touch(), "d.csv", {}, "d.csv: is empty, allowed: at least one row"),
    (lambda root: csv_file(root / "d.csv", []), "d.csv", {}, "d.csv: has no rows, allowed: at least one"),
    (lambda root: csv_file(root / "d.csv", many_values(3000)), "d.csv", {}, "mood (3,000 distinct"),
    (lambda root: csv_file(root / "d.csv", many_values(3000)), "d.csv", {"label": "mood"}, "label 'mood': got 3,000 distinct values in 3,000 rows, allowed: at most 500 classes"),
    (lambda root: csv_file(root / "d.csv", [(text, "pos") for text, _ in reviews()]), "d.csv", {"label": "mood"}, "label 'mood': got one class only, 'pos' in 20 rows, allowed: at least 2 classes"),
    (lambda root: csv_file(root / "d.csv", reviews(), "mood,mood"), "d.csv", {}, "row 1: two columns are named 'mood'"),
    (lambda root: csv_file(root / "d.csv", reviews()), "d.csv", {"label": "stars"}, "--label: got 'stars', allowed: review, mood"),
    (lambda root: csv_file(root / "d.csv", reviews()), "d.csv", {"text": ["mood"], "label": "mood"}, "got 'mood' as the text and the label"),
    (lambda root: csv_file(root / "d.csv", reviews(), "text;label"), "d.csv", {}, "cells between semicolons, allowed: commas or tabs"),
    (lambda root: csv_file(root / "d.csv", [*reviews(), ("a text and no label", "")]), "d.csv", {}, "row 22: column 'mood' is empty, allowed: a label in every row"),
    (lambda root: csv_file(root / "d.csv", [*reviews(), ("a cell", "too", "many")]), "d.csv", {}, "row 22: number of cells: got 3, allowed: 2"),
    (lambda root: csv_file(root / "d.csv", [(text,) for text, _ in reviews()], "text"), "d.csv", {}, "got one column (text), allowed: a text and a label"),
    (lambda root: (root / "d.pkl").write_bytes(b"x"), "d.pkl", {}, "the name does not say a format, allowed: a file that ends in .csv"),
    (lambda root: (root / "d.tar").write_bytes(b"x"), "d.tar", {}, "d.tar: is damaged or cut short"),
    (lambda root: tar_file(root / "d.tar", ["train/pos/1.txt", "test/pos/1.txt"]), "d.tar", {}, "got 1 folders that could be labels in every split (pos), allowed: at least 2"),
    (lambda root: tar_file(root / "d.tar", ["one/pos/1.txt", "two/neg/1.txt"]), "d.tar", {}, "got folders of labels in one, two, allowed: one place for each split"),
    (lambda root: tar_file(root / "d.tar", ["notes.md"]), "d.tar", {}, "got no file that ends in .txt"),
    (lambda root: (root / "d").mkdir(), "d", {}, "d: got a folder without data"),
    (lambda root: [csv_file(root / f"d/{name}.csv", reviews()) for name in ("one", "two")], "d", {}, "d: got one.csv, two.csv, allowed: a file named train"),
    (lambda root: [csv_file(root / f"d/train-{name}.csv", reviews()) for name in "ab"], "d", {}, "got 2 files for train (train-a.csv, train-b.csv), allowed: one a split"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path: Path, make, given, choices, expected) -> None:
    make(tmp_path)
    assert expected in sentence(tmp_path, given, **choices)
