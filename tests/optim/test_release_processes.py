"""Gradient release in two processes: they stay in lockstep, and step as one on the joined batch."""

import socket
import time

import pytest
import torch
from torch import Tensor, multiprocessing

from helpers.release_processes import CASES, train_all, work


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """Parameters by case: of both processes, and of one process that sees the joined batches."""
    folder = tmp_path_factory.mktemp("gloo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = multiprocessing.spawn(work, (port, str(folder)), nprocs=2, join=False)
    try:
        single = train_all(0, 1)
        until = time.monotonic() + 300
        while not started.join(timeout=1):
            assert time.monotonic() < until, "the processes wait for each other"
    finally:
        for process in started.processes:
            process.kill()
    return [*(torch.load(folder / f"{rank}.pt") for rank in (0, 1)), single]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_on_the_joined_batch(trained, case: str) -> None:
    """A basis that is found is the first process's, of its share of the batch: only lockstep holds then."""
    first, second, single = (parameters[case] for parameters in trained)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if not case.startswith("found"):
        for ours, expected in zip(first, single, strict=True):
            assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9)
