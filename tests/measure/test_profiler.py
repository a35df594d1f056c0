"""FLOPs as published system A's profiler counts them: its published numbers, to the FLOP."""

import pytest
import torch

from helpers.distilbert import ATTENTION, DENSE, MATRICES, TOKENS, WIDTH, distilbert_flops
from helpers.profiling import profile_request
from helpers.published_steps import STEPS
from rankwise.measure.batch import meta_batch
from rankwise.measure.flops import profiler
from rankwise.measure.flops.subject import Subject
from rankwise.measure.step_batch import batch
from rankwise.methods.parts.base import adapt
from rankwise.models import build

FAST = ("lora_r4", "rsvd_r16", "weight_reduction_svt_r4")  # one of each kind; the others are slow


def marked(name: str) -> object:
    is_fast = name.removeprefix("a_step_flops_") in FAST
    return pytest.param(name, marks=() if is_fast else pytest.mark.slow)


def test_there_are_thirty_published_steps() -> None:
    assert len(STEPS) == 30
    assert {f"a_step_flops_{name}" for name in FAST} <= set(STEPS)


@pytest.mark.parametrize("name", [marked(name) for name in STEPS])
def test_system_a_step_flops_come_out_exactly(name: str) -> None:
    """Its count, and ours in full: without additions, with attention and with refreshes."""
    cell, published = STEPS[name]["cell"], STEPS[name]["published"]
    counted = distilbert_flops(cell["method"], cell["rank"])
    assert counted["profiler_step_flops"] == published
    refreshes = counted["optimizer_amortised_flops"] - counted["optimizer_flops"]
    additions = counted["profiler_elementwise_flops"]
    assert counted["step_flops"] == published - additions + 3 * ATTENTION + refreshes


@pytest.mark.parametrize("name", STEPS)
def test_published_steps_are_their_closed_forms(name: str) -> None:
    """Found from shapes: F forward, 19 additions of T D numbers, 4 r m n a projected matrix."""
    method, r = STEPS[name]["cell"]["method"], STEPS[name]["cell"]["rank"]
    rank_of_short_side = {
        "rsvd": lambda short: max(1, r * short // WIDTH),
        "rsvd_truncated": lambda short: min(r, short),
        "rsvd_fraction": lambda short: max(1, r * short // 100),
    }
    if method in rank_of_short_side:
        rank = rank_of_short_side[method]
        projections = sum(4 * rank(min(m, n)) * m * n for m, n in MATRICES)
        wanted = 3 * DENSE + 19 * TOKENS * WIDTH + projections
    elif method == "lora_qkv":
        wanted = 681_632_366_592 + 660_602_880 * r
    else:
        wanted = 768_435_585_024 + 63_742_464 * r
    assert STEPS[name]["published"] == wanted


def test_system_a_forward_flops_come_out_exactly() -> None:
    """One sentence of 11 tokens without gradients, from its forward_flops.csv; the same for all."""
    request = profile_request(
        "flops",
        "full",
        model="distilbert",
        dataset="sst2",
        batch_size=1,
        sequence_length_tokens=11,
    )
    subject = Subject.of(request, "sdpa")
    subject.model.eval()
    ids = {"input_ids": meta_batch(request["shapes"])["input_ids"]}
    with torch.no_grad():
        counts = profiler.forward_and_backward(subject.model, lambda: subject.loss(ids))
    assert sum(counts) == 935_573_760


@pytest.mark.parametrize("method", ["full", "lora_qkv", "weight_reduction", "bitfit"])
def test_the_count_is_that_of_the_real_profiler(method: str) -> None:
    """The profiler watches a real step on the CPU; we count from shapes with a CPU's kernels."""
    request = profile_request("flops", method, batch_size=2, sequence_length_tokens=8)
    real = build.from_shapes(request["model"], "classification", 2, "cpu")
    names = build.names(request["model"], "classification")
    _, real = adapt(request["method"], real, names)
    real.train()
    with torch.autograd.profiler.profile(with_flops=True, record_shapes=True) as profile:
        real(**batch(request, "cpu")).loss.backward()

    subject = Subject.of(request, "sdpa")
    ids = {"input_ids": meta_batch(request["shapes"])["input_ids"]}
    counts = profiler.forward_and_backward(subject.model, lambda: subject.loss(ids), "cpu")
    assert sum(counts) == sum(event.flops or 0 for event in profile.function_events)
