"""A loss or gradient that is not finite ends every method as `diverged`, and names update and parameter."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from helpers.conformance import UNSUPPORTED, one_of_each_kind
from helpers.prepared import prepare, reset_accelerate
from helpers.repository import ROOT
from helpers.searched import planned
from helpers.stored import finish
from rankwise.core.paths import CHECKPOINTS
from rankwise.methods.full import Full
from rankwise.study import jobs, search_choice
from rankwise.study.plan import Plan
from rankwise.training import run as training
from rankwise.training import updates

SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text())
METHODS = one_of_each_kind(yaml.safe_load((ROOT / "config/methods.yaml").read_text()))
# The entries that train nothing, or not this model.
NOT_TRAINED_HERE = ("frozen", *(name for name, model in UNSUPPORTED if model == "tiny"))
FAST = ["full", "full_released", "galore", "rsvd_released", "weight_reduction_svt"]
# At its update the decompositions of the smoke study's optimizers and methods are due.
BAD_UPDATE = 9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with inputs, and the plan of the smoke study."""
    root = tmp_path_factory.mktemp("inputs")
    plan = Plan({**SMOKE, "train": SMOKE["train"][:1], "profile": []}, ROOT)
    prepare(plan, root, review_rows={"train": 200, "validation": 50}, selection_rows=50, updates=2)
    return root, plan


@pytest.fixture
def run(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """Train one method, evaluating only at the beginning and after 20 updates."""
    root, plan = prepared
    monkeypatch.chdir(root)

    def train(method: str, **schedule: object) -> dict:
        cell = next(cell for cell in plan.cells("train") if cell.method == method)
        request = copy.deepcopy(plan.request("train", cell))
        request["schedule"] |= {"evaluate_every_updates": 20, **schedule}
        reset_accelerate()
        return training.train(request)

    return train


def spoil(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Multiply the loss of one update."""
    make = updates.Updater.make

    def make_spoilt(self: updates.Updater, window: list[dict], update: int) -> updates.Made:
        model = self.distributed.model
        if update == BAD_UPDATE:
            self.distributed.model = self.distributed.called = Spoilt(model, factor)
        made = make(self, window, update)
        self.distributed.model = self.distributed.called = model
        return made

    monkeypatch.setattr(updates.Updater, "make", make_spoilt)


class Spoilt:
    """A model whose loss is multiplied; all else is the model's."""

    def __init__(self, model: nn.Module, factor: float):
        self.model, self.factor = model, factor

    def __call__(self, **batch: Tensor) -> object:
        output = self.model(**batch)
        output.loss = output.loss * self.factor
        return output

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)


@pytest.mark.parametrize(
    "method",
    [
        *FAST,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in METHODS
            if name not in (*FAST, *NOT_TRAINED_HERE)
        ),
    ],
)
def test_an_infinite_loss_ends_every_method_at_its_update(
    method: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, math.inf)
    found = run(method)
    assert found["status"] == "diverged"
    details = found["diverged"]
    assert details["update"] == BAD_UPDATE
    if "mezo" in method:  # it has losses alone, and no gradient of a parameter
        assert details["what"] == "loss"
    else:
        assert details["what"] == "gradient"
        parameter = details["parameter"]
        assert found["reason"] == (
            f"update {BAD_UPDATE}: the gradient of {parameter} is not finite (loss inf)"
        )
    assert not list(CHECKPOINTS.glob("*"))


@pytest.mark.parametrize("method", ["full", "rsvd_released"])
def test_one_bad_micro_batch_of_a_window_ends_a_run(
    method: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With release its projection is gathered, and its gradient freed, before the window ends."""
    backward = updates.Updater._backward
    made = 0

    def spoilt_backward(
        self: updates.Updater, window: list[dict], predictions: int
    ) -> torch.Tensor:
        nonlocal made
        made += 1
        if made != BAD_UPDATE:
            return backward(self, window, predictions)
        calls, model = [], self.distributed.called

        def second_is_bad(**batch: object) -> object:
            calls.append(batch)
            return Spoilt(model, math.nan if len(calls) == 2 else 1.0)(**batch)

        self.distributed.model = self.distributed.called = second_is_bad
        total = backward(self, window, predictions)
        self.distributed.model = self.distributed.called = model
        return total

    monkeypatch.setattr(updates.Updater, "_backward", spoilt_backward)
    found = run(method, accumulation_steps=3)
    assert found["diverged"]["update"] == BAD_UPDATE
    assert found["reason"].endswith("is not finite (loss nan)")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_parameter_that_overflows_ends_a_run(
    value: float, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last update, so that no later loss shows it."""
    after_step = Full.after_step
    name = "distilbert.embeddings.LayerNorm.bias"

    def overflow(self: Full, model: torch.nn.Module, optimizer: object, step: int) -> None:
        after_step(self, model, optimizer, step)
        if step == 20:
            dict(model.named_parameters())[name].data[0] = value

    monkeypatch.setattr(Full, "after_step", overflow)
    found = run("full")
    assert found["status"] == "diverged"
    assert found["reason"] == f"update 20: the parameter {name} is not finite"
    assert found["diverged"] == {"update": 20, "what": "parameter", "parameter": name}


def test_weights_that_are_not_finite_are_named_before_training(
    run, prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_snapshot = training.build.from_snapshot

    def spoilt(*arguments: object) -> torch.nn.Module:
        model = from_snapshot(*arguments)
        model.distilbert.embeddings.word_embeddings.weight.data[3] = math.nan
        return model

    monkeypatch.setattr(training.build, "from_snapshot", spoilt)
    assert run("full")["diverged"] == {
        "update": 0,
        "what": "parameter",
        "parameter": "distilbert.embeddings.word_embeddings.weight",
    }
    frozen_base = run("head_only")
    assert frozen_base["diverged"] == {"update": 0, "what": "evaluation"}
    assert frozen_base["reason"].startswith("update 0: selection slice: eval_loss_nats nan")


@pytest.mark.parametrize("method", ["galore", "rsvd_released"])
def test_an_error_of_finite_values_stays_an_error(
    method: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step, and of a step inside backward."""

    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    with pytest.raises(torch.linalg.LinAlgError, match="no convergence"):
        run(method)


def test_a_search_goes_on_after_a_trial_that_diverged(
    prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice lists the trial with its status, and takes the other one."""
    root, smoke = prepared
    monkeypatch.chdir(root)
    rates = [1.0e-3, 1.0e30]
    plan = planned(
        {"learning_rates": rates, "schedule": {"updates": 3}}, methods=["rsvd"], ranks=[2]
    )
    plan.library = smoke.library
    for job in jobs.cell_jobs(plan, "trial"):
        reset_accelerate()
        finish(root, job, **training.trial(job.request))
    choice = search_choice.choose(plan.choice(plan.cells("train")[0].curve))
    statuses = {(row["learning_rate"], row["status"]) for row in choice["trials"]}
    assert statuses == {(1.0e-3, "ok"), (1.0e30, "diverged")}
    assert choice["selected"]["learning_rate"] == 1.0e-3
