"""FLOPs from shapes: closed forms, a second counter, and what the phases add up to."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from torch import nn

from helpers.conformance import (
    FORWARD_ONLY,
    LENGTH,
    PROFILE_BATCH,
    RANK,
    UNSUPPORTED,
    request_of,
)
from helpers.distilbert import (
    ATTENTION,
    DENSE,
    MATRICES,
    TOKENS,
    WIDTH,
    distilbert_flops,
)
from helpers.forward_forms import BASE, forward_flops, waiting_backward_flops
from helpers.profiling import profile_request, smoke_override
from helpers.repository import ROOT
from rankwise.core import result
from rankwise.measure.flops.count import flops, second_count, totals
from rankwise.measure.flops.subject import Subject
from rankwise.study.plan import Plan

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text(encoding="utf-8"))


def tiny_request(method: str, rank: int = RANK, **settings: object) -> dict:
    """The tiny encoder on two sequences of twelve tokens; `samples` makes an epoch."""
    samples = settings.pop("samples", None)
    sizes = {"batch_size": PROFILE_BATCH, "sequence_length_tokens": LENGTH}
    request = profile_request("flops", method, rank=rank, **{**sizes, **settings})
    return {**request, "train_samples": samples}


def tiny_flops(method: str, rank: int = RANK, **settings: object) -> dict:
    return flops(tiny_request(method, rank, **settings))["metrics"]


# Closed forms of DistilBERT ---------------------------------------------------------------------


def test_forward_and_backward_are_the_closed_form() -> None:
    counted = distilbert_flops("full")
    assert counted["forward_flops"] == DENSE + ATTENTION
    assert counted["backward_flops"] == 2 * (DENSE + ATTENTION)
    assert counted["optimizer_flops"] == counted["refresh_flops"] == 0
    assert "refresh_interval_steps" not in counted
    assert DENSE == 347_930_198_016  # published system A's F
    # AdamW writes 8 numbers for each parameter, and counts steps for each of 104 tensors.
    assert counted["optimizer_elementwise_flops"] == 8 * 66_955_010 + 104


@pytest.mark.parametrize("rank", [16, pytest.param(128, marks=pytest.mark.slow)])
def test_a_projected_step_is_two_products_per_matrix(rank: int) -> None:
    wanted = 0
    for m, n in MATRICES:
        matrix_rank = max(1, rank * min(m, n) // WIDTH)
        wanted += 4 * m * n * matrix_rank
    assert distilbert_flops("rsvd", rank)["optimizer_flops"] == wanted


@pytest.mark.parametrize("rank", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_lora_adds_its_products_and_saves_the_frozen_ones(rank: int) -> None:
    counted = distilbert_flops("lora_qkv", rank)
    adapters = 18 * 2 * TOKENS * rank * 2 * WIDTH
    assert counted["forward_flops"] == DENSE + ATTENTION + adapters
    assert counted["backward_flops"] < 2 * counted["forward_flops"]


# Every method and every model -------------------------------------------------------------------

SUPPORTED = [name for name in METHODS if (name, "tiny") not in UNSUPPORTED]
# Options that change no product.
WITHOUT_PRODUCTS = ("alpha", "dropout", "init", "plus_ratio", "rslora")


def first_of_its_products() -> list[str]:
    """The entries that `tiny` supports, without those that have the products of an earlier one."""
    seen, methods = [], []
    for method in SUPPORTED:
        entry = METHODS[method]
        options = dict(entry.get("options", {}))
        for name in WITHOUT_PRODUCTS:
            options.pop(name, None)
        if (entry["module"], options) not in seen:
            seen.append((entry["module"], options))
            methods.append(method)
    return methods


FIRST = first_of_its_products()


def every_method() -> list:
    """All entries that `tiny` supports (refusals: tests/methods/test_conformance.py)."""
    cases = []
    for method in SUPPORTED:
        cases.append(pytest.param(method, marks=() if method in FIRST else pytest.mark.slow))
    return cases


def square_ones() -> list[str]:
    """Entries that adapt square matrices; the channels of `contextual_sparse_lora` are not."""
    methods = []
    for method in FIRST:
        targets = METHODS[method].get("options", {}).get("targets", "all")
        is_contextual = METHODS[method]["module"] == "contextual_sparse_lora"
        if not is_contextual and set(targets) <= {"query", "key", "value"}:
            methods.append(method)
    return methods


@pytest.mark.parametrize("method", every_method())
def test_forward_flops_of_every_method_are_its_closed_form(method: str) -> None:
    """Backward is twice that if all weights train, and at most 2.5 times it otherwise."""
    counted = flops(request_of(method, "tiny", "flops"))["metrics"]
    forward, backward = counted["forward_flops"], counted["backward_flops"]
    assert forward == forward_flops(METHODS[method])
    assert (backward > 0) == (method not in ("frozen", *FORWARD_ONLY))
    assert backward <= 2.5 * forward
    if METHODS[method]["module"] == "full" and method not in FORWARD_ONLY:
        assert backward == 2 * BASE - waiting_backward_flops(method)


@pytest.mark.slow
@pytest.mark.parametrize("method", square_ones())
def test_forms_hold_for_tall_and_wide_matrices(method: str) -> None:
    """In square matrices m and n could be confused."""
    entry, override = METHODS[method], smoke_override(method)
    smoke_options = override.get(method, {}).get("options", {})
    targets = {"targets": ["up", "down"]}
    override[method] = {"options": {**smoke_options, **targets}}
    counted = tiny_flops(method, override=override)["forward_flops"]
    assert counted == forward_flops({**entry, "options": {**entry["options"], **targets}})


@pytest.mark.parametrize("name", [
    "minilm", "stories260k", "tiny",
    *[pytest.param(name, marks=pytest.mark.slow) for name in ("distilbert", "bert_base", "gpt2", "llama_3_2_1b")],
])  # fmt: skip
def test_backward_is_twice_forward_for_every_model_and_task(name: str, plan: Plan) -> None:
    """A little less where embeddings are not a linear layer's input; fvcore counts the same."""
    datasets = {
        "classification": "sst2",
        "language_modelling": "wikitext2",
        "masked_language_modelling": "generated_text",
    }
    for task in plan.library["models"][name]["head"]:
        if task not in datasets:  # no shipped dataset has it: tests/training/test_tasks.py
            continue
        sizes = {"sequence_length_tokens": 16, "batch_size": 2}
        request = profile_request("flops", "full", model=name, dataset=datasets[task], **sizes)
        counted = flops(request)["metrics"]
        forward = counted["forward_flops"]
        assert 1.9 * forward < counted["backward_flops"] <= 2 * forward
        assert counted["fvcore_forward_flops"] == forward


