"""Several processes train one cell as one process would, and stop, resume and fail together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import process_cases
from helpers.process_cases import EVALUATED, METHODS, RESUMED, SCHEDULE, SHARDED

pytestmark = pytest.mark.slow

SCRIPT = Path(process_cases.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every case has given, in a folder of its own; all of them share one launch."""
    folder = tmp_path_factory.mktemp("processes")
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def result(folder: Path, case: str, process: int | str) -> dict:
    return json.loads((folder / case / f"{process}.json").read_text())


def tensors(weights: dict[str, list]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}


def assert_close(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(weights[name], value, rtol=0, atol=1e-5), name


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fp16_skips"])
def test_two_processes_reach_the_weights_of_one(name: str, folder: Path) -> None:
    """With the same global batch: DDP, gradients averaged afterwards, released, and none at all.

    Also with a loss in chunks, on batches by length.
    """
    first, second = (result(folder, f"{name} ddp", process) for process in (0, 1))
    single = result(folder, f"{name} single", "single")
    assert_close(tensors(first["weights"]), tensors(single["weights"]))
    assert first == second  # to the bit: weights, bases, history and the scores of every example
    losses = [row["selection_loss_nats"] for row in single["history"]]
    assert abs(losses[-1] - losses[0]) > 1e-6, "it has trained"


def test_two_processes_skip_the_same_updates(folder: Path) -> None:
    """In fp16: what is infinite in the rows of one is infinite in the mean of both.

    A single process may skip fewer: two double their losses, whose gradients they average.
    """
    first, second = (result(folder, "fp16_skips ddp", process) for process in (0, 1))
    assert first == second
    assert 0 < first["metrics"]["skipped_updates"] < SCHEDULE["updates"]


def test_bases_are_alike(folder: Path) -> None:
    first, second = (result(folder, "rsvd ddp", process)["bases"] for process in (0, 1))
    assert len(first) > 1
    assert first == second


@pytest.mark.parametrize("name", SHARDED)
def test_shards_together_are_the_weights_of_one(name: str, folder: Path) -> None:
    parts = [tensors(result(folder, f"{name} fsdp2", process)["weights"]) for process in (0, 1)]
    expected = tensors(result(folder, f"{name} single", "single")["weights"])
    whole = {}
    for key, value in expected.items():
        rows = [part[key].reshape(-1, *value.shape[1:]) for part in parts]
        assert len(rows[0]) < len(value) or len(value) == 1, "a process holds a share"
        whole[key] = torch.cat(rows)
    assert_close(whole, expected)


@pytest.mark.parametrize("case", ["full ddp", "full fsdp2"])
def test_metrics_over_seven_examples_are_exact(case: str, folder: Path) -> None:
    """Four batches of at most two, in two processes; scores are in the order of the examples."""
    single = result(folder, "full single", "single")
    assert len(single["examples"]["loss_nats"]) == EVALUATED == 7
    assert len(set(single["examples"]["loss_nats"])) == EVALUATED
    for process in (0, 1):
        got = result(folder, case, process)
        assert got["examples"] == single["examples"]
        assert got["metrics"] == single["metrics"]
        mean = sum(got["examples"]["loss_nats"]) / EVALUATED
        assert got["metrics"]["eval_loss_nats"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("name", RESUMED)
def test_a_stopped_run_resumes_to_the_bit(name: str, folder: Path) -> None:
    """One process gets the signal, and both stop: within an evaluation, or after an update.

    With dropout, whose random states differ between the processes.
    """
    statuses = json.loads((folder / "statuses.json").read_text())
    assert statuses[name] == [143] * len(RESUMED[name][1]) + [0]
    for process in (0, 1):
        assert result(folder, f"{name} resumed", process) == result(
            folder, f"{name} whole", process
        )
    assert not list((folder / "results/checkpoints").iterdir())
