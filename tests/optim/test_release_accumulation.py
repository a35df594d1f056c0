"""Gradient release over several micro-batches: what is gathered is the projection of the sum."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import gradients
from helpers.releasing import (
    DRAWN,
    F64,
    FOUND,
    Net,
    batch,
    equal,
    every_drawn,
    is_alive,
    loss_of,
    make,
    train,
)
from rankwise.optim import ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors

both_classes = pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])


def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    """Four steps of three micro-batches each."""
    for step in range(4):
        for micro in range(3):
            (loss_of(model, batch(10 * step + micro)) / 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@every_drawn
def test_gathered_projections_are_the_projection_of_the_sum(name: str, options: dict) -> None:
    released, plain = Net(), Net()
    accumulate(released, make(name, released, options, release=True))
    accumulate(plain, make(name, plain, options, release=False))
    assert equal(released, plain, 1e-12)


@every_drawn
def test_a_draw_holds_for_an_interval(
    name: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all its steps and micro-batches; the published code draws again in each micro-batch."""
    drawn, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    model = nn.Linear(8, 4, bias=False, dtype=F64)
    optimizer = make(name, model, options, release=True)  # intervals of two steps
    used: list[list[Tensor]] = [[], []]
    for step in range(4):
        for _ in range(3):
            drawn.clear()
            model(torch.randn(5, 8, dtype=F64)).square().sum().backward()
            used[step // 2].append(drawn[-1])
        optimizer.step()
        used[step // 2].append(drawn[-1])
    for bases in used:
        assert all(torch.equal(basis, bases[0]) for basis in bases)
    assert not torch.equal(used[0][0], used[1][0])


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_a_found_basis_is_the_first_micro_batchs(projector: str) -> None:
    """W <- W - lr P Adam(P^T (G1 + G2 + G3)), P the leading singular vectors of G1. Adam does not see their signs."""
    weight = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    options = {"rank": 2, "scale": 1.0, "eps": 0.0, "projector": projector, "oversample": 8}
    optimizer = ProjectedAdam([weight], 0.1, **options, release=True)
    grads = gradients(3, 6, 10)
    for grad in grads:
        (weight * grad).sum().backward()
    optimizer.step()
    basis = torch.linalg.svd(grads[0]).U[:, :2]
    assert torch.allclose(weight, -0.1 * basis @ (basis.mT @ sum(grads)).sign(), atol=1e-9)


def seen_square(grad: Tensor, is_projected: bool) -> float:
    """The squared norm of a gradient, or of its projection onto two leading singular vectors."""
    if is_projected and grad.ndim == 2:
        return torch.linalg.svdvals(grad)[:2].square().sum().item()
    return grad.square().sum().item()


@pytest.mark.parametrize("limit", [1e-3, 1e9])
@pytest.mark.parametrize(
    ("projector", "release"), [("svd", True), ("normal", True), ("svd", False)]
)
def test_clipping_acts_on_projections(projector: str, release: bool, limit: float) -> None:
    """The norm is that of projections and of the gradients that are not projected; SGD then moves by what is left."""
    start = [param.detach() for param in Net().parameters()]

    def moves(is_clipped: bool) -> tuple[list[Tensor], float | None]:
        model = Net()
        options = {"rule": "sgd", "scale": 1.0, "projector": projector, "release": release}
        optimizer = ProjectedAdam(model.parameters(), 1.0, rank=2, **options)
        loss_of(model, batch(0)).backward()
        norm = optimizer.clip_grad_norm_(limit).item() if is_clipped else None
        optimizer.step()
        pairs = zip(start, model.parameters(), strict=True)
        return [before - after.detach() for before, after in pairs], norm

    clipped, norm = moves(True)
    whole, _ = moves(False)
    plain = Net()
    loss_of(plain, batch(0)).backward()
    is_projected = release and projector == "svd"
    squares = [seen_square(param.grad, is_projected) for param in plain.parameters()]
    expected = math.sqrt(sum(squares))
    if projector == "svd":
        assert norm == pytest.approx(expected, rel=1e-9)
    else:
        assert norm != pytest.approx(expected, rel=1e-6)
    factor = min(1.0, limit / (norm + 1e-6))
    for ours, unclipped in zip(clipped, whole, strict=True):
        assert torch.allclose(ours, factor * unclipped, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("name", "options"), DRAWN + FOUND, ids=str)
def test_zero_grad_drops_what_is_gathered(name: str, options: dict) -> None:
    """As if it had never been.

    A basis that was found in it stays if moments were carried over to it. There the dropped batch is the one
    that follows, which finds the same basis.
    """
    basis_stays = (name, options) in FOUND and "transport" in options
    model, same = Net(), Net()
    optimizer = make(name, model, options, release=True)
    plain = make(name, same, options, release=True)
    for step in range(3):
        dropped = step if basis_stays else 100 + step
        loss_of(model, batch(dropped)).backward()
        optimizer.zero_grad()
        assert all(param.grad is None for param in model.parameters())
        train(model, optimizer, step, step + 1)
        train(same, plain, step, step + 1)
    assert equal(model, same)
    loss_of(model, batch(9)).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert equal(model, same)


def test_dense_groups_gather_nothing() -> None:
    model, same = Net(), Net()
    groups = [{"params": [model.embedding.weight], "dense": True}, {"params": [model.one.weight]}]
    optimizer = ProjectedAdam(groups, 0.05, rank=2, release=True)
    for _ in range(2):
        loss_of(model, batch(0)).backward()
        loss_of(same, batch(0)).backward()
    assert not is_alive(model.one.weight.grad)
    assert torch.equal(model.embedding.weight.grad, same.embedding.weight.grad)
    optimizer.step()


def test_a_closure_gathers_too() -> None:
    model, same = Net(), Net()
    optimizer = make("ProjFactor", model, {}, release=True)
    train(same, make("ProjFactor", same, {}, release=True), 0, 3)

    def closure(step: int) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch(step))
        loss.backward()
        return loss

    for step in range(3):
        assert optimizer.step(lambda step=step: closure(step)).item() > 0
    assert equal(model, same)


@both_classes
def test_a_parameter_without_gradient_stays(cls: type) -> None:
    """Of two matrices of one shape one is used; the other neither moves nor counts a step."""
    model = Net()
    optimizer = cls(model.parameters(), 0.05, rank=2, projector="normal", release=True)
    before = model.two.weight.detach().clone()
    torch.tanh(model.one(torch.ones(3, 8, dtype=F64))).sum().backward()
    optimizer.step()
    assert torch.equal(model.two.weight, before)
    assert optimizer.state[model.one.weight]["step"] == 1
    assert optimizer.state[model.two.weight]["step"] == 0


@both_classes
def test_gradients_bytes_are_what_release_holds(cls: type) -> None:
    """Projections (2, 8) of three matrices, vectors of 8, 8, 8, 8 and 12, and one matrix (12, 8), in fp64."""
    model = Net()
    released = cls(model.parameters(), 0.05, rank=2, release=True)
    projections, vectors, largest = (2 * 12 + 2 * 8 + 2 * 8), 4 * 8 + 12, 12 * 8
    assert released.gradients_bytes() == 8 * (projections + vectors + largest)
    plain = cls(Net().parameters(), 0.05, rank=2)
    assert plain.gradients_bytes() == 8 * (12 * 8 + 2 * 64 + vectors)
