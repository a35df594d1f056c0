"""Predictions at a dataset's own lengths: beside a real training, and beside its batches."""

import gc
import importlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
from torch.profiler import ProfilerActivity, profile

from helpers.own_lengths import BATCH_SIZE, Project
from helpers.prepared import reset_accelerate
from helpers.recorded import recorded_windows
from rankwise.data import epoch_lengths
from rankwise.data.epoch_lengths import BatchShape, Lengths
from rankwise.measure.flops.count import flops
from rankwise.measure.memory import dataset_lengths, peaks
from rankwise.measure.memory.fits import fits
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.predict import predict
from rankwise.training import run as training

WIDTH = 64  # of a hidden state
LONGEST = 62  # tokens: 60 words and the two that the tokenizer adds
# How many seconds a case takes decides which ones are slow: they build and run a real model.
FAST_KINDS = {"lora"}
KINDS = ["full", "lora", "rsvd", "galore", "bitfit", "adapter_pfeiffer", "qlora"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("lengths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_DATA", str(root / "data"))
        patch.setenv("MY_MODEL", str(root / "model"))
        patch.chdir(root)
        yield Project(root)


# The batches of an epoch --------------------------------------------------------------------------


def test_statistics_by_hand() -> None:
    lengths = Lengths(np.array([5, 9, 7, 7, 3, 12]), None)
    batches = [lengths.batch(places) for places in ([0, 1], [2, 3], [4, 5])]
    assert batches == [
        BatchShape(2, 9, 0, True),
        BatchShape(2, 7, 0, False),
        BatchShape(2, 12, 0, True),
    ]
    assert epoch_lengths.mean(batches) == BatchShape(2, 10, 0, True)  # 28 / 3, rounded up
    assert epoch_lengths.percentile(batches).text_tokens == 12
    many = [BatchShape(2, length, 0, True) for length in range(1, 201)]
    assert epoch_lengths.percentile(many).text_tokens == 198
    assert lengths.largest(4) == BatchShape(4, 12, 0, True)
    assert lengths.largest(100) == BatchShape(6, 12, 0, True)
    assert lengths.largest(1) == BatchShape(1, 12, 0, False)  # one text has nothing to be padded to


def test_the_largest_batches_are_those_that_no_other_exceeds() -> None:
    """The last batch has fewer rows and the longest text; a target may be longest elsewhere."""
    full, last = BatchShape(8, 40, 0, True), BatchShape(5, 62, 0, True)
    assert set(epoch_lengths.largest([BatchShape(8, 30, 0, True), full, last])) == {full, last}
    pairs = [BatchShape(4, 10, 30, True), BatchShape(4, 20, 5, True), BatchShape(4, 9, 30, False)]
    assert set(epoch_lengths.largest(pairs)) == set(pairs[:2])


def trained_windows(project: Project, monkeypatch: pytest.MonkeyPatch, **schedule: object) -> list:
    """The windows of micro-batches that a real training sees in two epochs."""
    windows = recorded_windows(monkeypatch)
    plan = project.plan(["head_only"], **schedule)
    request = plan.request("train", plan.cells("train")[1])  # of the random seed 1
    reset_accelerate()
    assert "metrics" in training.train(request)
    return windows


@pytest.mark.parametrize("grouped", [False, True])
def test_the_batches_are_those_of_a_real_training(
    project: Project, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    """In their order and places, with the last one of an epoch, which is smaller; so is the worst."""
    trained = trained_windows(project, monkeypatch, group_by_length=grouped, accumulation_steps=2)
    windows = [[tuple(batch["input_ids"].shape) for batch in window] for window in trained]
    seen = [shape for window in windows for shape in window]
    order = {"seed": 1, "epochs": 2, "group_by_length": grouped, "accumulation_steps": 2}
    request = project.ledger_request("lora", measured=False, **order)
    drawn = dataset_lengths._windows(request, dataset_lengths._data(request))
    assert [[(batch.rows, batch.text_tokens) for batch in window] for window in drawn] == windows
    assert sorted(rows for rows, _ in seen) == [5, 5, *[BATCH_SIZE] * 12]
    assert len({length for _, length in seen}) > 2

    def peak(shape: tuple[int, int], *, follows: bool) -> int:
        sizes = {"batch_size": shape[0], "sequence_length_tokens": shape[1], "padded": True}
        steps = 2 if follows else 1
        grid = {"measured": False, "accumulation_steps": steps}
        return ledger(project.ledger_request("lora", **grid, **sizes))["metrics"]["peak_bytes"]

    metrics = ledger(request)["metrics"]
    assert metrics["mean_batch_length_tokens"] == math.ceil(np.mean([one for _, one in seen]))
    first = max((window[0] for window in windows), key=math.prod)
    later = max((shape for window in windows for shape in window[1:]), key=math.prod)
    needed = max(peak(first, follows=False), peak(later, follows=True))
    assert metrics["worst_batch_peak_bytes"] == metrics["peak_bytes"] == needed
    assert metrics["p99_batch_peak_bytes"] <= needed
    longest = max(length for _, length in seen)
    assert longest == LONGEST
    if grouped:  # the longest text begins an epoch, so nothing is alive beside it
        assert first[1] == longest > later[1]
        assert needed < peak(first, follows=True)


def test_the_bound_of_any_seed_knows_what_begins_an_epoch(project: Project) -> None:
    """With batches by length: no random seed needs more, and each needs that in one pool."""
    settings = {"group_by_length": True, "accumulation_steps": 2}
    plan = project.plan(["full"], **settings)
    bound = predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]["peak_bytes"]
    peaks_bytes = set()
    for seed in range(3):
        grid = {"measured": False, "seed": seed, "epochs": 2, "eval_batch_size": 4, **settings}
        metrics = ledger(project.ledger_request("full", **grid))["metrics"]
        peaks_bytes.add(metrics["worst_batch_peak_bytes"])
    assert max(peaks_bytes) == bound
    plan = project.plan(["full"], accumulation_steps=2)
    plain = predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]["peak_bytes"]
    assert bound < plain


