"""Kinds of storages in closed form."""

import torch
from torch import nn

from rankwise.measure.memory import account
from rankwise.measure.memory.tracker import Tracker
from rankwise.optim import ProjFactor
from rankwise.optim.parts import projectors


def test_activations_of_a_chain_are_the_closed_form() -> None:
    """Three linear layers keep their inputs; those of two are the outputs that ReLU keeps."""
    tracker = Tracker()
    with tracker:
        with tracker.phase("load"):
            model = nn.Sequential(
                nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
            )
            x = torch.randn(32, 8)
        tracker.see(x, "inputs")
        for param in model.parameters():
            tracker.see(param, "weights")
        with tracker.phase("forward"):
            loss = model(x).sum()
        with tracker.phase("backward"):
            loss.backward()

    for moment in account.replay(tracker):
        if moment.phase == "forward":
            kinds = dict(moment.kinds)  # the last one stays: the end of forward
    assert kinds["weights"] == 4 * sum(param.numel() for param in model.parameters())
    assert kinds["inputs"] == 4 * 32 * 8
    assert kinds["activations"] == 4 * (32 * 16 * 2) + 4  # and the loss


def test_a_refresh_by_full_svds_holds_one_chunk_at_a_time() -> None:
    """However many matrices there are; their leading vectors are kept."""

    def peak(matrices: int) -> int:
        grads = [torch.empty(2048, 2048, device="meta") for _ in range(matrices)]
        tracker = Tracker()
        with tracker, tracker.phase("update"):
            projectors.svd(grads, rank=4)
        return account.peaks(tracker)["update"].total

    assert peak(64) < 1.1 * peak(8)


def test_released_gradients_are_logged_once_each() -> None:
    """Those of a matrix in each of two micro-batches, and of a vector, whose gradients accumulate."""
    model = nn.Linear(8, 8)
    tracker = Tracker()
    tracker.watch(model)
    optimizer = ProjFactor(model.parameters(), 0.1, rank=2, release=True)
    with tracker:
        for _ in range(2):
            model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    logged = zip(tracker.sizes, tracker.kinds, strict=True)
    gradients = [size for size, kind in logged if kind == "gradients"]
    assert sorted(gradients) == [4 * 8, 4 * 64, 4 * 64]
