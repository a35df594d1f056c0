"""Sparse LoRA: exactly so many zeros, when the schedule says, and that they stay."""

import copy
from itertools import pairwise

import pytest
import torch
import yaml
from peft.tuners.lora import LoraLayer
from torch import nn

from helpers.repository import ROOT
from rankwise.methods.lora import Lora
from rankwise.methods.parts.pruning import cubic_sparsity, keep_largest, soft_threshold
from rankwise.methods.sparse_lora import SparseLora
from rankwise.models import build
from rankwise.study.options import options

MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}  # less to draw
TASKS = {
    "tiny": "classification",
    "minilm": "classification",
    "stories260k": "language_modelling",
    "gpt2": "language_modelling",
}
COMMON = {
    "rank": 8,
    "targets": ("query", "value"),
    "begin_step": 2,
    "every_steps": 2,
    "prune_count": 3,
}


def adapted(method: object, name: str = "tiny", device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    task = TASKS[name]
    model = build.from_shapes(MODELS[name], task, 2 * (task == "classification"), device)
    return method.prepare(model, build.names(MODELS[name], task))


def batch(name: str = "tiny") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(MODELS[name]["architecture"]["vocab_size"], (4, 12), generator=generator)
    return {
        "input_ids": ids,
        "labels": ids if TASKS[name] == "language_modelling" else torch.tensor([0, 1, 1, 0]),
    }


def pairs(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    return [
        (layer.lora_A["default"], layer.lora_B["default"])
        for layer in model.modules()
        if isinstance(layer, LoraLayer)
    ]


def factors(model: nn.Module) -> list[nn.Linear]:
    return [factor for pair in pairs(model) for factor in pair]


def zeros(factor: nn.Linear) -> int:
    return int((factor.weight == 0).sum())


def fit(
    method: object,
    model: nn.Module,
    steps: int,
    name: str = "tiny",
    lr: float = 1e-2,
    each=lambda step: None,
) -> None:
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], lr)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        model(**batch(name)).loss.backward()
        optimizer.step()
        method.after_step(model, optimizer, step)
        each(step)


@pytest.mark.parametrize(
    ("t", "wanted"),
    [(0, 0), (9, 0), (10, 0), (35, 0.5203), (60, 0.7875), (85, 0.8859), (110, 0.9), (500, 0.9)],
)
def test_the_cubic_schedule(t: int, wanted: float) -> None:
    assert cubic_sparsity(t, 0.0, 0.9, 10, 5, 20) == pytest.approx(wanted, abs=5e-5)


def test_sparsity_never_falls() -> None:
    path = [SparseLora(8, ("query",), begin_step=10, every_steps=5).target(t) for t in range(130)]
    assert all(a <= b for a, b in pairwise(path))
    assert {
        SparseLora(8, ("query",), schedule="one_shot", begin_step=10).target(t)
        for t in (10, 11, 400)
    } == {0.5}


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.77])
def test_a_mask_has_exactly_so_many_zeros_and_drops_the_smallest(sparsity: float) -> None:
    scores = torch.rand(7, 13, generator=torch.Generator().manual_seed(0))
    mask = keep_largest(scores, sparsity, torch.ones(7, 13, dtype=torch.bool))
    assert (~mask).sum() == int(sparsity * 91)
    assert sparsity == 0 or scores[~mask].max() <= scores[mask].min()


def test_what_was_dropped_stays_dropped_among_ties() -> None:
    kept = torch.tensor([True, True, False, True, False, True])
    mask = keep_largest(torch.zeros(6), 0.5, kept)
    assert (~mask).sum() == 3
    assert not mask[~kept].any()


@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
@pytest.mark.parametrize("name", ["tiny", "minilm", "stories260k"])
def test_magnitude_zeros_are_exact_and_held(schedule: str, name: str) -> None:
    method = SparseLora(**COMMON, schedule=schedule, sparsity=0.6)
    model = adapted(method, name)

    def check(step: int) -> None:
        share = method.target(step - step % 2)  # pruned last at an even step
        for factor in factors(model):
            assert zeros(factor) >= (~factor.mask).sum() == int(share * factor.weight.numel())
            assert not factor.weight[~factor.mask].any()

    fit(method, model, 9, name, each=check)
    assert all(zeros(factor) == int(0.6 * factor.weight.numel()) for factor in factors(model))


def test_from_shapes_gpt2_has_masks_of_its_shapes() -> None:
    model = adapted(SparseLora(**{**COMMON, "targets": ("attention",)}), "gpt2", "meta")
    assert {tuple(factor.mask.shape) for factor in factors(model)} == {(8, 768), (2304, 8)}
    assert all(factor.mask.is_meta for factor in factors(model))


def test_masks_only_ever_grow() -> None:
    method = SparseLora(**COMMON, sparsity=0.9)
    model = adapted(method)
    seen = []
    fit(
        method,
        model,
        9,
        each=lambda step: seen.append([factor.mask.clone() for factor in factors(model)]),
    )
    for before, after in pairwise(seen):
        assert not any((new & ~old).any() for old, new in zip(before, after, strict=True))