@pytest.mark.parametrize(("examples", "longest"), [(8 * 50, 92), (8 * 50 + 1, 99)])
def test_the_second_longest_batch_of_one_pool_and_of_several(examples: int, longest: int) -> None:
    """By hand: the texts of 100 to 93 tokens are one batch, unless another pool has the second."""
    lengths = Lengths(np.array([*range(1, 101), *[1] * (examples - 100)]), None)
    is_one_pool = examples <= epoch_lengths.pool_examples(8)
    assert lengths.largest(8, 8 if is_one_pool else 1) == BatchShape(8, longest, 0, True)


def test_one_candidate_is_not_predicted_to_be_chosen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without grouping the longest batch may come in any place, so there is nothing to compare."""
    compared = []
    monkeypatch.setattr(dataset_lengths, "track", lambda *request, **_: compared.append(request))
    plan = project.plan(["head_only"], accumulation_steps=2)
    assert predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]["peak_bytes"] > 0
    assert compared == []


# Beside a real training ---------------------------------------------------------------------------


def trained_peak(request: dict) -> int:
    """The peak of torch's CPU allocator while a real run trains, model and data included."""
    reset_accelerate()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = training.train(request)
    assert "metrics" in result
    return max(total for _, total in peaks.live_bytes(peaks.allocations(recorded)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "schedule"),
    [
        ("full", {}),
        ("lora", {}),
        ("full", {"precision": "fp16"}),
        ("full", {"group_by_length": True, "attention": "sdpa"}),
    ],
)
def test_a_real_training_needs_what_is_predicted(
    project: Project, method: str, schedule: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four micro-batches an update, batches of many lengths; in fp32, fp16 or by length.

    By length the longest batch follows an evaluation. The prediction then has one hidden state too
    many, for a reason that is not known.

    A training holds the other micro-batches of an update in host memory, too.
    """
    plan = project.plan(
        [method], accumulation_steps=4, epochs=6, **{"attention": "eager", **schedule}
    )
    predicted = predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]
    windows = recorded_windows(monkeypatch)
    measured = trained_peak(plan.request("train", plan.cells("train")[0]))
    worst = (BATCH_SIZE, predicted["worst_batch_length_tokens"])
    if schedule.get("group_by_length"):
        assert {tuple(windows[epoch * 2][0]["input_ids"].shape) for epoch in range(6)} == {worst}
    else:
        # The worst batch comes behind others, whose gradients are alive, after the first update.
        later = [batch["input_ids"].shape for window in windows[1:] for batch in window[1:]]
        assert worst == (BATCH_SIZE, LONGEST)
        assert worst in later
    waiting = 3 * 2 * 8 * BATCH_SIZE * LONGEST  # ids and masks of three micro-batches, int64
    if schedule.get("group_by_length"):
        hidden_state = 4 * BATCH_SIZE * LONGEST * WIDTH
        assert (
            measured
            <= predicted["peak_bytes"] + waiting
            <= measured + waiting + hidden_state + 4096
        )
    else:
        assert predicted["peak_bytes"] + waiting == pytest.approx(measured, rel=0.02)
    assert predicted["updates"] == len(windows) == 6 * math.ceil(7 / 4)


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=() if one in FAST_KINDS else pytest.mark.slow) for one in KINDS],
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_kind_of_method_at_the_worst_batch(
    project: Project, method: str, precision: str
) -> None:
    """Accumulation, autocast, eager attention and padding at once, beside the allocator."""
    changes = {}
    if precision == "fp16" and method == "qlora":
        changes = {"override": {"qlora": {"compute": "autocast"}}}
    request = project.ledger_request(
        method, accumulation_steps=4, precision=precision, attention="eager", **changes
    )
    metrics = ledger(request)["metrics"]
    assert metrics["sequence_length_tokens"] == LONGEST
    assert abs(metrics["residual_fraction"]) <= LIMIT


# What is asked for --------------------------------------------------------------------------------


def test_a_training_is_predicted_with_its_longest_text(project: Project) -> None:
    """The numbers of a grid that names this length, and the mean length for FLOPs."""
    plan = project.plan(["lora"], eval_batch_size=200)
    metrics = predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]
    grid = {"padded": True, "eval_batch_size": 19, "measured": False}
    named = ledger(project.ledger_request("lora", sequence_length_tokens=LONGEST, **grid))[
        "metrics"
    ]
    # 19 rows of up to 42 tokens are evaluated, less than 8 of 62 in training need.
    assert metrics["peak_bytes"] == named["peak_bytes"]
    assert metrics["worst_batch_length_tokens"] == LONGEST
    assert metrics["updates"] == 2 * 7


def test_an_update_is_counted_at_the_mean_length(project: Project) -> None:
    """With the FLOPs of a profile of that length."""
    plan = project.plan(["lora"], accumulation_steps=2)
    predicted = predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]
    grid = {"measurements": ["flops"], "accumulation_steps": 2}
    mean = predicted["mean_batch_length_tokens"]
    assert mean < LONGEST
    request = project.ledger_request("lora", sequence_length_tokens=mean, **grid)
    assert predicted["update_flops"] == flops(request)["metrics"]["update_flops"]


def test_an_evaluation_counts_with_the_rows_that_there_are(project: Project) -> None:
    """19 rows are reported on; nothing but the head trains, on one text at a time."""
    peaks_bytes = {}
    for rows in (1, 19, 2000):
        plan = project.plan(["head_only"], batch_size=1, eval_batch_size=rows)
        request = plan.request("predict", plan.cells("predict")[0])
        peaks_bytes[rows] = predict(request)["metrics"]["peak_bytes"]
    assert peaks_bytes[1] < peaks_bytes[19] == peaks_bytes[2000]


def test_fits_takes_the_longest_text(project: Project) -> None:
    request = project.ledger_request("lora", measurements=["fits"], memory_gib=[0.01])
    named = project.ledger_request(
        "lora",
        measurements=["fits"],
        memory_gib=[0.01],
        sequence_length_tokens=LONGEST,
        padded=True,
    )
    assert fits(request) == fits(named)


def test_the_sources_that_are_loaded_by_name_are_in_the_request(project: Project) -> None:
    plain = project.ledger_request("lora", sequence_length_tokens=LONGEST)["code"]
    own = project.ledger_request("lora", group_by_length=True)["code"]
    for name in ("measure.memory.dataset_lengths", "data.grouped", "data.prepared"):
        assert f"rankwise.{name}" in own
        assert f"rankwise.{name}" not in plain
        importlib.import_module(f"rankwise.{name}")


def test_a_released_optimizer_of_two_processes_has_no_buckets(project: Project) -> None:
    """Each of them has the batch of one, and needs no more: DDP would hold a copy of the gradients."""

    def predicted(batch_size: int, **several: int) -> dict:
        settings = {"batch_size": batch_size, "max_gradient_norm": None, **several}
        plan = project.plan(["full_released"], **settings)
        return predict(plan.request("predict", plan.cells("predict")[0]))["metrics"]

    one, one_of_two = predicted(4), predicted(8, processes=2)
    assert one_of_two["worst_batch_length_tokens"] == one["worst_batch_length_tokens"]
    assert one_of_two["peak_bytes"] == one["peak_bytes"]
