"""Release from its beginning to its end: other optimizers on the same parameters, and copies."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch

from helpers.releasing import (
    FUSED,
    GATHERED,
    Net,
    batch,
    equal,
    every_kind,
    is_alive,
    loss_of,
    make,
    train,
    unchanged,
    values,
)
from rankwise.optim import AdamW, AdamW8bit, PagedAdamW

NAMES = FUSED + GATHERED
every_name = pytest.mark.parametrize("name", NAMES)


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
    for release in (False, True):
        other = make(name, model, {}, release=release)
        with pytest.raises(RuntimeError, match=f"got one of a deleted {name}, allowed: None; set"):
            other.step()
    del other
    with pytest.raises(RuntimeError, match=f"{name} with release has used and freed"):
        torch.optim.SGD(model.parameters(), 0.1).step()
    with pytest.raises(RuntimeError, match=f"got one of a deleted {name}, allowed: None; set"):
        loss_of(model, batch(1)).backward()
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
