"""FLOPs from shapes: closed forms, published system A's numbers, a second counter, and what phases come to. Exact, or wrong."""

import functools
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.repository import ROOT
from rankwise.analysis.claim_verdicts import judge
from rankwise.core import config, result
from rankwise.measure.batch import meta_batch
from rankwise.measure.flops import profiler
from rankwise.measure.flops.count import Subject, count_step, flops, second_count, totals
from rankwise.measure.flops.formulas import FORMULAS, Elementwise, eigh, qr, svd
from rankwise.measure.step import batch
from rankwise.methods.parts.base import adapt
from rankwise.models import build
from rankwise.optim import AdamW, ProjectedAdam
from rankwise.report import flops as figure
from rankwise.study import outputs
from rankwise.study.claims import expand
from rankwise.study.plan import Cell, Plan

# DistilBERT, batch 32 x 128: tokens, width, inner width, layers.
T, D, H, LAYERS = 32 * 128, 768, 3072, 6
DENSE = 2 * T * LAYERS * (4 * D * D + 2 * D * H) + 2 * 32 * (D * D + 2 * D)
ATTENTION = LAYERS * 2 * 2 * 32 * 128 * 128 * D
MATRICES = [(30522, D), (512, D), *[(D, D)] * (LAYERS * 4 + 1), *[(H, D), (D, H)] * LAYERS, (2, D)]
FAMILIES = config.library(ROOT)["claims"]
STEPS = {
    name: claim
    for name, claim in expand(FAMILIES).items()
    if name.startswith("a_step_flops") and "mislabelled" not in name
}
FAST = (
    "lora_r4",
    "rsvd_r16",
    "rsvd_truncated_r64",
    "rsvd_fraction_r5",
    "weight_reduction_r128",
    "weight_reduction_svt_r4",
)


def request(
    method: str,
    rank: int = 0,
    model: str = "distilbert",
    dataset: str = "sst2",
    samples: int | None = None,
    **grid: object,
) -> dict:
    cells = {
        "models": [model],
        "datasets": [dataset],
        "methods": [method],
        "ranks": [rank or 4],
        "measurements": ["flops"],
    }
    study = {"name": "t", "question": "?", "device": "cpu", "profile": [{**cells, **grid}]}
    return {
        **Plan(study, ROOT).request("flops", Cell(model, dataset, method, rank)),
        "train_samples": samples,
    }


@functools.cache
def metrics(method: str, rank: int = 0, **settings: object) -> dict:
    return flops(request(method, rank, **settings))["metrics"]


def tiny(method: str, rank: int = 0, **settings: object) -> dict:
    return request(
        method,
        rank,
        "tiny",
        "generated_reviews",
        batch_size=2,
        sequence_length_tokens=8,
        **settings,
    )


# Closed forms ---------------------------------------------------------------------------------------------------------


def test_forward_and_backward_are_the_closed_form() -> None:
    found = metrics("full")
    assert found["forward_flops"] == DENSE + ATTENTION
    assert found["backward_flops"] == 2 * found["forward_flops"]
    assert found["optimizer_flops"] == found["refresh_flops"] == 0
    assert "refresh_interval_steps" not in found
    assert DENSE == 347_930_198_016  # system A's F
    assert found["optimizer_elementwise_flops"] == 8 * 66_955_010 + 104  # and a step count a tensor


