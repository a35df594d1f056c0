"""FLOPs from shapes: closed forms, a second counter, and what the phases add up to."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from torch import nn

from helpers.distilbert import (
    ATTENTION,
    DENSE,
    MATRICES,
    TOKENS,
    WIDTH,
    distilbert_flops,
)
from helpers.profiling import TinyEncoder, profile_request, smoke_override
from helpers.repository import ROOT
from rankwise.core import result
from rankwise.measure.flops.count import flops, second_count, totals
from rankwise.measure.flops.subject import Subject
from rankwise.study.plan import Plan

METHODS = yaml.safe_load((ROOT / "config/methods.yaml").read_text(encoding="utf-8"))
BATCH, LENGTH, RANK = 2, 8, 4


def tiny_request(method: str, rank: int = RANK, **settings: object) -> dict:
    """The tiny encoder on two sequences of eight tokens; `samples` makes an epoch."""
    samples = settings.pop("samples", None)
    sizes = {"batch_size": BATCH, "sequence_length_tokens": LENGTH}
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
#
# What a method adds to a forward pass of the tiny encoder, from the papers' formulas: T tokens, rank
# r, matrices (m, n), width d. Each function takes the options of an entry of config/methods.yaml.

TINY_TOKENS = BATCH * LENGTH


def no_product(_options: dict) -> int:
    """What trains is in the model already, scales it, or adds to its matrices by element."""
    return 0


def over_targets(options: dict, cost: Callable[[int, int], int]) -> int:
    """The sum of cost(m, n) over the matrices that the method adapts."""
    targets = [TinyEncoder.MATRICES[role] for role in options["targets"]]
    return TinyEncoder.LAYERS * sum(cost(m, n) for m, n in targets)


def dense_product(options: dict) -> int:
    """W x."""
    return over_targets(options, lambda m, n: 2 * TINY_TOKENS * m * n)


def factors(options: dict) -> int:
    """B (A x)."""
    r = options.get("rank", RANK)
    return over_targets(options, lambda m, n: 2 * TINY_TOKENS * r * (m + n))


def product_matrix(options: dict) -> int:
    """The matrix B A."""
    return over_targets(options, lambda m, n: 2 * m * n * RANK)


def lora(options: dict) -> int:
    """DoRA needs the norms of W + B A, where peft forms B (A I), and W x again, for dropout is on."""
    if not options.get("dora"):
        return factors(options)
    norms = over_targets(options, lambda m, n: 2 * n * RANK * (m + n))
    return factors(options) + norms + dense_product(options)


def hira(options: dict) -> int:
    """(W * B A) x beside W x."""
    return product_matrix(options) + dense_product(options)


def oft(options: dict) -> int:
    """x times blocks (r, r); a Neumann series of k terms has k - 2 products of blocks."""
    rotation = over_targets(options, lambda _m, n: 2 * TINY_TOKENS * n * RANK)
    powers = max(0, options.get("neumann_terms", 0) - 2)
    return rotation + over_targets(options, lambda _m, n: powers * (n // RANK) * 2 * RANK**3)


def miss(options: dict) -> int:
    """Sums of the input's groups times (r, m); in the variant bat, blocks of W times (r, r)."""
    if options.get("variant") == "bat":
        return product_matrix(options)
    return over_targets(options, lambda m, _n: 2 * TINY_TOKENS * RANK * m)


def prompt_tuning(_options: dict) -> int:
    """Sequences are longer by r virtual tokens."""
    longer = TinyEncoder.forward_flops(BATCH, LENGTH + RANK)
    return longer - TinyEncoder.forward_flops(BATCH, LENGTH)


def p_tuning(options: dict) -> int:
    """Virtual tokens, which an encoder of three square layers computes once a batch."""
    return prompt_tuning(options) + 3 * 2 * RANK * TinyEncoder.WIDTH**2


def adapter(options: dict) -> int:
    """Down to r and up again, after each block (Houlsby) or once a layer."""
    adapters_per_layer = 2 if options["placement"] == "houlsby" else 1
    number = TinyEncoder.LAYERS * adapters_per_layer
    return number * 2 * TINY_TOKENS * RANK * 2 * TinyEncoder.WIDTH


