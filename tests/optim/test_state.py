"""ProjectedAdam's state is its formula for every combination of options, and each parameter's state is its own."""

import itertools

import pytest
import torch
from torch import nn

from helpers.optimizing import F64, close, gradients, numbers
from helpers.projected_adam import SIDES, optimize, seen
from rankwise.optim import ProjectedAdam

GRID = [
    {
        "projector": projector,
        "side": side,
        "rule": rule,
        "scheme": scheme,
        "momentum": 0.9,
        "rank": 3,
    }
    for projector, side, rule, scheme in itertools.product(
        ["svd", "rsvd", "dct", "normal"],
        SIDES,
        ["adam", "sgd", "factored"],
        ["subspace", "original"],
    )
    if side != "both" or projector in ("svd", "rsvd")
]
OTHERS = [
    {"rank": 3, "rule": "sgd"},
    {"rank": 3, "drift": 0.5},
    {"rank": 3, "drift": 0.5, "side": "both"},
    {"rank": 3, "granularity": 2.0},
    {"rank": 3, "granularity": 0.5, "projector": "normal", "scheme": "original"},
    {"rank": 4, "rank_rule": "svt", "transport": "project"},
    {"rank": 50, "rank_rule": "percent", "transport": "reset"},
    {"rank": 500, "rank_rule": "proportional", "projector": "rsvd", "sketch_factor": 2},
    {"rank": 3, "random_from_step": 2, "convention": "transformers"},
]
# Every eleventh of the grid has each projector, side, rule and scheme at least once.
FAST = GRID[::11] + OTHERS
SHAPES = [(6, 10), (10, 6), (8, 8), (6, 5, 2)]
few_fast = pytest.mark.parametrize(
    "cases", [FAST, pytest.param(GRID, marks=pytest.mark.slow)], ids=["few", "grid"]
)


def sides(shape: tuple[int, ...], options: dict) -> dict[str, int]:
    """The letters of the formula, from the words of the options."""
    m, n = torch.empty(shape).flatten(1).shape
    matrix = torch.empty(m, n)
    s, large = seen(matrix, options.get("side", "short"), options.get("granularity", 1)).shape
    rank, shorter = options["rank"], min(s, large)
    if options.get("rank_rule") == "percent":
        rank = rank * shorter // 100
    elif options.get("rank_rule") == "proportional":
        rank = rank * shorter // 768
    return {"m": m, "n": n, "s": s, "L": large, "r": min(max(1, rank), shorter)}


def test_the_fast_cases_have_every_option() -> None:
    for key in ("projector", "side", "rule", "scheme"):
        assert {case[key] for case in GRID[::11]} == {case[key] for case in GRID}


@few_fast
def test_state_is_the_formula(cases: list[dict]) -> None:
    """Predicted on meta, kept after a step, and written in the formula: one number."""
    defaults = {"projector": "svd", "side": "short", "rule": "adam", "scheme": "subspace"}
    defaults |= {"momentum": 0.0, "drift": 0.0}
    for options, shape in itertools.product(cases, SHAPES):
        grad = gradients(1, *shape)[0]
        param, optimizer = optimize(torch.zeros_like(grad), [grad], **options)
        formula = ProjectedAdam.formula(**{**defaults, **options})
        expected = eval(formula, {}, sides(shape, options))
        meta = nn.Parameter(torch.empty(shape, device="meta", dtype=F64))
        planned = ProjectedAdam([meta], **options)
        planned.allocate()
        assert numbers(optimizer.state[param]) == expected, (options, shape)
        assert numbers(planned.state[meta]) == expected, (options, shape)


@pytest.mark.parametrize(
    ("rule", "momentum", "kept"),
    [("adam", 0.0, 14), ("factored", 0.0, 14), ("sgd", 0.9, 7), ("sgd", 0.0, 0)],
)
def test_a_vectors_state_is_its_formula(rule: str, momentum: float, kept: int) -> None:
    vector = nn.Parameter(torch.empty(7, device="meta"))
    optimizer = ProjectedAdam([vector], rank=2, rule=rule, momentum=momentum)
    optimizer.allocate()
    assert numbers(optimizer.state[vector]) == kept
    assert eval(ProjectedAdam.VECTOR, {}, {"k": 7, "rule": rule, "momentum": momentum}) == kept


@few_fast
def test_a_bfloat16_parameter_steps(cases: list[dict]) -> None:
    for options in cases:
        grad = gradients(1, 6, 10, dtype=torch.bfloat16)[0]
        param, _ = optimize(torch.zeros_like(grad), [grad], **options)
        assert param.isfinite().all(), options
        assert (param != 0).any(), options


# Stacks -------------------------------------------------------------------------------------------


@few_fast
def test_matrices_in_one_stack_step_as_alone(cases: list[dict]) -> None:
    weights = gradients(3, 6, 10, seed=1)
    grads = [gradients(5, 6, 10, seed=10 + index) for index in range(3)]
    for case in cases:
        options = {**case, "interval_steps": 2}
        together = [nn.Parameter(weight.clone()) for weight in weights]
        optimizer = ProjectedAdam(together, 0.1, **options)
        for t in range(5):
            for param, own in zip(together, grads, strict=True):
                param.grad = own[t].clone()
            optimizer.step()
        for param, weight, own in zip(together, weights, grads, strict=True):
            alone, _ = optimize(weight, own, **options)
            assert close(param, alone, atol=1e-12), options


@pytest.mark.parametrize(
    "options",
    [{}, {"projector": "normal"}, {"projector": "rsvd", "transport": "project"}, {"drift": 0.9}],
    ids=str,
)
def test_a_parameter_without_gradient_waits(options: dict) -> None:
    """It neither moves nor counts the step, also when others of its shape do, and ends as it would alone."""
    grads = [gradients(5, 6, 10, seed=seed) for seed in (1, 2)]
    grads[0][1] = grads[0][2] = grads[1][3] = None
    together = [nn.Parameter(torch.ones(6, 10, dtype=F64)) for _ in grads]
    options = {"rank": 3, "interval_steps": 2, **options}
    optimizer = ProjectedAdam(together, 0.1, weight_decay=0.1, **options)
    for pair in zip(*grads, strict=True):
        for param, grad in zip(together, pair, strict=True):
            param.grad = None if grad is None else grad.clone()
        optimizer.step()
    for param, own in zip(together, grads, strict=True):
        received = [grad for grad in own if grad is not None]
        alone, _ = optimize(torch.ones(6, 10, dtype=F64), received, weight_decay=0.1, **options)
        assert close(param, alone, atol=1e-12)
        assert optimizer.state[param]["step"] == len(received)


def test_a_parameter_group_added_later_leaves_the_others_state() -> None:
    grads, start = gradients(4, 6, 10), torch.zeros(6, 10, dtype=F64)
    param, late = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = ProjectedAdam([param], 0.1, rank=3)
    for t, grad in enumerate(grads):
        if t == 2:
            optimizer.add_param_group({"params": [late], "lr": 0.2})
        param.grad, late.grad = grad.clone(), grad.clone()
        optimizer.step()
    assert close(param, optimize(start, grads, rank=3)[0], atol=1e-13)
    assert close(late, optimize(start, grads[2:], rank=3, lr=0.2)[0], atol=1e-13)
