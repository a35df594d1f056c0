"""Evaluations that generate: the KV cache by hand, segments beside training's, torch's own allocator."""

import functools

import pytest

from helpers.profiling import ledger_request
from rankwise.core.units import MIB
from rankwise.measure.memory import account
from rankwise.measure.memory.ledger import LIMIT, ledger
from rankwise.measure.memory.tracker import Tracker

TEXTS, PROMPT = 9, 8
GRID = {"model": "stories260k", "dataset": "wikitext2", "batch_size": 2, "rank": 4}
EVALUATION = {"eval_batch_size": TEXTS, "prompt_length_tokens": PROMPT}


def request(method: str, generated: int, **settings: object) -> dict:
    sizes = {**GRID, **EVALUATION, "sequence_length_tokens": 32, "generated_tokens": generated}
    return ledger_request(**{**sizes, "method": method, **settings})


@functools.cache
def predicted(generated: int) -> dict:
    return ledger(request("lora", generated, measured=False))["metrics"]


def test_the_cache_has_keys_and_values_of_every_token() -> None:
    """Keys and values of all layers; of one layer at a time, the cache before its new token, too."""
    short, long = 60, 68
    shape = request("lora", short)["model"]["architecture"]
    heads, layers = shape["num_key_value_heads"], shape["num_hidden_layers"]
    width = shape["hidden_size"] // shape["num_attention_heads"]
    of_a_layer = 2 * TEXTS * heads * width * 4  # bytes a token, fp32
    gained = predicted(long)["evaluation_peak_bytes"] - predicted(short)["evaluation_peak_bytes"]
    # Attention repeats keys for the heads that share them, and has a row of scores a head.
    groups = shape["num_attention_heads"] // heads
    scores = 2 * TEXTS * shape["num_attention_heads"] * 4
    most = (layers + 1 + groups) * of_a_layer + scores
    assert (long - short) * layers * of_a_layer <= gained <= (long - short) * most


@pytest.mark.parametrize("sizes", [{}, EVALUATION], ids=["as in training", "its own"])
def test_an_evaluation_has_no_packs(sizes: dict) -> None:
    grid = {**GRID, **sizes, "sequence_length_tokens": 32, "generated_tokens": 4}
    plain = ledger_request(**grid, method="lora", measured=False)
    singles, packs = (ledger(request)["metrics"] for request in (plain, {**plain, "packed": True}))
    assert packs["forward_peak_bytes"] != singles["forward_peak_bytes"]
    mask, positions, ids = 4 * 2 * 32**2, 8 * 2 * 32, 8 * 2 * 32  # of training's batch, still alive
    gained = packs["evaluation_peak_bytes"] - singles["evaluation_peak_bytes"]
    assert 0 < gained <= mask + positions + ids


def test_an_evaluation_opens_segments_beside_those_of_training() -> None:
    """30 MiB of training are cached; 40 MiB of the evaluation do not fit into them."""
    log = Tracker()
    log.phases = [("first_forward", 0), ("forward", 2), ("evaluation", 4)]
    log.sizes = [30 * MIB, 30 * MIB, 40 * MIB]
    log.events, log.end = [1, -1, 2, -2, 3, -3], 6
    sizes = {"workspace_bytes": 2 * MIB}
    assert account.simulate(log, **sizes).peak_reserved == (20 + 30) * MIB
    assert account.simulate(log, evaluates=True, **sizes).peak_reserved == (20 + 30 + 40) * MIB


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "prefix_tuning"])
def test_a_generation_is_what_the_allocator_says(method: str) -> None:
    metrics = ledger(request(method, 24))["metrics"]
    measured = metrics["measured_evaluation_peak_bytes"]
    assert metrics["evaluation_peak_bytes"] == pytest.approx(measured, rel=LIMIT)
