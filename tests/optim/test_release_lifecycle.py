"""Release from its beginning to its end: hooks, copies, clipping, scalers, other optimizers."""

import copy
import gc
import io
import math
import pickle
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
    every_kind,
    is_alive,
    loss_of,
    make,
    train,
)
from rankwise.optim import AdamW, AdamW8bit, Fira, PagedAdamW, ProjectedAdam, TopR

NAMES = FUSED + GATHERED
every_name = pytest.mark.parametrize("name", NAMES)
every_name_both = pytest.mark.parametrize(
    ("name", "release"), [(name, release) for name in NAMES for release in (False, True)]
)


def values(model: nn.Module) -> list[torch.Tensor]:
    return [param.detach().clone() for param in model.parameters()]


def unchanged(model: nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


# Beginning and end --------------------------------------------------------------------------------


@every_kind
def test_an_unreleased_optimizer_is_one_that_never_released(name: str, options: dict) -> None:
    """Then gradients accumulate again as usual, and it may release once more."""
    models = [Net(), Net()]
    changing, plain = (make(name, model, options, release=False) for model in models)
    changing.release()
    train(models[0], changing, 0, 2)
    changing.unrelease()
    train(models[1], plain, 0, 2)
    for model, optimizer in zip(models, (changing, plain), strict=True):
        for micro in range(2):
            (loss_of(model, batch(10 + micro)) / 2).backward()
        assert all(is_alive(param.grad) for param in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    changing.release()
    train(models[0], changing, 3, 5)
    train(models[1], plain, 3, 5)
    assert equal(*models)
    assert not equal(models[0], Net(), 1e-3)


@every_name
def test_a_second_release_changes_nothing(name: str) -> None:
    twice, once = Net(), Net()
    optimizer = make(name, twice, {}, release=True)
    optimizer.release()
    train(twice, optimizer)
    train(once, make(name, once, {}, release=True))
    assert equal(twice, once)
    optimizer.unrelease()
    before = values(twice)
    loss_of(twice, batch(0)).backward()
    assert unchanged(twice, before)
    assert all(is_alive(param.grad) for param in twice.parameters())


@every_name
def test_release_does_not_change_between_backward_and_step(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    for action in (
        optimizer.unrelease,
        optimizer.state_dict,
        lambda: optimizer.load_state_dict({"state": {}, "param_groups": []}),
        lambda: copy.deepcopy(optimizer),
    ):
        with pytest.raises(RuntimeError, match=r"released since the last step, allowed: after"):
            action()
    optimizer.step()
    optimizer.unrelease()
    assert not optimizer.released


@every_name
def test_a_deleted_optimizer_leaves_the_parameters_alone(name: str) -> None:
    """Another optimizer then moves them as if the first one had never been there."""
    model, same = Net(), Net()
    optimizer = make(name, model, {}, release=True)
    watched = weakref.ref(optimizer)
    train(model, optimizer, 0, 2)
    same.load_state_dict(model.state_dict())
    del optimizer
    assert watched() is None  # no reference cycle keeps it
    before = values(model)
    loss_of(model, batch(3)).backward()
    assert unchanged(model, before)
    assert all(is_alive(param.grad) for param in model.parameters())
    model.zero_grad()
    train(model, torch.optim.SGD(model.parameters(), 0.1), 3, 5)
    train(same, torch.optim.SGD(same.parameters(), 0.1), 3, 5)
    assert equal(model, same)
    assert not unchanged(model, before)


@every_name
def test_an_optimizer_deleted_after_backward_leaves_a_sentence(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    del optimizer
    with pytest.raises(RuntimeError, match="released"):
        loss_of(model, batch(1)).backward()
        train(model, torch.optim.SGD(model.parameters(), 0.1), 1, 2)
    model.zero_grad()
    train(model, torch.optim.SGD(model.parameters(), 0.1), 1, 2)


@every_name
def test_parameters_that_train_only_later_are_released_too(name: str) -> None:
    models = [Net(), Net()]
    for model in models:
        model.two.requires_grad_(False)
    pairs = [
        (models[0], make(name, models[0], {}, release=True)),
        (models[1], make(name, models[1], {}, release=False)),
    ]
    for model, optimizer in pairs:
        train(model, optimizer, 0, 2)
        model.two.requires_grad_(True)
        train(model, optimizer, 2, 5)
    assert equal(*models)
    loss_of(models[0], batch(9)).backward()
    assert not is_alive(models[0].two.weight.grad)


@every_kind
def test_a_gradient_that_no_backward_made_is_used(name: str, options: dict) -> None:
    models = [Net(), Net()]
    for model, release in zip(models, (True, False), strict=True):
        optimizer = make(name, model, options, release=release)
        for step in range(2):
            generator = torch.Generator().manual_seed(step)
            for param in model.parameters():
                param.grad = torch.randn(param.shape, generator=generator, dtype=param.dtype)
            optimizer.step()
            optimizer.zero_grad()
    assert equal(*models)
    assert not equal(models[0], Net(), 1e-4)


# Other optimizers ---------------------------------------------------------------------------------


@every_name
def test_two_released_optimizers_on_a_parameter_are_refused(name: str) -> None:
    model = Net()
    first = make("AdamW", model, {}, release=True)
    second = make(name, model, {}, release=True)
    expected = f"AdamW and {name}|{name} and AdamW"
    with pytest.raises(RuntimeError, match=expected):
        loss_of(model, batch(0)).backward()
    first.unrelease()
    first.zero_grad()
    second.zero_grad()
    train(model, second, 0, 1)


@every_name
def test_an_optimizer_does_not_step_what_another_one_releases(name: str) -> None:
    """Before the other's step, and after it, when there are no gradients any more."""
    model = Net()
    releasing = make("Fira", model, {}, release=True)
    other = make(name, model, {}, release=False)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match=rf"Fira and {name}, .*unrelease"):
        other.step()
    releasing.step()
    with pytest.raises(RuntimeError, match=rf"Fira and {name}, .*unrelease"):
        other.step()
    del releasing
    train(model, other, 1, 2)


@pytest.mark.parametrize("name", ["AdamW", "Fira", "ProjectedAdam"])
@pytest.mark.parametrize("theirs", [torch.optim.SGD, torch.optim.AdamW, AdamW8bit, PagedAdamW])
def test_torchs_optimizers_refuse_a_released_gradient(name: str, theirs: type) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    other = theirs(model.matrices, lr=0.1)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match=f"{name} with release has used and freed"):
        other.step()
    optimizer.step()


def test_an_optimizer_that_waits_for_the_collector_is_deleted_too() -> None:
    model = Net()
    first = AdamW(model.parameters(), 0.05, release=True)
    first.itself = first
    second = AdamW(model.parameters(), 0.05, release=True)
    gc.disable()
    try:
        del first
        train(model, second, 0, 2)
    finally:
        gc.enable()


# Copies -------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_a_copy_is_what_the_original_was(name: str, options: dict, release: bool, how: str) -> None:
    """Its hooks are on its own parameters; it steps as the original, and neither moves the other's."""
    model = Net()
    optimizer = make(name, model, options, release=release)
    train(model, optimizer, 0, 3)
    if how == "deepcopy":
        twin, copied = copy.deepcopy((model, optimizer))
    elif how == "pickle":
        twin, copied = pickle.loads(pickle.dumps((model, optimizer)))
    else:
        file = io.BytesIO()
        torch.save((model, optimizer), file)
        twin, copied = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert type(copied) is type(optimizer)
    assert copied.released is release
    options_of = [
        {key: value for key, value in group.items() if key != "params"}
        for one in (optimizer, copied)
        for group in one.param_groups
    ]
    assert options_of[0] == options_of[1]
    before = values(model)
    train(twin, copied, 3, 5)
    assert unchanged(model, before)
    after = values(twin)
    train(model, optimizer, 3, 5)
    assert unchanged(twin, after)
    assert equal(model, twin)


def test_a_shallow_copy_of_a_released_optimizer_shares_no_parameter_silently() -> None:
    model = Net()
    optimizer = make("AdamW", model, {}, release=True)
    shallow = copy.copy(optimizer)
    with pytest.raises(RuntimeError, match="AdamW and AdamW"):
        loss_of(model, batch(0)).backward()
    del shallow
    optimizer.zero_grad()
    train(model, optimizer, 0, 1)


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


@pytest.mark.parametrize("name", [*GATHERED, "Fira", "Lomo"])
@pytest.mark.parametrize("release", [False, True])
def test_clipping_without_gradients_is_a_norm_of_zero(name: str, release: bool) -> None:
    if release and name in FUSED:
        pytest.skip("refused, see test_release.py")
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


def test_the_order_of_a_stack_and_topr_hooks() -> None:
    """TopR's masked step is inside its hooks: they see the whole gradient."""
    param = nn.Parameter(torch.zeros(10))
    optimizer = TopR([param], 0.1, fraction=0.1)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(param.grad.clone()))
    param.grad = torch.arange(10.0)
    optimizer.step()
    assert torch.equal(seen[0], torch.arange(10.0))
