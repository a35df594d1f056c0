"""Stop a training run in this process at places of its own, and start it again."""

import os
import signal
from collections.abc import Callable

import pytest

from rankwise.core.paths import CHECKPOINTS
from rankwise.training.checkpoint import STOPPED_EXIT_STATUS, Checkpoint, Stopped


def stop_at_check(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a real SIGTERM before its check of this number.

    Runs check between two batches, those of evaluations included.
    """
    check = Checkpoint.check
    checks_made = 0

    def counting_check(self: Checkpoint) -> None:
        nonlocal checks_made
        checks_made += 1
        if checks_made == number:
            os.kill(os.getpid(), signal.SIGTERM)
        check(self)

    monkeypatch.setattr(Checkpoint, "check", counting_check)


def interrupted(train: Callable[[], dict], stops: list[int]) -> dict:
    """Start a run again and again, stop it at each of `stops`, and return its result at last."""
    for number in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_at_check(number, patch)
            with pytest.raises(Stopped) as stopped:
                train()
        assert stopped.value.code == STOPPED_EXIT_STATUS == 143
        assert {path.suffix for path in CHECKPOINTS.iterdir()} == {".pt"}, "complete files"
    return train()
