"""The memory ledger: predicted against torch's own allocator, against closed forms, and against published peaks."""

import itertools
import resource
import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.measure.memory import account
from rankwise.measure.memory.allocator import MIB, Allocator, OutOfMemory
from rankwise.measure.memory.fits import CONTEXT, fits, largest
from rankwise.measure.memory.ledger import LIMIT, ledger, track
from rankwise.measure.memory.persistent import predict
from rankwise.measure.memory.phases import STEPS
from rankwise.measure.memory.tracker import KINDS, Tracker
from rankwise.measure.step import adapted
from rankwise.optim.parts import projectors
from rankwise.study.plan import Cell, Plan

SMOKE = yaml.safe_load((ROOT / "config/methods_smoke.yaml").read_text(encoding="utf-8"))["override"]
# Published system A: measured peaks of CUDA's allocator on IMDB (epoch_peak_memory.csv), batch 32 x 128.
PUBLISHED = {
    "lora_qkv": {4: 1461499392, 8: 1461908992, 16: 1466922496, 64: 1497003520, 128: 1541043712},
    "weight_reduction": {
        4: 1245872128,
        8: 1247420416,
        16: 1250516992,
        64: 1269096448,
        128: 1293869056,
    },
}


def request(
    model: str, method: str, measurement: str = "ledger", rank: int = 4, **grid: object
) -> dict:
    dataset = grid.pop("dataset", "sst2")
    grid = {"batch_size": 8, "sequence_length_tokens": 32, **grid}
    override = SMOKE if model == "tiny" else {}
    profile = {
        "models": [model],
        "datasets": [dataset],
        "methods": [method],
        "ranks": [rank],
        "measurements": [measurement],
    }
    study = {
        "name": "t",
        "question": "?",
        "device": "cpu",
        "profile": [{**profile, "override": override, **grid}],
    }
    plan = Plan(study, ROOT)
    return plan.request(measurement, plan.cells(measurement)[0])


# Predicted and measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "head_only", "frozen", "lora", "rsvd", "full_released"])
def test_the_prediction_is_what_the_allocator_says(method: str) -> None:
    """To the byte but for scalars that live on the CPU whatever the device. For every method: check_smoke.py."""
    found = ledger(request("tiny", method))["metrics"]
    assert abs(found["residual_bytes"]) <= 1024
    assert found["measured_peak_bytes"] > 0


@pytest.mark.parametrize(("model", "dataset"), [("minilm", "sst2"), ("stories260k", "wikitext2")])
def test_other_architectures_close_too(model: str, dataset: str) -> None:
    """Dropout in attention, and grouped keys."""
    found = ledger(request(model, "lora", dataset=dataset, batch_size=2))["metrics"]
    assert abs(found["residual_fraction"]) < 1e-3


@pytest.mark.parametrize("method", ["full_bf16", "lora_bf16"])
def test_bf16_closes_but_for_what_kernels_take(method: str) -> None:
    """On processors with instructions for it, oneDNN's products have a workspace: the peak is higher by that, and no more."""
    found = ledger(request("tiny", method, batch_size=16))["metrics"]
    workspace = found.get("workspace_bytes", 0)
    assert abs(found["residual_fraction"]) <= LIMIT
    assert workspace >= 0
    assert found["residual_bytes"] == found["measured_peak_bytes"] - found["peak_bytes"] - workspace


def test_activation_checkpointing_is_seen() -> None:
    plain, spared = (
        ledger(request("stories260k", "full", dataset="wikitext2", checkpointing=on))["metrics"]
        for on in (False, True)
    )
    assert spared["measured_peak_bytes"] < 0.8 * plain["measured_peak_bytes"]
    assert abs(spared["residual_fraction"]) <= LIMIT


@pytest.mark.parametrize("method", PUBLISHED)
@pytest.mark.parametrize("rank", [4, 128])
def test_published_peaks_of_a_real_gpu(method: str, rank: int) -> None:
    """System A's runs that hold one optimizer only (its rSVD runs hold two); 3 % is left for cuBLAS and the mask."""
    found = ledger(
        request(
            "distilbert",
            method,
            rank=rank,
            batch_size=32,
            sequence_length_tokens=128,
            device="cuda",
            measured=False,
        )
    )
    assert found["metrics"]["peak_allocated_bytes"] == pytest.approx(
        PUBLISHED[method][rank], rel=0.03
    )


