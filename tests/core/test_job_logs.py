"""Why a job ended, from its log."""

import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.core.job_logs import LONGEST, SILENT, last_sentence

TITLE = "tiny/generated_reviews, lora, rank 2, seed 0\n"


def written(tmp_path: Path, text: str) -> Path:
    log = tmp_path / "job.log"
    log.write_text(TITLE + text)
    return log


def python_log(tmp_path: Path, code: str) -> Path:
    """A log with what Python itself prints when this code fails."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    return written(tmp_path, done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise ValueError('methods.yaml: rank: got 0, allowed: 1')", "methods.yaml: rank: got 0, allowed: 1"),
        ("{}['lr']", "KeyError: 'lr'"),
        ("[].freeze()", "AttributeError: 'list' object has no attribute 'freeze'"),
        ("raise MemoryError", "MemoryError"),
        ("raise ValueError('first line\\n  second line')", "first line"),
        ("import sys; sys.exit('--gpu 2: allowed: at most 1')", "--gpu 2: allowed: at most 1"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('the cause is above')", "the cause is above"),
        ("import json; json.loads('{')", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("import atexit; atexit.register(print, 'goodbye')\nraise ValueError('the reason')", "the reason"),
    ],
)  # fmt: skip
def test_the_message_of_the_last_exception_is_the_sentence(
    code: str, sentence: str, tmp_path: Path
) -> None:
    assert last_sentence(python_log(tmp_path, code)) == sentence


def test_an_exception_of_our_own_is_a_sentence_without_its_class(tmp_path: Path) -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'
    log = written(tmp_path, f"{trace}rankwise.core.store.StoreError: results/store: is full\n")
    assert last_sentence(log) == "results/store: is full"
    log = written(tmp_path, f"{trace}torch.OutOfMemoryError: CUDA out of memory.\n")
    assert last_sentence(log) == "OutOfMemoryError: CUDA out of memory."


def test_without_an_exception_the_last_line_is_the_sentence(tmp_path: Path) -> None:
    log = written(tmp_path, "epoch 0, update 0\nended by SIGKILL; the memory is full\n\n")
    assert last_sentence(log) == "ended by SIGKILL; the memory is full"


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_log_with_nothing_but_its_title_says_that_a_signal_may_have_killed_the_job(
    text: str, tmp_path: Path
) -> None:
    assert last_sentence(written(tmp_path, text)) == SILENT


def test_there_may_be_no_log(tmp_path: Path) -> None:
    assert last_sentence(tmp_path / "no.log") == "it has no log"


def test_a_long_log_is_read_from_its_end_and_a_long_line_is_cut(tmp_path: Path) -> None:
    log = written(tmp_path, "a line\n" * 100_000 + "x" * 1000 + "\n")
    assert last_sentence(log) == "x" * LONGEST + "..."
