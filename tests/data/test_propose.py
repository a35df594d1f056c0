"""The entry that is proposed for a file or folder, and what is refused in one sentence."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pandas
import pytest
import yaml

from rankwise.cli import main
from rankwise.core import entry_files
from rankwise.data import datasets
from rankwise.data.propose import Choices, propose
from rankwise.study.plan import Plan

GOOD = ["a fine and lovely film", "the cast is superb here", "warm and very well told"]
BAD = ["a dull and weary film", "the plot is poor here", "cold and very badly told"]


def reviews(number: int = 10) -> list[tuple[str, str]]:
    """(text, label) of so many rows of each of two classes."""
    return [
        (f"{texts[index % 3]} {index}", label)
        for index in range(number)
        for texts, label in ((GOOD, "pos"), (BAD, "neg"))
    ]


def csv_file(path: Path, rows: list[tuple], header: str = "review,mood") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def proposed(project: Path, given: str, **choices: object):
    return propose(given, Choices(**choices), project)


def sentence(project: Path, given: str, **choices: object) -> str:
    with pytest.raises(ValueError) as error:
        propose(given, Choices(**choices), project)
    assert "\n" not in str(error.value)
    return str(error.value)


# What is proposed ---------------------------------------------------------------------------------


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


def tar_file(path: Path, names: list[str]) -> None:
    """An archive whose files say their own names."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            text = f"the text of {name}".encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


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


# What is refused ----------------------------------------------------------------------------------


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


# The command --------------------------------------------------------------------------------------


def test_the_command_puts_the_entry_behind_the_others_and_it_plans(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "reviews.csv", reviews())
    (tmp_path / "config").mkdir()
    old = "# kept\nother: {task: language_modelling, hub: {repo: a/b, revision: " + "f" * 40
    old += ", format: text}, splits: {train: {path: a}, test: {path: b}}, report_split: test, text: text, max_length_tokens: 8} # too"
    (tmp_path / "config/datasets.yaml").write_text(old)  # without a line feed at its end
    assert main.main(["add", "dataset", "reviews.csv", "--name", "null"]) == 0
    written = (tmp_path / "config/datasets.yaml").read_text()
    assert written.startswith(old + "\n\n")
    assert list(yaml.safe_load(written)) == ["other", "null"]
    grid = {"models": ["tiny"], "datasets": ["null"], "methods": ["full"], "seeds": [0]}
    plan = Plan({"name": "a", "question": "?", "device": "cpu", "train": [grid]}, tmp_path)
    assert len(plan.cells("train")) == 1
    capsys.readouterr()
    for name in ("null", "sst2"):  # one of the project's, one of the workflow's
        assert main.main(["add", "dataset", "reviews.csv", "--name", name]) == 1
        assert f"{name}: got 'an entry that is there already'" in capsys.readouterr().err
    assert (tmp_path / "config/datasets.yaml").read_text() == written