def test_where_nothing_trains_a_step_is_its_forward_pass() -> None:
    counted = tiny_flops("frozen")
    assert counted["step_flops"] == BASE
    assert counted["backward_flops"] == counted["optimizer_amortised_flops"] == 0


# Optimizers and methods that compute something themselves ---------------------------------------


def test_a_basis_in_every_step_has_interval_one_and_no_refresh() -> None:
    counted = tiny_flops("ldadam")
    assert counted["refresh_interval_steps"] == 1
    assert counted["refresh_flops"] == 0
    assert counted["optimizer_flops"] == counted["optimizer_amortised_flops"] > 0


def test_a_truncation_belongs_to_the_optimizer() -> None:
    """For each of 2 layers x 3 matrices A (64, 8), C (8, 8), B (8, 64), truncated to rank 4.

    QR of A C and of B', SVD of the core R_A R_B', and the products of A C, the core, and two bases.
    """
    counted = tiny_flops("weight_reduction_svt", 8)
    qr_tall = int(4 * 64 * 8**2 - 4 * 8**3 / 3)
    svd_core = 22 * 8**3
    truncation = 2 * qr_tall + svd_core + 2 * 8**3 + 2 * (2 * 64 * 8 * 4)
    assert counted["method_update_flops"] == 6 * truncation
    assert counted["method_update_interval_steps"] == 50
    assert counted["optimizer_amortised_flops"] == round(6 * truncation / 50)


def test_a_kernel_of_another_library_is_named_and_not_counted() -> None:
    counted = tiny_flops("full_adamw_8bit")
    assert "bitsandbytes::optimizer_update_8bit_blockwise" in counted["optimizer_note"]
    assert "optimizer_elementwise_flops" not in counted


# Sums -------------------------------------------------------------------------------------------


def test_sums_count_refreshes_accumulation_and_the_epoch() -> None:
    phases = {"forward_flops": 100, "backward_flops": 200, "optimizer_flops": 7}
    phases |= {"refresh_flops": 12, "refresh_interval_steps": 5}
    request = {"shapes": {"batch_size": 4}, "accumulation_steps": 3, "train_samples": 30}
    sums = totals(phases, request)
    assert sums["optimizer_amortised_flops"] == 9  # 7 + 12 / 5, rounded
    assert sums["step_flops"] == 309
    assert sums["update_flops"] == 3 * 300 + 9
    assert sums["sample_flops"] == 76  # 909 / 12, rounded
    assert sums["epoch_flops"] == 8 * 300 + 3 * 9  # ceil(30 / 4) micro-batches, ceil(8 / 3) updates
    assert "epoch_flops" not in totals(phases, {**request, "train_samples": None})
    with_update = {**phases, "method_update_flops": 100, "method_update_interval_steps": 50}
    assert totals(with_update, request)["optimizer_amortised_flops"] == 11


def test_a_result_has_all_sums_and_units(tmp_path: Path) -> None:
    request = tiny_request("rsvd", samples=11, accumulation_steps=2)
    counted = flops(request)["metrics"]
    amortised = counted["optimizer_flops"] + round(counted["refresh_flops"] / 500)
    micro_batch = counted["forward_flops"] + counted["backward_flops"]
    assert counted["refresh_flops"] > 0
    assert counted["update_flops"] == 2 * micro_batch + amortised
    assert counted["epoch_flops"] == 6 * micro_batch + 3 * amortised
    assert all(isinstance(value, int) for value in counted.values())
    result.write(tmp_path / "flops.json", request, {"metrics": counted}, {})


# A second counter -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [
    "full", "lora", "dora", "oft", "prompt_tuning", "weight_reduction_factored", "adapter_houlsby",
    "adapter_pfeiffer",
])  # fmt: skip
def test_two_counters_agree(method: str) -> None:
    """On a Llama; the closed forms above are those of an encoder."""
    sizes = {"model": "stories260k", "dataset": "wikitext2", "sequence_length_tokens": 16}
    counted = flops(profile_request("flops", method, batch_size=2, **sizes))["metrics"]
    assert counted["fvcore_forward_flops"] == counted["forward_flops"]


def test_counters_that_disagree_are_an_error_and_a_failed_trace_is_a_note() -> None:
    subject = Subject.of(tiny_request("full"), "eager")
    with pytest.raises(ArithmeticError, match="torch counts 1, fvcore"):
        second_count(subject, 1)

    class ReadsValues(nn.Module):
        config = SimpleNamespace(model_type="reads_values")

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=input_ids * input_ids.sum().item())

    subject.model = ReadsValues()
    assert "cannot trace this model" in second_count(subject, 1)["fvcore_note"]
