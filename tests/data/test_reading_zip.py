"""Zip archives of CSV files: the rows of every member that matches, with what its name says."""

import zipfile
from pathlib import Path

import pytest

from rankwise.data import reading
from rankwise.data.datasets import rows

FILES = {
    "data/test/b_test.csv": 'Is 2 even?,yes,no,A\n"Is 3, too?",yes,no,B\n',
    "data/test/a_test.csv": "Is 1 odd?,yes,no,A\n",
    "data/val/a_val.csv": "Is 4 odd?,yes,no,B\n",
}


def archive(folder: Path, files: dict[str, str]) -> dict:
    """An archive and the entry of it."""
    with zipfile.ZipFile(folder / "all.zip", "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return {
        "task": "instruction_tuning", "files": {"folder": str(folder), "format": "zip"},
        "columns": ["q", "A", "B", "a"], "quotes": True, "report_split": "test",
        "splits": {"test": {"path": "all.zip", "member": "data/test/(.+)_test[.]csv"}},
        "prompt": "{member}: {q} A {A} B {B}", "answer": "a",
    }  # fmt: skip


def test_rows_of_all_members_that_match_in_the_order_of_their_names(tmp_path):
    entry = archive(tmp_path, FILES)
    entry["splits"]["train"] = {"path": "all.zip", "member": ".*val[.]csv"}
    entry["prompt"] = "{q} A {A} B {B}"
    assert rows(entry, "train") == [{"text": "Is 4 odd? A yes B no", "label": "B"}]
    entry["splits"]["train"] = entry["splits"]["test"]
    entry["prompt"] = "{member}: {q} A {A} B {B}"
    assert [(row["text"], row["label"]) for row in rows(entry, "test")] == [
        ("a: Is 1 odd? A yes B no", "A"),
        ("b: Is 2 even? A yes B no", "A"),
        ("b: Is 3, too? A yes B no", "B"),
    ]


@pytest.mark.parametrize(
    ("files", "change", "sentence"),
    [
        ({"other.csv": "x"}, {}, "no file's name matches 'data/test/"),
        (
            {"data/test/a_test.csv": "q,yes,B\n"},
            {},
            "all.zip: member data/test/a_test.csv: row 1: number of cells: got 3, allowed: 4",
        ),
        (
            FILES,
            {"answer": "b"},
            "all.zip: member data/test/a_test.csv: no column 'b', allowed: q, A",
        ),
    ],
)
def test_what_is_wrong_names_the_member(tmp_path, files, change, sentence):
    entry = {**archive(tmp_path, files), **change}
    found = reading.problems(tmp_path / "all.zip", entry, "test")
    assert len(found) == 1
    assert sentence in found[0]


def test_an_archive_that_is_cut_is_refused(tmp_path):
    entry = archive(tmp_path, FILES)
    whole = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(whole[:-30])
    (found,) = reading.problems(tmp_path / "all.zip", entry, "test")
    assert "all.zip: is damaged or cut short" in found
    assert "allowed: a whole zip archive" in found
