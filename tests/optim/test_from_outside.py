"""What acts on optimizers from outside, with release and without: step hooks, schedulers, clipping, GradScalers."""

import math
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from helpers.releasing import (
    FUSED,
    GATHERED,
    Net,
    batch,
    equal,
    every_fused,
    loss_of,
    make,
    train,
    unchanged,
    values,
)
from rankwise.optim import Fira, ProjectedAdam, TopR

NAMES = FUSED + GATHERED
every_name = pytest.mark.parametrize("name", NAMES)
every_name_both = pytest.mark.parametrize(
    ("name", "release"), [(name, release) for name in NAMES for release in (False, True)]
)

# Step hooks and schedulers ------------------------------------------------------------------------


@every_name_both
def test_step_hooks_run_once_a_step(name: str, release: bool) -> None:
    """Also where torch has put them around its own class, which it does when one is built."""
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    torch.optim.Adafactor([nn.Parameter(torch.zeros(1))])
    model = Net()
    optimizer = make(name, model, {}, release=release)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: seen.append("global post")),
    ]
    try:
        train(model, optimizer, 0, 3)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == 3 * ["global pre", "pre", "post", "global post"]


@every_name_both
def test_a_scheduler_counts_the_steps(name: str, release: bool) -> None:
    """It warns if it thinks that no step came before it."""
    model = Net()
    optimizer = make(name, model, {}, release=release)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            train(model, optimizer, step, step + 1)
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 8)
    del scheduler
    watched = weakref.ref(optimizer)
    del optimizer
    assert watched() is None


# Clipping from outside ----------------------------------------------------------------------------


@every_fused
def test_clipping_a_fused_release_is_refused_unless_it_changes_nothing(name: str) -> None:
    """Torch's function gets the true norm, and a limit below it raises."""
    model, same = Net(), Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(same, batch(0)).backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in same.parameters()))
    loss_of(model, batch(0)).backward()
    for limit in (math.inf, 1.01 * norm):
        seen = nn.utils.clip_grad_norm_(model.parameters(), limit)
        assert seen.item() == pytest.approx(norm, rel=1e-12)
    with pytest.raises(RuntimeError, match=rf"{name} with release, which has applied"):
        nn.utils.clip_grad_norm_(model.parameters(), 0.9 * norm)
    with pytest.raises(RuntimeError, match=rf"{name} with release, which has applied"):
        model.one.weight.grad.mul_(2.0)
    with pytest.raises(RuntimeError, match="got the operation clamp_"):
        nn.utils.clip_grad_value_(model.parameters(), 1.0)
    with pytest.raises(RuntimeError, match="got the operation"):
        _ = sum(param.grad.sum() for param in model.parameters())
    optimizer.step()
    train(model, optimizer, 1, 2)


@pytest.mark.parametrize("name", GATHERED)
@pytest.mark.parametrize("projector", ["normal", "svd"])
def test_torchs_clipping_acts_on_what_is_gathered(name: str, projector: str) -> None:
    """As the optimizer's own: over two micro-batches, to a joint norm of matrices and vectors."""
    outside, inside, unclipped = Net(), Net(), Net()
    norms = []
    for model in (outside, inside, unclipped):
        optimizer = make(name, model, {"projector": projector}, release=True)
        for step in range(3):
            for micro in range(2):
                loss_of(model, batch(10 * step + micro)).backward()
            if model is outside:
                norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.01).item())
            elif model is inside:
                assert optimizer.clip_grad_norm_(0.01).item() == pytest.approx(norms[step])
            optimizer.step()
            optimizer.zero_grad()
    assert equal(outside, inside, 1e-12)
    assert not equal(outside, unclipped, 1e-6)
    assert min(norms) > 0.1


def test_clipping_by_torch_is_what_is_left_of_sgd() -> None:
    """By value: with SGD and a square orthonormal basis the moves are lr times the clipped gradient."""
    model, plain = Net(), Net()
    start = values(model)
    options = {"rule": "sgd", "scale": 1.0, "rank": 8, "projector": "orthonormal"}
    optimizer = ProjectedAdam(model.parameters(), 1.0, **options, release=True)
    loss_of(model, batch(0)).backward()
    loss_of(plain, batch(0)).backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
    seen = nn.utils.clip_grad_norm_(model.parameters(), norm / 2)
    assert seen.item() == pytest.approx(norm, rel=1e-9)
    optimizer.step()
    for before, after, other in zip(start, model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(before - after, other.grad / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "release"),
    [("Fira", False), ("Lomo", False), *((name, r) for name in GATHERED for r in (False, True))],
)
def test_clipping_without_gradients_is_a_norm_of_zero(name: str, release: bool) -> None:
    optimizer = make(name, Net(), {}, release=release)
    assert optimizer.clip_grad_norm_(1.0).item() == 0.0


@pytest.mark.parametrize("name", GATHERED)
def test_the_models_zero_grad_drops_what_is_gathered(name: str) -> None:
    """Of all parameters, or of one."""
    model, same = Net(), Net()
    optimizer = make(name, model, {"projector": "normal"}, release=True)
    loss_of(model, batch(100)).backward()
    model.zero_grad()
    before = values(model)
    optimizer.step()
    assert unchanged(model, before)
    loss_of(model, batch(100)).backward()
    model.zero_grad()
    train(model, optimizer)
    train(same, make(name, same, {"projector": "normal"}, release=True))
    assert equal(model, same)
    for optimized in (model, same):
        optimized.zero_grad(set_to_none=False)
    loss_of(model, batch(9)).backward()
    model.one.weight.grad = None
    before = model.one.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.one.weight, before)
    assert not torch.equal(model.two.weight, same.two.weight)


# GradScaler ---------------------------------------------------------------------------------------


def step_scaled(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for step in range(steps):
        scaler.scale(loss_of(model, batch(step))).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


@every_name
def test_a_scaler_changes_nothing(name: str) -> None:
    """Its scale is a power of two, so a scaled step is the plain one to the last bit."""
    scaled, plain = Net().float(), Net().float()
    step_scaled(scaled, make(name, scaled, {}, release=False), 4)
    train(plain, make(name, plain, {}, release=False), 0, 4)
    assert equal(scaled, plain)
    assert not equal(scaled, Net().float(), 1e-4)


@every_name
def test_a_scaler_with_release_is_refused(name: str) -> None:
    model = Net().float()
    with pytest.raises(RuntimeError, match=rf"GradScaler: got {name} with release"):
        step_scaled(model, make(name, model, {}, release=True), 1)


def test_a_skipped_step_moves_nothing() -> None:
    """The scaler finds an infinite gradient, as it does in its first steps."""
    model = Net().float()
    optimizer = Fira(model.parameters(), 0.05, rank=2)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, batch(0))).backward()
    model.one.weight.grad[0, 0] = math.inf
    before = values(model)
    scaler.step(optimizer)
    assert unchanged(model, before)


def test_topr_masks_inside_its_step_hooks() -> None:
    """They see the whole gradient."""
    param = nn.Parameter(torch.zeros(10))
    optimizer = TopR([param], 0.1, fraction=0.1)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(param.grad.clone()))
    param.grad = torch.arange(10.0)
    optimizer.step()
    assert torch.equal(seen[0], torch.arange(10.0))
