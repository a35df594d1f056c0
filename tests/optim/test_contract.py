"""What every optimizer shares: it steps each parameter as alone, resumes to the bit, and keeps what its formula says."""

import copy
import inspect
import io
import math

import pytest
import torch
from torch import nn

import rankwise.optim
from helpers.optimizing import F64, close, gradients

NAMES = dir(rankwise.optim)
OURS = [
    name for name in NAMES if hasattr(getattr(rankwise.optim, name), "released")
]  # not bitsandbytes', which have no release
VARIANTS = {
    "ProjectedAdam": [
        {"projector": "rsvd", "transport": "project"},
        {"projector": "normal", "scheme": "original"},
        {"projector": "dct", "rule": "factored", "transport": "project"},
        {"rank_rule": "svt", "drift": 0.9},
        {"rule": "sgd", "momentum": 0.9, "random_from_step": 3, "transport": "reset"},
        {"side": "both", "convention": "transformers"},
    ],
    "Fira": [{"projector": "rsvd"}],
    "Apollo": [{"scaling": "tensor"}, {"projector": "svd"}],
    "ProjFactor": [{"projector": "svd", "transport": "project"}, {"granularity": 2.0}],
    "LDAdam": [{"error_feedback": False}],
    "TopR": [{"error_feedback": True}, {"lazy": True, "least": 3}],
    "Sgd": [{"momentum": 0.9}],
}
CASES = [(name, options) for name in OURS for options in ({}, *VARIANTS.get(name, []))]
everyone = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


def make(name: str, params, options: dict, lr: float = 0.05) -> torch.optim.Optimizer:
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    fixed = {"rank": 2, "interval_steps": 3, "release": False, "weight_decay": 0.1}
    return cls(params, lr, **{**{k: v for k, v in fixed.items() if k in arguments}, **options})


def net(dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    shapes = [(6, 4), (6, 4), (4, 8), (8,), (8,), (2, 6), (4, 2, 4)]
    return nn.ParameterList(
        nn.Parameter(w) for i, s in enumerate(shapes) for w in gradients(1, *s, seed=i, dtype=dtype)
    )


def advance(
    params: nn.ParameterList, optimizer: torch.optim.Optimizer, start: int, stop: int
) -> None:
    for step in range(start, stop):
        for index, param in enumerate(params):
            grad = gradients(1, *param.shape, seed=100 * step + index, dtype=torch.float32)[0].to(
                param.dtype
            )
            param.grad = grad.clone()
            if step == 2 and index == 1:
                param.grad = None
        optimizer.step()


def test_every_optimizer_is_found_by_name() -> None:
    assert {
        "AdaLomo",
        "Adafactor",
        "AdamW",
        "Apollo",
        "Fira",
        "Flora",
        "LDAdam",
        "Lomo",
        "ProjFactor",
        "ProjectedAdam",
        "Sgd",
    } <= set(OURS)
    assert all(issubclass(getattr(rankwise.optim, name), torch.optim.Optimizer) for name in NAMES)
    with pytest.raises(AttributeError, match=r"got Nothing, allowed: .*AdaLomo.*TopR"):
        rankwise.optim.Nothing  # noqa: B018


@everyone
def test_parameters_step_as_alone(name: str, options: dict) -> None:
    """In one optimizer, stacked by shape, or each in its own; what has more dimensions is the first by the rest."""
    together, alone = net(F64), net(F64)
    alone[-1] = nn.Parameter(alone[-1].detach().flatten(1))
    one, others = (
        make(name, together.parameters(), options),
        [make(name, [p], options) for p in alone],
    )
    for step in range(5):
        for index, (param, own) in enumerate(zip(together, alone, strict=True)):
            param.grad = gradients(1, *param.shape, seed=100 * step + index)[0]
            own.grad = param.grad.clone().view_as(own)
        one.step()
        for other in others:
            other.step()
    last = -1 if name == "Adafactor" else None  # torch's factors the last two dimensions
    assert all(
        close(a.flatten(), b.flatten(), 1e-12)
        for a, b in list(zip(together, alone, strict=True))[:last]
    )


@everyone
def test_no_gradient_is_modified(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), options)
    for step in range(4):
        grads = [
            gradients(1, *p.shape, seed=10 * step + i, dtype=torch.float32)[0]
            for i, p in enumerate(params)
        ]
        given = [g.clone() for g in grads]
        for param, grad in zip(params, given, strict=True):
            param.grad = grad
        optimizer.step()
        assert all(
            p.grad is g and torch.equal(g, old)
            for p, g, old in zip(params, given, grads, strict=True)
        )