# The ledger's own arithmetic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_parts_add_up(device: str) -> None:
    found = ledger(request("tiny", "qlora", device=device, measured=False))
    metrics = found["metrics"]
    assert sum(metrics[f"{kind}_bytes"] for kind in KINDS) == metrics["peak_bytes"]
    assert metrics["peak_bytes"] == max(metrics[f"{name}_peak_bytes"] for name in STEPS)
    tops = dict.fromkeys(STEPS, 0)
    for row in found["timeline"]:
        if row["phase"] in tops:
            tops[row["phase"]] = max(
                tops[row["phase"]], sum(row[f"{kind}_bytes"] for kind in KINDS)
            )
    assert tops == {name: metrics[f"{name}_peak_bytes"] for name in STEPS}
    if device == "cuda":
        assert metrics["peak_allocated_bytes"] == metrics["peak_bytes"] + metrics["rounding_bytes"]
        assert (
            metrics["peak_reserved_bytes"]
            == metrics["peak_allocated_bytes"] + metrics["slack_bytes"]
        )
        assert metrics["slack_bytes"] >= 0 <= metrics["rounding_bytes"]


@pytest.mark.parametrize("method", ["full", "qlora", "galore", "rsvd", "full_adamw_8bit"])
def test_it_agrees_with_what_is_kept_between_steps(method: str) -> None:
    kept = predict(request("tiny", method, "memory"))
    found = ledger(request("tiny", method, measured=False))
    assert found["metrics"]["weights_bytes"] == kept["weights_bytes"]
    assert found["metrics"]["quantization_bytes"] == kept["quantization_bytes"]
    state, counts = sum(row["state_bytes"] for row in found["state"]), 0
    if method in (
        "full",
        "qlora",
    ):  # torch's AdamW counts each tensor's steps on the CPU, in 4 bytes
        counts = 4 * sum(
            p.requires_grad for p in adapted(request("tiny", method), "meta")[1].parameters()
        )
    assert kept["optimizer_state_bytes"] == state + counts
    assert found["metrics"]["peak_phase"] in (
        "forward",
        "backward",
        "update",
    )  # of the second step, when state is there
    assert found["metrics"]["optimizer_state_bytes"] + found["metrics"]["projection_bytes"] == state


def test_activations_of_a_chain_are_the_closed_form() -> None:
    """Three linear layers keep their inputs, two ReLUs their outputs, which are those inputs."""
    tracker = Tracker()
    with tracker:
        with tracker.phase("load"):
            model = nn.Sequential(
                nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
            )
            x = torch.randn(32, 8)
        tracker.see(x, "inputs")
        for param in model.parameters():
            tracker.see(param, "weights")
        with tracker.phase("forward"):
            loss = model(x).sum()
        with tracker.phase("backward"):
            loss.backward()
    found = [dict(moment.kinds) for moment in account.replay(tracker) if moment.phase == "forward"][
        -1
    ]
    assert found["weights"] == 4 * sum(p.numel() for p in model.parameters())
    assert found["inputs"] == 4 * 32 * 8
    assert found["activations"] == 4 * (32 * 16 * 2) + 4  # and the loss


def test_a_refresh_by_full_svds_holds_one_chunk_at_a_time() -> None:
    """Whatever the number of matrices; their leading vectors apart."""

    def peak(count: int) -> int:
        grads, tracker = [torch.empty(2048, 2048, device="meta") for _ in range(count)], Tracker()
        with tracker, tracker.phase("update"):
            projectors.svd(grads, rank=4)
        return account.peaks(tracker)["update"].total

    assert peak(64) < 1.1 * peak(8)


def test_the_first_update_makes_the_state() -> None:
    rows = ledger(request("tiny", "full", measured=False))["timeline"]
    before = [row for row in rows if row["phase"] in ("first_forward", "first_backward")]
    assert {row["optimizer_state_bytes"] for row in before} == {0}
    assert rows[-1]["optimizer_state_bytes"] > 0


def test_two_predictions_are_equal() -> None:
    assert ledger(request("tiny", "galore", measured=False)) == ledger(
        request("tiny", "galore", measured=False)
    )


def test_unsupported_says_why() -> None:
    found = ledger(request("tiny", "prefix_tuning"))
    assert found["status"] == "unsupported"
    assert "keys and values" in found["reason"]


# CUDA's allocator -----------------------------------------------------------------------------------------------------