def weight_reduction(options: dict) -> int:
    """B A in place of W: formed, or kept as factors, of which a truncation keeps a share."""
    if options.get("forward") != "factored":
        return product_matrix(options)
    if options.get("residual") == "kept":
        return factors(options)
    kept = options["svt_keep"] if options.get("svt") == "shrink" else 1
    return int(kept * factors(options)) - dense_product(options)


def contextual_sparse_lora(options: dict) -> int:
    """Khaki et al. 2025, section 3: cut matrices fall to (1 - s); estimates of rank 8 choose.

    One of the two layers is sparse, for the last one stays dense.
    """
    matrices = TinyEncoder.MATRICES
    attention = [matrices[role] for role in ("query", "key", "value", "output")]
    saved = options["attention_sparsity"] * sum(2 * TINY_TOKENS * m * n for m, n in attention)
    left_out = TinyEncoder.INNER - 13  # of 128 channels a tenth is kept, rounded up
    saved += 2 * (2 * TINY_TOKENS * TinyEncoder.WIDTH * left_out)
    estimated = [matrices[role] for role in ("query", "key", "value", "up")]
    estimates = sum(2 * TINY_TOKENS * 8 * (m + n) for m, n in estimated)
    return factors(options) + estimates - int(saved)


ADDED_FLOPS = {
    **dict.fromkeys(("frozen", "full", "head_only", "bitfit", "ia3", "shira"), no_product),
    **dict.fromkeys(("sparse_lora", "vera"), factors),
    "lora": lora,
    "hira": hira,
    "oft": oft,
    "miss": miss,
    "prompt_tuning": prompt_tuning,
    "p_tuning": p_tuning,
    "adapter": adapter,
    "weight_reduction": weight_reduction,
    "contextual_sparse_lora": contextual_sparse_lora,
}


def every_method() -> list:
    """All entries; one that adapts the model as an earlier one does is slow."""
    seen, cases = [], []
    for method, entry in METHODS.items():
        adaptation = (entry["module"], entry.get("options", {}))
        cases.append(pytest.param(method, marks=pytest.mark.slow if adaptation in seen else ()))
        seen.append(adaptation)
    return cases


def waiting(method: str) -> int:
    """Products of backward that an entry leaves out, because their parameters wait for their turn.

    Of two equal layers the first is active, and the second has no gradient of its weights. BAdam's
    head waits too, and so do the embeddings: below the first query, key and value nothing needs a
    gradient. LISA's embeddings and head train.
    """
    layer = sum(2 * TINY_TOKENS * m * n for m, n in TinyEncoder.MATRICES.values())
    if method == "badam":
        first_inputs = 3 * 2 * TINY_TOKENS * TinyEncoder.WIDTH**2
        head = 2 * BATCH * (TinyEncoder.WIDTH**2 + TinyEncoder.CLASSES * TinyEncoder.WIDTH)
        return layer + first_inputs + head
    return layer if method == "lisa" else 0


@pytest.mark.parametrize("method", every_method())
def test_forward_flops_of_every_method_are_its_closed_form(method: str) -> None:
    entry = METHODS[method]
    outcome = flops(tiny_request(method, override=smoke_override(method)))
    if method == "prefix_tuning":
        assert outcome["status"] == "unsupported"
        assert "DistilBERT" in outcome["reason"]
        return
    counted = outcome["metrics"]
    base = TinyEncoder.forward_flops(BATCH, LENGTH)
    added = ADDED_FLOPS[entry["module"]](entry.get("options", {}))
    assert counted["forward_flops"] == base + added
    if entry["module"] == "full":
        assert counted["backward_flops"] == 2 * base - waiting(method)


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
    assert counted["step_flops"] == TinyEncoder.forward_flops(BATCH, LENGTH)
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
        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=input_ids * input_ids.sum().item())

    subject.model = ReadsValues()
    assert "cannot trace this model" in second_count(subject, 1)["fvcore_note"]
