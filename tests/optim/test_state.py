"""ProjectedAdam's state is its formula, and each parameter's is its own, in a stack of one shape too."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients
from helpers.projected_adam import SIDES, optimize, seen
from rankwise.optim import ProjectedAdam

# State ----------------------------------------------------------------------------------------------------------------

STATES = [
    {"projector": p, "side": s, "rule": r, "scheme": k, "momentum": 0.9, "rank": 3}
    for p, s, r, k in itertools.product(
        ["svd", "rsvd", "dct", "normal"],
        SIDES,
        ["adam", "sgd", "factored"],
        ["subspace", "original"],
    )
    if s != "both" or p in ("svd", "rsvd")
] + [
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


def numbers(state: dict) -> int:
    return sum(value.numel() for value in state.values() if torch.is_tensor(value))


def test_state_is_the_formula() -> None:
    """Predicted on meta, kept after a step, and written in the formula: one number."""
    defaults = {
        "projector": "svd",
        "side": "short",
        "rule": "adam",
        "scheme": "subspace",
        "momentum": 0.0,
        "drift": 0.0,
    }
    for options, shape in itertools.product(STATES, [(6, 10), (10, 6), (8, 8), (6, 5, 2)]):
        grad = gradients(1, *shape)[0]
        param, optimizer = optimize(torch.zeros_like(grad), [grad], **options)
        side, c = options.get("side", "short"), options.get("granularity", 1)
        m, n = grad.flatten(1).shape
        s, long = seen(grad.flatten(1), side, c).shape
        short = min(s, long)
        r = {
            "percent": options["rank"] * short // 100,
            "proportional": options["rank"] * short // 768,
        }
        r = min(max(1, r.get(options.get("rank_rule"), options["rank"])), short)
        expected = eval(
            ProjectedAdam.formula(**{**defaults, **options}),
            {},
            {"m": m, "n": n, "s": s, "L": long, "r": r},
        )
        meta = nn.Parameter(torch.empty(shape, device="meta", dtype=F64))
        planned = ProjectedAdam([meta], **options)
        planned.allocate()
        assert (numbers(planned.state[meta]), numbers(optimizer.state[param])) == (
            expected,
            expected,
        ), (options, shape)


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


def test_a_bfloat16_parameter_keeps_bfloat16_state() -> None:
    for options in STATES:
        grad = gradients(1, 6, 10, dtype=torch.bfloat16)[0]
        param, optimizer = optimize(torch.zeros_like(grad), [grad], **options)
        kept = {
            key: value.dtype
            for key, value in optimizer.state[param].items()
            if torch.is_tensor(value)
        }
        assert set(kept.values()) <= {torch.bfloat16, torch.int32}, options
        assert param.isfinite().all()
        assert (param != 0).any()


# Stacks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [o for o in STATES if o.get("side", "short") in ("short", "both")]
    + [{"rank": 2, "transport": "project"}],
    ids=str,
)
def test_matrices_in_one_stack_step_as_alone(options: dict) -> None:
    options = {**options, "interval_steps": 2}
    weights, grads = (
        gradients(3, 6, 10, seed=1),
        [gradients(5, 6, 10, seed=10 + i) for i in range(3)],
    )
    together = [nn.Parameter(w.clone()) for w in weights]
    optimizer = ProjectedAdam(together, 0.1, **options)
    for t in range(5):
        for param, own in zip(together, grads, strict=True):
            param.grad = own[t].clone()
        optimizer.step()
    alone = [optimize(w, own, **options)[0] for w, own in zip(weights, grads, strict=True)]
    assert all(close(a, b, atol=1e-12) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"projector": "normal"}, {"projector": "rsvd", "transport": "project"}, {"drift": 0.9}],
    ids=str,
)
def test_a_parameter_without_gradient_waits(options: dict) -> None:
    """It neither moves nor counts the step, also when others of its shape do, and is then where it would be alone."""
    grads = [gradients(5, 6, 10, seed=s) for s in (1, 2)]
    grads[0][1] = grads[0][2] = grads[1][3] = None
    together = [nn.Parameter(torch.ones(6, 10, dtype=F64)) for _ in grads]
    options = {"rank": 3, "interval_steps": 2, **options}
    optimizer = ProjectedAdam(together, 0.1, weight_decay=0.1, **options)
    for pair in zip(*grads, strict=True):
        for param, grad in zip(together, pair, strict=True):
            param.grad = grad if grad is None else grad.clone()
        optimizer.step()
    for param, own in zip(together, grads, strict=True):
        there = [g for g in own if g is not None]
        alone, _ = optimize(torch.ones(6, 10, dtype=F64), there, weight_decay=0.1, **options)
        assert close(param, alone, atol=1e-12)
        assert optimizer.state[param]["step"] == len(there)


def test_a_parameter_group_added_later_leaves_the_others_state() -> None:
    grads = gradients(4, 6, 10)
    param, late = (
        nn.Parameter(torch.zeros(6, 10, dtype=F64)),
        nn.Parameter(torch.zeros(6, 10, dtype=F64)),
    )
    optimizer = ProjectedAdam([param], 0.1, rank=3)
    for t, grad in enumerate(grads):
        if t == 2:
            optimizer.add_param_group({"params": [late], "lr": 0.2})
        param.grad, late.grad = grad.clone(), grad.clone()
        optimizer.step()
    assert close(param, optimize(torch.zeros(6, 10, dtype=F64), grads, rank=3)[0], atol=1e-13)
    assert close(
        late, optimize(torch.zeros(6, 10, dtype=F64), grads[2:], rank=3, lr=0.2)[0], atol=1e-13
    )


def test_a_copy_goes_its_own_way() -> None:
    grads = gradients(4, 6, 10)
    model = nn.ParameterList([torch.zeros(6, 10, dtype=F64), torch.zeros(6, 10, dtype=F64)])
    optimizer = ProjectedAdam(model.parameters(), 0.1, rank=3)

    def advance(model: nn.Module, optimizer: torch.optim.Optimizer, coming: list[Tensor]) -> None:
        for grad in coming:
            for param in model:
                param.grad = grad.clone()
            optimizer.step()

    advance(model, optimizer, grads[:2])
    twin, twins = copy.deepcopy((model, optimizer))
    still = [p.detach().clone() for p in model]
    advance(twin, twins, grads[2:])
    assert all(torch.equal(a, b) for a, b in zip(model, still, strict=True))
    advance(model, optimizer, grads[2:])
    assert all(torch.equal(a, b) for a, b in zip(model, twin, strict=True))
