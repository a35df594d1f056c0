"""What every optimizer promises: it steps each parameter as alone, resumes to the bit, keeps what its formula says."""

import copy
import doctest
import inspect
import io
import math

import pytest
import torch
from torch import nn

import rankwise.optim
from helpers.optimizing import F64, close, gradients, numbers

NAMES = dir(rankwise.optim)
# Not bitsandbytes' optimizers, which have no release and tests of their own.
OURS = [name for name in NAMES if hasattr(getattr(rankwise.optim, name), "released")]
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
    "Frugal": [{"part": "svd", "density": 0.5}, {"density": 1.0}],
    "MLorc": [{"oversample": 2}],
    "Muon": [{"nesterov": False, "adjust": "original", "adamw_scale": 0.5}],
}
CASES = [(name, options) for name in OURS for options in ({}, *VARIANTS.get(name, []))]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
every_case_variants_slow = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(*case, id=str(case), marks=pytest.mark.slow if case[1] else ())
        for case in CASES
    ],
)
SHAPES = [(6, 4), (6, 4), (4, 8), (8,), (8,), (2, 6), (4, 2, 4)]


def make(name: str, params, options: dict, lr: float = 0.05) -> torch.optim.Optimizer:
    """The optimizer `name` without release, with a small rank and interval where it has them."""
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    common = {"rank": 2, "interval_steps": 3, "release": False, "weight_decay": 0.1}
    known = {key: value for key, value in common.items() if key in arguments}
    return cls(params, lr, **{**known, **options})


def net(dtype: torch.dtype = torch.float32) -> nn.ParameterList:
    """Parameters of several shapes, some of them twice."""
    weights = [gradients(1, *shape, seed=i, dtype=dtype)[0] for i, shape in enumerate(SHAPES)]
    return nn.ParameterList(nn.Parameter(weight) for weight in weights)


def advance(
    params: nn.ParameterList, optimizer: torch.optim.Optimizer, start: int, stop: int
) -> None:
    """Step with gradients that depend on the step; one parameter gets none at step 2."""
    for step in range(start, stop):
        for index, param in enumerate(params):
            grad = gradients(1, *param.shape, seed=100 * step + index, dtype=torch.float32)[0]
            param.grad = None if step == 2 and index == 1 else grad.to(param.dtype)
        optimizer.step()


def same(one: nn.ParameterList, other: nn.ParameterList) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def dtypes(params: nn.ParameterList, optimizer: torch.optim.Optimizer) -> list[dict]:
    """The dtype of every state tensor, by parameter."""
    kinds = []
    for param in params:
        state = optimizer.state[param].items()
        kinds.append({key: value.dtype for key, value in state if torch.is_tensor(value)})
    return kinds


def test_every_optimizer_is_found_by_name() -> None:
    assert {
        "AdaLomo", "Adafactor", "AdamW", "Apollo", "Fira", "Flora", "LDAdam", "Lomo", "ProjFactor",
        "ProjectedAdam", "Sgd", "TopR",
    } <= set(OURS)  # fmt: skip
    assert all(issubclass(getattr(rankwise.optim, name), torch.optim.Optimizer) for name in NAMES)
    with pytest.raises(AttributeError, match=r"got 'Nothing', allowed: .*AdaLomo.*TopR"):
        rankwise.optim.Nothing  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_name_every_option_and_their_examples_run(name: str) -> None:
    cls = getattr(rankwise.optim, name)
    documented = inspect.getdoc(cls)
    for option in inspect.signature(cls).parameters:
        assert f"\n    {option}: " in documented, option
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4))
    names = {"model": model, "inputs": torch.randn(16, 8), name: cls}
    before = [param.detach().clone() for param in model.parameters()]
    example = doctest.DocTestParser().get_doctest(documented, names, name, None, None)
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert (runner.failures, runner.tries) == (0, 3)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@every_case
def test_parameters_step_as_alone(name: str, options: dict) -> None:
    """In one optimizer, stacked by shape, or each in its own; more dimensions are the first by the rest."""
    together, alone = net(F64), net(F64)
    alone[-1] = nn.Parameter(alone[-1].detach().flatten(1))
    joint = make(name, together.parameters(), options)
    separate = [make(name, [param], options) for param in alone]
    for step in range(5):
        for index, (param, own) in enumerate(zip(together, alone, strict=True)):
            param.grad = gradients(1, *param.shape, seed=100 * step + index)[0]
            own.grad = param.grad.clone().view_as(own)
        for optimizer in (joint, *separate):
            optimizer.step()
    pairs = list(zip(together, alone, strict=True))
    if name == "Adafactor":
        pairs.pop()  # torch's factors the last two dimensions
    assert all(close(a.flatten(), b.flatten(), 1e-12) for a, b in pairs)


