"""Optimizers that project nothing, against their equations: TopR, LOMO, and torch's own."""

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from helpers.optimizing import F64, close, gradients, optimize
from rankwise.optim import Lomo, TopR

ZEROS = torch.zeros(6, 10, dtype=F64)
WEIGHT = gradients(1, 6, 10, seed=1)[0]


def largest(grad: Tensor, count: int) -> Tensor:
    """Which entries are among the `count` largest by magnitude."""
    return grad.abs() >= grad.abs().flatten().sort(descending=True).values[count - 1]


# TopR ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lazy": True}, {"error_feedback": True}], ids=str)
def test_topr_of_everything_is_adamw_bitwise(options: dict) -> None:
    grads = [grad.float() for grad in gradients(6, 6, 10)]
    ours, _ = optimize(TopR, WEIGHT.float(), grads, fraction=1.0, weight_decay=0.1, **options)
    theirs, _ = optimize(torch.optim.AdamW, WEIGHT.float(), grads, weight_decay=0.1)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.1, 6), (0.3, 18), (0.5, 30), (0.99, 59), (0.001, 1)]
)
def test_topr_keeps_the_largest(fraction: float, kept: int) -> None:
    """Exactly k = max(1, floor(fraction numel)): Adam's first moment after a step is a tenth of what was kept."""
    grad = gradients(1, 6, 10)[0]
    _, state = optimize(TopR, ZEROS, [grad], fraction=fraction)
    chosen = largest(grad, kept)
    assert chosen.sum() == kept
    assert close(state["exp_avg"], 0.1 * torch.where(chosen, grad, 0.0))
    dropped = grad - 10 * state["exp_avg"]
    assert dropped.square().sum() <= (1 - kept / 60) * grad.square().sum()


def test_topr_keeps_exactly_k_of_equals() -> None:
    _, state = optimize(TopR, ZEROS, [torch.ones(6, 10, dtype=F64)], fraction=0.25)
    assert (state["exp_avg"] != 0).sum() == 15


@pytest.mark.parametrize(
    ("least", "fraction", "kept"), [(0, 0.1, 0), (0, 0.3, 0), (0, 0.5, 1), (1, 0.1, 1), (2, 0.1, 2)]
)
def test_topr_as_published_starves_a_tensor_of_two(least: int, fraction: float, kept: int) -> None:
    grad, start = torch.tensor([0.5, -2.0], dtype=F64), torch.zeros(2, dtype=F64)
    options = {"fraction": fraction, "least": least, "weight_decay": 0.0}
    moved, state = optimize(TopR, start, [grad], **options)
    assert (state["exp_avg"] != 0).sum() == (moved != 0).sum() == kept


def test_topr_is_adamw_on_masked_gradients() -> None:
    """Moments are dense: entries without a gradient go on by momentum and decay."""
    grads = gradients(6, 6, 10)
    masked = [torch.where(largest(grad, 12), grad, 0.0) for grad in grads]
    ours, _ = optimize(TopR, WEIGHT, grads, fraction=0.2, weight_decay=0.1)
    theirs, _ = optimize(torch.optim.AdamW, WEIGHT, masked, weight_decay=0.1)
    assert close(ours, theirs, 1e-14)


def test_topr_error_feedback_loses_nothing() -> None:
    """What was kept sums with the last error to the sum of the gradients; a step keeps the largest of g + e."""
    param = nn.Parameter(ZEROS.clone())
    optimizer = TopR([param], 0.1, fraction=0.2, error_feedback=True)
    grads, total, mean, error = gradients(8, 6, 10), 0, 0, 0
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        state = optimizer.state[param]
        kept = 10 * (state["exp_avg"] - 0.9 * mean)  # Adam's m = 0.9 m + 0.1 kept, solved
        assert close(kept + state["error"], grad + error, 1e-12)
        is_kept = state["error"] == 0
        assert is_kept.sum() == 12
        assert kept.abs()[is_kept].min() >= state["error"].abs().max() - 1e-12
        total, mean, error = total + kept, state["exp_avg"].clone(), state["error"].clone()
    assert close(total + error, sum(grads), 1e-12)


def test_topr_lazy_moves_kept_entries_only() -> None:
    param = nn.Parameter(torch.ones(6, 10, dtype=F64))
    optimizer = TopR([param], 0.1, fraction=0.2, lazy=True, weight_decay=0.1)
    for grad in gradients(5, 6, 10):
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        assert torch.equal(param != before, largest(grad, 12))


def test_topr_takes_options_by_group() -> None:
    few, every = (nn.Parameter(torch.zeros(60, dtype=F64)) for _ in range(2))
    optimizer = TopR([{"params": [few]}, {"params": [every], "fraction": 1.0}], 0.1, fraction=0.1)
    few.grad = every.grad = gradients(1, 60)[0]
    optimizer.step()
    assert ((few != 0).sum(), (every != 0).sum()) == (6, 60)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_topr_refuses_other_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        TopR([nn.Parameter(torch.zeros(3))], fraction=fraction)


# LOMO ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 2), (7,)])
def test_lomo_is_sgd_with_decoupled_decay(shape: tuple[int, ...]) -> None:
    grads, start = gradients(4, *shape), torch.ones(shape, dtype=F64)
    decayed, _ = optimize(Lomo, start, grads, release=False, weight_decay=0.1)
    expected = start
    for grad in grads:
        expected = (1 - 0.1 * 0.1) * expected - 0.1 * grad
    assert close(decayed, expected, 1e-14)
    plain, _ = optimize(Lomo, start, grads, release=False)
    theirs, _ = optimize(torch.optim.SGD, start, grads)
    assert close(plain, theirs, 1e-15)


# Torch's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "theirs", "renamed"),
    [
        ("AdamW", {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}, "AdamW", {}),
        ("Sgd", {"momentum": 0.9, "weight_decay": 0.1}, "SGD", {}),
        ("Sgd", {}, "SGD", {}),
        ("Adafactor", {"beta2_decay": -0.7, "weight_decay": 0.1}, "Adafactor", {"d": 1.5}),
    ],
)
def test_torchs_are_torchs_bitwise(name: str, options: dict, theirs: str, renamed: dict) -> None:
    """Adafactor's d is our `clip`."""
    grads = [grad.float() for grad in gradients(4, 6, 10)]
    clip = {"clip": renamed["d"]} if renamed else {}
    ours, _ = optimize(getattr(rankwise.optim, name), WEIGHT.float(), grads, **options, **clip)
    cls = getattr(torch.optim, theirs)
    expected, _ = optimize(cls, WEIGHT.float(), grads, **options, **renamed)
    assert torch.equal(ours, expected)
