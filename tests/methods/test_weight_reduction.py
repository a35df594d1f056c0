"""Weight reduction: what the factors are, what a truncation keeps, what shrinks with it, and that training goes on."""

import copy
from itertools import pairwise

import pytest
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.repository import ROOT
from rankwise.methods.parts.low_rank_linear import Factors, LowRankLinear, transport, truncate
from rankwise.methods.weight_reduction import WeightReduction
from rankwise.models import build
from rankwise.training.progress import TrainingState

MODELS = yaml.safe_load((ROOT / "config/models.yaml").read_text())
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}  # less to draw
TASKS = {"tiny": "classification", "minilm": "classification", "stories260k": "language_modelling"}


def base(name: str = "tiny", device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return build.from_shapes(
        MODELS[name], TASKS[name], 2 * (TASKS[name] == "classification"), device
    ).eval()


def adapted(name: str = "tiny", rank: int = 8, device: str = "cpu", **options: object) -> nn.Module:
    method = WeightReduction(rank=rank, **options)
    return method.prepare(base(name, device), build.names(MODELS[name], TASKS[name]))


def batch(name: str = "tiny", length: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(
        MODELS[name]["architecture"]["vocab_size"], (4, length), generator=generator
    )
    return {
        "input_ids": ids,
        "labels": ids if TASKS[name] == "language_modelling" else torch.tensor([0, 1, 1, 0]),
    }


def layers(model: nn.Module) -> list[LowRankLinear]:
    return [module for module in model.modules() if isinstance(module, LowRankLinear)]


def adamw(model: nn.Module, lr: float = 2e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr)


def fit(
    method: WeightReduction, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range
) -> list[float]:
    losses = []
    for step in steps:
        loss = model(**batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(model, optimizer, step)  # with the loss, and so its graph, alive
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_full_rank_is_the_model(name: str, forward: str) -> None:
    rank = min(MODELS[name]["modules"]["key"]["shape"])
    found = adapted(
        name, rank, targets=("key", "value"), forward=forward
    )  # of one shape in every model
    with torch.no_grad():
        assert torch.allclose(
            found(**batch(name)).logits, base(name)(**batch(name)).logits, atol=1e-5
        )


def test_the_error_is_the_tail_of_the_spectrum() -> None:
    weight = torch.randn(40, 60, dtype=torch.float64) @ torch.diag(
        0.7 ** torch.arange(60.0, dtype=torch.float64)
    )
    linear = nn.Linear(60, 40)
    linear.weight = nn.Parameter(weight)
    tail = torch.linalg.svdvals(weight)[8:].norm()
    error = (weight - LowRankLinear(linear, 8, rebuilt=True, keep_residual=False).weight()).norm()
    assert tail <= error <= tail * (1 + 1e-6)


@pytest.mark.parametrize("residual", ["dropped", "kept"])
def test_both_forwards_are_one_function(residual: str) -> None:
    rebuilt, factored = adapted(residual=residual), adapted(residual=residual, forward="factored")
    factored.load_state_dict(rebuilt.state_dict())
    with torch.no_grad():
        assert torch.allclose(rebuilt(**batch()).logits, factored(**batch()).logits, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_with_the_residual_kept_it_starts_as_the_model(name: str, forward: str) -> None:
    method, targets = WeightReduction(rank=4, residual="kept"), ("query", "key", "value")
    found = adapted(name, 4, targets=targets, residual="kept", forward=forward)
    with torch.no_grad():
        gap = (found(**batch(name)).logits - base(name)(**batch(name)).logits).abs().max()
    assert gap <= 1e-6
    assert method.IDENTITY
    assert not WeightReduction(rank=4).IDENTITY


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        model(**batch()).loss.backward()
    return counter.get_total_flops()


def test_the_published_form_costs_more_than_dense_and_the_factored_less() -> None:
    dense = base().requires_grad_(False)
    for name, module in dense.named_modules():
        module.requires_grad_(name.endswith(("q_lin", "k_lin", "v_lin", "classifier")))
    assert flops(adapted(forward="factored")) < flops(dense) < flops(adapted(forward="rebuilt"))


def test_factored_products_cost_what_the_page_says() -> None:
    layer = LowRankLinear(nn.Linear(64, 48, device="meta"), 5, rebuilt=False, keep_residual=False)
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(7, 64, device="meta"))
    assert counter.get_total_flops() == 2 * 7 * 5 * (64 + 48)


@pytest.mark.parametrize("rank", [4, 8, 16, 64, 128])
def test_system_as_counts_on_distilbert(rank: int) -> None:
    """Published: 702,794 (r4) ... 4,133,378 (r128) trainable; 56,448,842 ... 59,879,426 in all."""
    method = WeightReduction(rank=rank)
    with torch.device("meta"):
        model = build.from_shapes(MODELS["distilbert"], "classification", 2)
        model = method.prepare(model, build.names(MODELS["distilbert"], "classification"))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(p.is_meta for p in model.parameters())
    assert len(layers(model)) == 18
    assert (
        trainable == 18 * eval(WeightReduction.TRAINABLE, {"r": rank, "m": 768, "n": 768}) + 592_130
    )
    assert (trainable, sum(p.numel() for p in model.parameters())) == {
        4: (702_794, 56_448_842), 8: (813_458, 56_559_506), 16: (1_034_786, 56_780_834),
        64: (2_362_754, 58_108_802), 128: (4_133_378, 59_879_426),
    }[rank]  # fmt: skip


def trained_factors(m: int = 30, n: int = 20, r: int = 6) -> Factors:
    """Neither orthogonal nor sorted, and with a negative C."""
    generator = torch.Generator().manual_seed(3)
    return Factors(
        *(torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((m, r), (r,), (r, n)))
    )


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_truncation_is_the_best_of_its_rank(k: int) -> None:
    factors = trained_factors()
    u, s, vt = torch.linalg.svd(factors.product(), full_matrices=False)
    best = (u[:, :k] * s[:k]) @ vt[:k]
    assert torch.allclose(truncate(factors, k).product(), best, atol=1e-12)
    assert truncate(factors, k).c.shape == (k,)


def gradients(factors: Factors, grad: torch.Tensor) -> Factors:
    leaves = Factors(*(factor.detach().requires_grad_() for factor in factors))
    (leaves.product() * grad).sum().backward()
    return Factors(*(leaf.grad for leaf in leaves))


@pytest.mark.parametrize("k", [2, 6])
def test_first_moments_are_carried_to_the_new_factors_gradients(k: int) -> None:
    old, grad = trained_factors(), torch.randn(30, 20, dtype=torch.float64)
    new = truncate(old, k)
    zero = Factors(*(torch.zeros_like(factor) for factor in old))
    mean, variance = transport(gradients(old, grad), zero, old, new)
    for found, wanted in zip(mean, gradients(new, grad), strict=True):
        assert torch.allclose(found, wanted, atol=1e-10)
    assert all(part.abs().max() == 0 for part in variance)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [
        value for state in optimizer.state.values() for value in state.values() if value.ndim
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_shrinking_frees_memory_and_training_goes_on() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=5)
    model = adapted(rank=8).train()
    optimizer = adamw(model)
    before = fit(method, model, optimizer, range(1, 5))
    kept, parameters = state_bytes(optimizer), [id(p) for p in model.parameters()]
    fit(method, model, optimizer, range(5, 6))
    assert state_bytes(optimizer) == kept - 2 * 4 * 6 * 4 * (
        64 + 64 + 1
    )  # two moments, 4 B, 6 matrices, 4 of 8 columns
    assert {tuple(factor.shape for factor in layer.factors) for layer in layers(model)} == {
        ((64, 4), (4,), (4, 64))
    }
    assert [id(p) for p in model.parameters()] == parameters
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    after = fit(
        method, model, optimizer, range(6, 16)
    )  # with two more truncations, which change nothing
    assert before[0] > before[-1] > after[-1]
    assert all(earlier > later for earlier, later in pairwise(after))
    assert {len(layer.c) for layer in layers(model)} == {4}
    assert all(
        torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen
    )


def test_after_a_shrink_that_loses_nothing_the_moments_are_those_of_the_new_gradient() -> None:
    """At betas of 0 Adam's moments are the last gradient and its square, before the shrink and after it."""
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=1)
    model = adapted(rank=8).double()
    for layer in layers(model):
        layer.c.data[4:] = 0  # what is cut carries nothing
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 0.0, betas=(0.0, 0.0), weight_decay=0.0
    )
    fit(method, model, optimizer, range(1, 2))
    model(**batch()).loss.backward()
    for layer in layers(model):
        for param in layer.factors:
            state = optimizer.state[param]
            assert torch.allclose(state["exp_avg"], param.grad, atol=1e-9)
            assert torch.allclose(state["exp_avg_sq"], param.grad**2, atol=1e-9)


def test_second_moments_stay_positive_under_a_shrink() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=6)
    model = adapted(rank=8).train()
    optimizer = adamw(model)
    fit(method, model, optimizer, range(1, 7))
    for layer in layers(model):
        for param in layer.factors:
            assert optimizer.state[param]["exp_avg"].shape == param.shape
            assert optimizer.state[param]["exp_avg_sq"].min() >= 0