def test_print_writes_nothing_and_is_yaml(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "reviews.csv", reviews())
    assert main.main(["add", "dataset", "reviews.csv", "--print"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == {"reviews": proposed(tmp_path, "reviews.csv").entry}
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("value", [
    "plain", "a: b", "null", "yes", "1", "1.0e-3", "", " x", "a, b", "{", "#", "é", "it's", "two\nlines", "-", "a#b", "2026-01-31",
])  # fmt: skip
def test_a_name_is_read_back_as_it_was_written(value: str) -> None:
    entry = {"classes": [value, "other"], "label": value, "splits": {value: {"path": value}}}
    assert yaml.safe_load(entry_files.text(value, entry)) == {value: entry}


# Numbers, several labels, tags ----------------------------------------------------------------------


def json_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(number: int = 60) -> list[tuple[str, str]]:
    return [(f"{GOOD[index % 3]} {index}", f"{index / 8}") for index in range(number)]


def topics(number: int = 12) -> list[dict]:
    kinds = (["sport", "politics"], ["sport"], [])
    return [{"story": f"some words of {n}", "about": kinds[n % 3]} for n in range(number)]


def tagged(number: int = 12) -> list[dict]:
    row = {"tokens": ["Ada", "met", "Bob", "Lee"], "tags": ["B-PER", "O", "B-PER", "I-PER"]}
    other = {"tokens": ["Rome", "is", "old"], "tags": ["B-LOC", "O", "O"]}
    return [{**(row if n % 2 else other), "id": n} for n in range(number)]


def agrees(root: Path, entry: dict) -> list[dict]:
    """The rows of train as a study reads them, which are those that a share leaves."""
    library = {**entry, "files": {**entry["files"], "folder": str(root)}}
    library = {"missing_text": "refuse", "first_label": 0, **library}
    return datasets.rows(library, "train")


def test_many_numbers_with_decimals_are_a_regression_and_it_says_so(tmp_path: Path) -> None:
    csv_file(tmp_path / "d.csv", scored())
    found = proposed(tmp_path, "d.csv")
    assert (found.entry["task"], found.entry["label"]) == ("regression", "mood")
    assert "classes" not in found.entry
    assert found.entry["splits"]["test"]["share"] == 0.2
    assert found.notes[0] == (
        "mood has 60 distinct numbers, so this is a regression; if they are classes: --task classification"
    )
    assert found.examples[1] == {"row": "row 3", "text": f"{GOOD[1]} 1", "label": "0.125"}
    assert [row["label"] for row in agrees(tmp_path, found.entry)] == [n / 8 for n in range(60)]


def test_few_numbers_with_decimals_are_not_guessed(tmp_path: Path) -> None:
    csv_file(tmp_path / "d.csv", [(f"some words of {n}", n % 5 / 2) for n in range(20)])
    text = sentence(tmp_path, "d.csv")
    assert (
        "the label could be mood (5 distinct numbers) of a regression or mood (5 distinct" in text
    )
    assert text.endswith("choose, such as --task regression --label mood")
    assert proposed(tmp_path, "d.csv", task="classification").entry["classes"] == ["0.0", "0.5", "1.0", "1.5", "2.0"]  # fmt: skip
    assert proposed(tmp_path, "d.csv", task="regression").entry["label"] == "mood"


def test_whole_numbers_are_a_regression_if_that_is_said(tmp_path: Path) -> None:
    csv_file(tmp_path / "d.csv", [(f"some words of {n}", n) for n in range(30)])
    assert "or predict numbers: --task regression --label mood" in sentence(tmp_path, "d.csv")
    assert proposed(tmp_path, "d.csv", task="regression").examples[2]["label"] == "2"


def test_lists_of_names_are_several_labels(tmp_path: Path) -> None:
    json_lines(tmp_path / "d.jsonl", topics())
    found = proposed(tmp_path, "d.jsonl")
    assert (found.entry["task"], found.entry["text"]) == ("multi_label", "story")
    assert (found.entry["label"], found.entry["classes"]) == ("about", ["politics", "sport"])
    assert found.classes == {"politics": 4, "sport": 8}
    assert [one["label"] for one in found.examples] == ["politics, sport", "sport", "no class"]
    assert [row["label"] for row in agrees(tmp_path, found.entry)][:3] == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_words_beside_tags_are_tagged_words(tmp_path: Path, kind: str) -> None:
    if kind == "jsonl":
        json_lines(tmp_path / "d.jsonl", tagged())
    else:
        pandas.DataFrame(tagged()).to_parquet(tmp_path / "d.parquet")
    found = proposed(tmp_path, f"d.{kind}")
    assert (found.entry["task"], found.entry["text"]) == ("token_classification", "tokens")
    assert found.entry["label"] == "tags"
    assert found.entry["classes"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert found.classes == {"O": 18, "B-LOC": 6, "I-LOC": 0, "B-PER": 12, "I-PER": 6}
    first, second, _ = found.examples
    assert (first["text"], first["label"]) == ("Rome is old", "B-LOC O O")
    assert (second["text"], second["label"]) == ("Ada met Bob Lee", "B-PER O B-PER I-PER")


def test_numbers_of_tags_are_read_by_the_names_in_a_parquet_file(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    rows = [{"tokens": row["tokens"], "tags": [names.index(t) for t in row["tags"]]} for row in tagged()]  # fmt: skip
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    found = proposed(tmp_path, "d.parquet", label="tags")
    assert found.entry["classes"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert found.examples[0]["label"] == "B-LOC O O"


def with_rows(rows: list[dict], row: int, **changes: object) -> list[dict]:
    return [{**one, **changes} if n == row else one for n, one in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "choices", "words"),
    [
        ([{**row, "more": row["tags"]} for row in tagged()], {}, "the label could be tags (lists, 4 distinct texts in them) of a token_classification or more ("),
        ([{**row, "mood": n % 2} for n, row in enumerate(topics())], {}, "about (lists, 2 distinct texts in them) of a multi_label or mood (2 distinct values) of a classification"),
        (with_rows(tagged(), 4, tags=["O"]), {"task": "token_classification"}, "name both to see the row that differs: --text COLUMN --label COLUMN"),
        (with_rows(tagged(), 4, tags=["O"]), {"task": "token_classification", "text": ["tokens"], "label": "tags"}, "row 5: column 'tags' is 1 tags, allowed: a list of 3 tags"),
        (with_rows(tagged(), 4, tags=["NN", "O", "O"]), {"task": "token_classification", "text": ["tokens"], "label": "tags"}, "tags: got the tag NN, allowed: O, B-TYPE, I-TYPE"),
        (with_rows(topics(), 4, about="sport"), {"task": "multi_label"}, "no label of a multi_label: got story ("),
        (with_rows(topics(), 4, about="sport"), {"task": "multi_label", "label": "about"}, "row 5: column 'about' is 'sport', allowed: a list of texts"),
        (topics(), {"task": "regression", "label": "about"}, "no label of a regression: got about (lists, 2 distinct texts in them), allowed: a column of at least 2 different finite numbers"),
        ([{"story": f"some words of {n}", "score": n / 4 if n else None} for n in range(30)], {"task": "regression", "label": "score"}, "row 1: column 'score' is nothing, allowed: a finite number"),
    ],
    ids=["two columns of tags", "names and a class", "a row differs", "the row", "no tag", "no list", "no list, named", "no numbers", "no number"],
)  # fmt: skip
def test_labels_that_are_not_told_are_one_sentence(
    tmp_path: Path, rows: list[dict], choices: dict, words: str
) -> None:
    json_lines(tmp_path / "d.jsonl", rows)
    assert words in sentence(tmp_path, "d.jsonl", **choices)


def test_the_command_shows_three_rows_with_their_labels_and_the_entry_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv_file(tmp_path / "scores.csv", scored())
    monkeypatch.chdir(tmp_path)
    assert main.main(["add", "dataset", "scores.csv", "--task", "regression"]) in (0, None)
    shown = capsys.readouterr().out
    assert "    row 3: 0.125: 'the cast is superb here 1'" in shown
    study = {"name": "n", "question": "?", "device": "cpu", "train": [{"models": ["tiny"], "datasets": ["scores"], "methods": ["full"], "seeds": [0]}]}  # fmt: skip
    assert len(Plan(study, tmp_path).cells("train")) == 1
