"""The optimizers as ordinary torch optimizers: in a plain loop, in accelerate, in the Hugging Face Trainer."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

import rankwise.optim
from helpers.releasing import FUSED, GATHERED, equal
from rankwise.optim import AdamW, Fira, ProjectedAdam, ProjFactor, TopR

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
    _forget()
    yield
    _forget()


def _forget() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


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


# The Trainer --------------------------------------------------------------------------------------


class Sentences(torch.utils.data.Dataset):
    """Random words; the label is whether the first one's index is odd."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = torch.randint(0, 20, (6,), generator=torch.Generator().manual_seed(index))
        return {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "labels": words[0] % 2,
        }


def trainer(folder: Path, cls: type, options: dict, **arguments) -> Trainer:
    torch.manual_seed(0)
    sizes = {"dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, "num_labels": 2}
    config = DistilBertConfig(vocab_size=20, max_position_embeddings=8, **sizes)
    settings = {
        "max_steps": 3,
        "weight_decay": 0.1,
        "lr_scheduler_type": "linear",
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "seed": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return Trainer(
        DistilBertForSequenceClassification(config),
        TrainingArguments(str(folder), **{**settings, **arguments}),
        train_dataset=Sentences(),
        optimizer_cls_and_kwargs=(cls, {"lr": 0.01, **options}),
    )


def trained(folder: Path, cls: type, options: dict, **arguments) -> nn.Module:
    """A model trained without clipping, which released gradients do not allow."""
    running = trainer(folder, cls, options, max_grad_norm=0.0, **arguments)
    running.train()
    return running.model


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (ProjectedAdam, {"rank": 2, "interval_steps": 2, "projector": "rsvd"}),
        pytest.param(ProjFactor, {"rank": 2, "interval_steps": 2}, marks=pytest.mark.slow),
        pytest.param(TopR, {"fraction": 0.3, "error_feedback": True}, marks=pytest.mark.slow),
        pytest.param(Fira, {"rank": 2, "interval_steps": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_trainer_resumes_where_it_stopped(cls: type, options: dict, tmp_path: Path) -> None:
    """From its own checkpoint after two of three steps, to the last bit, dropout included."""
    straight = trainer(tmp_path, cls, options, save_strategy="steps", save_steps=2)
    start = [param.detach().clone() for param in straight.model.parameters()]
    straight.train()
    assert isinstance(straight.optimizer.optimizer, cls)
    after = straight.model.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(start, after, strict=True))
    resumed = trainer(tmp_path / "resumed", cls, options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 3
    assert equal(straight.model, resumed.model)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "options"), RELEASED, ids=str)
def test_the_trainer_gathers_released_gradients(cls: type, options: dict, tmp_path: Path) -> None:
    options = {"rank": 2, **options}
    released = trained(tmp_path, cls, {**options, "release": True})
    assert equal(released, trained(tmp_path, cls, options), 1e-4)


def test_the_trainer_releases_adamw(tmp_path: Path) -> None:
    released = trained(tmp_path, AdamW, {"release": True}, gradient_accumulation_steps=1)
    theirs = trained(tmp_path, torch.optim.AdamW, {}, gradient_accumulation_steps=1)
    assert equal(released, theirs)
