"""Every kind of source becomes the same rows, from files in the layout of its origin."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pandas
import pytest

from rankwise.core import provenance
from rankwise.data import datasets, model_files, synthetic

ROWS = [{"text": 'a "quoted" one', "label": 1}, {"text": "plain", "label": 0}]


def entry(folder: Path, form: str, path: str, **more: object) -> dict:
    file = folder / path
    split = {"path": path, "sha256": provenance.file_sha256(file), **more.pop("split", {})}
    return {
        "task": "classification", "files": {"folder": str(folder), "format": form}, "splits": {"train": split},
        "report_split": "train", "text": "text", "label": "label", "first_label": 0, "classes": ["no", "yes"],
        "selection_rows": 1, "train_rows": None, "max_length_tokens": 8, **more,
    }  # fmt: skip


def read(found: dict) -> list[dict]:
    return list(datasets.rows(found, "train"))


def test_tsv_keeps_quotes(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('text\tlabel\na "quoted" one\t1\nplain\t0\n')
    assert read(entry(tmp_path, "tsv", "d.tsv")) == ROWS


def test_csv_unquotes_joins_columns_and_counts_classes_from_one(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('"2","a ""quoted""","one"\n"1","plain","text"\n')
    found = entry(
        tmp_path,
        "csv",
        "d.csv",
        columns=["label", "title", "body"],
        text=["title", "body"],
        first_label=1,
    )
    assert read(found) == [ROWS[0], {"text": "plain text", "label": 0}]


def test_jsonl_and_class_names(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "".join(
            json.dumps({"text": r["text"], "label": ["no", "yes"][r["label"]]}) + "\n" for r in ROWS
        )
    )
    assert read(entry(tmp_path, "jsonl", "d.jsonl")) == ROWS


def test_a_tar_of_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        for name, text in (
            ("x/train/yes/2_1.txt", ROWS[0]["text"]),
            ("x/train/no/1_9.txt", "plain"),
            ("x/test/no/3.txt", "other"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    found = entry(tmp_path, "tar", "d.tar.gz", split={"member": r"x/train/(yes|no)/.*\.txt"})
    assert sorted(read(found), key=lambda row: -row["label"]) == ROWS


def test_compressed_text_is_lines(tmp_path: Path) -> None:
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo\n"))
    found = entry(tmp_path, "text", "d.txt.gz", task="language_modelling")
    del found["label"]
    assert read(found) == [{"text": "one\n"}, {"text": "\n"}, {"text": "two\n"}]


def test_running_text_holds_out_its_end_and_labels_are_drawn() -> None:
    text = [{"text": str(i)} for i in range(10)]
    train, selection = datasets.hold_out(text, {"train_rows": None, "selection_rows": 3})
    assert selection == text[-3:]
    assert train == text[:-3]
    labelled = {"train_rows": 8, "selection_rows": 3, "label": "label"}
    train, selection = datasets.hold_out(text, labelled)
    assert sorted(int(row["text"]) for row in train + selection) == list(range(8))
    assert (train, selection) == datasets.hold_out(text, labelled)
    with pytest.raises(ValueError, match="selection_rows: got 8, allowed: less than the 8 rows"):
        datasets.hold_out(text, {**labelled, "selection_rows": 8})


@pytest.mark.parametrize(("change", "message"), [
    ({"text": "sentence"}, "no column 'sentence', allowed: text, label"),
    ({"classes": ["no"]}, "row 1: label '1', allowed: 0 or no"),
])  # fmt: skip
def test_wrong_columns_and_labels_are_named(change: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("text\tlabel\nx\t1\n")
    with pytest.raises(ValueError, match=message):
        read({**entry(tmp_path, "tsv", "d.tsv"), **change})


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("text\tlabel\nx\t1\n")
    found = entry(tmp_path, "tsv", "d.tsv")
    (tmp_path / "d.tsv").write_text("text\tlabel\ny\t1\n")
    with pytest.raises(ValueError, match="sha256 is"):
        read(found)


def hub_cache(folder: Path, repo: str, kind: str, revision: str, files: dict[str, bytes]) -> None:
    """The hub's cache layout, as a download leaves it."""
    root = folder / f"{kind}s--{repo.replace('/', '--')}"
    for name, content in files.items():
        path = root / "snapshots" / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def test_the_hub_at_a_pinned_revision(offline: Path, tmp_path: Path) -> None:
    revision = "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"
    parquet = io.BytesIO()
    pandas.DataFrame(
        [{"idx": 0, "sentence": row["text"], "label": row["label"]} for row in ROWS]
    ).to_parquet(parquet)
    hub_cache(
        offline,
        "stanfordnlp/sst2",
        "dataset",
        revision,
        {"data/train-00000-of-00001.parquet": parquet.getvalue()},
    )
    found = {
        "hub": {"repo": "stanfordnlp/sst2", "revision": revision, "format": "parquet"}, "classes": ["negative", "positive"],
        "splits": {"train": {"path": "data/train-00000-of-00001.parquet"}}, "text": "sentence", "label": "label", "first_label": 0,
    }  # fmt: skip
    assert read(found) == ROWS
    with pytest.raises(Exception, match=r"0{40}|offline|cache"):
        read({**found, "hub": {**found["hub"], "revision": "0" * 40}})


def test_a_model_from_the_hub_brings_no_code_and_no_pickle(offline: Path, tmp_path: Path) -> None:
    revision = "12040accade4e8a0f71eabdb258fecc2e7e948be"
    files = {
        "config.json": b"{}",
        "model.safetensors": b"x",
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"p",
        "modeling.py": b"c",
    }
    hub_cache(offline, "distilbert/distilbert-base-uncased", "model", revision, files)
    weights = {"hub": "distilbert/distilbert-base-uncased", "revision": revision}
    found = model_files.prepare_model({"model": {"weights": weights}}, tmp_path / "out")
    assert set(found["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_generated_split_is_the_same_everywhere_and_no_other() -> None:
    settings = {"kind": "reviews", "seed": 0, "rows": {"train": 200, "validation": 200}}
    train, again, validation = (
        list(synthetic.rows(settings, split)) for split in ("train", "train", "validation")
    )
    assert train == again
    assert train != validation
    assert 0.35 < sum(row["label"] for row in train) / len(train) < 0.65
    assert provenance.digest(train[:50]) == "4275cab24dc63c8c"


@pytest.mark.data
@pytest.mark.skipif("RANKWISE_DATA" not in os.environ, reason="RANKWISE_DATA is not set")
@pytest.mark.parametrize(("name", "split", "count", "positive"), [
    ("sst2_files", "validation", 872, 444), ("sst2_files", "train", 67349, 37569),
    pytest.param("imdb_files", "test", 25000, 12500, marks=pytest.mark.slow), ("wikitext2_files", "validation", 3760, None),
])  # fmt: skip
def test_real_files(name: str, split: str, count: int, positive: int | None, plan) -> None:
    found = list(datasets.rows(plan.library["datasets"][name], split))
    assert len(found) == count
    if positive is not None:
        assert sum(row["label"] for row in found) == positive
