"""BAdam and LISA: which blocks step when, with which state, and what requires gradients meanwhile."""

import copy
import io
import random

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients, numbers
from rankwise.optim import BAdam, Lisa
from rankwise.optim.parts.waiting import trains

LR, DECAY, B1, B2, EPS = 0.05, 0.1, 0.9, 0.999, 1e-8
SHAPES = {"embeddings": (9, 4), 0: (6, 4), 1: (6, 4), 2: (4, 6), "other": (5,)}


def model() -> dict[object, nn.Parameter]:
    starts = {block: gradients(1, *shape, seed=9)[0] for block, shape in SHAPES.items()}
    return {block: nn.Parameter(start) for block, start in starts.items()}


def groups(params: dict[object, nn.Parameter]) -> list[dict]:
    return [{"params": [param], "block": block} for block, param in params.items()]


def grads_of(step: int) -> dict[object, Tensor]:
    return {
        block: gradients(1, *shape, seed=10 * step + index)[0]
        for index, (block, shape) in enumerate(SHAPES.items())
    }


def advance(params: dict, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    """Step from a backward pass; what requires no gradient gets none."""
    for step in range(start, stop):
        grads = grads_of(step)
        sum((param * grads[block]).sum() for block, param in params.items()).backward()
        optimizer.step()
        optimizer.zero_grad()


def adamw(moments: dict, value: Tensor, grad: Tensor) -> Tensor:
    """One step of Kingma & Ba's algorithm 1 with Loshchilov & Hutter's decay, on state in `moments`."""
    moments["t"] = t = moments.get("t", 0) + 1
    moments["m"] = B1 * moments.get("m", 0) + (1 - B1) * grad
    moments["v"] = B2 * moments.get("v", 0) + (1 - B2) * grad**2
    direction = moments["m"] / (1 - B1**t) / ((moments["v"] / (1 - B2**t)).sqrt() + EPS)
    return (1 - LR * DECAY) * value - LR * direction


def check_steps(optimizer: torch.optim.Optimizer, params: dict, turns: list[set]) -> None:
    """By turns of three steps: active blocks step by AdamW on state that lasts while they are active."""
    values = {block: param.detach().clone() for block, param in params.items()}
    moments: dict = {}
    step = 0
    for active in turns:
        moments = {block: moments.get(block, {}) for block in active}
        for _ in range(3):
            assert {block for block, param in params.items() if param.requires_grad} == active
            assert all(trains(param) for param in params.values())
            advance(params, optimizer, step, step + 1)
            grads = grads_of(step)
            for block in active:
                values[block] = adamw(moments[block], values[block], grads[block])
            step += 1
            for block, param in params.items():
                assert close(param, values[block], 1e-12), (step, block)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_badam_is_its_algorithm(order: str) -> None:
    """Two passes over the five blocks; each block starts its turn at t = 1 with moments of zero."""
    params = model()
    optimizer = BAdam(groups(params), LR, interval_steps=3, order=order, weight_decay=DECAY, seed=4)
    turns = []
    for cycle in range(2):
        blocks = list(SHAPES)
        if order == "descending":
            blocks.reverse()
        elif order == "random":
            random.Random(f"4 {cycle}").shuffle(blocks)
        turns += [{block} for block in blocks]
    check_steps(optimizer, params, turns)


@pytest.mark.parametrize("active_layers", [1, 2, 3])
def test_lisa_is_its_algorithm(active_layers: int) -> None:
    """Outside of the layers all step always; a layer that stays drawn keeps its state, others begin anew."""
    params = model()
    optimizer = Lisa(
        groups(params),
        LR,
        active_layers=active_layers,
        interval_steps=3,
        weight_decay=DECAY,
        seed=4,
    )
    turns = []
    for turn in range(6):
        drawn = random.Random(f"4 {turn}").sample([0, 1, 2], active_layers)
        turns.append({"embeddings", "other", *drawn})
    if active_layers < 3:
        assert len(set(map(frozenset, turns))) > 1
    check_steps(optimizer, params, turns)


def make(name: str, params: dict) -> torch.optim.Optimizer:
    options = {"active_layers": 1} if name == "Lisa" else {}
    cls = {"BAdam": BAdam, "Lisa": Lisa}[name]
    return cls(groups(params), LR, interval_steps=3, weight_decay=DECAY, **options)


both = pytest.mark.parametrize("name", ["BAdam", "Lisa"])


@both
@pytest.mark.parametrize("stop", [4, 6])
def test_a_run_resumes_to_the_bit_within_and_between_turns(name: str, stop: int) -> None:
    straight, first, second = model(), model(), model()
    advance(straight, make(name, straight), 0, 11)
    stopped = make(name, first)
    advance(first, stopped, 0, stop)
    file = io.BytesIO()
    torch.save([list(first.values()), stopped.state_dict()], file)
    saved, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed = make(name, second)
    with torch.no_grad():
        for param, value in zip(second.values(), saved, strict=True):
            param.copy_(value)
    resumed.load_state_dict(state)
    advance(second, resumed, stop, 11)
    for one, other in zip(straight.values(), second.values(), strict=True):
        assert torch.equal(one, other)


@both
def test_a_copy_goes_on_as_the_original(name: str) -> None:
    params = model()
    optimizer = make(name, params)
    advance(params, optimizer, 0, 4)
    twins, twin = copy.deepcopy((params, optimizer))
    advance(params, optimizer, 4, 9)
    advance(twins, twin, 4, 9)
    for one, other in zip(params.values(), twins.values(), strict=True):
        assert torch.equal(one, other)


@both
def test_only_active_blocks_have_state_and_a_profile_takes_the_largest(name: str) -> None:
    """By hand: the embeddings have 36 numbers, a layer 24, the rest 5; Adam keeps twice that."""
    params = model()
    optimizer = make(name, params)
    optimizer.assume_largest()
    expected = {"embeddings"} if name == "BAdam" else {"embeddings", "other", 0}
    bytes_of_numbers = 8 * (36 if name == "BAdam" else 36 + 5 + 24)
    assert optimizer.gradients_bytes() == bytes_of_numbers
    advance(params, optimizer, 0, 7)
    kept = {block for block, param in params.items() if optimizer.state.get(param)}
    assert kept == expected
    total = sum(numbers(state) for state in optimizer.state.values())
    assert 8 * total == 2 * bytes_of_numbers
    meta = {
        block: nn.Parameter(torch.empty(s, device="meta", dtype=F64)) for block, s in SHAPES.items()
    }
    planned = make(name, meta)
    planned.assume_largest()
    planned.allocate()
    assert sum(numbers(state) for state in planned.state.values()) == total
    optimizer.activate_all()
    assert all(param.requires_grad for param in params.values())


@both
def test_turns_are_the_whole_optimizers(name: str) -> None:
    params = model()
    optimizer = make(name, params)
    late = nn.Parameter(torch.zeros(3))
    with pytest.raises(
        ValueError, match=rf"^{name}: param_groups\[5\].interval_steps: got 4, allowed: 3"
    ):
        optimizer.add_param_group({"params": [late], "block": 3, "interval_steps": 4})
    assert len(optimizer.param_groups) == 5
    optimizer.add_param_group({"params": [late], "block": 3})
    assert 3 in optimizer.blocks()


def test_more_active_layers_than_there_are_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Lisa: active_layers: got 4, allowed: 1 to 3, the number of layers"
    ):
        Lisa(groups(model()), active_layers=4)
