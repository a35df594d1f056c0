"""Sparse LoRA: how many entries are zero, when the schedule prunes, and that zeros stay zero."""

import copy
from collections.abc import Callable
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
# Fewer layers and words, so that its random weights are drawn faster.
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}
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


def build_adapted(method: object, name: str = "tiny", device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    task = TASKS[name]
    classes = 2 if task == "classification" else 0
    model = build.from_shapes(MODELS[name], task, classes, device)
    return method.prepare(model, build.names(MODELS[name], task))


def batch(name: str = "tiny") -> dict[str, torch.Tensor]:
    vocabulary = MODELS[name]["architecture"]["vocab_size"]
    ids = torch.randint(vocabulary, (4, 12), generator=torch.Generator().manual_seed(1))
    if TASKS[name] == "language_modelling":
        return {"input_ids": ids, "labels": ids}
    return {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}


def factor_pairs(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """The factors (A, B) of every adapted matrix."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [(layer.lora_A["default"], layer.lora_B["default"]) for layer in layers]


def factors(model: nn.Module) -> list[nn.Linear]:
    return [factor for pair in factor_pairs(model) for factor in pair]


def zeros(factor: nn.Linear) -> int:
    return int((factor.weight == 0).sum())


def do_nothing(step: int) -> None:
    pass


def fit(
    method: object,
    model: nn.Module,
    steps: int,
    name: str = "tiny",
    lr: float = 1e-2,
    after_each: Callable[[int], None] = do_nothing,
) -> None:
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], lr)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        model(**batch(name)).loss.backward()
        optimizer.step()
        method.after_step(model, optimizer, step)
        after_each(step)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0), (9, 0), (10, 0), (35, 0.5203), (60, 0.7875), (85, 0.8859), (110, 0.9), (500, 0.9)],
)
def test_the_cubic_schedule(step: int, expected: float) -> None:
    assert cubic_sparsity(step, 0.0, 0.9, 10, 5, 20) == pytest.approx(expected, abs=5e-5)


def test_the_target_sparsity_never_falls() -> None:
    cubic = SparseLora(8, ("query",), begin_step=10, every_steps=5)
    assert all(a <= b for a, b in pairwise(cubic.target(step) for step in range(130)))
    one_shot = SparseLora(8, ("query",), schedule="one_shot", begin_step=10)
    assert {one_shot.target(step) for step in (10, 11, 400)} == {0.5}


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.77])
def test_a_mask_drops_exactly_the_smallest_entries(sparsity: float) -> None:
    scores = torch.rand(7, 13, generator=torch.Generator().manual_seed(0))
    mask = keep_largest(scores, sparsity, torch.ones(7, 13, dtype=torch.bool))
    assert (~mask).sum() == int(sparsity * 91)
    assert sparsity == 0 or scores[~mask].max() <= scores[mask].min()


def test_dropped_entries_stay_dropped_among_ties() -> None:
    kept = torch.tensor([True, True, False, True, False, True])
    mask = keep_largest(torch.zeros(6), 0.5, kept)
    assert (~mask).sum() == 3
    assert not mask[~kept].any()


@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
@pytest.mark.parametrize("name", ["tiny", "minilm", "stories260k"])
def test_magnitude_pruning_makes_exactly_so_many_zeros_and_holds_them(
    schedule: str, name: str
) -> None:
    method = SparseLora(**COMMON, schedule=schedule, sparsity=0.6)
    model = build_adapted(method, name)

    def check(step: int) -> None:
        last_pruning = step - step % 2
        share = method.target(last_pruning)
        for factor in factors(model):
            dropped_count = (~factor.mask).sum()
            assert zeros(factor) >= dropped_count == int(share * factor.weight.numel())
            assert not factor.weight[~factor.mask].any()

    fit(method, model, 9, name, after_each=check)
    assert all(zeros(factor) == int(0.6 * factor.weight.numel()) for factor in factors(model))


def test_a_gpt2_without_weights_has_masks_of_its_shapes() -> None:
    model = build_adapted(SparseLora(**{**COMMON, "targets": ("attention",)}), "gpt2", "meta")
    assert {tuple(factor.mask.shape) for factor in factors(model)} == {(8, 768), (2304, 8)}
    assert all(factor.mask.is_meta for factor in factors(model))


def test_an_entry_that_a_mask_dropped_is_never_kept_again() -> None:
    method = SparseLora(**COMMON, sparsity=0.9)
    model = build_adapted(method)
    masks_by_step = []

    def record_masks(step: int) -> None:
        masks_by_step.append([factor.mask.clone() for factor in factors(model)])

    fit(method, model, 9, after_each=record_masks)
    for before, after in pairwise(masks_by_step):
        for old, new in zip(before, after, strict=True):
            assert not (new & ~old).any()


def test_structured_pruning_drops_the_weakest_components_for_good() -> None:
    method = SparseLora(**COMMON, kind="structured", schedule="one_shot", sparsity=0.7)
    model = build_adapted(method)
    fit(SparseLora(**COMMON, sparsity=0.0), model, 3)
    strengths = []
    for a, b in factor_pairs(model):
        norms_of_a = torch.linalg.vector_norm(a.weight, dim=1)
        norms_of_b = torch.linalg.vector_norm(b.weight, dim=0)
        strengths.append(norms_of_a * norms_of_b)
    method.after_step(model, torch.optim.SGD(model.parameters()), 2)

    dropped_at_pruning = []
    for (a, b), strength in zip(factor_pairs(model), strengths, strict=True):
        dropped = (a.weight == 0).all(1)
        weakest = strength.argsort()[:5]  # floor(0.7 * 8)
        assert set(dropped.nonzero().flatten().tolist()) == set(weakest.tolist())
        assert torch.equal(dropped, (b.weight == 0).all(0))
        assert a.weight[~dropped].all()
        dropped_at_pruning.append(dropped)
    fit(method, model, 8)
    for (a, _), dropped in zip(factor_pairs(model), dropped_at_pruning, strict=True):
        assert torch.equal((a.weight == 0).all(1), dropped)


def test_without_hold_it_is_system_b() -> None:
    """Right after a pruning the smaller half is zero. One step later it has regrown."""
    method = SparseLora(**COMMON, schedule="one_shot", sparsity=0.5, hold=False)
    model = build_adapted(method)
    zeros_by_step = []

    def count_zeros(step: int) -> None:
        zeros_by_step.append([zeros(factor) for factor in factors(model)])

    fit(method, model, 5, after_each=count_zeros)
    half = [factor.weight.numel() // 2 for factor in factors(model)]
    assert zeros_by_step[1] == zeros_by_step[3] == half
    assert sum(zeros_by_step[2]) == sum(zeros_by_step[4]) == 0
    assert not any("mask" in name for name, _ in model.named_buffers())


@pytest.mark.parametrize("kind", ["magnitude", "structured"])
@pytest.mark.parametrize("hold", [True, False])
def test_at_sparsity_0_it_is_lora_to_the_bit(kind: str, hold: bool) -> None:
    shared = {"rank": 8, "targets": ("query", "value"), "dropout": 0.1}
    lora = Lora(**shared)
    sparse = SparseLora(**{**COMMON, **shared}, kind=kind, hold=hold, sparsity=0.0)
    trained = {}
    for method in (lora, sparse):
        model = build_adapted(method)
        fit(method, model, 5)
        trained[method] = dict(model.named_parameters())
    assert all(torch.equal(trained[lora][name], value) for name, value in trained[sparse].items())
    assert any(factor.any() for name, factor in trained[sparse].items() if "lora_B" in name)


def test_the_proximal_step_is_the_minimiser_of_its_problem() -> None:
    """Soft thresholding of x at t: argmin over y of (y - x)^2 / 2 + t |y|, here on a fine grid."""
    threshold = 0.3
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    y = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    objective = (y[None] - x[:, None]) ** 2 / 2 + threshold * y[None].abs()  # (41, 60001)
    minimiser = y[objective.argmin(1)]
    assert torch.allclose(soft_threshold(x, threshold), minimiser, atol=1e-4)


def test_a_larger_l1_penalty_gives_more_exact_zeros() -> None:
    counts = []
    for l1 in (0.0, 1.0, 5.0):
        method = SparseLora(**COMMON, kind="proximal_l1", l1=l1)
        model = build_adapted(method)
        fit(method, model, 6)
        counts.append(sum(zeros(factor) for factor in factors(model)))
    assert 0 == counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("kind", ["magnitude", "structured", "proximal_l1"])
def test_merging_keeps_the_logits(kind: str) -> None:
    method = SparseLora(**COMMON, kind=kind, l1=1.0)
    model = build_adapted(method)
    fit(method, model, 8)
    with torch.no_grad():
        expected = model.eval()(**batch()).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch()).logits, expected, atol=1e-5)
    assert not any(isinstance(module, LoraLayer) for module in merged.modules())


def test_a_saved_state_keeps_the_masks() -> None:
    method = SparseLora(**COMMON, sparsity=0.5)
    model = build_adapted(method)
    fit(method, model, 8)
    loaded = build_adapted(method)
    loaded.load_state_dict(copy.deepcopy(model.state_dict()))
    for original, copied in zip(factors(model), factors(loaded), strict=True):
        assert torch.equal(original.mask, copied.mask)
    fit(method, loaded, 1)
    assert not any(factor.weight[~factor.mask].any() for factor in factors(loaded))


def test_a_sparsity_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="sparsity: got 1, allowed: a number in"):
        SparseLora(8, ("query",), sparsity=1)
    kind = options("rankwise.methods.sparse_lora")["kind"]
    assert kind.allowed == "magnitude, structured, proximal_l1"