def test_small_and_large_segments() -> None:
    allocator = Allocator()
    small, large, own = allocator.take(1), allocator.take(3 * MIB), allocator.take(18 * MIB)
    assert (small.size, large.size, own.size) == (512, 3 * MIB, 18 * MIB)
    assert allocator.reserved == (2 + 20 + 18) * MIB
    assert allocator.allocated == 512 + 21 * MIB


def test_a_remainder_of_a_mebibyte_is_not_split_off() -> None:
    assert Allocator().take(11 * MIB).size == 12 * MIB
    assert Allocator().take(11 * MIB - 512).size == 11 * MIB - 512


def test_a_freed_block_is_used_again_and_joined() -> None:
    allocator = Allocator()
    blocks = [allocator.take(4 * MIB) for _ in range(5)]  # one segment of 20 MiB
    assert allocator.reserved == 20 * MIB
    for block in (blocks[1], blocks[3], blocks[2]):
        allocator.give(block)
    again = allocator.take(9 * MIB)
    assert (again.start, allocator.reserved) == (blocks[1].start, 20 * MIB)


def test_it_hands_back_whole_segments_before_it_gives_up() -> None:
    allocator = Allocator(capacity=40 * MIB)
    block = allocator.take(30 * MIB)
    allocator.give(block)
    assert allocator.take(38 * MIB).size == 38 * MIB
    with pytest.raises(OutOfMemory):
        allocator.take(4 * MIB)


def test_random_requests_never_overlap() -> None:
    draw = torch.Generator().manual_seed(0)
    allocator, live = Allocator(), []
    for _ in range(3000):
        if live and torch.rand((), generator=draw) < 0.5:
            allocator.give(live.pop(int(torch.randint(len(live), (), generator=draw))))
        else:
            live.append(allocator.take(int(2 ** (24 * torch.rand((), generator=draw)))))
        assert allocator.allocated == sum(block.size for block in live)
    spans = sorted((block.start, block.start + block.size) for block in live)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    for block in live:
        allocator.give(block)
    assert allocator.allocated == 0
    allocator.capacity = 0
    allocator._hand_back()
    assert allocator.reserved == 0  # all was joined into whole segments again


# What fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 17, 1000])
@pytest.mark.parametrize("floor", [0, 5000])
@pytest.mark.parametrize("lost", [0.0, 0.07])
def test_the_largest_batch_of_a_known_law(wanted: int, floor: int, lost: float) -> None:
    """Peaks that are flat at first, and a room of which a part is lost to fragments."""
    asked = []

    def peak(batch: int) -> int:
        return max(floor, 100 + 10 * batch)

    def holds(batch: int) -> bool:
        asked.append(batch)
        return batch <= wanted

    assert largest(peak, holds, int(peak(wanted) * (1 + lost)) if wanted else 50) == wanted
    assert len(set(asked)) < 40


def test_the_boundary_on_a_cpu_is_the_tracked_one() -> None:
    gib = 12 / 1024
    asked = request("tiny", "lora", "fits", memory_gib=[gib], lengths_tokens=[32])
    row = fits(asked)["rows"][0]
    batch = row["largest_batch_size"]
    for size, fitting in ((batch, True), (batch + 1, False)):
        real = track({**asked, "shapes": {**asked["shapes"], "batch_size": size}}, "cpu")[0]
        assert (account.ledger(real)["peak_bytes"] <= gib * 2**30) == fitting
    assert row["peak_bytes"] <= gib * 2**30 < row["next_peak_bytes"]


def test_the_longest_text() -> None:
    """Of stories260k, with its 512 positions: all of them with much memory, and the predicted boundary with less."""
    asked = request(
        "stories260k",
        "full",
        "fits",
        dataset="wikitext2",
        memory_gib=[0.01, 4],
        lengths_tokens=[64],
    )
    few, many = (row["largest_length_tokens"] for row in fits(asked)["rows"])
    assert many == 512
    assert 0 < few < 512
    for tokens, fitting in ((few, True), (few + 64, False)):
        shapes = {**asked["shapes"], "batch_size": 1, "sequence_length_tokens": tokens}
        peak = ledger({**asked, "shapes": shapes, "measured": False})["metrics"]["peak_bytes"]
        assert (peak <= 0.01 * 2**30) == fitting


def test_less_memory_than_the_weights_holds_nothing() -> None:
    row = fits(request("distilbert", "full", "fits", memory_gib=[0.7], device="cuda"))["rows"][0]
    assert row["largest_batch_size"] == 0
    assert row["peak_bytes"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "qlora", "galore", "vlorp_published"])
