"""Training runs: their results, and what the loop counts, leaves alone, selects and reports."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.prepared import folder, prepare, reset_accelerate
from helpers.repository import ROOT
from rankwise.data.prepared import load_data
from rankwise.methods.parts.base import adapt, build_optimizer
from rankwise.models import build
from rankwise.study.plan import Plan
from rankwise.training import run as training

TRAINED = ["full", "head_only", "lora", "rsvd"]
STUDY = {
    "name": "loop",
    "question": "?",
    "device": "cpu",
    "schedule": {"updates": 6, "batch_size": 16, "eval_batch_size": 64},
    "train": [
        {
            "models": ["tiny"],
            "datasets": ["generated_reviews"],
            "methods": ["frozen", *TRAINED],
            "ranks": [4],
            "seeds": [0, 1],
            "override": {name: {"learning_rate": 3e-3} for name in TRAINED},
        },
    ],
}
TRAIN_ROWS = 500
SELECTION_ROWS = 100


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with the study's inputs, and its plan."""
    root, plan = tmp_path_factory.mktemp("inputs"), Plan(STUDY, ROOT)
    rows = {"train": TRAIN_ROWS + SELECTION_ROWS, "validation": 100}
    prepare(plan, root, review_rows=rows, selection_rows=SELECTION_ROWS)
    return root, plan


@pytest.fixture
def tiny(prepared: tuple[Path, Plan]) -> Path:
    """The folder of the prepared model."""
    root, plan = prepared
    return folder(root, plan, "model", "tiny")


