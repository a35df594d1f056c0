"""Training in fp16: the loss is scaled, gradients are unscaled before anything reads them, updates are skipped."""

import functools
import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import get_scheduler

import rankwise.optim
from helpers import windows
from helpers.recorded import recorded_windows
from helpers.stopping import interrupted
from helpers.windows import TASKS, record
from rankwise.core.paths import CHECKPOINTS
from rankwise.training import updates
from rankwise.training.divergence import Diverged

CLS = "classification"
LARGE = {"init_scale": 2.0**22, "growth_interval": 3}  # skips first, then grows and skips again
FINE = {"init_scale": 2.0**10}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where checkpoints go


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> object:
    """A function that sets how the scale begins and grows."""
    scaler = torch.amp.GradScaler

    def settle(**settings: float) -> None:
        monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(scaler, **settings))

    return settle


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[dict]]:
    """The windows of micro-batches of every update that is made."""
    return recorded_windows(monkeypatch)


def trained(task: str = CLS, name: str = "AdamW", **schedule: object) -> tuple[nn.Module, dict]:
    model = windows.model(task, torch.float32)
    optimizer = windows.make_optimizer(name, model)
    changes = {"precision": "fp16", **schedule}
    result = windows.train_model(model, optimizer, task, (4, 4), windows.examples(task), **changes)
    return model, result


def values(model: nn.Module) -> Tensor:
    return torch.cat([param.detach().flatten() for param in model.parameters()])


# The training ------------------------------------------------------------------------------------


def plain_loop(
    task: str, made: list[list[dict]], limit: float, settings: dict
) -> tuple[nn.Module, list[bool]]:
    """The recipe of torch's documentation: the trained model, and which updates were skipped."""
    model = windows.model(task, torch.float32).train()
    optimizer = windows.make_optimizer("AdamW", model)
    scheduler = get_scheduler("linear", optimizer, 0, len(made))
    scaler = torch.amp.GradScaler("cpu", **settings)
    skipped = []
    for window in made:
        counts = [TASKS[task].predictions(batch) for batch in window]
        for batch, count in zip(window, counts, strict=True):
            with torch.autocast("cpu", torch.float16):
                loss = model(**batch).loss
            scaler.scale(loss.float() * (count / sum(counts))).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        skipped.append(scaler.get_scale() < before)
        if not skipped[-1]:
            scheduler.step()
    return model, skipped


@pytest.mark.parametrize("task", [CLS, "language_modelling"])
def test_a_training_is_that_of_a_plain_loop(task: str, begin, seen: list[list[dict]]) -> None:
    """To the bit: accumulation, clipping, skipped updates, and a learning rate that waits for them."""
    begin(**LARGE)
    schedule = {"updates": 30, "max_gradient_norm": 0.1, "scheduler": "linear"}
    model, result = trained(task, evaluate_every_updates=10, **schedule)
    begin()  # the defaults, for the loop below
    expected, skipped = plain_loop(task, seen, 0.1, LARGE)
    assert torch.equal(values(model), values(expected))
    assert 2 <= sum(skipped) <= 20
    assert any(not one and later for one, later in itertools.pairwise(skipped)), "grows"
    assert result["metrics"]["updates"] == 30
    assert result["metrics"]["skipped_updates"] == sum(skipped)
    rows = result["history"][1:]
    assert [row["skipped_updates"] for row in rows] == [
        sum(skipped[start : start + 10]) for start in (0, 10, 20)
    ]


def test_products_are_in_fp16_and_evaluations_too() -> None:
    """accelerate alone would compute in fp32 on a CPU."""
    model = windows.model(CLS, torch.float32)
    dtypes = set()
    linear = next(part for part in model.modules() if isinstance(part, nn.Linear))
    linear.register_forward_hook(lambda part, _, out: dtypes.add((part.training, out.dtype)))
    windows.train_model(
        model,
        windows.make_optimizer("AdamW", model),
        CLS,
        (16, 1),
        windows.examples(CLS),
        precision="fp16",
    )
    assert dtypes == {(True, torch.float16), (False, torch.float16)}


