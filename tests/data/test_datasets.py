"""Every kind of source gives the same rows, from files in the layout of their origin."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pandas
import pytest

from helpers.hub_cache import fill_hub_cache
from rankwise.core import provenance
from rankwise.data import datasets, synthetic

ROWS = [{"text": 'a "quoted" one', "label": 1}, {"text": "plain", "label": 0}]
CLASSES = ["no", "yes"]


def entry(
    folder: Path, file_format: str, path: str, split: dict | None = None, **changes: object
) -> dict:
    """A resolved entry of a dataset with one file, whose SHA-256 is right."""
    sha256 = provenance.file_sha256(folder / path)
    return {
        "task": "classification",
        "files": {"folder": str(folder), "format": file_format},
        "splits": {"train": {"path": path, "sha256": sha256, **(split or {})}},
        "report_split": "train",
        "text": "text",
        "label": "label",
        "first_label": 0,
        "classes": CLASSES,
        "selection_rows": 1,
        "train_rows": None,
        "max_length_tokens": 8,
        **changes,
    }


def read(dataset: dict) -> list[dict]:
    return list(datasets.rows(dataset, "train"))


def test_tsv_keeps_quotes(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('text\tlabel\na "quoted" one\t1\nplain\t0\n')
    assert read(entry(tmp_path, "tsv", "d.tsv")) == ROWS


def test_csv_unquotes_joins_columns_and_counts_classes_from_one(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('"2","a ""quoted""","one"\n"1","plain","text"\n')
    dataset = entry(
        tmp_path,
        "csv",
        "d.csv",
        columns=["label", "title", "body"],
        text=["title", "body"],
        first_label=1,
    )
    assert read(dataset) == [ROWS[0], {"text": "plain text", "label": 0}]


def test_jsonl_with_names_of_classes(tmp_path: Path) -> None:
    named = [{"text": row["text"], "label": CLASSES[row["label"]]} for row in ROWS]
    lines = [json.dumps(row) + "\n" for row in named]
    (tmp_path / "d.jsonl").write_text("".join(lines))
    assert read(entry(tmp_path, "jsonl", "d.jsonl")) == ROWS


def test_a_tar_archive_whose_folders_are_the_labels(tmp_path: Path) -> None:
    """Rows come in the order of the names, not in that of the archive."""
    texts = {
        "x/train/yes/2_1.txt": ROWS[0]["text"],
        "x/train/no/1_9.txt": "plain",
        "x/test/no/3.txt": "other",
    }
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    dataset = entry(tmp_path, "tar", "d.tar.gz", split={"member": r"x/train/(yes|no)/.*\.txt"})
    assert read(dataset) == [ROWS[1], ROWS[0]]


def test_compressed_text_is_lines(tmp_path: Path) -> None:
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo\n"))
    dataset = entry(tmp_path, "text", "d.txt.gz", task="language_modelling")
    del dataset["label"]
    assert read(dataset) == [{"text": "one\n"}, {"text": "\n"}, {"text": "two\n"}]


@pytest.mark.parametrize(("change", "message"), [
    ({"text": "sentence"}, "no column 'sentence', allowed: text, label"),
    ({"classes": ["no", "maybe"], "first_label": 2}, "row 2: label: got '1', allowed: the names 'no', 'maybe' or the numbers 2, 3"),
])  # fmt: skip
def test_a_missing_column_and_an_unknown_label_are_refused(
    change: dict, message: str, tmp_path: Path
) -> None:
    (tmp_path / "d.tsv").write_text("text\tlabel\nx\t1\n")
    with pytest.raises(ValueError, match=message):
        read({**entry(tmp_path, "tsv", "d.tsv"), **change})


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("text\tlabel\nx\t1\n")
    dataset = entry(tmp_path, "tsv", "d.tsv")
    (tmp_path / "d.tsv").write_text("text\tlabel\ny\t1\n")
    with pytest.raises(ValueError, match="sha256 is"):
        read(dataset)


def test_a_dataset_from_the_hub_at_a_pinned_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, revision = "stanfordnlp/sst2", "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"
    path = "data/train-00000-of-00001.parquet"
    records = [{"idx": 0, "sentence": row["text"], "label": row["label"]} for row in ROWS]
    parquet = io.BytesIO()
    pandas.DataFrame(records).to_parquet(parquet)
    further = "data/train-00001-of-00001.parquet"
    files = {path: parquet.getvalue(), further: parquet.getvalue()}
    fill_hub_cache(tmp_path, monkeypatch, f"datasets/{repo}", revision, files)
    hub = {"repo": repo, "revision": revision, "format": "parquet"}
    dataset = {
        "task": "classification",
        "hub": hub,
        "splits": {"train": {"path": path}},
        "report_split": "train",
        "text": "sentence",
        "label": "label",
        "first_label": 0,
        "classes": ["negative", "positive"],
    }
    assert read(dataset) == ROWS
    both = {"train": {"path": path, "further_paths": [further]}}
    assert read({**dataset, "splits": both}) == [*ROWS, *ROWS]
    with pytest.raises(Exception, match=r"0{40}|offline|cache"):
        read({**dataset, "hub": {**hub, "revision": "0" * 40}})


def test_a_generated_split_is_the_same_on_every_machine() -> None:
    settings = {"kind": "reviews", "seed": 0, "rows": {"train": 200, "validation": 200}}
    train = list(synthetic.rows(settings, "train"))
    positive = sum(row["label"] for row in train)
    assert list(synthetic.rows(settings, "train")) == train
    assert list(synthetic.rows(settings, "validation")) != train
    assert 0.35 < positive / len(train) < 0.65
    assert provenance.digest(train[:50]) == "4275cab24dc63c8c"


@pytest.mark.data
@pytest.mark.skipif("RANKWISE_DATA" not in os.environ, reason="RANKWISE_DATA is not set")
@pytest.mark.parametrize(("name", "split", "count", "positive"), [
    ("sst2_files", "validation", 872, 444), ("sst2_files", "train", 67349, 37569),
    pytest.param("imdb_files", "test", 25000, 12500, marks=pytest.mark.slow), ("wikitext2_files", "validation", 3760, None),
])  # fmt: skip
def test_real_files(name: str, split: str, count: int, positive: int | None, plan) -> None:
    rows = list(datasets.rows(plan.library["datasets"][name], split))
    assert len(rows) == count
    if positive is not None:
        assert sum(row["label"] for row in rows) == positive
