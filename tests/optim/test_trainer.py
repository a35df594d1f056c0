"""The optimizers in the Hugging Face Trainer: resuming, release, accumulation, clipping."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from helpers.prepared import reset_accelerate
from helpers.releasing import equal
from rankwise.optim import AdamW, Fira, ProjectedAdam, ProjFactor, TopR

RELEASED = [
    (ProjectedAdam, {"projector": "normal"}),
    (ProjectedAdam, {"projector": "rademacher", "transport": "project"}),
    (ProjFactor, {}),
]
# A square orthonormal basis: the norm of a projection is the gradient's.
WHOLE = {"rank": 64, "projector": "orthonormal", "scale": 1.0}


@pytest.fixture(autouse=True)
def forget_accelerate() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    reset_accelerate()
    yield
    reset_accelerate()


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
    """A model trained without clipping, which acts on projections if those are gathered."""
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


# Clipping with release ----------------------------------------------------------------------------


def norms(running: Trainer) -> list[float]:
    """The gradient norms that the Trainer logs."""
    return [row["grad_norm"] for row in running.state.log_history if "grad_norm" in row]


def run(folder: Path, cls: type, options: dict, **arguments) -> Trainer:
    running = trainer(folder, cls, options, logging_steps=1, **arguments)
    running.train()
    return running


def test_the_trainers_clipping_acts_on_gathered_projections(tmp_path: Path) -> None:
    """As without release, over two micro-batches: the same norms in its log, the same parameters."""
    plain = run(tmp_path, ProjectedAdam, {**WHOLE, "rule": "sgd"}, max_grad_norm=0.05)
    released = run(
        tmp_path, ProjectedAdam, {**WHOLE, "rule": "sgd", "release": True}, max_grad_norm=0.05
    )
    unclipped = run(tmp_path, ProjectedAdam, {**WHOLE, "rule": "sgd"}, max_grad_norm=0.0)
    assert len(norms(plain)) == 3
    assert min(norms(plain)) > 0.1  # so that clipping acts
    assert norms(released) == pytest.approx(norms(plain), rel=1e-3)
    assert equal(released.model, plain.model, 1e-6)
    assert not equal(released.model, unclipped.model, 1e-5)


def test_the_trainers_clipping_is_refused_where_steps_are_fused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"AdamW with release, .*\(in the Trainer: max_grad_no"):
        run(tmp_path, AdamW, {"release": True}, max_grad_norm=1e-3, gradient_accumulation_steps=1)


def test_the_trainers_log_has_the_true_norm_where_steps_are_fused(tmp_path: Path) -> None:
    arguments = {"max_grad_norm": 0.0, "gradient_accumulation_steps": 1}
    released = run(tmp_path, AdamW, {"release": True}, **arguments)
    theirs = run(tmp_path, torch.optim.AdamW, {}, **arguments)
    assert norms(released) == pytest.approx(norms(theirs), rel=1e-5)
    assert min(norms(theirs)) > 0.01


def test_the_trainers_accumulation_is_refused_where_steps_are_fused(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"second backward before optimizer\.step\(\), allowed: one"
    ):
        run(tmp_path, AdamW, {"release": True}, max_grad_norm=0.0, gradient_accumulation_steps=2)


def test_the_trainer_takes_a_released_optimizer_that_is_built_already(tmp_path: Path) -> None:
    """In the argument `optimizers`, with a scheduler."""
    pairs = []
    for release in (True, False):
        running = trainer(tmp_path, AdamW, {}, gradient_accumulation_steps=1, max_grad_norm=0.0)
        optimizer = AdamW(running.model.parameters(), 0.01, release=release)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        built = Trainer(
            running.model,
            running.args,
            train_dataset=Sentences(),
            optimizers=(optimizer, scheduler),
        )
        torch.manual_seed(1)
        built.train()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 8)
        pairs.append(built.model)
    assert equal(*pairs)
