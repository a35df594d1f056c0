"""The one loop: what it counts, what it leaves alone, what it selects, and that it says when it fails."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from helpers.prepared import prepare
from helpers.repository import ROOT
from rankwise.data.prepared import load_data
from rankwise.methods.parts.base import adapt, build_optimizer
from rankwise.models import build
from rankwise.study.plan import Plan
from rankwise.training import run as training

STUDY = {
    "name": "loop", "question": "?", "device": "cpu", "schedule": {"updates": 6, "batch_size": 16, "eval_batch_size": 64},
    "train": [
        {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["frozen", "full", "head_only", "lora", "rsvd"],
         "ranks": [4], "seeds": [0, 1],
         "override": {name: {"learning_rate": 3e-3} for name in ("full", "head_only", "lora", "rsvd")}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with the study's inputs."""
    root, plan = tmp_path_factory.mktemp("inputs"), Plan(STUDY, ROOT)
    prepare(plan, root)
    return root, plan


@pytest.fixture
def run(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch):
    """Train one cell of a method, with changes to its request."""
    root, plan = prepared
    monkeypatch.chdir(root)

    def train(method: str, seed: int = 0, schedule: dict | None = None, **changes: object) -> dict:
        cell = next(c for c in plan.cells("train") if c.method == method and c.seed == seed)
        request = copy.deepcopy(plan.request("train", cell))
        request["schedule"] |= schedule or {}
        request["method"] |= changes
        AcceleratorState._reset_state(reset_partial_state=True)
        return training.train(request)

    return train


def numbers(found: dict) -> str:
    return json.dumps([found["metrics"], found["history"]])


@pytest.mark.parametrize("method", ["full", "head_only", "lora", "rsvd"])
def test_two_runs_are_equal_to_the_bit_and_seeds_differ(method: str, run) -> None:
    assert numbers(run(method)) == numbers(run(method)) != numbers(run(method, seed=1))


