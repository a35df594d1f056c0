"""Gradient release in two processes: they stay in lockstep, and step as one on the joined batch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.release_processes import CASES, train_all, work
from helpers.releasing import Net, batch, loss_of
from helpers.two_processes import free_ports, spawned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two processes leave."""
    return tmp_path_factory.mktemp("gloo")


@pytest.fixture(scope="module")
def trained(folder: Path) -> list[dict[str, list[Tensor]]]:
    """Parameters by case: of both processes, and of one process that sees the joined batches."""
    (port,) = free_ports(1)
    with spawned(work, port, str(folder)):
        single = train_all(0, 1)
    return [*(torch.load(folder / f"{rank}.pt") for rank in (0, 1)), single]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_on_the_joined_batch(trained, case: str) -> None:
    """A basis that is found is the first process's, of its share of the batch: only lockstep holds then."""
    first, second, single = (parameters[case] for parameters in trained)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if not case.startswith("found"):
        for ours, expected in zip(first, single, strict=True):
            assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_torchs_clipping_in_two_processes(trained, folder: Path) -> None:
    """With fused steps the norm is that of the mean gradient; shares of projections are refused."""
    model = Net()
    loss_of(model, batch(0)).backward()
    expected = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9).item()
    for rank in (0, 1):
        assert float((folder / f"{rank} AdamW.txt").read_text()) == pytest.approx(expected)
        sentence = (folder / f"{rank} ProjFactor.txt").read_text()
        assert "ProjFactor has gathered in 2 processes, allowed: optimizer.clip" in sentence
