"""The optimizers as any torch optimizer: in a plain loop, in accelerate, in the Hugging Face Trainer."""

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
from rankwise.optim import AdamW, Fira, ProjectedAdam, ProjFactor, TopR

NAMES = [
    n
    for n in dir(rankwise.optim)
    if "release" in inspect.signature(getattr(rankwise.optim, n)).parameters
]
RATES = {
    "Sgd": 0.3,
    "Lomo": 0.3,
    "AdaLomo": 0.1,
    "Adafactor": 0.1,
}  # SGD's gradients are small; the others step relatively
RELEASED = [
    (ProjectedAdam, {"projector": "normal"}),
    (ProjectedAdam, {"projector": "rademacher", "transport": "project"}),
    (ProjFactor, {}),
]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    reset()
    yield
    reset()


def reset() -> None:
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
    cls = getattr(rankwise.optim, name)
    fixed = {"rank": 2, "interval_steps": 2, "release": False}
    fixed = {key: value for key, value in fixed.items() if key in inspect.signature(cls).parameters}
    return cls(model.parameters(), lr=RATES.get(name, 0.03), **{**fixed, **options})


def equal(one: nn.Module, other: nn.Module, atol: float = 0.0) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=atol, atol=atol) for a, b in pairs)


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_plain_loop_learns(name: str, release: bool) -> None:
    model = net()
    optimizer, before = make(name, model, release=release), loss_of(model, 99).item()
    for step in range(60):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    assert before > 1.2
    assert loss_of(model, 99).item() < 0.5 * before


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_steps_as_a_plain_loop(name: str) -> None:
    """Prepared, accumulated over two micro-batches, clipped: as written by hand."""
    model, by_hand = net(), net()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    wrapped, optimizer = accelerator.prepare(model, make(name, model))
    for step in range(8):
        with accelerator.accumulate(wrapped):
            accelerator.backward(loss_of(wrapped, step))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(wrapped.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    plain = make(name, by_hand)
    for step in range(0, 8, 2):
        for micro in (step, step + 1):
            (loss_of(by_hand, micro) / 2).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.1)
        plain.step()
        plain.zero_grad()
    assert equal(model, by_hand)
    assert not equal(model, net(), 1e-5)


@pytest.mark.parametrize(("cls", "options"), RELEASED, ids=str)
def test_accelerate_gathers_released_gradients(cls: type, options: dict) -> None:
    """Clipped by the optimizer, where projections are all there is of a gradient."""
    model, by_hand = net(), net()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    wrapped, optimizer = accelerator.prepare(
        model, make(cls.__name__, model, release=True, **options)
    )
    for step in range(8):
        with accelerator.accumulate(wrapped):
            accelerator.backward(loss_of(wrapped, step))
            if accelerator.sync_gradients:
                optimizer.optimizer.clip_grad_norm_(1e9)
            optimizer.step()
            optimizer.zero_grad()
    plain = make(cls.__name__, by_hand, **options)
    for step in range(0, 8, 2):
        for micro in (step, step + 1):
            (loss_of(by_hand, micro) / 2).backward()
        plain.step()
        plain.zero_grad()
    assert equal(model, by_hand, 1e-5)
    assert not equal(model, net(), 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_saves_and_resumes(name: str, tmp_path: Path) -> None:
    """Its own checkpoint, in a new process as far as accelerate knows."""
    straight, stopped, resumed = net(), net(), net()

    def train(
        model: nn.Module, start: int, stop: int, load: bool = False, save: bool = False
    ) -> None:
        accelerator = accelerate.Accelerator(cpu=True)
        wrapped, optimizer = accelerator.prepare(model, make(name, model))
        if load:
            accelerator.load_state(tmp_path)
        for step in range(start, stop):
            accelerator.backward(loss_of(wrapped, step))
            optimizer.step()
            optimizer.zero_grad()
        if save:
            accelerator.save_state(tmp_path)

    train(straight, 0, 5)
    train(stopped, 0, 3, save=True)
    train(resumed, 3, 5, load=True)
    assert equal(straight, resumed)
    assert not equal(stopped, resumed, 1e-5)


# The Trainer ----------------------------------------------------------------------------------------------------------


class Sentences(torch.utils.data.Dataset):
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
    config = DistilBertConfig(
        vocab_size=20,
        dim=8,
        n_layers=2,
        n_heads=2,
        hidden_dim=16,
        max_position_embeddings=8,
        num_labels=2,
    )
    settings = {
        "max_steps": 3,
        "weight_decay": 0.1,
        "lr_scheduler_type": "linear",
        "gradient_accumulation_steps": 2,
        **arguments,
    }
    settings |= {
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "seed": 1,
    }
    return Trainer(
        DistilBertForSequenceClassification(config),
        TrainingArguments(str(folder), **settings),
        train_dataset=Sentences(),
        optimizer_cls_and_kwargs=(cls, {"lr": 0.01, **options}),
    )


TRAINED = [
    (ProjectedAdam, {"rank": 2, "interval_steps": 2, "projector": "rsvd"}),
    (ProjFactor, {"rank": 2, "interval_steps": 2}),
    (TopR, {"fraction": 0.3, "error_feedback": True}),
    (Fira, {"rank": 2, "interval_steps": 2}),
]


@pytest.mark.parametrize(("cls", "options"), TRAINED, ids=str)
def test_the_trainer_resumes_where_it_stopped(cls: type, options: dict, tmp_path: Path) -> None:
    """From its own checkpoint after two of three steps, to the last bit, dropout and all."""
    straight = trainer(tmp_path, cls, options, save_steps=2)
    start = [p.detach().clone() for p in straight.model.parameters()]
    straight.train()
    assert isinstance(straight.optimizer.optimizer, cls)
    assert not all(
        torch.equal(a, b) for a, b in zip(start, straight.model.parameters(), strict=True)
    )
    resumed = trainer(tmp_path / "resumed", cls, options, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed.state.global_step == 3
    assert equal(straight.model, resumed.model)


@pytest.mark.parametrize(("cls", "options"), RELEASED, ids=str)
def test_the_trainer_gathers_released_gradients(cls: type, options: dict, tmp_path: Path) -> None:
    models = []
    for release in (True, False):
        one = trainer(
            tmp_path,
            cls,
            {"rank": 2, "release": release, **options},
            save_strategy="no",
            max_grad_norm=0.0,
        )
        one.train()
        models.append(one.model)
    assert equal(*models, 1e-4)


def test_the_trainer_releases_adamw(tmp_path: Path) -> None:
    arguments = {"save_strategy": "no", "max_grad_norm": 0.0, "gradient_accumulation_steps": 1}
    models = []
    for cls, options in ((AdamW, {"release": True}), (torch.optim.AdamW, {})):
        one = trainer(tmp_path, cls, options, **arguments)
        one.train()
        models.append(one.model)
    assert equal(*models)
