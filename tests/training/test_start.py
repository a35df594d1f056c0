"""Starts from data: what they cost, what they depend on, and that a resumed run has the same one."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.prepared import prepare, reset_accelerate
from helpers.repository import ROOT
from helpers.stopping import stop_at_check
from rankwise.core.paths import CHECKPOINTS
from rankwise.core.result import check_units
from rankwise.methods.started_lora import StartedLora
from rankwise.study.plan import Plan
from rankwise.training import run as training
from rankwise.training.checkpoint import Checkpoint, Stopped

RANK, BATCH = 4, 16
STARTED = ["lora_eva", "lora_corda", "lora_ga", "lora_loftq"]
STUDY = {
    "name": "starts",
    "question": "?",
    "device": "cpu",
    "cpu_threads": 1,
    "schedule": {"updates": 2, "batch_size": BATCH, "eval_batch_size": 100},
    "override": {name: {"options": {"start_batches": 3}} for name in STARTED},
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["lora", *STARTED],
            "ranks": [RANK],
            "seeds": [0, 1],
        }
    ],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    root, plan = tmp_path_factory.mktemp("inputs"), Plan(STUDY, ROOT)
    rows = {"train": 200, "validation": 50}
    prepare(plan, root, review_rows=rows, selection_rows=100, updates=10)
    return root, plan


@pytest.fixture(scope="module")
def run(prepared: tuple[Path, Plan]) -> Callable[..., dict]:
    """Train a method's cell; a run without changes is made once."""
    root, plan = prepared
    results = {}

    def train(method: str, seed: int = 0, again: bool = False, **schedule: object) -> dict:
        key = json.dumps([method, seed, schedule])
        if again or key not in results:
            cells = plan.cells("train")
            cell = next(cell for cell in cells if (cell.method, cell.seed) == (method, seed))
            request = copy.deepcopy(plan.request("train", cell))
            request["schedule"] |= schedule
            reset_accelerate()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                results[key] = training.train(request)
                assert not CHECKPOINTS.is_dir() or not list(CHECKPOINTS.iterdir())
        return results[key]

    return train


def first_loss(result: dict) -> float:
    assert result["history"][0]["update"] == 0
    return result["history"][0]["selection_loss_nats"]


def test_what_a_start_reads_is_counted_as_cost(run) -> None:
    cost = run("lora_eva")["cost"]
    assert cost["start_samples"] == 3 * BATCH
    assert 3 * BATCH < cost["start_tokens"] < 3 * BATCH * 64
    # At least the products of 48 forward passes with the weights: two layers, two FLOPs each.
    weights = 2 * (4 * 64 * 64 + 2 * 64 * 128)
    assert cost["start_flops"] > 2 * weights * cost["start_tokens"]
    assert 0 < cost["start_time_s"] < 60
    check_units(cost)  # as when the job writes its result
    assert not [name for name in run("lora")["cost"] if name.startswith("start")]


def test_a_start_without_data_counts_its_products(run) -> None:
    """LoftQ: B A of four matrices (64, 64), after each of five alternations but the last."""
    cost = run("lora_loftq")["cost"]
    assert (cost["start_samples"], cost["start_tokens"]) == (0, 0)
    assert cost["start_flops"] == 4 * 4 * (2 * 64 * RANK * 64)


@pytest.mark.parametrize("method", STARTED[:3])
def test_the_first_answers_are_the_bases(method: str, run) -> None:
    """LoRA starts with B = 0, so its first loss is the base's."""
    assert first_loss(run(method)) == pytest.approx(first_loss(run("lora")), abs=1e-5)


def test_training_begins_elsewhere_than_from_loras_start(run) -> None:
    losses = {method: run(method)["metrics"]["eval_loss_nats"] for method in ("lora", *STARTED)}
    assert len({round(loss, 9) for loss in losses.values()}) == len(losses)


def test_a_start_depends_on_the_seed_and_not_on_later_training(run, prepared, monkeypatch) -> None:
    made = []
    start = StartedLora.start

    def record(*arguments: object) -> object:
        made.append(start(*arguments))
        return made[-1]

    monkeypatch.setattr(StartedLora, "start", record)
    run("lora_ga", updates=1)
    run("lora_ga", updates=3, accumulation_steps=2)
    run("lora_ga", seed=1)
    first, longer, other = (one.adapted for one in made)
    assert all(value.equal(longer[name]) for name, value in first.items())
    assert not any(value.equal(other[name]) for name, value in first.items())


@pytest.mark.parametrize("method", ["lora_ga", "lora_loftq"])
def test_a_resumed_run_reads_its_start(method: str, run, prepared, monkeypatch) -> None:
    """Stopped before the first update and after it; the start is not computed again."""
    expected = run(method)
    computed, start = [], StartedLora.start
    monkeypatch.setattr(
        StartedLora, "start", lambda *given: computed.append(method) or start(*given)
    )
    for stop in (1, 4):
        checks = []

        def check(_self: Checkpoint, stop: int = stop, checks: list = checks) -> None:
            checks.append(1)
            if len(checks) == stop:
                raise Stopped(143)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoint, "check", check)
            with pytest.raises(Stopped):
                run(method, again=True)
    resumed = run(method, again=True)
    for part in ("metrics", "history", "examples"):
        assert json.dumps(resumed[part]) == json.dumps(expected[part])
    assert resumed["cost"]["start_flops"] == expected["cost"]["start_flops"]
    assert computed == [method]


def test_a_damaged_start_is_moved_aside_with_the_checkpoint(
    run, prepared, monkeypatch, capsys
) -> None:
    """The checkpoint's factors were trained beside the residual of the start that is lost."""
    root, plan = prepared
    expected = run("lora_ga")
    monkeypatch.chdir(root)
    with pytest.MonkeyPatch.context() as patch:
        stop_at_check(4, patch)
        with pytest.raises(Stopped):
            run("lora_ga", again=True)
    (file,) = CHECKPOINTS.glob("*.start.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    reset_accelerate()
    cells = plan.cells("train")
    cell = next(cell for cell in cells if (cell.method, cell.seed) == ("lora_ga", 0))
    resumed = training.train(plan.request("train", cell))
    for part in ("metrics", "history", "examples"):
        assert json.dumps(resumed[part]) == json.dumps(expected[part])
    asides = sorted(path.name for path in CHECKPOINTS.iterdir())
    shutil.rmtree(CHECKPOINTS)
    checkpoint = f"{file.name.partition('.')[0]}.pt"
    assert asides == [f"{checkpoint}.damaged", f"{file.name}.damaged"]
    said = (
        f"{file}: its content was changed since it was written; moved aside to {file.name}.damaged"
    )
    assert (
        f"{said} and {checkpoint}.damaged, and the training starts anew" in capsys.readouterr().err
    )


def test_a_rank_that_a_start_cannot_have_is_unsupported(prepared, monkeypatch) -> None:
    root, plan = prepared
    monkeypatch.chdir(root)
    cell = next(cell for cell in plan.cells("train") if cell.method == "lora_ga")
    request = copy.deepcopy(plan.request("train", cell))
    request["method"]["options"]["rank"] = 40
    reset_accelerate()
    result = training.train(request)
    assert result["status"] == "unsupported"
    assert result["reason"].startswith("init lora_ga: got rank 40, ")
    assert result["reason"].endswith("q_lin allows at most 32")
