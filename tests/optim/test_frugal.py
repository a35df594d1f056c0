"""FRUGAL: AdamW in a changing part of each matrix, signs elsewhere; its two limits are AdamW and signSGD."""

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, adam, close, gradients, optimize, short
from rankwise.optim import Frugal

LR, DECAY, FREE, INTERVAL = 0.05, 0.1, 0.3, 3
OPTIONS = {"weight_decay": DECAY, "free_scale": FREE, "interval_steps": INTERVAL, "eps": 1e-6}
every_shape = pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])


def run(part: str, grads: list[Tensor], density: float) -> list[Tensor]:
    """The weight at the start and after each step."""
    param = nn.Parameter(torch.ones_like(grads[0]))
    optimizer = Frugal([param], LR, part=part, density=density, **OPTIONS)
    weights = [param.detach().clone()]
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        weights.append(param.detach().clone())
    return weights


def moved(weights: list[Tensor], step: int) -> Tensor:
    """The direction that was taken at a step: the move, less decay, divided by the rate."""
    return ((1 - LR * DECAY) * weights[step] - weights[step + 1]) / LR


@every_shape
def test_columns_step_by_adamw_or_by_their_signs(shape: tuple[int, int]) -> None:
    """Half of the columns for three steps each; which ones is seen from a move that is no scaled sign."""
    grads = gradients(8, *shape)
    weights = run("columns", grads, 0.5)
    choices = []
    for step, grad in enumerate(grads):
        direction, sign = moved(weights, step), FREE * grad.sign()
        if step % INTERVAL == 0:
            m, v = torch.zeros_like(grad), torch.zeros_like(grad)
            chosen = (direction - sign).abs().amax(0) > 1e-6
            choices.append(chosen)
        expected = torch.where(
            choices[-1], adam(m, v, grad, step % INTERVAL + 1, 1e-6, "torch"), sign
        )
        assert close(direction, expected, 1e-9)
    assert all(int(chosen.sum()) == shape[1] // 2 for chosen in choices)
    assert len({tuple(chosen.tolist()) for chosen in choices}) > 1


@every_shape
def test_singular_vectors_step_by_adamw_and_the_rest_by_its_signs(shape: tuple[int, int]) -> None:
    """The basis is that of the first gradient of an interval; a direction does not depend on its signs."""
    grads = gradients(8, *shape)
    weights = run("svd", grads, 0.5)
    for step, grad in enumerate(grads):
        seen = short(grad)
        count = seen.shape[0] // 2
        if step % INTERVAL == 0:
            basis = torch.linalg.svd(seen).U[:, :count]
            m, v = (torch.zeros(count, seen.shape[1], dtype=F64) for _ in range(2))
        low = basis.mT @ seen
        expected = basis @ adam(m, v, low, step % INTERVAL + 1, 1e-6, "torch")
        expected = expected + FREE * (seen - basis @ low).sign()
        assert close(moved(weights, step), expected.mT if shape[0] >= shape[1] else expected, 1e-8)


@every_shape
def test_with_all_columns_it_is_adamw_until_the_moments_are_reset(shape: tuple[int, int]) -> None:
    start, *grads = gradients(6, *shape)
    options = {"interval_steps": 100, "weight_decay": DECAY}
    ours, _ = optimize(Frugal, start, grads, density=1.0, **options)
    theirs = nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([theirs], 0.1, weight_decay=DECAY)
    for grad in grads:
        theirs.grad = grad.clone()
        adamw.step()
    assert close(ours, theirs, 1e-10)


def test_of_one_column_in_twenty_the_others_step_by_sign_sgd() -> None:
    """By hand: from zero, three steps of -.1 * .1 * sign; a gradient of zero moves nothing."""
    grad = torch.ones(2, 20, dtype=F64)
    grad[1] = 0
    param, state = optimize(Frugal, torch.zeros(2, 20, dtype=F64), 3 * [grad], density=0.05)
    assert int((param[0] + 0.03).abs().lt(1e-12).sum()) == 19
    assert (param[1] == 0).all()
    assert state["exp_avg"].shape == (2, 1)


def test_the_whole_space_leaves_no_signs_of_rounding() -> None:
    """Adam's direction in an orthonormal basis of the whole space has the norm of Adam's own: sqrt(60) at t = 1."""
    param, _ = optimize(
        Frugal,
        torch.zeros(6, 10, dtype=F64),
        gradients(1, 6, 10),
        1.0,
        density=1.0,
        part="svd",
        eps=0.0,
    )
    assert param.norm().item() == pytest.approx(60**0.5)
