"""Weight reduction: its factors, what a truncation keeps and frees, and training after it."""

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
# Fewer layers and words, so that its random weights are drawn faster.
MODELS["minilm"]["architecture"] |= {"num_hidden_layers": 2, "vocab_size": 512}
TASKS = {"tiny": "classification", "minilm": "classification", "stories260k": "language_modelling"}


def build_base(name: str = "tiny", device: str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    task = TASKS[name]
    classes = 2 if task == "classification" else 0
    return build.from_shapes(MODELS[name], task, classes, device).eval()


def build_adapted(
    name: str = "tiny", rank: int = 8, device: str = "cpu", **options: object
) -> nn.Module:
    method = WeightReduction(rank=rank, **options)
    return method.prepare(build_base(name, device), build.names(MODELS[name], TASKS[name]))


def batch(name: str = "tiny", length: int = 12) -> dict[str, torch.Tensor]:
    vocabulary = MODELS[name]["architecture"]["vocab_size"]
    ids = torch.randint(vocabulary, (4, length), generator=torch.Generator().manual_seed(1))
    if TASKS[name] == "language_modelling":
        return {"input_ids": ids, "labels": ids}
    return {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}


def low_rank_layers(model: nn.Module) -> list[LowRankLinear]:
    return [module for module in model.modules() if isinstance(module, LowRankLinear)]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.requires_grad]


def adamw(model: nn.Module, lr: float = 2e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable(model), lr)


