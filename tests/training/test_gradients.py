"""The gradient of an update is that of the mean loss over its window, however the window is split."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

import rankwise.optim
from helpers import window_processes, windows
from helpers.releasing import DRAWN
from helpers.two_processes import free_ports, spawned
from helpers.windows import SPLITS, TASKS, TOLERANCE, Recorded, Update, record
from rankwise.training.distribution import Distributed
from rankwise.training.divergence import Watch
from rankwise.training.updates import Updater

every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where checkpoints go


def assert_full_batch(recorded: Recorded, tolerance: float) -> None:
    """Every update got the gradient of one full batch, up to `tolerance` of its norm."""
    assert len(recorded.updates) == windows.UPDATES
    for update in recorded.updates:
        assert len(update.got) == len(update.expected) > 0
        got = torch.cat([part.flatten() for part in update.got]).double()
        expected = torch.cat([part.flatten() for part in update.expected]).double()
        assert (got - expected).norm() <= tolerance * expected.norm()


@every_task
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_the_gradient_does_not_depend_on_the_split(task: str, split: tuple[int, int]) -> None:
    recorded = record(task, split)
    assert_full_batch(recorded, TOLERANCE.get(task, 1e-10))
    updates = recorded.updates
    sizes = SPLITS[split]
    assert [len(update.examples) for update in updates] == [*sizes, sizes[0]]
    epoch = [number for update in updates[:3] for number in update.examples]
    assert sorted(epoch) == list(range(windows.EXAMPLES))


@pytest.mark.parametrize("split", [(16, 1), (5, 3)], ids=str)
def test_the_loss_in_chunks_has_the_gradient_of_the_full_one(split: tuple[int, int]) -> None:
    """The expected gradient is computed from the logits of one full batch."""
    recorded = record("language_modelling", split, schedule={"loss": "chunked"})
    assert_full_batch(recorded, TOLERANCE["language_modelling"])
    plain = record("language_modelling", split).result
    for name in ("train_loss_nats", "selection_loss_nats"):
        own, expected = (result["history"][-1][name] for result in (recorded.result, plain))
        assert own == pytest.approx(expected, rel=1e-6)


def test_batches_by_length_are_those_of_one_epoch_too() -> None:
    recorded = record("classification", (4, 4), schedule={"group_by_length": True})
    assert_full_batch(recorded, 1e-10)
    examples = windows.examples("classification")
    numbers = [number for update in recorded.updates[:3] for number in update.examples]
    assert sorted(numbers) == list(range(windows.EXAMPLES))
    lengths = [len(examples[number]["input_ids"]) for number in numbers]
    assert lengths[0] == max(len(example["input_ids"]) for example in examples)
    cost = recorded.result["cost"]
    assert cost["epoch_padding_saved_tokens"] > 0
    ungrouped = record("classification", (4, 4)).result["cost"]
    assert "epoch_padding_saved_tokens" not in ungrouped


@every_task
def test_history_and_counts_are_over_the_predictions(task: str) -> None:
    recorded = record(task, (4, 4))
    updates = recorded.updates
    loss = sum(update.loss for update in updates) / sum(update.predictions for update in updates)
    last = recorded.result["history"][-1]
    assert last["train_loss_nats"] == pytest.approx(loss, rel=1e-6)
    norms = [torch.stack([g.norm() for g in update.expected]).norm().item() for update in updates]
    assert last["gradient_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert recorded.result["metrics"]["samples"] == 16 + 16 + 5 + 16


# Optimizers ----------------------------------------------------------------------------------------

FAST = ["AdamW", "Fira", "ProjectedAdam"]
SLOW = [
    "AdaLomo", "Adafactor", "Apollo", "BAdam", "Flora", "Frugal", "LDAdam", "Lisa", "Lomo", "MLorc", "Muon",
    "ProjFactor", "Sgd", "TopR",
]  # fmt: skip
FORWARD_ONLY = ["MeZO"]  # it asks for losses, not for gradients
# They step LoRA's factors, which this model has not: tests/references/test_lora_pairs.py.
PAIRED = ["LoraFA", "LoraPro", "LoraRiemannian"]
SINGLE = ["AdamW8bit", "PagedAdamW"]  # bitsandbytes' kernels know no fp64


def test_every_optimizer_is_tested() -> None:
    assert sorted([*FAST, *SLOW, *SINGLE, *FORWARD_ONLY, *PAIRED]) == dir(rankwise.optim)


@every_task
def test_mezos_losses_are_those_of_the_full_batch(task: str) -> None:
    """However a window is split, its two losses are the same, and their mean is near the loss between them."""
    runs = [record(task, split, "MeZO", perturbation=1e-4) for split in ((16, 1), (4, 4), (2, 8))]
    rows = [run.result["history"][-1] for run in runs]
    # A slope is a difference of losses divided by 2e-4; those of language models are in fp32.
    exactness = 1e-2 if task == "language_modelling" else 1e-6
    for row in rows:
        assert row["train_loss_nats"] == pytest.approx(rows[0]["train_loss_nats"], rel=1e-6)
        assert row["gradient_norm"] == pytest.approx(rows[0]["gradient_norm"], rel=exactness)
        assert row["gradient_norm"] > 0
    # The losses that the test computes itself, from the weights before each step.
    updates = runs[1].updates
    between = sum(update.loss for update in updates) / sum(update.predictions for update in updates)
    assert rows[0]["train_loss_nats"] == pytest.approx(between, rel=1e-4)


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_every_optimizer_gets_the_full_batchs_gradient(name: str, split: tuple[int, int]) -> None:
    assert_full_batch(record("masked_language_modelling", split, name), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_optimizers_in_single_precision_get_it_too(name: str, split: tuple[int, int]) -> None:
    recorded = record("masked_language_modelling", split, name, torch.float32)
    assert_full_batch(recorded, 1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [DRAWN[0], *(pytest.param(*kind, marks=pytest.mark.slow) for kind in DRAWN[1:])],
    ids=str,
)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_gathered_projections_are_those_of_the_full_batch(
    name: str, options: dict, split: tuple[int, int]
) -> None:
    """With a basis that is drawn. One that is found is found in the first micro-batch."""
    recorded = record("masked_language_modelling", split, name, **options, release=True)
    assert_full_batch(recorded, 1e-10)


def test_a_basis_is_not_found_in_a_micro_batch_without_predictions() -> None:
    task = TASKS["masked_language_modelling"]
    collate = task.Collate(windows.tokenizer(), seed=0)
    batch = collate(windows.examples("masked_language_modelling")[:8])
    silent = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    moved = []
    for window in ([silent, batch], [batch]):
        windows.reset_accelerate()
        accelerator = Accelerator(cpu=True)
        model = windows.model("masked_language_modelling")
        start = torch.cat([param.detach().clone().flatten() for param in model.parameters()])
        options = {"projector": "svd", "release": True}
        optimizer = windows.make_optimizer("ProjectedAdam", model, **options)
        watch = Watch(model, released=True)
        prepared = accelerator.prepare(optimizer)
        placed = Distributed(model, accelerator)
        updater = Updater(accelerator, placed, prepared, task.predictions, None, watch)
        updater.make(window, 1)
        end = torch.cat([param.detach().flatten() for param in model.parameters()])
        moved.append(end - start)
    assert moved[1].norm() > 0
    assert (moved[0] - moved[1]).norm() <= 1e-9 * moved[1].norm()


# Two processes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple, Recorded]]:
    """What each of two real processes recorded, by case."""
    folder = tmp_path_factory.mktemp("gloo")
    with spawned(window_processes.work, free_ports(len(window_processes.CASES)), str(folder)):
        pass
    runs = []
    for process in (0, 1):
        recorded = {}
        for case, run in torch.load(folder / f"{process}.pt").items():
            updates = [Update(**update) for update in run.pop("updates")]
            recorded[case] = Recorded(updates, **run)
        runs.append(recorded)
    return runs


@pytest.mark.parametrize("case", window_processes.CASES, ids=str)
def test_two_processes_get_the_gradient_of_both_parts(
    trained: list[dict[tuple, Recorded]], case: tuple[str, tuple[int, int]]
) -> None:
    """Also where the last micro-batch has one example, and a process therefore none.

    Counts and losses are over both processes; that of a single process is the same.
    """
    task, split = case
    single = record(task, split)
    for run in (recorded[case] for recorded in trained):
        assert run.processes == 2
        assert_full_batch(run, TOLERANCE.get(task, 1e-10))
        assert [u.examples for u in run.updates] == [u.examples for u in single.updates]
        for name in ("samples", "tokens", "updates"):
            assert run.result["metrics"][name] == single.result["metrics"][name]
        for row, expected in zip(run.result["history"], single.result["history"], strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