@pytest.mark.parametrize("rank", [16, 128])
def test_a_projected_step_is_two_products_a_matrix(rank: int) -> None:
    wanted = sum(4 * m * n * min(max(1, rank * min(m, n) // D), m, n) for m, n in MATRICES)
    assert metrics("rsvd", rank)["optimizer_flops"] == wanted


@pytest.mark.parametrize("rank", [4, 64])
def test_lora_adds_its_products_and_saves_the_frozen_ones(rank: int) -> None:
    found = metrics("lora_qkv", rank)
    assert found["forward_flops"] == DENSE + ATTENTION + 18 * 2 * T * rank * 2 * D
    assert found["backward_flops"] < 2 * found["forward_flops"]


@pytest.mark.parametrize(
    "name", ["distilbert", "bert_base", "gpt2", "llama_3_2_1b", "minilm", "stories260k", "tiny"]
)
def test_flops_of_every_model_and_task(name: str, plan: Plan) -> None:
    datasets = {
        "classification": "sst2",
        "language_modelling": "wikitext2",
        "masked_language_modelling": "generated_text",
    }
    for task in plan.library["models"][name]["head"]:
        found = metrics(
            "full", model=name, dataset=datasets[task], sequence_length_tokens=16, batch_size=2
        )
        assert 1.9 * found["forward_flops"] < found["backward_flops"] <= 2 * found["forward_flops"]
        assert found["fvcore_forward_flops"] == found["forward_flops"]


def test_what_cannot_be_done_says_so() -> None:
    found = flops(tiny("prefix_tuning", 4))
    assert found["status"] == "unsupported"
    assert "DistilBERT" in found["reason"]


# Decompositions and refreshes -----------------------------------------------------------------------------------------


def test_decompositions_cost_what_the_book_says() -> None:
    assert qr((9, 3)) == 4 * 9 * 9 - 4 * 27 // 3 == 288  # 4 m n^2 - 4 n^3 / 3
    assert qr((5, 9, 3)) == 5 * 288
    assert qr((6, 6), "reduced") == qr((6, 6), "complete") == 8 * 6**3 // 3
    assert 2 * qr((9, 3), "r") - 2 * (2 * 9 * 9 - 2 * 27 // 3) == 0  # 2 m n^2 - 2 n^3 / 3
    assert svd((10, 2)) == min(14 * 10 * 4 + 8 * 8, 6 * 10 * 4 + 20 * 8) == 400  # by QR
    assert svd((2, 10)) == svd((10, 2))
    assert svd((3, 2, 2), True) == 3 * 22 * 8  # by Golub & Reinsch
    assert svd((10, 2), compute_uv=False) == 2 * 10 * 4 + 2 * 8
    assert eigh((2, 4, 4)) == 2 * 9 * 64


@pytest.mark.parametrize(("call", "wanted"), [
    (torch.linalg.qr, qr((7, 3))),
    (lambda g: torch.linalg.qr(g, mode="r"), qr((7, 3), "r")),
    (lambda g: torch.linalg.svd(g, full_matrices=False), svd((7, 3))),
    (lambda g: torch.linalg.eigh(g.mT @ g), eigh((3, 3)) + 2 * 7 * 9),
    (lambda g: g @ g[0], 2 * 7 * 3),
    (lambda g: g.new_zeros(7, 7).addmm_(g, g.mT), 2 * 7 * 7 * 3),
])  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_torch_counts_them(call, wanted: int, device: str) -> None:
    matrix = torch.ones(7, 3, device=device)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        call(matrix)
    assert counter.get_total_flops() == wanted


def optimizer(projector: str, **options: object) -> ProjectedAdam:
    """Over one matrix (4, 6) at rank 1, on the meta device."""
    param = nn.Parameter(torch.empty(4, 6, device="meta"))
    param.grad = torch.empty_like(param)
    built = ProjectedAdam(
        [param], rank=1, projector=projector, scale=1.0, interval_steps=5, **options
    )
    built.allocate()
    return built


def test_a_refresh_is_its_sketch_powers_and_decompositions() -> None:
    """Sketch of l = 2 columns: four products G x (4 x 6 x 2), QR of (4, 2) and (6, 2) twice each, SVD (2, 2), Q U (4 x 2 x 1)."""
    built = optimizer("rsvd", oversample=1, power_iterations=1)
    plain, refreshing = (sum(count_step(built, taken)[0].values()) for taken in (1, 5))
    assert plain == 2 * (2 * 4 * 6)  # P'G, P D
    tall, short = 4 * 6 * 4 - 32 / 3, 4 * 4 * 4 - 32 / 3
    assert refreshing - plain == 4 * 96 + 2 * int(tall) + 2 * int(short) + 22 * 8 + 16 == 852
    assert sum(count_step(built, 6)[0].values()) == plain
    svds = optimizer("svd")
    assert (
        sum(count_step(svds, 5)[0].values()) - plain
        == svd((4, 6))
        == min(14 * 96 + 8 * 64, 6 * 96 + 20 * 64)
    )
    drifts = optimizer(
        "rsvd", oversample=1, power_iterations=1, drift=0.5
    )  # whether it is due, values say: it counts as due
    assert sum(count_step(drifts, 1)[0].values()) >= refreshing
    draws = optimizer("normal")
    assert sum(count_step(draws, 5)[0].values()) == plain


def test_elementwise_is_one_a_number_written() -> None:
    x = torch.ones(4, 5)
    with Elementwise() as counted:
        (x * 2).add_(1).sqrt_()  # 3 x 20
        x.clone()
        torch._foreach_mul_([x, x[0]], 2.0)  # 20 + 5
        x.sum()
    assert counted.flops == 85
    with Elementwise() as asked:
        yes = bool((torch.empty(3, device="meta") > 0).any())
    assert yes
    assert asked.flops == 3


def test_a_basis_at_every_step_has_interval_one_and_no_refresh() -> None:
    found = flops(tiny("ldadam", 4))["metrics"]
    assert found["refresh_interval_steps"] == 1
    assert found["refresh_flops"] == 0
    assert found["optimizer_flops"] == found["optimizer_amortised_flops"] > 0


def test_a_truncation_belongs_to_the_optimizer() -> None:
    """QR of A C and of B', SVD of the core, and three products for each of 2 layers x 3 matrices (64, 64), r 8, k 4."""
    found = flops(tiny("weight_reduction_svt", 8))["metrics"]
    one = 2 * qr((64, 8)) + svd((8, 8)) + 2 * 8**3 + 2 * (2 * 64 * 8 * 4)
    assert found["method_update_flops"] == 6 * one
    assert found["method_update_interval_steps"] == 50
    assert found["optimizer_amortised_flops"] == round(6 * one / 50)


def test_a_kernel_of_another_library_is_named() -> None:
    found = flops(tiny("full_adamw_8bit"))["metrics"]
    assert "bitsandbytes::optimizer_update_8bit_blockwise" in found["optimizer_note"]
    assert "optimizer_elementwise_flops" not in found


# Sums -----------------------------------------------------------------------------------------------------------------


def test_sums_count_refreshes_accumulation_and_the_epoch() -> None:
    parts = {"forward_flops": 100, "backward_flops": 200, "optimizer_flops": 7}
    parts |= {"refresh_flops": 12, "refresh_interval_steps": 5}
    asked = {"shapes": {"batch_size": 4}, "accumulation_steps": 3, "train_samples": 30}
    found = totals(parts, asked)
    assert found["optimizer_amortised_flops"] == 9  # 7 + 12 / 5, to whole FLOPs
    assert found["step_flops"] == 309
    assert found["update_flops"] == 3 * 300 + 9
    assert found["sample_flops"] == 76  # 909 / 12
    assert (
        found["epoch_flops"] == 8 * 300 + 3 * 9
    )  # ceil(30 / 4) micro-batches, ceil(8 / 3) updates
    assert "epoch_flops" not in totals(parts, {**asked, "train_samples": None})
    both = {**parts, "method_update_flops": 100, "method_update_interval_steps": 50}
    assert totals(both, asked)["optimizer_amortised_flops"] == 11


def test_a_result_has_them_all_and_units(tmp_path) -> None:
    asked = tiny("rsvd", 4, samples=11, accumulation_steps=2)
    found = flops(asked)["metrics"]
    spread = found["optimizer_flops"] + round(found["refresh_flops"] / 500)
    micro_batch = found["forward_flops"] + found["backward_flops"]
    assert found["refresh_flops"] > 0
    assert found["update_flops"] == 2 * micro_batch + spread
    assert found["epoch_flops"] == 6 * micro_batch + 3 * spread
    assert all(isinstance(value, int) for value in found.values())
    result.write(tmp_path / "flops.json", asked, {"metrics": found}, {})


def test_nothing_trains_nothing_steps() -> None:
    found = flops(tiny("frozen"))["metrics"]
    assert found["step_flops"] == found["forward_flops"] > 0
    assert found["backward_flops"] == found["optimizer_amortised_flops"] == 0


# A second counter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "full",
        "lora",
        "dora",
        "oft",
        "prompt_tuning",
        "weight_reduction_factored",
        "adapter_houlsby",
    ],
)
def test_two_counters_agree(method: str) -> None:
    found = metrics(
        method,
        0 if method == "full" else 4,
        model="stories260k",
        dataset="wikitext2",
        sequence_length_tokens=16,
    )
    assert found["fvcore_forward_flops"] == found["forward_flops"]


def test_counters_that_disagree_are_an_error_and_no_trace_is_a_note() -> None:
    subject = Subject.of(tiny("full"), "eager")
    with pytest.raises(ArithmeticError, match="torch counts 1, fvcore"):
        second_count(subject, 1)

    class Asks(nn.Module):
        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=input_ids * input_ids.sum().item())

    subject.model = Asks()
    assert "cannot trace this model" in second_count(subject, 1)["fvcore_note"]


# System A's counter ---------------------------------------------------------------------------------------------------


def test_there_are_thirty_published_steps() -> None:
    assert len(STEPS) == 30
    assert {f"a_step_flops_{name}" for name in FAST} <= set(STEPS)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name.removeprefix("a_step_flops_") in FAST else pytest.mark.slow) for name in STEPS
])  # fmt: skip
def test_system_a_step_flops_come_out_exactly(name: str) -> None:
    cell, published = STEPS[name]["cell"], STEPS[name]["published"]
    found = metrics(cell["method"], cell["rank"])
    assert found["profiler_step_flops"] == published
    unfused = published - found["profiler_elementwise_flops"] + 3 * ATTENTION
    assert (
        found["step_flops"]
        == unfused + found["optimizer_amortised_flops"] - found["optimizer_flops"]
    )


