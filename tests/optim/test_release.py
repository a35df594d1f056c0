"""Gradient release: the same steps as without it, and at most one gradient alive."""

import io
import math

import pytest
import torch

import rankwise.optim
from helpers.releasing import (
    FUSED,
    GATHERED,
    RELEASING,
    Net,
    batch,
    equal,
    every_fused,
    every_kind,
    loss_of,
    make,
    train,
)
from rankwise.optim import AdamW, Lomo

# Without accumulation -------------------------------------------------------------------------------------------------


def test_all_but_bitsandbytes_release() -> None:
    assert set(dir(rankwise.optim)) - set(RELEASING) <= {"AdamW8bit", "PagedAdamW"}
    assert GATHERED == ["ProjFactor", "ProjectedAdam"]


@every_kind
def test_release_is_the_same_optimizer(name: str, options: dict) -> None:
    """To the last bit: the order of operations is the same. Tied weights count once, with their whole gradient."""
    released, plain = Net(), Net()
    before = Net()
    train(released, make(name, released, options, release=True))
    train(plain, make(name, plain, options, release=False))
    assert not equal(plain, before, 1e-3)
    assert equal(released, plain)


@every_kind
def test_gradients_are_gone_after_backward(name: str, options: dict) -> None:
    """All of them where steps are fused, else those of projected matrices."""
    model = Net()
    optimizer = make(name, model, options, release=True)
    for step in range(3):
        loss_of(model, batch(step)).backward()
        assert all(
            p.grad is None for p in (model.parameters() if name in FUSED else model.matrices)
        )
        assert all(
            p.grad is not None for p in model.parameters() if name in GATHERED and p.ndim == 1
        )
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("release", [True, False])
@every_kind
def test_one_gradient_is_alive_at_a_time(name: str, options: dict, release: bool) -> None:
    model, alive = Net(), []
    for param in model.parameters():  # before the optimizer's own hook
        param.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad is not None for p in model.matrices))
        )
    train(model, make(name, model, options, release=release), 0, 2)
    assert max(alive) == (1 if release else len(model.matrices))


@every_kind
def test_release_resumes(name: str, options: dict) -> None:
    """Bit by bit, from within an interval."""
    straight, first, second = Net(), Net(), Net()
    train(straight, make(name, straight, options, release=True))
    stopped = make(name, first, options, release=True)
    train(first, stopped, 0, 3)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(name, second, options, release=True)
    resumed.load_state_dict(loaded["optimizer"])
    train(second, resumed, 3, 5)
    assert equal(straight, second)


@every_kind
def test_a_scheduler_sets_the_rate_of_released_steps(name: str, options: dict) -> None:
    models = [Net(), Net(), Net()]
    for model, release, scheduled in zip(
        models, (True, False, False), (True, True, False), strict=True
    ):
        optimizer = make(name, model, options, release=release)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 / (1 + step) if scheduled else 1.0
        )  # noqa: B023
        for step in range(3):
            train(model, optimizer, step, step + 1)
            scheduler.step()
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2], 1e-4)


@pytest.mark.parametrize("name", ["AdamW", "Fira", "ProjFactor"])
def test_groups_added_later_are_released_too(name: str) -> None:
    models = [Net(), Net()]
    for model, release in zip(models, (True, False), strict=True):
        cls = getattr(rankwise.optim, name)
        optimizer = cls(
            [*model.one.parameters()],
            0.05,
            release=release,
            **({} if name == "AdamW" else {"rank": 2}),
        )
        model.two.requires_grad_(False)
        train(model, optimizer, 0, 2)
        model.zero_grad()
        optimizer.add_param_group(
            {"params": [*model.two.requires_grad_(True).parameters()], "lr": 0.1}
        )
        train(model, optimizer, 2, 4)
    assert equal(*models)
    loss_of(models[0], batch(0)).backward()
    assert models[0].one.weight.grad is models[0].two.weight.grad is None


# Fused ----------------------------------------------------------------------------------------------------------------


@every_fused
def test_fused_release_refuses_accumulation(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match=r"before optimizer\.step"):
        loss_of(model, batch(1)).backward()
    other = Net()
    optimizer = make(name, other, {}, release=True)
    train(other, optimizer, 0, 2)  # step() opens the next backward
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: loss_of(other, batch(2)))


@every_fused
def test_fused_release_knows_the_norm_of_what_it_used(name: str) -> None:
    model, same = Net(), Net()
    optimizer = make(name, model, {}, release=True)
    for step in range(2):
        same.load_state_dict(model.state_dict())
        same.zero_grad()
        loss_of(same, batch(step)).backward()
        loss_of(model, batch(step)).backward()
        expected = math.sqrt(sum(p.grad.square().sum().item() for p in same.parameters()))
        assert optimizer.gradient_norm().item() == pytest.approx(expected, rel=1e-12)
        optimizer.step()


def test_lomo_releases_unless_told() -> None:
    model, by_hand = Net(), Net()
    optimizer = Lomo(model.parameters(), 0.05)
    train(model, optimizer, 0, 3)
    train(by_hand, torch.optim.SGD(by_hand.parameters(), 0.05), 0, 3)
    assert equal(model, by_hand, 1e-15)


def test_released_adamw_is_torchs_bitwise() -> None:
    model, theirs = Net().float(), Net().float()
    train(model, AdamW(model.parameters(), 0.05, release=True))
    train(theirs, torch.optim.AdamW(theirs.parameters(), 0.05))
    assert equal(model, theirs)
