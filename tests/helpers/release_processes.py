"""What each of two processes trains in the test of released gradients; spawned processes import it from here."""

from pathlib import Path

import torch
from torch import Tensor, distributed

from helpers.releasing import DRAWN, FOUND, FUSED, Net, batch, loss_of, make

# By name: the optimizer, its options, micro-batches per step, and whether gradients are clipped.
CASES = {f"fused {name}": (name, {}, 1, False) for name in FUSED}
CASES |= {f"drawn {i}": (*kind, 1, False) for i, kind in enumerate(DRAWN)}
CASES |= {f"found {i}": (*kind, 1, False) for i, kind in enumerate(FOUND)}
CASES |= {f"accumulated {i}": (*kind, 2, i % 2 == 0) for i, kind in enumerate(DRAWN)}


def train_all(rank: int, ranks: int) -> dict[str, list[Tensor]]:
    """Train every case on this process's share of the batches; return the parameters by case."""
    return {case: train(*settings, rank, ranks) for case, settings in CASES.items()}


def train(name: str, options: dict, micro: int, clip: bool, rank: int, ranks: int) -> list[Tensor]:
    model = Net()
    optimizer = make(name, model, options, release=True)
    for step in range(3):
        for part in range(micro):
            x, y = batch(10 * step + part)
            share = slice(rank * len(x) // ranks, (rank + 1) * len(x) // ranks)
            (loss_of(model, (x[share], y[share])) / micro).backward()
        if clip:
            optimizer.clip_grad_norm_(0.1)
        optimizer.step()
        optimizer.zero_grad()
    return [param.detach() for param in model.parameters()]


def clipped_by_torch(name: str, rank: int) -> str:
    """Backward of one process's share, then torch's own clipping: the norm, or the error's sentence."""
    model = Net()
    optimizer = make(name, model, {}, release=True)
    x, y = batch(0)
    share = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
    loss_of(model, (x[share], y[share])).backward()
    try:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9).item()
    except RuntimeError as error:
        return str(error)
    optimizer.step()
    return str(norm)


def work(rank: int, port: int, folder: str) -> None:
    """One of two processes: train all cases and save the parameters."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(train_all(rank, 2), Path(folder) / f"{rank}.pt")
    for name in ("AdamW", "ProjFactor"):
        (Path(folder) / f"{rank} {name}.txt").write_text(clipped_by_torch(name, rank))
    distributed.destroy_process_group()