@every_case
def test_no_gradient_is_modified(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), options)
    for step in range(4):
        for index, param in enumerate(params):
            param.grad = gradients(1, *param.shape, seed=10 * step + index, dtype=torch.float32)[0]
        grads = [param.grad for param in params]
        copies = [grad.clone() for grad in grads]
        optimizer.step()
        for param, grad, copied in zip(params, grads, copies, strict=True):
            assert param.grad is grad
            assert torch.equal(grad, copied)


@every_case
def test_a_resumed_run_is_the_uninterrupted_one(name: str, options: dict) -> None:
    """Bit by bit, from a file that holds tensors and numbers only, stopped within an interval."""
    straight, first, second = net(), net(), net()
    advance(straight, make(name, straight.parameters(), options), 0, 8)
    stopped = make(name, first.parameters(), options)
    advance(first, stopped, 0, 5)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, file)

    def load(model: nn.ParameterList, optimizer: torch.optim.Optimizer) -> None:
        saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    resumed = make(name, second.parameters(), options)
    load(second, resumed)
    advance(second, resumed, 5, 8)
    assert same(straight, second)
    # The stopped run goes on as if nothing had been saved, and can go back to what was saved.
    advance(first, stopped, 5, 8)
    assert same(straight, first)
    load(first, stopped)
    advance(first, stopped, 5, 8)
    assert same(straight, first)


@every_case
def test_a_loaded_state_keeps_its_dtypes(name: str, options: dict) -> None:
    params = net(torch.bfloat16)
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 3)
    before = dtypes(params, optimizer)
    assert all(param.isfinite().all() for param in params)
    other = make(name, params.parameters(), options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(params, other, 3, 4)
    assert dtypes(params, other) == before


@every_case_variants_slow
def test_a_copy_is_the_same_optimizer(name: str, options: dict) -> None:
    """It steps alike, and neither moves the other's parameters."""
    params = net()
    optimizer = make(name, params.parameters(), options)
    advance(params, optimizer, 0, 4)
    twin_params, twin = copy.deepcopy((params, optimizer))
    before = [param.detach().clone() for param in params]
    advance(twin_params, twin, 4, 7)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    advance(params, optimizer, 4, 7)
    assert same(params, twin_params)


@every_case
def test_gradients_of_zeros_move_nothing_and_spoil_nothing(name: str, options: dict) -> None:
    params = net()
    optimizer = make(name, params.parameters(), {**options, "weight_decay": 0.0})
    before = [param.detach().clone() for param in params]
    for _ in range(2):
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    advance(params, optimizer, 0, 2)
    for param, old in zip(params, before, strict=True):
        assert param.isfinite().all()
        assert not torch.equal(param, old)


def sides(shape: tuple[int, ...], options: dict) -> dict[str, float]:
    """The letters of the formulas, for one shape and rank 2."""
    if len(shape) == 1:
        return {"k": shape[0]}
    m, n = shape[0], math.prod(shape[1:])
    c = options.get("granularity", 1)
    s, large = (n / c, m * c) if m >= n else (m / c, n * c)
    if options.get("side") == "both":
        s, large = max(m, n), min(m, n)
    return {"m": m, "n": n, "s": s, "L": large, "r": min(2, s, large)}


@every_case
def test_state_is_the_formula(name: str, options: dict) -> None:
    """The numbers kept, after a step and as allocated on meta, are what `formula` and VECTOR say."""
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters.items()
    values = {key: arg.default for key, arg in arguments if arg.default is not arg.empty}
    values |= {"rank": 2, **options}
    given = {key: value for key, value in values.items() if key not in ("params", "lr", "release")}
    shapes = [(6, 10), (10, 6), (8, 8), (4, 3, 2), (7,)]
    if name == "Adafactor":
        shapes.remove((4, 3, 2))  # torch factors the last two dimensions
    params = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    stepped = make(name, params, options)
    for param in params:
        param.grad = torch.randn_like(param)
    stepped.step()
    planned = make(name, [nn.Parameter(param.to("meta")) for param in params], options)
    allocates = hasattr(planned, "allocate")
    if allocates:
        planned.allocate()
    for shape, param, meta in zip(shapes, params, planned.param_groups[0]["params"], strict=True):
        formula = cls.formula(**given) if len(shape) > 1 else cls.VECTOR
        expected = eval(formula, {}, {**values, **sides(shape, options)})
        assert numbers(stepped.state[param]) == expected, shape
        if allocates:
            assert numbers(planned.state[meta]) == expected, shape