@pytest.mark.parametrize("method", ["full", "head_only", "lora", "rsvd"])
def test_a_tiny_batch_is_learnt(method: str, prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    root, plan = prepared
    monkeypatch.chdir(root)
    cell = next(c for c in plan.cells("train") if c.method == method)
    request = plan.request("train", cell)
    torch.manual_seed(0)
    model = build.from_snapshot(root / "results/inputs/models/tiny", "classification", 2)
    names = build.names(request["model"], "classification")
    method, model = adapt(request["method"], model, names)
    data = load_data(request, build.tokenizer(root / "results/inputs/models/tiny"), seed=0)
    optimizer, batch, losses = (
        build_optimizer({**request["method"], "learning_rate": 0.01}, method, model, names, 0),
        data.collate(data.train[:4]),
        [],
    )
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(model(**batch).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_an_adaptive_rank_is_reported(run, prepared) -> None:
    """What the energy rule kept, in each row of the history after the first."""
    cell = next(c for c in prepared[1].cells("train") if c.method == "rsvd")
    settings = prepared[1].request("train", cell)["method"]["optimizer"]
    rows = run("rsvd", optimizer={**settings, "rank": 16, "rank_rule": "energy", "energy": 0.5})[
        "history"
    ]
    assert "effective_rank" not in rows[0]
    assert all(1 <= row["effective_rank"] < 16 for row in rows[1:])
    assert all("effective_rank" not in row for row in run("rsvd")["history"])


def test_every_method_starts_alike(run) -> None:
    """The head is drawn before the method is applied, so all start at one loss."""
    first = {
        name: run(name)["history"][0]["selection_loss_nats"]
        for name in ("frozen", "full", "head_only", "rsvd", "lora")
    }
    assert len({round(loss, 6) for loss in first.values()}) == 1, first


def test_counts_are_exact_and_epochs_true(run) -> None:
    found = run(
        "full", schedule={"epochs": 1, "updates": None, "batch_size": 30, "accumulation_steps": 2}
    )
    # 2,000 rows: 67 micro-batches, the last of 20; 34 updates.
    assert (found["metrics"]["samples"], found["metrics"]["updates"]) == (2000, 34)
    assert [(row["epoch"], row["update"]) for row in found["history"]] == [(0.0, 0), (1.0, 34)]
    assert found["split"] == "validation"


def test_accumulation_is_one_larger_batch(run) -> None:
    whole = run("full", schedule={"batch_size": 32, "max_gradient_norm": None})
    parts = run(
        "full", schedule={"batch_size": 16, "accumulation_steps": 2, "max_gradient_norm": None}
    )
    assert whole["metrics"]["samples"] == parts["metrics"]["samples"]
    assert whole["metrics"]["eval_loss_nats"] == pytest.approx(
        parts["metrics"]["eval_loss_nats"], abs=2e-4
    )


def test_the_selected_state_is_reported(run) -> None:
    """With a rate that spoils the model after the first evaluation, `best` reports the first one's state."""
    spoilt = {
        "updates": 40,
        "evaluate_every_updates": 10,
        "scheduler": "constant",
        "warmup_fraction": 0.0,
    }
    best = run("full", schedule=spoilt, learning_rate=0.3)
    last = run("full", schedule={**spoilt, "select": "last"}, learning_rate=0.3)
    losses = [row["selection_loss_nats"] for row in best["history"]]
    assert min(losses) < losses[-1]
    assert best["metrics"]["eval_loss_nats"] < last["metrics"]["eval_loss_nats"]


def test_a_diverged_run_is_a_result_with_a_reason(run) -> None:
    found = run(
        "full",
        schedule={"updates": 8, "max_gradient_norm": None, "warmup_fraction": 0.0},
        learning_rate=1e30,
    )
    assert found["status"] == "diverged"
    assert "by update" in found["reason"] or "at update" in found["reason"]


def test_a_frozen_model_is_evaluated_once_and_not_trained(run) -> None:
    found = run("frozen")
    assert found["metrics"]["updates"] == found["metrics"]["trainable_parameters"] == 0
    assert len(found["history"]) == 1


@pytest.mark.parametrize("method", ["head_only", "lora"])
def test_frozen_parameters_do_not_move_by_a_bit(
    method: str, prepared, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    _root, _plan = prepared
    seen = {}

    def watched(entry: dict, model: torch.nn.Module, names: dict):
        found, adapted = adapt(entry, model, names)
        seen["model"] = adapted
        seen["before"] = {
            n: p.detach().clone() for n, p in adapted.named_parameters() if not p.requires_grad
        }
        return found, adapted

    monkeypatch.setattr(training, "adapt", watched)
    run(method)
    after = dict(seen["model"].named_parameters())
    assert seen["before"]
    assert all(torch.equal(value, after[name]) for name, value in seen["before"].items())


def test_how_often_is_evaluated_changes_no_training(run) -> None:
    """With dropout: an evaluation takes nothing of what training draws."""
    often, once = (
        run("lora", schedule={"evaluate_every_updates": every, "select": "last"})
        for every in (1, 6)
    )
    assert often["metrics"] == once["metrics"]


def test_bf16_trains(run) -> None:
    assert run("full", schedule={"precision": "bf16"})["metrics"]["eval_loss_nats"] < 1


def test_language_modelling_learns_and_reports_perplexity(
    prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop knows no labels: a small Llama on running text."""
    root, plan = prepared
    monkeypatch.chdir(root)
    entry = copy.deepcopy(plan.library["models"]["stories260k"])
    torch.manual_seed(0)
    folder = tmp_path / "llama"
    build.from_shapes(entry, "language_modelling", 0, device="cpu").save_pretrained(folder)
    build.tokenizer(root / "results/inputs/models/tiny").save_pretrained(folder)
    dataset = {
        **plan.library["datasets"]["generated_text"],
        "task": "language_modelling",
        "max_length_tokens": 32,
    }
    cell = next(c for c in plan.cells("train") if c.method == "full" and c.seed == 0)
    request = copy.deepcopy(plan.request("train", cell)) | {"model": entry, "dataset": dataset}
    request["schedule"] |= {"updates": 40, "evaluate_every_updates": 40}
    request["cell"]["dataset"] = "generated_text"
    request["inputs"]["dataset"] = plan.input_digest("dataset", "generated_text")
    monkeypatch.setattr(training, "model_folder", lambda request: folder)
    AcceleratorState._reset_state(reset_partial_state=True)
    found = training.train(request)
    assert found["metrics"]["perplexity"] == pytest.approx(
        torch.tensor(found["metrics"]["eval_loss_nats"]).exp().item(), rel=1e-5
    )
    assert found["metrics"]["perplexity"] < found["history"][0]["selection_perplexity"] / 2
    assert "accuracy_fraction" not in found["metrics"]


def test_inputs_of_another_plan_are_refused(prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    root, plan = prepared
    monkeypatch.chdir(root)
    request = copy.deepcopy(plan.request("train", plan.cells("train")[0]))
    request["inputs"]["dataset"] = "0" * 16
    with pytest.raises(
        ValueError, match=r"dataset\.json: prepared for request .*, this job was planned with 0000"
    ):
        training.train(request)


def test_a_tracker_is_fed(run, prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="trackers are optional")
    monkeypatch.setenv("RANKWISE_TRACKER", "tensorboard")
    run("full")
    assert list((prepared[0] / "logs/tracking").rglob("events.out.*"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_activation_checkpointing_changes_no_result(method: str, run) -> None:
    """Dropout included: what is computed again is drawn again. The base is frozen under LoRA, and its layers still learn."""
    plain, spared = run(method), run(method, schedule={"checkpointing": True})
    assert plain["metrics"] == spared["metrics"]
    assert plain["history"][-1] == spared["history"][-1] != spared["history"][0]


def test_metrics_are_the_means_of_the_examples(run) -> None:
    """Every example of the reported split, in order; the same for every method, so runs can be paired."""
    for method in ("full", "lora"):
        found = run(method)
        losses, right = (found["examples"][name] for name in ("loss_nats", "correct_fraction"))
        assert set(right) <= {0.0, 1.0}
        assert found["metrics"]["accuracy_fraction"] == sum(right) / len(right)
        assert math.isclose(
            found["metrics"]["eval_loss_nats"], sum(losses) / len(losses), rel_tol=1e-12
        )
    assert any("product_effective_rank" in row for row in found["history"])
