"""Splits as Arrow files: what was written is read, and the bytes follow from the rows."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import ROOT
from rankwise.data import arrow

ROWS = [
    {"text": "", "label": 0},
    {"text": "line\nbreak\r\n, \u2028 and \x0b, é, 日本, 🙂 \x00", "label": 1},
    {"text": "long " * 100_000, "label": 2**40},
]


@pytest.mark.parametrize("rows", [ROWS, [{"text": row["text"]} for row in ROWS], [], ROWS * 7])
def test_what_is_written_is_read(
    rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "BATCH_ROWS", 5)
    facts = arrow.write_split(tmp_path / "new", "train", rows)
    file = tmp_path / "new/train.arrow"
    assert arrow.read_rows(file) == rows
    assert facts == {
        "rows": len(rows),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    assert [path.name for path in file.parent.iterdir()] == ["train.arrow"]


def test_columns_have_the_types_of_every_split(tmp_path: Path) -> None:
    arrow.write_split(tmp_path, "train", ROWS)
    table = arrow.open_table(tmp_path / "train.arrow")
    assert {name: kind.dtype for name, kind in table.features.items()} == {
        "text": "string",
        "label": "int64",
    }


def test_the_bytes_are_the_same_in_another_process_and_nothing_goes_home(tmp_path: Path) -> None:
    """Without a network, with another seed of Python's hashes, and at another time."""
    program = (
        "from pathlib import Path; from rankwise.data import arrow; "
        "print(arrow.write_split(Path('out'), 'train', "
        "[{'text': f'row {i}', 'label': i % 2} for i in range(25_000)])['sha256']); "
        "print(len(arrow.read_rows(Path('out/train.arrow'))))"
    )
    answers = set()
    (tmp_path / "home").mkdir()
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT / "src"),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    (answer,) = answers
    assert answer.split()[1] == "25000"
    assert list((tmp_path / "home").rglob("*")) == []
