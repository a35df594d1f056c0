"""Gradient release over several micro-batches: what is gathered is the projection of the sum."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.releasing import (
    DRAWN,
    F64,
    FOUND,
    Net,
    batch,
    equal,
    every_drawn,
    loss_of,
    make,
    train,
)
from rankwise.optim import ProjectedAdam, ProjFactor
from rankwise.optim.parts import projectors


def accumulate(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    count: int = 3,
    start: int = 0,
    stop: int = 4,
) -> nn.Module:
    for step in range(start, stop):
        for micro in range(count):
            (loss_of(model, batch(10 * step + micro)) / count).backward()
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
def test_a_draw_holds_for_a_window(
    name: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the micro-batch, and until the next interval: the published code draws again at each."""
    drawn, draw = [], projectors.draw
    monkeypatch.setattr(
        projectors, "draw", lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]
    )
    model = nn.Linear(8, 4, bias=False, dtype=F64)
    optimizer = make(name, model, options, release=True)
    windows = []
    for step in range(4):
        for micro in range(3):
            drawn.clear()
            model(torch.randn(5, 8, dtype=F64)).square().sum().backward()
            windows.append((step, micro, drawn[-1]))
        optimizer.step()
        windows.append((step, "step", drawn[-1]))
    for step, micro, basis in windows:
        assert torch.equal(basis, windows[0][2]) == (step < 2), (step, micro)
        assert torch.equal(basis, windows[-1][2]) == (step >= 2), (step, micro)


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_a_found_basis_is_the_first_micro_batchs(projector: str) -> None:
    """W <- W - lr P Adam(P'(G1 + G2 + G3)), P the leading left singular vectors of G1: Adam does not see their signs."""
    weight = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = ProjectedAdam(
        [weight], 0.1, rank=2, scale=1.0, eps=0.0, projector=projector, oversample=8, release=True
    )
    grads = [
        torch.randn(6, 10, dtype=F64, generator=torch.Generator().manual_seed(s)) for s in range(3)
    ]
    for grad in grads:
        (weight * grad).sum().backward()
    optimizer.step()
    basis = torch.linalg.svd(grads[0]).U[:, :2]
    assert torch.allclose(weight, -0.1 * basis @ (basis.mT @ sum(grads)).sign(), atol=1e-9)


@pytest.mark.parametrize("limit", [1e-3, 1e9])
@pytest.mark.parametrize(
    ("projector", "release"), [("svd", True), ("normal", True), ("svd", False)]
)
def test_clipping_acts_on_projections(projector: str, release: bool, limit: float) -> None:
    """The norm is that of projections and of the gradients that are not projected; SGD then moves by what is left."""
    options = {"rule": "sgd", "scale": 1.0, "projector": projector, "weight_decay": 0.0}
    models, norm = [Net(), Net()], None
    for model, clipped in zip(models, (True, False), strict=True):
        optimizer = ProjectedAdam(model.parameters(), 1.0, rank=2, release=release, **options)
        loss_of(model, batch(0)).backward()
        if clipped:
            norm = optimizer.clip_grad_norm_(limit)
        optimizer.step()
    start, same = Net(), Net()
    loss_of(same, batch(0)).backward()
    moved = [
        [a.detach() - b.detach() for a, b in zip(start.parameters(), m.parameters(), strict=True)]
        for m in models
    ]
    squares = [p.grad.square().sum().item() for p in same.parameters()]
    if release and projector == "svd":
        squares = [
            torch.linalg.svdvals(p.grad)[:2].square().sum().item() if p.ndim == 2 else q
            for p, q in zip(same.parameters(), squares, strict=True)
        ]
    expected = math.sqrt(sum(squares))
    if projector == "svd":
        assert norm.item() == pytest.approx(expected, rel=1e-9)
    else:
        assert norm.item() != pytest.approx(expected, rel=1e-6)
    factor = min(1.0, limit / (norm.item() + 1e-6))
    assert all(
        torch.allclose(a, factor * b, rtol=1e-9, atol=1e-15) for a, b in zip(*moved, strict=True)
    )


@pytest.mark.parametrize(("name", "options"), DRAWN + FOUND, ids=str)
def test_zero_grad_drops_what_is_gathered(name: str, options: dict) -> None:
    """As if it had never been; only a basis that was found in it, and that moments were carried over to, is kept."""
    kept = (name, options) in FOUND and "transport" in options
    model, same = Net(), Net()
    optimizer, plain = (
        make(name, model, options, release=True),
        make(name, same, options, release=True),
    )
    for step in range(3):
        loss_of(model, batch(step if kept else 100 + step)).backward()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        train(model, optimizer, step, step + 1)
        train(same, plain, step, step + 1)
    assert equal(model, same)
    still = [p.detach().clone() for p in model.parameters()]
    loss_of(model, batch(9)).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), still, strict=True))


def test_dense_groups_gather_nothing() -> None:
    model = Net()
    groups = [{"params": [model.embedding.weight], "dense": True}, {"params": [model.one.weight]}]
    optimizer = ProjectedAdam(groups, 0.05, rank=2, release=True)
    for _ in range(2):
        loss_of(model, batch(0)).backward()
    assert model.embedding.weight.grad is not None
    assert model.one.weight.grad is None
    same = Net()
    for _ in range(2):
        loss_of(same, batch(0)).backward()
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


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])
def test_a_parameter_that_got_nothing_stays(cls: type) -> None:
    """Of two matrices of one shape one is used; the other neither moves nor counts a step."""
    model = Net()
    optimizer = cls(model.parameters(), 0.05, rank=2, projector="normal", release=True)
    before = model.two.weight.detach().clone()
    torch.tanh(model.one(torch.ones(3, 8, dtype=F64))).sum().backward()
    optimizer.step()
    assert torch.equal(model.two.weight, before)
    assert (
        optimizer.state[model.one.weight]["step"],
        optimizer.state[model.two.weight]["step"],
    ) == (1, 0)
