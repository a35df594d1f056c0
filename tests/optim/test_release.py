"""Gradient release: the same steps as without it, and at most one gradient alive."""

import inspect
import io
import math

import pytest
import torch

import rankwise.optim
from helpers.releasing import (
    FUSED,
    GATHERED,
    Net,
    batch,
    equal,
    every_fused,
    every_kind,
    every_kind_few_fast,
    is_alive,
    loss_of,
    make,
    train,
)
from rankwise.optim import AdamW, Lomo

# Without accumulation -----------------------------------------------------------------------------


# bitsandbytes steps all at once, pairs of factors step together, blocks wait for their turn, and
# MeZO has no gradient.
WITHOUT_RELEASE = {
    *("AdamW8bit", "PagedAdamW", "LoraFA", "LoraPro", "LoraRiemannian", "BAdam", "Lisa", "MeZO")
}


def test_every_optimizer_that_can_release_does() -> None:
    optimizers = {name: getattr(rankwise.optim, name) for name in dir(rankwise.optim)}
    assert set(optimizers) == {*FUSED, *GATHERED, *WITHOUT_RELEASE}
    for name, cls in optimizers.items():
        takes_it = "release" in inspect.signature(cls).parameters
        assert takes_it == (name not in WITHOUT_RELEASE), name
    assert {optimizers[name].RELEASE for name in FUSED} == {"fused"}
    assert {optimizers[name].RELEASE for name in GATHERED} == {"gathered"}


@every_kind
def test_release_is_the_same_optimizer(name: str, options: dict) -> None:
    """To the last bit: the order of operations is the same. Tied weights count once, with their whole gradient."""
    released, plain = Net(), Net()
    train(released, make(name, released, options, release=True))
    train(plain, make(name, plain, options, release=False))
    assert not equal(plain, Net(), 1e-3)
    assert equal(released, plain)


@every_kind
def test_one_gradient_is_alive_at_a_time(name: str, options: dict) -> None:
    """After backward none is left where steps are fused, else only those of vectors."""
    model, alive = Net(), []
    for param in (
        model.parameters()
    ):  # hooks run in order: these see gradients before the optimizer's free them
        param.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(is_alive(p.grad) for p in model.matrices))
        )
    optimizer = make(name, model, options, release=True)
    for step in range(2):
        loss_of(model, batch(step)).backward()
        for param in model.parameters():
            is_kept = name in GATHERED and param.ndim == 1
            assert is_alive(param.grad) == is_kept
        optimizer.step()
        optimizer.zero_grad()
    assert max(alive) == 1


@pytest.mark.parametrize("name", ["AdamW", "ProjFactor"])
def test_without_release_all_gradients_are_alive(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=False)
    loss_of(model, batch(0)).backward()
    optimizer.step()
    assert all(param.grad is not None for param in model.parameters())


@every_kind_few_fast
def test_release_resumes(name: str, options: dict) -> None:
    """Bit by bit, from within an interval."""
    straight, first, second = Net(), Net(), Net()
    train(straight, make(name, straight, options, release=True))
    stopped = make(name, first, options, release=True)
    train(first, stopped, 0, 3)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, file)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(name, second, options, release=True)
    resumed.load_state_dict(loaded["optimizer"])
    train(second, resumed, 3, 5)
    assert equal(straight, second)


@every_kind_few_fast
def test_a_scheduler_sets_the_rate_of_released_steps(name: str, options: dict) -> None:
    def trained(release: bool, decay: float) -> Net:
        model = Net()
        optimizer = make(name, model, options, release=release)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
        for step in range(3):
            train(model, optimizer, step, step + 1)
            scheduler.step()
        return model

    released = trained(True, 0.5)
    assert equal(released, trained(False, 0.5))
    assert not equal(released, trained(False, 1.0), 1e-4)


@pytest.mark.parametrize("name", ["AdamW", "Fira", "ProjFactor"])
def test_groups_added_later_are_released_too(name: str) -> None:
    rank = {} if name == "AdamW" else {"rank": 2}
    models, optimizers = [Net(), Net()], []
    for model, release in zip(models, (True, False), strict=True):
        cls = getattr(rankwise.optim, name)
        optimizer = cls(list(model.one.parameters()), 0.05, release=release, **rank)
        optimizers.append(optimizer)  # one that is deleted would release nothing any more
        model.two.requires_grad_(False)
        train(model, optimizer, 0, 2)
        model.zero_grad()
        model.two.requires_grad_(True)
        optimizer.add_param_group({"params": list(model.two.parameters()), "lr": 0.1})
        train(model, optimizer, 2, 4)
    assert equal(*models)
    loss_of(models[0], batch(0)).backward()
    assert not is_alive(models[0].one.weight.grad)
    assert not is_alive(models[0].two.weight.grad)


# Fused --------------------------------------------------------------------------------------------


@every_fused
def test_fused_release_refuses_accumulation(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match=r"before optimizer\.step"):
        loss_of(model, batch(1)).backward()
    other = Net()
    optimizer = make(name, other, {}, release=True)
    train(other, optimizer, 0, 2)  # step() allows the next backward
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: loss_of(other, batch(2)))


@every_fused
def test_fused_release_returns_the_norm_of_what_it_used(name: str) -> None:
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
    with pytest.raises(RuntimeError, match="no gradient was released"):
        optimizer.gradient_norm()


@pytest.mark.parametrize(
    "name", [name for name in FUSED if hasattr(getattr(rankwise.optim, name), "clip_grad_norm_")]
)
def test_fused_release_refuses_to_clip(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match="cannot be clipped"):
        optimizer.clip_grad_norm_(1.0)


def test_lomo_releases_by_default() -> None:
    model, by_hand = Net(), Net()
    optimizer = Lomo(model.parameters(), 0.05)
    train(model, optimizer, 0, 3)
    train(by_hand, torch.optim.SGD(by_hand.parameters(), 0.05), 0, 3)
    assert equal(model, by_hand, 1e-15)
    loss_of(model, batch(3)).backward()
    assert not any(is_alive(param.grad) for param in model.parameters())


def test_released_adamw_is_torchs_bitwise() -> None:
    model, theirs = Net().float(), Net().float()
    train(model, AdamW(model.parameters(), 0.05, release=True))
    train(theirs, torch.optim.AdamW(theirs.parameters(), 0.05))
    assert equal(model, theirs)