def fit(
    method: WeightReduction, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range
) -> list[float]:
    """Train for these steps. Return the loss of each."""
    losses = []
    for step in steps:
        loss = model(**batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # As in training, the loss and therefore its graph are still alive here.
        method.after_step(model, optimizer, step)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_at_full_rank_it_equals_the_model(name: str, forward: str) -> None:
    # Keys and values have one shape in every model.
    full_rank = min(MODELS[name]["modules"]["key"]["shape"])
    model = build_adapted(name, full_rank, targets=("key", "value"), forward=forward)
    with torch.no_grad():
        logits = model(**batch(name)).logits
        expected = build_base(name)(**batch(name)).logits
    assert torch.allclose(logits, expected, atol=1e-5)


def test_the_error_is_the_tail_of_the_spectrum() -> None:
    decay = 0.7 ** torch.arange(60.0, dtype=torch.float64)
    weight = torch.randn(40, 60, dtype=torch.float64) @ torch.diag(decay)
    linear = nn.Linear(60, 40)
    linear.weight = nn.Parameter(weight)
    low_rank = LowRankLinear(linear, 8, rebuilt=True, keep_residual=False)
    error = (weight - low_rank.weight()).norm()
    tail = torch.linalg.svdvals(weight)[8:].norm()
    assert tail <= error <= tail * (1 + 1e-6)


@pytest.mark.parametrize("residual", ["dropped", "kept"])
def test_both_forwards_compute_the_same_function(residual: str) -> None:
    rebuilt = build_adapted(residual=residual)
    factored = build_adapted(residual=residual, forward="factored")
    factored.load_state_dict(rebuilt.state_dict())
    with torch.no_grad():
        assert torch.allclose(rebuilt(**batch()).logits, factored(**batch()).logits, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_with_the_residual_kept_it_starts_as_the_model(name: str, forward: str) -> None:
    targets = ("query", "key", "value")
    model = build_adapted(name, 4, targets=targets, residual="kept", forward=forward)
    with torch.no_grad():
        logits = model(**batch(name)).logits
        expected = build_base(name)(**batch(name)).logits
    assert (logits - expected).abs().max() <= 1e-6
    assert WeightReduction(rank=4, residual="kept").IDENTITY
    assert not WeightReduction(rank=4).IDENTITY


def count_flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        model(**batch()).loss.backward()
    return counter.get_total_flops()


def test_the_published_form_costs_more_than_dense_and_the_factored_less() -> None:
    dense = build_base().requires_grad_(False)
    for name, module in dense.named_modules():
        module.requires_grad_(name.endswith(("q_lin", "k_lin", "v_lin", "classifier")))
    factored = count_flops(build_adapted(forward="factored"))
    rebuilt = count_flops(build_adapted(forward="rebuilt"))
    assert factored < count_flops(dense) < rebuilt


def test_factored_products_cost_the_documented_flops() -> None:
    layer = LowRankLinear(nn.Linear(64, 48, device="meta"), 5, rebuilt=False, keep_residual=False)
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(7, 64, device="meta"))
    assert counter.get_total_flops() == 2 * 7 * 5 * (64 + 48)


@pytest.mark.parametrize(("rank", "published_trainable", "published_total"), [
    (4, 702_794, 56_448_842), (8, 813_458, 56_559_506), (16, 1_034_786, 56_780_834),
    (64, 2_362_754, 58_108_802), (128, 4_133_378, 59_879_426),
])  # fmt: skip
def test_parameter_counts_on_distilbert_are_system_as(
    rank: int, published_trainable: int, published_total: int
) -> None:
    method = WeightReduction(rank=rank)
    with torch.device("meta"):
        model = build.from_shapes(MODELS["distilbert"], "classification", 2)
        model = method.prepare(model, build.names(MODELS["distilbert"], "classification"))
    assert all(p.is_meta for p in model.parameters())
    assert len(low_rank_layers(model)) == 18
    trainable_count = sum(p.numel() for p in trainable(model))
    total_count = sum(p.numel() for p in model.parameters())
    count_per_matrix = eval(WeightReduction.TRAINABLE, {"r": rank, "m": 768, "n": 768})
    head_count = 592_130
    assert trainable_count == 18 * count_per_matrix + head_count
    assert (trainable_count, total_count) == (published_trainable, published_total)


def random_factors(m: int = 30, n: int = 20, r: int = 6) -> Factors:
    """Factors as training leaves them: not orthogonal, not sorted, and C has negative entries."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((m, r), (r,), (r, n))
    return Factors(*(torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_truncation_is_the_best_approximation_of_its_rank(k: int) -> None:
    factors = random_factors()
    u, s, vt = torch.linalg.svd(factors.product(), full_matrices=False)
    best = (u[:, :k] * s[:k]) @ vt[:k]
    assert torch.allclose(truncate(factors, k).product(), best, atol=1e-12)
    assert truncate(factors, k).c.shape == (k,)


def factor_gradients(factors: Factors, grad: torch.Tensor) -> Factors:
    """The gradients of the factors when the gradient of their product is `grad`."""
    leaves = Factors(*(factor.detach().requires_grad_() for factor in factors))
    (leaves.product() * grad).sum().backward()
    return Factors(*(leaf.grad for leaf in leaves))


@pytest.mark.parametrize("k", [2, 6])
def test_first_moments_become_the_gradients_of_the_new_factors(k: int) -> None:
    old = random_factors()
    grad = torch.randn(30, 20, dtype=torch.float64)
    new = truncate(old, k)
    zero = Factors(*(torch.zeros_like(factor) for factor in old))
    mean, variance = transport(factor_gradients(old, grad), zero, old, new)
    for moment, gradient in zip(mean, factor_gradients(new, grad), strict=True):
        assert torch.allclose(moment, gradient, atol=1e-10)
    assert all(part.abs().max() == 0 for part in variance)


def moment_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's state tensors, without the step counters (0-dimensional)."""
    total = 0
    for state in optimizer.state.values():
        total += sum(value.nbytes for value in state.values() if value.ndim)
    return total


def test_shrinking_frees_memory_and_training_goes_on() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=5)
    model = build_adapted(rank=8).train()
    optimizer = adamw(model)
    losses_before = fit(method, model, optimizer, range(1, 5))
    bytes_before = moment_bytes(optimizer)
    identities = [id(p) for p in model.parameters()]
    fit(method, model, optimizer, range(5, 6))

    # Two moments of 4 bytes an entry. Each of 6 matrices loses 4 of its 8 columns.
    freed = 2 * 4 * 6 * 4 * (64 + 64 + 1)
    assert moment_bytes(optimizer) == bytes_before - freed
    for layer in low_rank_layers(model):
        assert [factor.shape for factor in layer.factors] == [(64, 4), (4,), (4, 64)]
    assert [id(p) for p in model.parameters()] == identities

    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    # These steps contain two more truncations, which change nothing.
    losses_after = fit(method, model, optimizer, range(6, 16))
    assert losses_before[0] > losses_before[-1] > losses_after[-1]
    assert all(earlier > later for earlier, later in pairwise(losses_after))
    assert {len(layer.c) for layer in low_rank_layers(model)} == {4}
    params = dict(model.named_parameters())
    assert all(torch.equal(params[name], value) for name, value in frozen.items())


def test_moments_after_a_lossless_shrink_are_those_of_the_new_gradient() -> None:
    """With betas of 0, Adam's moments are the last gradient and its square, also after a shrink."""
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=1)
    model = build_adapted(rank=8).double()
    for layer in low_rank_layers(model):
        layer.c.data[4:] = 0  # so that the columns cut contribute nothing
    optimizer = torch.optim.AdamW(trainable(model), 0.0, betas=(0.0, 0.0), weight_decay=0.0)
    fit(method, model, optimizer, range(1, 2))
    model(**batch()).loss.backward()
    for layer in low_rank_layers(model):
        for param in layer.factors:
            state = optimizer.state[param]
            assert torch.allclose(state["exp_avg"], param.grad, atol=1e-9)
            assert torch.allclose(state["exp_avg_sq"], param.grad**2, atol=1e-9)


def test_second_moments_are_not_negative_after_a_shrink() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=6)
    model = build_adapted(rank=8).train()
    optimizer = adamw(model)
    fit(method, model, optimizer, range(1, 7))
    for layer in low_rank_layers(model):
        for param in layer.factors:
            assert optimizer.state[param]["exp_avg"].shape == param.shape
            assert optimizer.state[param]["exp_avg_sq"].min() >= 0


