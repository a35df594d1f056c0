"""The gradient of an update is that of the mean loss over its window, however the window is split."""

from pathlib import Path

import pytest
import torch

from helpers import windows
from helpers.windows import SPLITS, TASKS, TOLERANCE, Recorded, record

every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where checkpoints go


def assert_full_batch(recorded: Recorded, tolerance: float) -> None:
    """Every update got the gradient of one full batch, up to `tolerance` of its norm."""
    assert len(recorded.updates) == windows.UPDATES
    for update in recorded.updates:
        assert len(update.got) == len(update.expected) > 0
        got = torch.cat([part.flatten() for part in update.got]).double()
        expected = torch.cat([part.flatten() for part in update.expected]).double()
        assert (got - expected).norm() <= tolerance * expected.norm()


@every_task
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_the_gradient_does_not_depend_on_the_split(task: str, split: tuple[int, int]) -> None:
    recorded = record(task, split)
    assert_full_batch(recorded, TOLERANCE.get(task, 1e-10))
    updates = recorded.updates
    sizes = SPLITS[split]
    assert [len(update.examples) for update in updates] == [*sizes, sizes[0]]
    epoch = [number for update in updates[:3] for number in update.examples]
    assert sorted(epoch) == list(range(windows.EXAMPLES))


@every_task
def test_history_and_counts_are_over_the_predictions(task: str) -> None:
    recorded = record(task, (4, 4))
    updates = recorded.updates
    loss = sum(update.loss for update in updates) / sum(update.predictions for update in updates)
    last = recorded.result["history"][-1]
    assert last["train_loss_nats"] == pytest.approx(loss, rel=1e-6)
    norms = [torch.stack([g.norm() for g in update.expected]).norm().item() for update in updates]
    assert last["gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert recorded.result["metrics"]["samples"] == 16 + 16 + 1 + 16
