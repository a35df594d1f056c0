"""Gradient release in two processes: they stay in lockstep, and step as one on the joined batch."""

import socket
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from helpers.releasing import DRAWN, FOUND, FUSED, Net, batch, loss_of, make

SETTINGS = {"fused": [(name, {}) for name in FUSED], "drawn": DRAWN, "found": FOUND}
ACCUMULATED = [
    (name, options, i % 2 == 0) for i, (name, options) in enumerate(DRAWN)
]  # every other one clipped


def spread(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rank: int,
    ranks: int,
    micro: int,
    clip: bool,
) -> nn.Module:
    """Train on this process's share of each batch; the whole of it for one process of one."""
    for step in range(3):
        for part in range(micro):
            x, y = batch(10 * step + part)
            mine = slice(rank * len(x) // ranks, (rank + 1) * len(x) // ranks)
            (loss_of(model, (x[mine], y[mine])) / micro).backward()
        if clip:
            optimizer.clip_grad_norm_(0.1)
        optimizer.step()
        optimizer.zero_grad()
    return model


def runs(rank: int, ranks: int) -> dict[str, list[Tensor]]:
    found = {}
    for kind, settings in SETTINGS.items():
        for index, (name, options) in enumerate(settings):
            model = Net()
            spread(model, make(name, model, options, release=True), rank, ranks, 1, False)
            found[f"{kind}{index}"] = [p.detach() for p in model.parameters()]
    for index, (name, options, clip) in enumerate(ACCUMULATED):
        model = Net()
        spread(model, make(name, model, options, release=True), rank, ranks, 2, clip)
        found[f"accumulated{index}"] = [p.detach() for p in model.parameters()]
    return found


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    torch.save(runs(rank, 2), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """The parameters of both processes, and of one that sees the joined batches."""
    folder = tmp_path_factory.mktemp("gloo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = multiprocessing.spawn(work, (port, str(folder)), nprocs=2, join=False)
    try:
        until = time.monotonic() + 60
        while not started.join(timeout=1):
            assert time.monotonic() < until, "the processes wait for each other"
    finally:
        for process in started.processes:
            process.kill()
    return [*(torch.load(folder / f"{rank}.pt") for rank in (0, 1)), runs(0, 1)]


@pytest.mark.parametrize(
    "case", [f"{kind}{i}" for kind, settings in SETTINGS.items() for i in range(len(settings))]
)
def test_processes_stay_in_lockstep(shared, case: str) -> None:
    first, second, _ = shared
    assert all(torch.equal(a, b) for a, b in zip(first[case], second[case], strict=True))


@pytest.mark.parametrize(
    "case",
    [f"{kind}{i}" for kind in ("fused", "drawn") for i in range(len(SETTINGS[kind]))]
    + [f"accumulated{i}" for i in range(len(ACCUMULATED))],
)
def test_two_processes_are_one_on_the_joined_batch(shared, case: str) -> None:
    """Where the basis is drawn; one that is looked for is the first process's, of its share."""
    first, second, one = shared
    assert all(torch.equal(a, b) for a, b in zip(first[case], second[case], strict=True))
    assert all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-9)
        for a, b in zip(first[case], one[case], strict=True)
    )
