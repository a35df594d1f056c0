"""The optimizers as ordinary torch optimizers: in a plain loop and in accelerate."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import accelerate
import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from helpers.prepared import reset_accelerate
from helpers.releasing import FUSED, GATHERED, equal
from rankwise.optim import ProjectedAdam, ProjFactor

NAMES = FUSED + GATHERED
# Torch's step, torch's with more state, our own loop, and gathered.
FEW = ["AdamW", "TopR", "LDAdam", "ProjectedAdam"]
every_name_few_fast = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in NAMES],
)
# SGD's gradients are small; the steps of the two others are relative to the weights.
RATES = {"Sgd": 0.3, "Lomo": 0.3, "AdaLomo": 0.1, "Adafactor": 0.1}
RELEASED = [
    (ProjectedAdam, {"projector": "normal"}),
    (ProjectedAdam, {"projector": "rademacher", "transport": "project"}),
    (ProjFactor, {}),
]


@pytest.fixture(autouse=True)
def forget_accelerate() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    reset_accelerate()
    yield
    reset_accelerate()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(12, 8), nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 4)
    )


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.randint(0, 12, (16,), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(x), x % 4)


def make(name: str, model: nn.Module, **options) -> torch.optim.Optimizer:
    """The optimizer `name` on a model, with a small rank and interval where it has them."""
    cls = getattr(rankwise.optim, name)
    common = {"rank": 2, "interval_steps": 2, "release": False}
    arguments = inspect.signature(cls).parameters
    known = {key: value for key, value in common.items() if key in arguments}
    return cls(model.parameters(), lr=RATES.get(name, 0.03), **{**known, **options})


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_loop_learns(name: str) -> None:
    model = net()
    optimizer, before = make(name, model), loss_of(model, 99).item()
    for step in range(60):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    assert before > 1.2
    assert loss_of(model, 99).item() < 0.5 * before


# accelerate ---------------------------------------------------------------------------------------


def train_accelerated(optimizer: torch.optim.Optimizer, model: nn.Module, clip: float) -> None:
    """Eight micro-batches, two per step, clipped by the optimizer if that releases, else by accelerate."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    for step in range(8):
        with accelerator.accumulate(wrapped):
            accelerator.backward(loss_of(wrapped, step))
            if accelerator.sync_gradients and optimizer.released:
                optimizer.clip_grad_norm_(clip)
            elif accelerator.sync_gradients:
                accelerator.clip_grad_norm_(wrapped.parameters(), clip)
            prepared.step()
            prepared.zero_grad()


def train_by_hand(optimizer: torch.optim.Optimizer, model: nn.Module, clip: float) -> None:
    for step in range(0, 8, 2):
        for micro in (step, step + 1):
            (loss_of(model, micro) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


@every_name_few_fast
def test_accelerate_steps_as_a_plain_loop(name: str) -> None:
    model, by_hand = net(), net()
    train_accelerated(make(name, model), model, clip=0.1)
    train_by_hand(make(name, by_hand), by_hand, clip=0.1)
    assert equal(model, by_hand)
    assert not equal(model, net(), 1e-5)


@pytest.mark.parametrize(("cls", "options"), RELEASED, ids=str)
def test_accelerate_gathers_released_gradients(cls: type, options: dict) -> None:
    model, by_hand = net(), net()
    train_accelerated(make(cls.__name__, model, release=True, **options), model, clip=1e9)
    train_by_hand(make(cls.__name__, by_hand, **options), by_hand, clip=1e9)
    assert equal(model, by_hand, 1e-5)
    assert not equal(model, net(), 1e-3)


@every_name_few_fast
def test_accelerate_saves_and_resumes(name: str, tmp_path: Path) -> None:
    """From its own checkpoint, in a new process as far as accelerate knows."""
    straight, stopped, resumed = net(), net(), net()

    def train(model: nn.Module, start: int, stop: int, then: str = "") -> None:
        accelerator = accelerate.Accelerator(cpu=True)
        wrapped, optimizer = accelerator.prepare(model, make(name, model))
        if start:
            accelerator.load_state(tmp_path)
        for step in range(start, stop):
            accelerator.backward(loss_of(wrapped, step))
            optimizer.step()
            optimizer.zero_grad()
        if then == "save":
            accelerator.save_state(tmp_path)

    train(straight, 0, 5)
    train(stopped, 0, 3, then="save")
    train(resumed, 3, 5)
    assert equal(straight, resumed)
    assert not equal(stopped, resumed, 1e-5)