FAST = ["AdamW", "Fira", "ProjectedAdam"]
WITHOUT_GRADIENTS = ["MeZO"]
# They step LoRA's factors, which this model has not.
ELSEWHERE = ["LoraFA", "LoraPro", "LoraRiemannian"]
SLOW = sorted({*dir(rankwise.optim)} - {*FAST, *WITHOUT_GRADIENTS, *ELSEWHERE})


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_every_optimizer_gets_unscaled_gradients(name: str, begin) -> None:
    """Those of one full batch, whose loss is not scaled; the rest is fp16's rounding."""
    begin(**FINE)
    recorded = record(CLS, (4, 4), name, torch.float32, {"precision": "fp16"})
    assert len(recorded.updates) == windows.UPDATES
    for update in recorded.updates:
        got, expected = (torch.cat([g.flatten() for g in grads]) for grads in update[:2])
        assert 0 < (got - expected).norm() < 0.02 * expected.norm()
    assert recorded.result["metrics"]["skipped_updates"] == 0


def test_the_reported_norm_is_of_unscaled_gradients(begin) -> None:
    begin(**FINE)
    norms = [
        trained(precision=precision)[1]["history"][-1]["gradient_norm"]
        for precision in ("fp16", "fp32")
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


def test_an_optimizer_without_gradients_has_nothing_to_scale() -> None:
    _, result = trained(name="MeZO")
    assert "skipped_updates" not in result["metrics"]
    assert "skipped_updates" not in result["history"][-1]
    assert result["history"][-1]["gradient_norm"] > 0


def test_other_precisions_skip_nothing() -> None:
    _, result = trained(precision="bf16")
    assert "skipped_updates" not in result["metrics"]


# Skipped updates and ends -------------------------------------------------------------------------


def test_a_run_without_a_step_is_no_result(begin) -> None:
    begin(init_scale=2.0**60)
    with pytest.raises(Diverged) as raised:
        trained(updates=6)
    assert str(raised.value).startswith("update 6: in fp16 every update so far was skipped, ")
    assert f"scaled by {2**54:,} now" in str(raised.value)
    assert raised.value.details == {"update": 6, "what": "gradient"}


def test_means_are_of_the_updates_that_were_made(begin) -> None:
    """An evaluation behind skipped updates alone has no loss and no norm of the training."""
    begin(init_scale=2.0**40)
    _, result = trained(updates=40, evaluate_every_updates=5)
    _, first, *_, last = result["history"]
    assert first["skipped_updates"] == 5
    assert {"train_loss_nats", "gradient_norm"}.isdisjoint(first)
    assert last["skipped_updates"] == 0
    assert 0 < last["gradient_norm"] < 100


def test_gradients_that_no_scale_helps_end_a_run(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale falls to 2.2e-4, 1.1e-4, 5.5e-5; below 1e-4 a parameter is named."""
    begin(init_scale=4.4e-4)
    backward = updates.Updater._backward

    def spoilt(self: updates.Updater, *arguments: object) -> Tensor:
        total = backward(self, *arguments)
        self.watch.params[3].grad.fill_(torch.inf)
        return total

    monkeypatch.setattr(updates.Updater, "_backward", spoilt)
    with pytest.raises(Diverged) as raised:
        trained(updates=9)
    model = windows.model(CLS, torch.float32)
    name = [name for name, _ in model.named_parameters()][3]
    message = rf"update 3: the gradient of {re.escape(name)} is not finite \(loss 0\.\d+\)"
    assert re.fullmatch(message, str(raised.value))
    assert raised.value.details == {"update": 3, "what": "gradient", "parameter": name}


# Resume -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AdamW", pytest.param("ProjectedAdam", marks=pytest.mark.slow)])
def test_an_interrupted_run_has_the_scale_of_the_other(name: str, begin) -> None:
    """Stopped between skipped updates, and between two growths of the scale."""
    begin(**LARGE)
    schedule = {"updates": 30, "evaluate_every_updates": 7, "scheduler": "linear"}

    def run() -> dict:
        model, result = trained(name=name, **schedule)
        del result["cost"]
        return {**result, "values": values(model).tolist()}

    expected = run()
    assert expected["metrics"]["skipped_updates"] >= 2
    resumed = interrupted(run, [3, 14, 9])
    assert json.dumps(resumed, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert not list(CHECKPOINTS.iterdir())