@everyone
def test_a_resumed_run_is_the_uninterrupted_one(name: str, options: dict) -> None:
    """Bit by bit, from a file that holds tensors and numbers only, stopped within an interval."""
    straight, first, second = net(), net(), net()
    optimizer = make(name, straight.parameters(), options)
    advance(straight, optimizer, 0, 8)
    stopped = make(name, first.parameters(), options)
    advance(first, stopped, 0, 5)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(name, second.parameters(), options)
    resumed.load_state_dict(loaded["optimizer"])
    advance(second, resumed, 5, 8)
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))
    advance(first, stopped, 5, 8)  # what was saved was not moved by the run that was made of it
    assert all(torch.equal(a, b) for a, b in zip(straight, first, strict=True))
    first.load_state_dict(loaded["model"])  # and back, in an optimizer that has gone on
    stopped.load_state_dict(
        torch.load(io.BytesIO(saved.getvalue()), weights_only=True)["optimizer"]
    )
    advance(first, stopped, 5, 8)
    assert all(torch.equal(a, b) for a, b in zip(straight, first, strict=True))


@everyone
def test_a_loaded_state_keeps_its_dtypes(name: str, options: dict) -> None:
    params = net(torch.bfloat16)
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 3)
    kinds = [
        {k: v.dtype for k, v in optimizer.state[p].items() if torch.is_tensor(v)} for p in params
    ]
    assert {v for kept in kinds for k, v in kept.items() if k != "step"} <= {
        torch.bfloat16,
        torch.int32,
    }
    assert all(p.isfinite().all() for p in params)
    other = make(name, params.parameters(), options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(params, other, 3, 4)
    assert [
        {k: v.dtype for k, v in other.state[p].items() if torch.is_tensor(v)} for p in params
    ] == kinds


@everyone
def test_a_copy_is_the_same_optimizer(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 4)
    twin, twins = copy.deepcopy((params, optimizer))
    still = [p.detach().clone() for p in params]
    advance(twin, twins, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(params, still, strict=True))
    advance(params, optimizer, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(params, twin, strict=True))


@everyone
def test_a_gradient_of_zeros_is_no_number_to_fear(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), {**options, "weight_decay": 0.0})
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    advance(params, optimizer, 0, 2)
    assert all(
        p.isfinite().all() and not torch.equal(p, b) for p, b in zip(params, before, strict=True)
    )


@everyone
def test_state_is_the_formula(name: str, options: dict) -> None:
    """Numbers kept, on meta where there is `allocate` and after a step: as `formula` and VECTOR say."""
    cls = getattr(rankwise.optim, name)
    values = {
        k: p.default
        for k, p in inspect.signature(cls).parameters.items()
        if p.default is not p.empty
    }
    values |= {"rank": 2, **options}
    given = {k: v for k, v in values.items() if k not in ("params", "lr", "release")}
    shapes = [(6, 10), (10, 6), (8, 8), (4, 3, 2), (7,)]
    params = [nn.Parameter(torch.zeros(s)) for s in shapes]
    optimizer = make(name, params, options)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    planned = make(name, [nn.Parameter(p.to("meta")) for p in params], options)
    if hasattr(planned, "allocate"):
        planned.allocate()
    for shape, param, meta in zip(shapes, params, planned.param_groups[0]["params"], strict=True):
        if name == "Adafactor" and len(shape) == 3:
            continue  # torch factors the last two dimensions
        names = {"k": shape[0]}
        if len(shape) > 1:
            m, n = shape[0], math.prod(shape[1:])
            c = options.get("granularity", 1)
            s, large = (n / c, m * c) if m >= n else (m / c, n * c)
            s, large = (max(m, n), min(m, n)) if options.get("side") == "both" else (s, large)
            names = {"m": m, "n": n, "s": s, "L": large, "r": min(2, s, large)}
        expected = eval(
            cls.formula(**given) if len(shape) > 1 else cls.VECTOR, {}, {**values, **names}
        )
        found = [
            sum(v.numel() for v in o.state[p].values() if torch.is_tensor(v))
            for o, p in ((optimizer, param), (planned, meta))
        ]
        assert found[0] == expected, shape
        if hasattr(planned, "allocate"):
            assert found[1] == expected, shape