def test_structured_drops_the_weakest_components_whole_and_for_good() -> None:
    method = SparseLora(**COMMON, kind="structured", schedule="one_shot", sparsity=0.7)
    model, at_pruning = adapted(method), []
    fit(SparseLora(**COMMON, sparsity=0.0), model, 3)
    strengths = [
        torch.linalg.vector_norm(a.weight, dim=1) * torch.linalg.vector_norm(b.weight, dim=0)
        for a, b in pairs(model)
    ]
    method.after_step(model, torch.optim.SGD(model.parameters()), 2)
    for (a, b), strength in zip(pairs(model), strengths, strict=True):
        dropped = (a.weight == 0).all(1)
        assert set(dropped.nonzero().flatten().tolist()) == set(
            strength.argsort()[:5].tolist()
        )  # floor(0.7 * 8)
        assert torch.equal(dropped, (b.weight == 0).all(0))
        assert a.weight[~dropped].all()
        at_pruning.append(dropped)
    fit(method, model, 8)
    assert all(
        torch.equal((a.weight == 0).all(1), dropped)
        for (a, _), dropped in zip(pairs(model), at_pruning, strict=True)
    )


def test_without_hold_it_is_system_b() -> None:
    """The smaller half is zero right after a pruning, and has regrown a step later."""
    method = SparseLora(**COMMON, schedule="one_shot", sparsity=0.5, hold=False)
    model = adapted(method)
    counts = []
    fit(
        method,
        model,
        5,
        each=lambda step: counts.append([zeros(factor) for factor in factors(model)]),
    )
    half = [factor.weight.numel() // 2 for factor in factors(model)]
    assert counts[1] == counts[3] == half
    assert sum(counts[2]) == sum(counts[4]) == 0
    assert not any("mask" in name for name, _ in model.named_buffers())


@pytest.mark.parametrize("kind", ["magnitude", "structured"])
@pytest.mark.parametrize("hold", [True, False])
def test_at_sparsity_0_it_is_lora_to_the_bit(kind: str, hold: bool) -> None:
    shared = {"rank": 8, "targets": ("query", "value"), "dropout": 0.1}
    lora, sparse = (
        Lora(**shared),
        SparseLora(**{**COMMON, **shared}, kind=kind, hold=hold, sparsity=0.0),
    )
    found = {}
    for method in (lora, sparse):
        model = adapted(method)
        fit(method, model, 5)
        found[method] = dict(model.named_parameters())
    assert all(torch.equal(found[lora][name], value) for name, value in found[sparse].items())
    assert any(factor.any() for name, factor in found[sparse].items() if "lora_B" in name)


def test_the_proximal_step_is_the_minimiser_of_its_problem() -> None:
    """Prox of t |.|_1: argmin over y of (y - x)^2 / 2 + t |y|, here against a fine grid."""
    x, grid = (
        torch.linspace(-2, 2, 41, dtype=torch.float64),
        torch.linspace(-3, 3, 60_001, dtype=torch.float64),
    )
    best = grid[((grid[None] - x[:, None]) ** 2 / 2 + 0.3 * grid[None].abs()).argmin(1)]
    assert torch.allclose(soft_threshold(x, 0.3), best, atol=1e-4)


def test_the_l1_penalty_gives_exact_zeros_and_more_of_them_if_larger() -> None:
    counts = []
    for l1 in (0.0, 1.0, 5.0):
        method = SparseLora(**COMMON, kind="proximal_l1", l1=l1)
        model = adapted(method)
        fit(method, model, 6)
        counts.append(sum(zeros(factor) for factor in factors(model)))
    assert 0 == counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("kind", ["magnitude", "structured", "proximal_l1"])
def test_merged_it_answers_alike(kind: str) -> None:
    method = SparseLora(**COMMON, kind=kind, l1=1.0)
    model = adapted(method)
    fit(method, model, 8)
    with torch.no_grad():
        wanted = model.eval()(**batch()).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch()).logits, wanted, atol=1e-5)
    assert not any(isinstance(module, LoraLayer) for module in merged.modules())


def test_a_saved_state_keeps_the_masks() -> None:
    method = SparseLora(**COMMON, sparsity=0.5)
    model = adapted(method)
    fit(method, model, 8)
    other = adapted(method)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert all(
        torch.equal(a.mask, b.mask) for a, b in zip(factors(model), factors(other), strict=True)
    )
    fit(method, other, 1)
    assert not any(factor.weight[~factor.mask].any() for factor in factors(other))


def test_a_sparsity_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="sparsity: got 1, allowed: 0 or more, below 1"):
        SparseLora(8, ("query",), sparsity=1)
    assert (
        options("rankwise.methods.sparse_lora")["kind"].allowed
        == "magnitude, structured, proximal_l1"
    )