def test_a_large_model_needs_no_large_machine(method: str) -> None:
    """Llama-2-7B, 16 x 1024 with activation checkpointing, within 2 GiB of host memory."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_ledger import request; from rankwise.measure.memory.ledger import ledger; "
        "weights = {} if 'qlora' in sys.argv else {'override': {sys.argv[1]: {'weights': 'bf16'}}}; "
        "print(ledger(request('llama_2_7b', sys.argv[1], dataset='wikitext2', rank=16, batch_size=16, device='cuda', "
        "sequence_length_tokens=1024, checkpointing=True, measured=False, **weights))['metrics']['peak_bytes'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, method], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert 15e9 < int(ran.stdout.split()[-1]) < 90e9
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 2**20  # KiB


# On a GPU -------------------------------------------------------------------------------------------------------------

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@ON_GPU
@pytest.mark.parametrize("method", ["full", "lora", "qlora", "rsvd", "galore", "vlorp"])
def test_the_prediction_holds_on_a_gpu(method: str) -> None:
    found = ledger(
        request(
            "distilbert", method, rank=16, batch_size=32, sequence_length_tokens=128, device="cuda"
        )
    )["metrics"]
    assert found["measured_peak_bytes"] == pytest.approx(found["peak_allocated_bytes"], rel=0.03)


@ON_GPU
def test_the_boundary_on_a_gpu_is_the_predicted_one() -> None:
    """The allocator is given what `fits` leaves it; within 5 % below the boundary a step fits, and 5 % above it does not."""
    asked = request(
        "distilbert", "full", "fits", memory_gib=[6], lengths_tokens=[128], device="cuda"
    )
    batch = fits(asked)["rows"][0]["largest_batch_size"]
    room = 6 * 2**30 - CONTEXT["cuda"]
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        for share, fitting in ((0.95, True), (1.05, False)):
            shapes = {
                **asked["shapes"],
                "batch_size": round(share * batch),
                "sequence_length_tokens": 128,
            }
            found = ledger({**asked, "shapes": shapes, "measured": True, "measurement": "ledger"})
            assert (found.get("status", "ok") == "ok") == fitting
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_a_length_beyond_the_positions_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="lengths_tokens: got 65, allowed: at most 64, the positions of tiny"
    ):
        request("tiny", "full", "fits", lengths_tokens=[65])


def test_virtual_tokens_count_in_every_length() -> None:
    with pytest.raises(ConfigError, match="virtual tokens of prompt_tuning before 64 tokens"):
        request("tiny", "prompt_tuning", "forward", lengths_tokens=[64])


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("memory_gib", [0]), ("device", "tpu"), ("lengths_tokens", [])],
)
def test_a_grid_with_nonsense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"profile.0.{key}"):
        request("tiny", "full", "fits", **{key: value})


def test_a_model_too_large_is_refused_before_it_is_built() -> None:
    """Its embedding alone has 256 TB; the shapes are predicted all the same."""
    asked = request("tiny", "head_only", measured=False)
    asked["model"] = {
        **asked["model"],
        "architecture": {**asked["model"]["architecture"], "vocab_size": 10**12},
    }
    assert ledger(asked)["metrics"]["weights_bytes"] > 256e12
    with pytest.raises(
        ValueError, match=r"config/models.yaml: distilbert with .* GiB that are free on cpu"
    ):
        ledger({**asked, "measured": True})


def test_a_gpu_is_planned_only_for_what_is_measured_on_it(plan: Plan) -> None:
    grid = {
        "models": ["tiny"],
        "datasets": ["sst2"],
        "methods": ["full"],
        "device": "cuda",
        "sequence_length_tokens": 32,
    }
    grid["measurements"] = ["memory", "flops", "ledger", "fits", "forward", "throughput"]
    study = {"name": "t", "question": "?", "device": "cpu", "environment": "gpu"}
    cell = Cell("tiny", "sst2", "full", 0)
    for measured, wanted in (
        (True, {"ledger", "forward", "throughput"}),
        (False, {"forward", "throughput"}),
    ):
        found = Plan({**study, "profile": [{**grid, "measured": measured}]}, ROOT)
        assert {kind for kind in grid["measurements"] if found.needs_gpu(kind, cell)} == wanted
        locks = {
            kind: found.request(kind, cell)["environment"]["lock"] for kind in grid["measurements"]
        }
        assert {kind for kind, lock in locks.items() if lock == "envs/gpu.lock"} == wanted
