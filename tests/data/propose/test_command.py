"""`rankwise add dataset`: the entry is written behind the others, or printed."""

from pathlib import Path

import pytest
import yaml

from helpers.proposing import csv_file, proposed, reviews, scored
from rankwise.cli import main
from rankwise.core import entry_files
from rankwise.study.plan import Plan


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
