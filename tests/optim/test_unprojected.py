"""Optimizers that project nothing, against their formulas: TopR, LOMO, AdaLomo, and torch's."""

import pytest
import torch
from torch import nn

import rankwise.optim
from helpers.optimizing import F64, close, gradients, optimize
from rankwise.optim import AdaLomo, Lomo, TopR

# TopR -----------------------------------------------------------------------------------------------------------------


def test_topr_of_everything_is_adamw_bitwise() -> None:
    grads, weight = [g.float() for g in gradients(6, 6, 10)], gradients(1, 6, 10, seed=1)[0].float()
    for options in ({}, {"lazy": True}, {"error_feedback": True}):
        found, _ = optimize(TopR, weight, grads, fraction=1.0, weight_decay=0.1, **options)
        theirs, _ = optimize(torch.optim.AdamW, weight, grads, weight_decay=0.1)
        assert torch.equal(found, theirs)


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.1, 6), (0.3, 18), (0.5, 30), (0.99, 59), (0.001, 1)]
)
def test_topr_keeps_the_largest(fraction: float, kept: int) -> None:
    """Exactly k = max(1, floor(fraction numel)): Adam's first moment after a step is a tenth of what was kept."""
    grad = gradients(1, 6, 10)[0]
    _, state = optimize(TopR, torch.zeros(6, 10, dtype=F64), [grad], fraction=fraction)
    chosen = grad.abs() >= grad.abs().flatten().sort(descending=True).values[kept - 1]
    assert chosen.sum() == kept
    assert close(state["exp_avg"], 0.1 * torch.where(chosen, grad, 0.0))
    dropped = grad - 10 * state["exp_avg"]
    assert dropped.square().sum() <= (1 - kept / 60) * grad.square().sum()


def test_topr_keeps_exactly_k_of_equals() -> None:
    _, state = optimize(
        TopR, torch.zeros(6, 10, dtype=F64), [torch.ones(6, 10, dtype=F64)], fraction=0.25
    )
    assert (state["exp_avg"] != 0).sum() == 15


@pytest.mark.parametrize(
    ("least", "fraction", "kept"), [(0, 0.1, 0), (0, 0.3, 0), (0, 0.5, 1), (1, 0.1, 1), (2, 0.1, 2)]
)
def test_topr_as_published_starves_a_tensor_of_two(least: int, fraction: float, kept: int) -> None:
    grad = torch.tensor([0.5, -2.0], dtype=F64)
    found, state = optimize(
        TopR, torch.zeros(2, dtype=F64), [grad], fraction=fraction, least=least, weight_decay=0.0
    )
    assert (state["exp_avg"] != 0).sum() == (found != 0).sum() == kept


def test_topr_is_adamw_on_masked_gradients() -> None:
    """Dense moments: entries without a gradient go on by momentum and decay."""
    grads, weight = gradients(6, 6, 10), gradients(1, 6, 10, seed=1)[0]
    masked = [
        torch.where(g.abs() >= g.abs().flatten().sort(descending=True).values[11], g, 0.0)
        for g in grads
    ]
    found, _ = optimize(TopR, weight, grads, fraction=0.2, weight_decay=0.1)
    theirs, _ = optimize(torch.optim.AdamW, weight, masked, weight_decay=0.1)
    assert close(found, theirs, 1e-14)


def test_topr_error_feedback_loses_nothing() -> None:
    """The sum of what was kept and the last error is the sum of the gradients; a step keeps the largest of g + e."""
    param, error, kept = (
        nn.Parameter(torch.zeros(6, 10, dtype=F64)),
        torch.zeros(6, 10, dtype=F64),
        0,
    )
    optimizer, mean, grads = (
        TopR([param], 0.1, fraction=0.2, error_feedback=True),
        0,
        gradients(8, 6, 10),
    )
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        state = optimizer.state[param]
        now = 10 * (state["exp_avg"] - 0.9 * mean)
        assert close(now + state["error"], grad + error, 1e-12)
        assert (state["error"] == 0).sum() == 12
        assert now.abs()[state["error"] == 0].min() >= state["error"].abs().max() - 1e-12
        kept, mean, error = kept + now, state["exp_avg"].clone(), state["error"].clone()
    assert close(kept + error, sum(grads), 1e-12)


