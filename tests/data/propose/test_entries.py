"""The entry that is proposed for a file, a folder or an archive."""

import json
import subprocess
from pathlib import Path

import pandas
import pytest

from helpers.proposing import csv_file, proposed, reviews, sentence, tar_file
from rankwise.data import datasets


def test_one_file_becomes_a_classification_with_a_share_held_out(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "data/reviews.csv", reviews())
    sha256 = subprocess.run(["sha256sum", file], capture_output=True, text=True).stdout.split()[0]
    found = proposed(tmp_path, "data/reviews.csv")
    assert found.name == "reviews"
    assert found.entry == {
        "task": "classification",
        "files": {"folder": "data", "format": "csv"},
        "text": "review",
        "label": "mood",
        "splits": {
            "train": {"path": "reviews.csv", "sha256": sha256},
            "test": {"path": "reviews.csv", "sha256": sha256, "share": 0.2},
        },
        "report_split": "test",
        "classes": ["neg", "pos"],
        # 6 words are 8 tokens by words, 24 letters 6: with two special ones 10, so 16.
        "max_length_tokens": 16,
        "train_samples": 16,
        "selection_rows": 4,  # twice the classes, which is more than a tenth of 16
    }
    assert found.classes == {"neg": 10, "pos": 10}
    assert found.examples == [
        {"row": "row 2", "text": "a fine and lovely film 0", "class": "pos"},
        {"row": "row 3", "text": "a dull and weary film 0", "class": "neg"},
        {"row": "row 4", "text": "the cast is superb here 1", "class": "pos"},
    ]


def test_files_of_a_folder_are_its_splits(tmp_path: Path) -> None:
    csv_file(tmp_path / "d/train.csv", reviews(20))
    csv_file(tmp_path / "d/dev.csv", reviews(4))
    csv_file(tmp_path / "d/test.csv", reviews(3))
    (tmp_path / "d/README.md").write_text("about\n")
    found = proposed(tmp_path, "d")
    assert (found.name, found.entry["report_split"]) == ("d", "test")
    assert found.rows == {"train": 40, "test": 6, "validation": 8}
    assert {split: file["path"] for split, file in found.entry["splits"].items()} == {
        "train": "train.csv",
        "test": "test.csv",
        "validation": "dev.csv",
    }


def test_a_test_split_without_labels_is_not_reported_on(tmp_path: Path) -> None:
    """GLUE's test splits have -1 for every label."""
    csv_file(tmp_path / "d/train.csv", [(text, int(label == "pos")) for text, label in reviews()])
    csv_file(tmp_path / "d/dev.csv", [(text, int(label == "pos")) for text, label in reviews(3)])
    csv_file(tmp_path / "d/test.csv", [(text, -1) for text, _ in reviews(3)])
    found = proposed(tmp_path, "d")
    assert found.entry["report_split"] == "validation"
    assert "test" not in found.entry["splits"]
    assert "test has no labels, so nothing can be reported on it" in found.notes


@pytest.mark.parametrize(("labels", "expected"), [
    (["b", "a"], {"classes": ["a", "b"]}),
    (["1", "0"], {"classes": ["0", "1"]}),
    (["10", "9", "11"], {"classes": ["9", "10", "11"], "first_label": 9}),
    (["4", "0"], {"classes": ["0", "4"]}),  # a gap: names, because 4 is the number of no class
    (["-1", "0", "1"], {"classes": ["-1", "0", "1"], "first_label": -1}),
])  # fmt: skip
def test_classes_are_in_order(tmp_path: Path, labels: list[str], expected: dict) -> None:
    rows = [(f"some words of row {index}", label) for index in range(10) for label in labels]
    csv_file(tmp_path / "d.csv", rows)
    entry = proposed(tmp_path, "d.csv").entry
    assert {key: entry[key] for key in ("classes", "first_label") if key in entry} == expected
    # What is read means the class of the same name.
    resolved = {
        **entry,
        "files": {"folder": str(tmp_path), "format": "csv"},
        "missing_text": "refuse",
    }
    resolved.setdefault("first_label", 0)
    read = datasets.rows(resolved, "train")
    assert [entry["classes"][row["label"]] for row in read] == [label for _, label in rows]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "tsv", "tabs.csv", "csv.gz"])