def test_a_shrink_drops_the_state_of_optimizers_other_than_adam() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=3)
    model = build_adapted(rank=8).train()
    optimizer = torch.optim.SGD(trainable(model), 0.05, momentum=0.9)
    fit(method, model, optimizer, range(1, 4))
    for layer in low_rank_layers(model):
        assert not any(optimizer.state.get(param) for param in layer.factors)
    assert optimizer.state[model.classifier.weight]
    losses = fit(method, model, optimizer, range(4, 8))
    assert losses[-1] < losses[0]


def test_zero_padding_is_the_published_form() -> None:
    method = WeightReduction(rank=8, svt="zero_pad", svt_interval_steps=3)
    model = build_adapted(rank=8).train()
    optimizer = adamw(model)
    fit(method, model, optimizer, range(1, 3))

    # The twin makes the same third step, but without the truncation.
    twin = copy.deepcopy(model)
    twin_optimizer = adamw(twin)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fit(WeightReduction(rank=8), twin, twin_optimizer, range(3, 4))
    fit(method, model, optimizer, range(3, 4))

    for layer, dense in zip(low_rank_layers(model), low_rank_layers(twin), strict=True):
        u, s, vt = torch.linalg.svd(dense.weight())
        assert torch.allclose(layer.weight(), (u[:, :4] * s[:4]) @ vt[:4], atol=1e-5)
        assert layer.a.shape == (64, 8)
        assert not any(part.any() for part in (layer.a[:, 4:], layer.c[4:], layer.b[4:]))
        moment = optimizer.state[layer.a]["exp_avg"]
        assert torch.equal(moment, twin_optimizer.state[dense.a]["exp_avg"])
    fit(method, model, optimizer, range(4, 5))
    assert low_rank_layers(model)[0].a[:, 4:].any(), "stale moments move the cut columns again"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("residual", ["dropped", "kept"])
def test_merging_leaves_plain_linear_layers(name: str, residual: str) -> None:
    method = WeightReduction(rank=4, residual=residual)
    model = build_adapted(name, 4, residual=residual)
    with torch.no_grad():
        for layer in low_rank_layers(model):
            layer.a.add_(0.1 * torch.randn_like(layer.a))
        expected = model(**batch(name)).logits
        merged = method.merge(model)
        assert torch.allclose(merged(**batch(name)).logits, expected, atol=1e-6)
    base = build_base(name)
    assert [type(m) for m in merged.modules()] == [type(m) for m in base.modules()]
    assert merged.state_dict().keys() == base.state_dict().keys()


def test_only_factors_and_the_head_train_and_two_runs_are_equal() -> None:
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=2)
    states = []
    for _ in range(2):
        model = build_adapted(rank=8).train()
        start = copy.deepcopy(model.state_dict())
        fit(method, model, adamw(model), range(1, 4))
        states.append(model.state_dict())
    first, second = states
    assert all(torch.equal(first[key], second[key]) for key in first)

    moved = {key for key, value in first.items() if not torch.equal(value, start[key])}
    head = {key for key in first if "classifier" in key}
    assert {key.rpartition(".")[2] for key in moved - head} == {"a", "b", "c"}
    assert head <= moved


def test_a_best_state_from_before_the_shrink_is_restored() -> None:
    """The training loop restores the earlier shapes together with the values."""
    method = WeightReduction(rank=8, svt="shrink", svt_interval_steps=2)
    model = build_adapted(rank=8).train()
    best = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        expected = model(**batch()).logits
    fit(method, model, adamw(model), range(1, 4))
    TrainingState(best_parameters=best).restore_best(model)
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits, expected)


@pytest.mark.parametrize("forward", ["rebuilt", "factored"])
def test_on_a_bf16_base_the_factors_stay_fp32(forward: str) -> None:
    """PEFT does the same with its adapters, because bf16 would lose a step of 1e-5."""
    method = WeightReduction(
        rank=8, forward=forward, residual="kept", svt="shrink", svt_interval_steps=2
    )
    base = build_base().to(torch.bfloat16)
    model = method.prepare(base, build.names(MODELS["tiny"], "classification"))
    factors = [layer.factors for layer in low_rank_layers(model)]
    assert {tensor.dtype for tensors in factors for tensor in tensors} == {torch.float32}
    losses = fit(method, model, adamw(model), range(1, 5))
    assert losses[-1] < losses[0]
    assert {p.dtype for p in method.merge(model).parameters()} == {torch.bfloat16}


def test_unsupported_models_and_options_are_refused() -> None:
    gpt2 = build.from_shapes(MODELS["gpt2"], "classification", 2)
    gpt2_names = build.names(MODELS["gpt2"], "classification")
    tiny_names = build.names(MODELS["tiny"], "classification")
    reason = WeightReduction(rank=4, targets=("attention",)).unsupported(gpt2, gpt2_names)
    assert "Conv1D" in reason
    assert WeightReduction(rank=4).unsupported(build_base(), tiny_names) is None
    with pytest.raises(ValueError, match="svt_keep: got 0"):
        WeightReduction(rank=4, svt_keep=0)