@pytest.fixture
def request_of(prepared: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """The request of a method's cell, to be changed; the test runs in the folder with the inputs."""
    root, plan = prepared
    monkeypatch.chdir(root)

    def find(method: str, seed: int = 0) -> dict:
        for cell in plan.cells("train"):
            if (cell.method, cell.seed) == (method, seed):
                return copy.deepcopy(plan.request("train", cell))
        raise AssertionError(f"no cell of {method} with seed {seed}")

    return find


@pytest.fixture
def run(request_of: Callable[..., dict]) -> Callable[..., dict]:
    """Train one cell of a method, with changes to its schedule and its method."""

    def train(method: str, seed: int = 0, schedule: dict | None = None, **changes: object) -> dict:
        request = request_of(method, seed)
        request["schedule"] |= schedule or {}
        request["method"] |= changes
        reset_accelerate()
        return training.train(request)

    return train


@pytest.fixture(scope="module")
def default_run(prepared: tuple[Path, Plan]) -> Callable[[str], dict]:
    """The result of a method's cell with seed 0, trained once for all tests that only read it."""
    root, plan = prepared
    results = {}

    def train(method: str) -> dict:
        if method not in results:
            cells = [cell for cell in plan.cells("train") if cell.seed == 0]
            cell = next(cell for cell in cells if cell.method == method)
            reset_accelerate()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                results[method] = training.train(plan.request("train", cell))
        return copy.deepcopy(results[method])

    return train


def numbers(result: dict) -> str:
    return json.dumps([result["metrics"], result["history"]])


# Reproducibility -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TRAINED)
def test_two_runs_are_equal_to_the_bit(method: str, run, default_run) -> None:
    assert numbers(run(method)) == numbers(default_run(method))


@pytest.mark.parametrize("method", ["lora", "rsvd"])
def test_another_seed_gives_another_result(method: str, run, default_run) -> None:
    assert numbers(run(method, seed=1)) != numbers(default_run(method))


def test_every_method_starts_from_the_same_loss(default_run) -> None:
    """The new head is drawn before the method is applied."""
    losses = set()
    for method in ("frozen", *TRAINED):
        first_row = default_run(method)["history"][0]
        losses.add(round(first_row["selection_loss_nats"], 6))
    assert len(losses) == 1


def test_the_number_of_evaluations_does_not_change_training(run) -> None:
    """An evaluation takes no random numbers from training, which has dropout here."""
    often = run("lora", schedule={"evaluate_every_updates": 1, "select": "last"})
    once = run("lora", schedule={"evaluate_every_updates": 6, "select": "last"})
    assert often["metrics"] == once["metrics"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_activation_checkpointing_does_not_change_the_result(method: str, run, default_run) -> None:
    """Recomputed activations have the same dropout. LoRA's layers learn, though the base is frozen."""
    plain = default_run(method)
    recomputed = run(method, schedule={"checkpointing": True})
    assert plain["metrics"] == recomputed["metrics"]
    assert plain["history"][-1] == recomputed["history"][-1] != recomputed["history"][0]


# Learning ------------------------------------------------------------------------------------------


def test_a_result_counts_the_rows_it_was_trained_on(run) -> None:
    data = run("frozen")["data"]
    assert [(row["split"], row["rows"]) for row in data["splits"]] == [
        ("train", TRAIN_ROWS),
        ("selection", SELECTION_ROWS),
        ("validation", 100),
    ]
    assert sum(row["rows"] for row in data["classes"]) == TRAIN_ROWS + SELECTION_ROWS + 100
    assert {(row["label"], row["class"]) for row in data["labels"]} == {
        ("0", "negative"),
        ("1", "positive"),
    }
    assert [row["split"] for row in data["overlap"]] == ["selection", "validation"]


def test_running_text_below_one_block_is_refused_before_training(request_of, tiny: Path) -> None:
    request = request_of("full")
    request["dataset"] |= {"task": "language_modelling", "max_length_tokens": 1_000_000}
    sentence = "generated_reviews: split train: got less than one block of text, allowed: at least 1,000,000"
    with pytest.raises(ValueError, match=sentence):
        load_data(request, build.tokenizer(tiny), seed=0)


@pytest.mark.parametrize("method", TRAINED)
def test_a_tiny_batch_is_learnt(method: str, request_of, tiny: Path) -> None:
    request = request_of(method)
    torch.manual_seed(0)
    names = build.names(request["model"], "classification")
    base = build.from_snapshot(tiny, "classification", 2, names["new_head"])
    adapting, model = adapt(request["method"], base, names)
    data = load_data(request, build.tokenizer(tiny), seed=0)
    entry = {**request["method"], "learning_rate": 0.01}
    optimizer = build_optimizer(entry, adapting, model, names, 0)
    batch = data.collate(data.train[:4])
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_accumulated_micro_batches_are_one_larger_batch(run) -> None:
    unclipped = {"max_gradient_norm": None}
    whole = run("full", schedule={"batch_size": 32, **unclipped})["metrics"]
    parts = run("full", schedule={"batch_size": 16, "accumulation_steps": 2, **unclipped})[
        "metrics"
    ]
    assert whole["samples"] == parts["samples"]
    assert whole["eval_loss_nats"] == pytest.approx(parts["eval_loss_nats"], abs=2e-4)


def test_bf16_trains(run) -> None:
    assert run("full", schedule={"precision": "bf16"})["metrics"]["eval_loss_nats"] < 1


def test_language_modelling_learns_and_reports_perplexity(
    request_of, prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    """The loop knows no labels: a small Llama on running text."""
    library = prepared[1].library
    model = copy.deepcopy(library["models"]["stories260k"])
    torch.manual_seed(0)
    folder = tmp_path / "llama"
    build.from_shapes(model, "language_modelling", 0, device="cpu").save_pretrained(folder)
    build.tokenizer(tiny).save_pretrained(folder)
    text = {
        **library["datasets"]["generated_text"],
        "task": "language_modelling",
        "max_length_tokens": 32,
    }
    request = request_of("full") | {"model": model, "dataset": text}
    request["schedule"] |= {"updates": 40, "evaluate_every_updates": 40}
    request["cell"]["dataset"] = "generated_text"
    request["inputs"]["dataset"] = prepared[1].input_digest("dataset", "generated_text")
    monkeypatch.setattr(training, "model_folder", lambda request: folder)
    reset_accelerate()
    result = training.train(request)
    perplexity = result["metrics"]["perplexity"]
    assert perplexity == pytest.approx(math.exp(result["metrics"]["eval_loss_nats"]), rel=1e-5)
    assert perplexity < result["history"][0]["selection_perplexity"] / 2
    assert "accuracy_fraction" not in result["metrics"]


# What a result holds -------------------------------------------------------------------------------


def test_counts_and_epochs_are_exact(run) -> None:
    schedule = {"epochs": 1, "updates": None, "batch_size": 30, "accumulation_steps": 2}
    result = run("full", schedule=schedule)
    # 500 examples are 17 micro-batches of 30, the last of 20, and so 9 updates.
    assert result["metrics"]["samples"] == TRAIN_ROWS
    assert result["metrics"]["updates"] == 9
    assert [(row["epoch"], row["update"]) for row in result["history"]] == [(0.0, 0), (1.0, 9)]
    assert result["split"] == "validation"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_metrics_are_the_means_of_the_examples(method: str, default_run) -> None:
    """Examples are in order and the same for every method, so that runs can be paired."""
    result = default_run(method)
    losses = result["examples"]["loss_nats"]
    right = result["examples"]["correct_fraction"]
    assert set(right) <= {0.0, 1.0}
    assert result["metrics"]["accuracy_fraction"] == sum(right) / len(right)
    mean_loss = sum(losses) / len(losses)
    assert math.isclose(result["metrics"]["eval_loss_nats"], mean_loss, rel_tol=1e-12)


def test_a_method_adds_columns_to_the_history(default_run) -> None:
    assert all("product_effective_rank" in row for row in default_run("lora")["history"])


def test_an_adaptive_rank_is_in_the_history(run, request_of, default_run) -> None:
    """The optimizer reports what the energy rule kept, after the first evaluation."""
    optimizer = request_of("rsvd")["method"]["optimizer"]
    optimizer |= {"rank": 16, "rank_rule": "energy", "energy": 0.5}
    first, *later = run("rsvd", optimizer=optimizer)["history"]
    assert "effective_rank" not in first
    assert all(1 <= row["effective_rank"] < 16 for row in later)
    assert all("effective_rank" not in row for row in default_run("rsvd")["history"])


def test_the_best_state_is_reported(run) -> None:
    """The learning rate spoils the model after the first evaluation; `best` reports that one."""
    spoiling = {
        "updates": 40,
        "evaluate_every_updates": 10,
        "scheduler": "constant",
        "warmup_fraction": 0.0,
    }
    best = run("full", schedule=spoiling, learning_rate=0.3)
    last = run("full", schedule={**spoiling, "select": "last"}, learning_rate=0.3)
    losses = [row["selection_loss_nats"] for row in best["history"]]
    assert min(losses) < losses[-1]
    assert best["metrics"]["eval_loss_nats"] < last["metrics"]["eval_loss_nats"]


def test_a_frozen_model_is_evaluated_once_and_not_trained(default_run) -> None:
    result = default_run("frozen")
    assert result["metrics"]["updates"] == result["metrics"]["trainable_parameters"] == 0
    assert len(result["history"]) == 1


@pytest.mark.parametrize("method", ["head_only", "lora"])
def test_frozen_parameters_do_not_move_by_a_bit(
    method: str, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, before = [], {}

    def watching_adapt(entry: dict, base: torch.nn.Module, names: dict):
        adapting, model = adapt(entry, base, names)
        models.append(model)
        for name, param in model.named_parameters():
            if not param.requires_grad:
                before[name] = param.detach().clone()
        return adapting, model

    monkeypatch.setattr(training, "adapt", watching_adapt)
    run(method)
    after = dict(models[0].named_parameters())
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# Refusals ------------------------------------------------------------------------------------------


def test_inputs_of_another_plan_are_refused(request_of) -> None:
    request = request_of("full")
    request["inputs"]["dataset"] = "0" * 16
    message = r"0000/dataset\.json: not in the store; run snakemake again"
    with pytest.raises(FileNotFoundError, match=message):
        training.train(request)