def test_an_optimizer_with_other_state_starts_anew() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=3)
    model = adapted(rank=8).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, 0.05, momentum=0.9)
    fit(method, model, optimizer, range(1, 4))
    assert not any(optimizer.state.get(p) for layer in layers(model) for p in layer.factors)
    assert optimizer.state[model.classifier.weight]
    losses = fit(method, model, optimizer, range(4, 8))
    assert losses[-1] < losses[0]


def test_zero_padding_is_the_published_form() -> None:
    method = WeightReduction(rank=8, svt="zero_pad", svt_interval_steps=3)
    model = adapted(rank=8).train()
    optimizer = adamw(model)
    fit(method, model, optimizer, range(1, 3))
    twin = copy.deepcopy(model)
    other = adamw(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fit(WeightReduction(rank=8), twin, other, range(3, 4))
    fit(method, model, optimizer, range(3, 4))
    for layer, dense in zip(layers(model), layers(twin), strict=True):
        u, s, vt = torch.linalg.svd(dense.weight())
        assert torch.allclose(layer.weight(), (u[:, :4] * s[:4]) @ vt[:4], atol=1e-5)
        assert layer.a.shape == (64, 8)
        assert not any(part.any() for part in (layer.a[:, 4:], layer.c[4:], layer.b[4:]))
        assert torch.equal(optimizer.state[layer.a]["exp_avg"], other.state[dense.a]["exp_avg"])
    fit(method, model, optimizer, range(4, 5))
    assert layers(model)[0].a[:, 4:].any(), "stale moments move the cut columns again"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("residual", ["dropped", "kept"])
def test_merged_it_is_plain_linear_layers(name: str, residual: str) -> None:
    method = WeightReduction(rank=4, residual=residual)
    model = adapted(name, 4, residual=residual)
    with torch.no_grad():
        for layer in layers(model):
            layer.a.add_(0.1 * torch.randn_like(layer.a))
        wanted = model(**batch(name)).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch(name)).logits, wanted, atol=1e-6)
    assert [type(m) for m in merged.modules()] == [type(m) for m in base(name).modules()]
    assert merged.state_dict().keys() == base(name).state_dict().keys()


