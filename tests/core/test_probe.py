"""Questions to a machine that may hang: each is answered, or the reason is."""

import subprocess
from pathlib import Path

import psutil
import pytest

from helpers.programs import HANG, stand_ins
from rankwise.core import probe


def test_a_command_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", stand_ins(tmp_path / "bin", some=f"{HANG}77 & echo half; wait"))
    assert probe.run("some", seconds=0.5) == probe.Answer(
        "", "gives no answer in 0.5 s", hangs=True
    )
    assert not [
        one
        for one in psutil.process_iter(["cmdline"])
        if (one.info["cmdline"] or [])[-1:] == ["30077"]
    ]


def test_a_command_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PATH",
        path := stand_ins(
            tmp_path / "bin", bad="echo first >&2; echo why >&2; exit 3", mute="exit 4"
        ),
    )
    Path(path, "broken").write_bytes(b"\x7fELF")
    Path(path, "broken").chmod(0o755)
    assert probe.run("bad").trouble == "says: why"
    assert probe.run("mute").trouble == "ends with 4"
    assert probe.run("broken").trouble == "cannot be started (Exec format error)"
    assert probe.run("none").trouble == probe.ABSENT


def test_questions_that_hang_or_raise_are_answered_by_why() -> None:
    questions = {
        "good": lambda: {"is": 1},
        "bad": lambda: 1 / 0,
        "slow": lambda: subprocess.run(["/bin/sleep", "5"]),
    }
    asked = probe.ask(questions, seconds=0.5)
    assert asked == {
        "good": {"is": 1},
        "bad": {"trouble": "division by zero"},
        "slow": {"trouble": "gives no answer in 0.5 s"},
    }