@pytest.mark.parametrize("name", STEPS)
def test_published_steps_are_their_closed_forms(name: str) -> None:
    """Found from shapes: F forward, 19 additions of T D numbers, 4 r m n a projected matrix."""
    method, r = STEPS[name]["cell"]["method"], STEPS[name]["cell"]["rank"]
    ranks = {
        "rsvd": lambda short: max(1, r * short // D),
        "rsvd_truncated": lambda short: min(r, short),
        "rsvd_fraction": lambda short: max(1, r * short // 100),
    }
    if method in ranks:
        wanted = (
            3 * DENSE + 19 * T * D + sum(4 * ranks[method](min(m, n)) * m * n for m, n in MATRICES)
        )
    else:
        constant, slope = (
            (681_632_366_592, 660_602_880)
            if method == "lora_qkv"
            else (768_435_585_024, 63_742_464)
        )
        wanted = constant + slope * r
    assert STEPS[name]["published"] == wanted


def test_system_a_forward_flops_come_out_exactly() -> None:
    """One sentence of 11 tokens, without gradients: its forward_flops.csv, the same for every method and rank."""
    subject = Subject.of(request("full", batch_size=1, sequence_length_tokens=11), "sdpa")
    subject.model.eval()
    ids = {"input_ids": meta_batch(subject.request["shapes"])["input_ids"]}
    with torch.no_grad():
        assert (
            sum(profiler.forward_and_backward(subject.model, lambda: subject.loss(ids)))
            == 935_573_760
        )


@pytest.mark.parametrize(
    ("method", "rank"), [("full", 0), ("lora_qkv", 4), ("weight_reduction", 4), ("bitfit", 0)]
)
def test_the_count_is_the_real_profilers(method: str, rank: int) -> None:
    """Of a real step on the CPU, from shapes with a CPU's kernels."""
    asked = tiny(method, rank)
    subject = Subject.of(asked, "sdpa")
    real = build.from_shapes(asked["model"], "classification", 2, "cpu")
    real = adapt(asked["method"], real, build.names(asked["model"], "classification"))[1].train()
    with torch.autograd.profiler.profile(with_flops=True, record_shapes=True) as profile:
        real(**batch(asked, "cpu")).loss.backward()
    ids = {"input_ids": meta_batch(asked["shapes"])["input_ids"]}
    counted = profiler.forward_and_backward(subject.model, lambda: subject.loss(ids), "cpu")
    assert sum(counted) == sum(event.flops or 0 for event in profile.function_events)


def test_adamw_counts_no_product() -> None:
    param = nn.Parameter(torch.empty(4, 6, device="meta"))
    param.grad = torch.empty_like(param)
    assert sum(count_step(AdamW([param]), 1)[0].values()) == 0


# Claims and the figure ------------------------------------------------------------------------------------------------


def test_a_claim_without_its_table_row_or_number_is_not_yet_run_and_a_failure_is_said() -> None:
    name = "a_step_flops_rsvd_r4"
    claims = {name: STEPS[name]}
    row = {
        **STEPS[name]["cell"],
        **STEPS[name]["settings"],
        "status": "ok",
        "profiler_step_flops": STEPS[name]["published"],
    }

    def verdict(*rows: dict) -> str:
        return judge(claims, {"flops": pd.DataFrame(rows)})["verdict"].item()

    assert judge(claims, {})["verdict"].item() == "not yet run"
    assert verdict({**row, "rank": 8}) == "not yet run"
    assert (
        verdict({key: value for key, value in row.items() if not key.startswith("profiler")})
        == "not yet run"
    )
    assert verdict(row) == "reproduced"
    assert (
        verdict({**row, "profiler_step_flops": row["profiler_step_flops"] + 1}) == "not reproduced"
    )
    assert (
        verdict({**row, "status": "out_of_memory", "profiler_step_flops": None}) == "out of memory"
    )


def test_claims_ask_for_the_tables_that_the_study_has(plan: Plan) -> None:
    assert outputs.claim_tables(plan) == ["runs", "memory", "flops", "ledger", "state"]
    cells = {"models": ["tiny"], "datasets": ["generated_reviews"], "methods": ["full"]}
    alone = {
        "name": "t",
        "question": "?",
        "device": "cpu",
        "profile": [{**cells, "measurements": ["flops"]}],
    }
    assert outputs.claims_request(Plan(alone, ROOT))["tables"] == ["flops"]
    assert "claims" in outputs.page_tables(Plan(alone, ROOT))
    timed = {**alone, "profile": [{**cells, "measurements": ["forward"]}]}
    assert "claims" not in outputs.page_tables(Plan(timed, ROOT))


def test_the_paper_study_decides_every_published_step() -> None:
    study = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    cells = set(Plan(study, ROOT).cells("flops"))
    assert {Cell(**claim["cell"]) for claim in STEPS.values()} <= cells


def frame(number: int) -> pd.DataFrame:
    sizes = {
        "forward_flops": 10,
        "backward_flops": 20,
        "optimizer_flops": 3,
        "optimizer_amortised_flops": 5,
    }
    cell = {"model": "m", "dataset": "d", "status": "ok", "accumulation_steps": 4}
    rows = [{**cell, "method": "full", "rank": 0, **sizes}]
    rows += [{**cell, "method": "lora", "rank": rank, **sizes} for rank in range(1, number - 1)]
    return pd.DataFrame([*rows, {**cell, "method": "ldadam", "rank": 1, "status": "unsupported"}])


def test_phases_of_an_update_add_up_and_a_failed_row_has_none() -> None:
    parts = figure.phases(frame(3))
    assert parts.iloc[0].tolist() == [40, 80, 3, 2]
    assert parts.iloc[2].isna().all()


@pytest.mark.parametrize("number", [3, 40])
def test_no_text_of_the_figure_lies_on_another(number: int, plan: Plan) -> None:
    drawn = figure.draw({"flops": frame(number)}, dict(outputs.labels(plan)))
    drawn.draw_without_rendering()
    axes = drawn.axes[0]
    texts = [
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        axes.xaxis.label,
        axes.title,
        *drawn.legends[0].texts,
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert any(text == "unsupported" for text, _ in boxes)
    for number_of, (text, box) in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.x1
        for other, its in boxes[:number_of]:
            assert not box.padded(-1).overlaps(its.padded(-1)), (text, other)


def test_no_profile_no_figure(plan: Plan) -> None:
    with pytest.raises(ValueError, match="no FLOPs profile"):
        figure.draw({"flops": frame(3).iloc[:0]}, dict(outputs.labels(plan)))