def test_only_factors_and_the_head_train_and_two_runs_are_equal() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=2)
    states = []
    for _ in range(2):
        model = adapted(rank=8).train()
        start = copy.deepcopy(model.state_dict())
        fit(method, model, adamw(model), range(1, 4))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    moved = {
        key
        for key, value in states[0].items()
        if value.shape != start[key].shape or not torch.equal(value, start[key])
    }
    assert {key.rpartition(".")[2] for key in moved if "classifier" not in key} == {"a", "b", "c"}
    assert {key for key in states[0] if "classifier" in key} <= moved


def test_a_best_state_from_before_the_shrink_is_restored() -> None:
    """As training's own loop does it: the earlier shapes come back with the values."""
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=2)
    model = adapted(rank=8).train()
    best = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        wanted = model(**batch()).logits
    fit(method, model, adamw(model), range(1, 4))
    TrainingState(best_parameters=best).restore_best(model)
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits, wanted)


@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_on_a_bf16_base_the_factors_stay_fp32(forward: str) -> None:
    """As peft keeps its adapters: a step of 1e-5 is lost in bf16."""
    method = WeightReduction(
        rank=8, forward=forward, residual="kept", svt="shrink", svt_interval_steps=2
    )
    model = method.prepare(base().to(torch.bfloat16), build.names(MODELS["tiny"], "classification"))
    assert {factor.dtype for layer in layers(model) for factor in layer.factors} == {torch.float32}
    losses = fit(method, model, adamw(model), range(1, 5))
    assert losses[-1] < losses[0]
    assert {p.dtype for p in method.merge(model).parameters()} == {torch.bfloat16}


def test_what_it_cannot_do_it_says() -> None:
    gpt2 = build.from_shapes(MODELS["gpt2"], "classification", 2)
    names = build.names(MODELS["gpt2"], "classification")
    assert "Conv1D" in WeightReduction(rank=4, targets=("attention",)).unsupported(gpt2, names)
    assert (
        WeightReduction(rank=4).unsupported(base(), build.names(MODELS["tiny"], "classification"))
        is None
    )
    with pytest.raises(ValueError, match="svt_keep: got 0"):
        WeightReduction(rank=4, svt_keep=0)
