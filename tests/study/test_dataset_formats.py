"""A key on reading that does not fit the files' format is refused while planning."""

import pytest
import yaml

from rankwise.core.config import ConfigError
from rankwise.study.plan import Plan

SPLITS = {
    "train": {"path": "d", "member": "train/(a|b)/.*"},
    "test": {"path": "d", "member": "test/(a|b)/.*"},
}
ENTRY = {
    "task": "classification",
    "files": {"folder": "/data", "format": "tar"},
    "splits": SPLITS,
    "report_split": "test",
    "text": "text",
    "label": "label",
    "classes": ["a", "b"],
    "max_length_tokens": 8,
}


def table(file_format: str) -> dict:
    return {
        "files": {"folder": "/data", "format": file_format},
        "splits": {"train": {"path": "d"}, "test": {"path": "e"}},
    }


def of_train(split: dict) -> dict:
    return {"splits": {**SPLITS, "train": split}}


@pytest.fixture
def said(clone, demo, monkeypatch):
    """What planning says about a changed entry."""
    monkeypatch.chdir(clone)
    file = clone / "config/datasets.yaml"
    before = file.read_text(encoding="utf-8")

    def plan(changes: dict) -> str:
        file.write_text(before + yaml.safe_dump({"mine": {**ENTRY, **changes}}), encoding="utf-8")
        try:
            Plan(demo, clone, "config/demo.yaml")
        except ConfigError as error:
            return str(error)
        return ""

    return plan


def test_entries_that_fit(said) -> None:
    assert said({}) == ""
    assert said({**table("csv"), "quotes": False, "columns": ["text", "label"]}) == ""
    assert said({**table("tsv"), "quotes": True, "missing_text": "drop"}) == ""
    assert said(table("json")) == ""


@pytest.mark.parametrize(("changes", "message"), [
    (of_train({"path": "d"}), "mine.splits.train.member: got 'nothing', allowed: a pattern of the names"),
    (of_train({"path": "d", "member": "train/.*"}), "mine.splits.train.member: got 'train/.*', allowed: a pattern with a group that is the label"),
    (of_train({"path": "d", "member": "train/(.*"}), "mine.splits.train.member: got 'train/(.*', allowed: a regular expression of Python (missing )"),
    ({"files": {"folder": "/data", "format": "csv"}}, "mine.splits.test.member: got 'test/(a|b)/.*', allowed: nothing for csv, only for tar and zip"),
    ({**table("jsonl"), "quotes": True}, "mine.quotes: got True, allowed: nothing for jsonl, only for csv and tsv"),
    ({**table("parquet"), "columns": ["text", "label"]}, "mine.columns: got ['text', 'label'], allowed: nothing for parquet"),
    ({**table("csv"), "columns": ["text", "text"]}, "mine.columns: got 'text twice', allowed: names of the columns of a file without a header, each once"),
    ({**table("csv"), "missing_text": "skip"}, "mine.missing_text: got 'skip', allowed: drop, refuse"),
    ({**table("csv"), "quotes": "yes"}, "mine.quotes: got 'yes', allowed: true or false or a null"),
])  # fmt: skip
def test_keys_that_do_not_fit(said, changes: dict, message: str) -> None:
    assert said(changes).startswith(f"config/datasets.yaml: {message}")
