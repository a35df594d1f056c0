"""Files of real datasets, against Python's own readers and the numbers of rows that are published."""

import csv
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers.dataset_files import cells, entry, problems, texts_of
from rankwise.data import reading

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("RANKWISE_DATA" not in os.environ, reason="RANKWISE_DATA is not set"),
]
DATA = Path(os.environ.get("RANKWISE_DATA", ""))


@pytest.mark.parametrize(("split", "count"), [("train", 67349), ("dev", 872), ("test", 1821)])
def test_sst2_has_no_quotes_and_needs_no_option(split: str, count: int) -> None:
    path = DATA / f"sst2/{split}.tsv"
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    rows = cells(path, "tsv", text="sentence", label=None)
    assert rows == [tuple(line.split("\t")) for line in lines]
    assert len(rows) == count


def test_ag_news() -> None:
    path = DATA / "ag_news/test.csv"
    columns = {"columns": ["label", "title", "body"], "text": ["title", "body"]}
    with path.open(encoding="utf-8", newline="") as stream:
        written = list(csv.reader(stream))
    assert cells(path, "csv", **columns) == [tuple(row) for row in written]
    assert texts_of(path, "csv", **columns) == [f"{title} {body}" for _, title, body in written]
    assert len(written) == 7600


def test_a_tsv_with_quotes_names_the_option_and_is_read_with_it() -> None:
    path = DATA / "ag_news/alps_dev.tsv"
    (sentence,) = problems(path, "tsv", columns=["text", "label"])
    assert sentence.startswith("row 15: cell '\" NEW YORK (Reuters) - Kimberly-Clark Corp.")
    with path.open(encoding="utf-8", newline="") as stream:
        written = [tuple(row) for row in csv.reader(stream, delimiter="\t")]
    assert cells(path, "tsv", columns=["text", "label"], quotes=True) == written
    assert len(written) == 10001


@pytest.mark.parametrize(("name", "count"), [
    ("boolq", 3270), ("piqa", 1838), ("social_i_qa", 1954), ("winogrande", 1267), ("ARC-Challenge", 1172), ("ARC-Easy", 2376), ("openbookqa", 500),
])  # fmt: skip
def test_commonsense_is_arrays(name: str, count: int) -> None:
    path = DATA / f"commonsense/{name}/test.json"
    rows = texts_of(path, "json", text="instruction", label="answer")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert rows == [row["instruction"] for row in written]
    assert len(rows) == count


def test_one_object_with_two_lists_is_no_dataset() -> None:
    path = DATA / "commonsense/hellaswag_subset/hellaswag.json"
    assert problems(path, "json") == [
        "row 1: one object over several lines, allowed: one JSON object a line, or one array of objects"
    ]


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_gsm8k(split: str, count: int) -> None:
    path = DATA / f"gsm8k/{split}.jsonl"
    columns = {"text": ["question", "answer"], "label": None}
    with path.open(encoding="utf-8", newline="\n") as stream:
        written = [json.loads(line) for line in stream]
    expected = [f"{row['question']} {row['answer']}" for row in written]
    assert texts_of(path, "jsonl", **columns) == expected
    assert len(expected) == count


@pytest.mark.parametrize(("split", "count"), [("dev", 285), ("val", 1531), ("test", 14042)])
def test_mmlu(split: str, count: int, tmp_path: Path) -> None:
    """A question of `val` has lost its first quote; one of `test` ends with a line end."""
    with zipfile.ZipFile(DATA / "mmlu/mmlu.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith(f"data/{split}/")]
        files = sorted(archive.extract(name, tmp_path) for name in names if name.endswith(".csv"))
    columns = {"columns": ["question", "A", "B", "C", "D", "answer"], "text": "question"}
    columns["label"] = "answer"
    total, refused = 0, []
    for path in map(Path, files):
        with path.open(encoding="utf-8", newline="") as stream:
            written = [tuple(row) for row in csv.reader(stream)]
        assert cells(path, "csv", quotes=True, **columns) == written
        total += len(written)
        found = problems(path, "csv", **columns)
        refused += [(path.name, sentence[:34]) for sentence in found]
    assert total == count
    assert (
        refused
        == {
            "dev": [],
            "val": [("college_medicine_val.csv", "row 6: a quote inside of the cell ")],
            "test": [("nutrition_test.csv", "row 368: a quoted cell joins 2 lin")],
        }[split]
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_imdb_is_an_archive(split: str) -> None:
    path = DATA / "imdb/aclImdb_labeled.tar.gz"
    member = {"path": path.name, "member": rf"aclImdb/{split}/(pos|neg)/.*\.txt"}
    dataset = entry(path.parent, "tar", path.name, splits={split: member})
    rows = list(reading.records(path, dataset, split))
    labels = [row.cells["label"] for row in rows]
    assert (labels.count("neg"), labels.count("pos"), len(labels)) == (12500, 12500, 25000)
    with tarfile.open(path) as archive:
        first = next(m for m in archive if m.name.startswith(f"aclImdb/{split}/") and m.isreg())
        written = archive.extractfile(first).read().decode("utf-8")
    by_name = {row.where: row.cells["text"] for row in rows}
    assert by_name[f"member {first.name}"] == written


@pytest.mark.parametrize(("name", "count"), [
    ("train.txt.gz", 36718), ("valid.txt", 3760), ("test.txt", 4358),
])  # fmt: skip
def test_wikitext2_keeps_its_blank_lines(name: str, count: int) -> None:
    running = {"task": "language_modelling", "label": None}
    texts = texts_of(DATA / "wikitext2" / name, "text", **running)
    assert len(texts) == count
    assert texts[0] == " \n"