def test_topr_lazy_moves_kept_entries_only() -> None:
    param = nn.Parameter(torch.ones(6, 10, dtype=F64))
    optimizer = TopR([param], 0.1, fraction=0.2, lazy=True, weight_decay=0.1)
    for grad in gradients(5, 6, 10):
        before, kept = (
            param.detach().clone(),
            grad.abs() >= grad.abs().flatten().sort(descending=True).values[11],
        )
        param.grad = grad.clone()
        optimizer.step()
        assert torch.equal(param == before, ~kept)


def test_topr_takes_options_by_group() -> None:
    few, all_ = nn.Parameter(torch.zeros(60, dtype=F64)), nn.Parameter(torch.zeros(60, dtype=F64))
    optimizer = TopR([{"params": [few]}, {"params": [all_], "fraction": 1.0}], 0.1, fraction=0.1)
    few.grad = all_.grad = gradients(1, 60)[0]
    optimizer.step()
    assert ((few != 0).sum(), (all_ != 0).sum()) == (6, 60)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_topr_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        TopR([nn.Parameter(torch.zeros(3))], fraction=fraction)


# LOMO, and torch's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 2), (7,)])
def test_lomo_is_sgd_with_decoupled_decay(shape: tuple[int, ...]) -> None:
    grads, expected = gradients(4, *shape), torch.ones(shape, dtype=F64)
    found, _ = optimize(Lomo, expected, grads, release=False, weight_decay=0.1)
    for grad in grads:
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * grad
    assert close(found, expected, 1e-14)
    plain, _ = optimize(Lomo, expected, grads, release=False)
    theirs, _ = optimize(torch.optim.SGD, expected, grads)
    assert close(plain, theirs, 1e-15)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7,)])
@pytest.mark.parametrize(("clip", "size"), [(1.0, 1.0), (0.5, 1.0), (1.0, 1e-5)])
def test_adalomo_is_its_equations(shape: tuple[int, ...], clip: float, size: float) -> None:
    """v by row and column means with decay 1 - t^-0.8; U / max(1, RMS(U) / clip); rate lr max(1e-3, RMS(W))."""
    grads, expected = gradients(5, *shape), size * gradients(1, *shape, seed=1)[0]
    found, _ = optimize(AdaLomo, expected, grads, release=False, clip=clip, weight_decay=0.1)
    rows = columns = v = 0
    for t, grad in enumerate(grads, start=1):
        decay = 1 - t**-0.8
        if len(shape) == 1:
            v = decay * v + (1 - decay) * grad**2
        else:
            rows = decay * rows + (1 - decay) * (grad**2).mean(1)
            columns = decay * columns + (1 - decay) * (grad**2).mean(0)
            v = torch.outer(rows, columns) / rows.mean()
        update = grad / v.sqrt()
        update = update / max(1.0, (update**2).mean().sqrt().item() / clip)
        rate = 0.1 * max(1e-3, (expected**2).mean().sqrt().item())
        expected = (1 - 0.1 * 0.1) * expected - rate * update
    assert close(found, expected, 1e-12)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7,)])
def test_adalomo_is_torchs_adafactor(shape: tuple[int, ...]) -> None:
    """At a rate below 1 / sqrt(t), which caps torch's."""
    grads, weight = gradients(9, *shape), gradients(1, *shape, seed=1)[0]
    found, _ = optimize(AdaLomo, weight, grads, release=False, weight_decay=0.1)
    theirs, _ = optimize(torch.optim.Adafactor, weight, grads, weight_decay=0.1)
    assert close(found, theirs, 1e-12)


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("AdamW", {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}, {}),
        ("Sgd", {"momentum": 0.9, "weight_decay": 0.1}, {}),
        ("Sgd", {}, {}),
        ("Adafactor", {"beta2_decay": -0.7, "weight_decay": 0.1, "clip": 1.5}, {"clip": "d"}),
    ],
)
def test_torchs_are_torchs_bitwise(name: str, options: dict, theirs: dict) -> None:
    grads, weight = [g.float() for g in gradients(4, 6, 10)], gradients(1, 6, 10, seed=1)[0].float()
    found, _ = optimize(getattr(rankwise.optim, name), weight, grads, **options)
    same, _ = optimize(
        getattr(torch.optim, name.replace("Sgd", "SGD")),
        weight,
        grads,
        **{theirs.get(k, k): o for k, o in options.items()},
    )
    assert torch.equal(found, same)