def test_formats_are_told_by_name_and_content(tmp_path: Path, kind: str) -> None:
    table = pandas.DataFrame(reviews(), columns=["review", "mood"])
    path = tmp_path / f"d.{kind}"
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    elif kind == "json":
        path.write_text(json.dumps(table.to_dict("records")))
    elif kind == "parquet":
        table.to_parquet(path)
    elif kind == "csv.gz":
        table.to_csv(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t")
    entry = proposed(tmp_path, path.name).entry
    assert entry["files"]["format"] == {"tabs.csv": "tsv", "csv.gz": "csv"}.get(kind, kind)
    assert (entry["text"], entry["label"], entry["classes"]) == ("review", "mood", ["neg", "pos"])


def test_labels_of_json_keep_their_types(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label == "pos"} for text, label in reviews()]
    (tmp_path / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert proposed(tmp_path, "d.jsonl").entry["classes"] == ["false", "true"]


def test_a_text_file_becomes_language_modelling(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("one two three four five six\n" * 200)
    found = proposed(tmp_path, "corpus.txt")
    entry = found.entry
    assert (entry["task"], entry["text"]) == ("language_modelling", "text")
    assert entry["splits"]["test"]["share"] == 0.1
    assert "label" not in entry
    # 200 lines of 8 tokens are 1,600: more than 20 blocks of 64, less than 20 of 128.
    assert entry["max_length_tokens"] == 64
    assert entry["train_samples"] == 180


def test_folders_of_an_archive_are_splits_and_labels(tmp_path: Path) -> None:
    names = [
        f"my.set/{split}/{label}/{n}.txt"
        for split in ("train", "test")
        for label in ("pos", "neg")
        for n in range(6)
    ]
    tar_file(tmp_path / "set.tar.gz", [*names, "my.set/train/unsup/1.txt", "my.set/README.md"])
    found = proposed(tmp_path, "set.tar.gz")
    entry = found.entry
    assert found.name == "set"
    assert {split: file["member"] for split, file in entry["splits"].items()} == {
        "test": r"my\.set/test/(neg|pos)/.*\.txt",
        "train": r"my\.set/train/(neg|pos)/.*\.txt",
    }
    assert (entry["report_split"], entry["classes"], found.rows) == (
        "test",
        ["neg", "pos"],
        {"train": 12, "test": 12},
    )
    assert found.examples[0] == {
        "row": "member my.set/train/neg/0.txt",
        "text": "the text of my.set/train/neg/0.txt",
        "class": "neg",
    }
    assert "not used, because not every split has it: unsup" in found.notes


def test_an_archive_without_splits_is_shared_out(tmp_path: Path) -> None:
    tar_file(
        tmp_path / "set.tar", [f"{label}/{n}.txt" for label in ("pos", "neg") for n in range(10)]
    )
    splits = proposed(tmp_path, "set.tar").entry["splits"]
    assert {split: file["member"] for split, file in splits.items()} == dict.fromkeys(
        ("train", "test"), r"(neg|pos)/.*\.txt"
    )
    assert splits["test"]["share"] == 0.2


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "d.csv", reviews())
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    found = proposed(tmp_path, "d.csv")
    assert found.entry["text"] == "review"
    assert any("byte order mark" in note for note in found.notes)


def test_a_file_without_a_header_takes_names(tmp_path: Path) -> None:
    rows = reviews()
    csv_file(tmp_path / "d.csv", rows[1:], header=",".join(rows[0]))
    said = sentence(tmp_path, "d.csv")
    assert "looks like a value and no name of a column" in said
    assert "of a file without one: --columns NAME NAME; if it is" in said
    entry = proposed(tmp_path, "d.csv", columns=["text", "label"]).entry
    assert (entry["columns"], entry["text"], entry["label"]) == (["text", "label"], "text", "label")
    assert entry["train_samples"] == 16


def test_a_length_of_nothing_is_refused(tmp_path: Path) -> None:
    csv_file(tmp_path / "d.csv", reviews())
    said = sentence(tmp_path, "d.csv", max_length=0)
    assert said.endswith("d.max_length_tokens: got 0, allowed: at least 2")


def test_variables_of_a_path_stay_in_the_entry(tmp_path: Path, monkeypatch) -> None:
    csv_file(tmp_path / "elsewhere/d.csv", reviews())
    monkeypatch.setenv("MY_DATA", str(tmp_path / "elsewhere"))
    assert proposed(tmp_path, "${MY_DATA}/d.csv").entry["files"]["folder"] == "${MY_DATA}"
    monkeypatch.delenv("MY_DATA")
    assert "set the environment variable first" in sentence(tmp_path, "${MY_DATA}/d.csv")
