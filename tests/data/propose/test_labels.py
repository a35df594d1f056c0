"""Labels that are numbers, several names, or tags of words."""

from pathlib import Path

import pandas
import pytest

from helpers.proposing import GOOD, csv_file, json_lines, proposed, scored, sentence
from rankwise.data import datasets


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
