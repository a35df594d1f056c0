"""Tensors of unusual layout, shape or dtype: they step as their ordinary twins, or are refused with a sentence."""

import inspect

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from helpers.optimizing import gradients
from rankwise.optim import AdamW, Lomo, Sgd, TopR

F32 = torch.float32
NAMES = [name for name in dir(rankwise.optim) if name != "MeZO"]  # it takes no gradients
VARIANTS = {
    "ProjectedAdam": [
        {"projector": "rsvd", "transport": "project"},
        {"projector": "normal", "scheme": "original"},
        {"projector": "dct", "rule": "factored"},
        {"side": "both"},
        {"projector": "normal", "granularity": 2.0},
    ],
    "Apollo": [{"projector": "svd"}],
    "Fira": [{"projector": "rsvd"}],
    "ProjFactor": [{"projector": "svd"}],
    "TopR": [{"error_feedback": True}, {"lazy": True}],
    "Sgd": [{"momentum": 0.9}],
    "AdamW8bit": [{"min_8bit_size": 1}],
    "PagedAdamW": [{"bits": 8, "min_8bit_size": 1}],
}
CASES = [
    (name, options, release)
    for name in NAMES
    for options in ({}, *VARIANTS.get(name, []))
    for release in (False, True)
    if not release or "release" in inspect.signature(getattr(rankwise.optim, name)).parameters
]
every_case = pytest.mark.parametrize(("name", "options", "release"), CASES, ids=str)
every_name = pytest.mark.parametrize("name", NAMES)


def make(name: str, params: list, options: dict, release: bool) -> torch.optim.Optimizer:
    cls = getattr(rankwise.optim, name)
    common = {"rank": 2, "interval_steps": 2, "release": release, "weight_decay": 0.1}
    arguments = inspect.signature(cls).parameters
    known = {key: value for key, value in common.items() if key in arguments}
    return cls(params, lr=0.05, **{**known, **options})


def stepped(case: tuple, weight: Tensor, grads: list[Tensor]) -> Tensor:
    """A parameter of the layout of `weight`, after a step with each gradient, through backward with release."""
    name, options, release = case
    param = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    assert param.stride() == weight.stride()
    optimizer = make(name, [param], options, release)
    for grad in grads:
        if release:
            (param * grad).sum().backward()
        else:
            param.grad = grad.clone(memory_format=torch.preserve_format)
        optimizer.step()
        optimizer.zero_grad()
    return param.detach()


def as_channels_last(tensor: Tensor) -> Tensor:
    return tensor.clone().to(memory_format=torch.channels_last)


def as_transposed(tensor: Tensor) -> Tensor:
    return tensor.t().contiguous().t()


@every_case
@pytest.mark.parametrize(
    ("shape", "layout"),
    [((6, 4, 2, 2), as_channels_last), ((6, 8), as_transposed), ((8, 6), as_transposed)],
)
def test_a_layout_changes_no_value(name, options, release, shape, layout) -> None:
    """Of weights and gradients, of weights alone, and of gradients alone."""
    case = (name, options, release)
    weight, *grads = gradients(4, *shape, dtype=F32)
    expected = stepped(case, weight, grads)
    strange = layout(weight)
    assert not strange.is_contiguous()
    assert torch.allclose(stepped(case, strange, grads), expected, atol=1e-5)
    assert torch.allclose(stepped(case, strange, [layout(g) for g in grads]), expected, atol=1e-5)
    assert torch.allclose(stepped(case, weight, [layout(g) for g in grads]), expected, atol=1e-5)
    assert not torch.allclose(expected, weight, atol=1e-3)


@every_case
def test_strange_and_ordinary_matrices_share_a_stack(name, options, release) -> None:
    weight, *grads = gradients(4, 6, 8, dtype=F32)
    params = [nn.Parameter(weight.clone()), nn.Parameter(as_transposed(weight))]
    optimizer = make(name, params, options, release)
    for grad in grads:
        for param in params:
            (param * grad).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.allclose(*params, atol=1e-5)
    assert torch.allclose(params[0], stepped((name, options, release), weight, grads), atol=1e-5)


@every_case
def test_a_scalar_steps_as_a_vector_of_one(name, options, release) -> None:
    case = (name, options, release)
    scalar = stepped(case, torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(-0.2)])
    vector = stepped(case, torch.tensor([1.0]), [torch.tensor([0.5]), torch.tensor([-0.2])])
    assert scalar.shape == ()
    assert torch.allclose(scalar, vector[0])
    assert scalar != 1


@every_case
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)])
def test_an_empty_tensor_is_left_alone(name, options, release, shape) -> None:
    """And spoils nothing: others step as if it were not there."""
    weight, *grads = gradients(4, 6, 4, dtype=F32)
    empty, full = nn.Parameter(torch.zeros(shape)), nn.Parameter(weight.clone())
    optimizer = make(name, [empty, full], options, release)
    for grad in grads:
        ((empty * 2).sum() + (full * grad).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert empty.shape == shape
    assert torch.allclose(full, stepped((name, options, release), weight, grads), atol=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())


# Sparse gradients ---------------------------------------------------------------------------------


def embedding(sparse: bool) -> nn.Embedding:
    weight = gradients(1, 10, 4, dtype=F32)[0]
    return nn.Embedding(10, 4, sparse=sparse, _weight=weight.clone())


@pytest.mark.parametrize(
    ("name", "release"),
    [(name, release) for name, options, release in CASES if not options and name != "Sgd"],
)
def test_sparse_gradients_are_refused(name: str, release: bool) -> None:
    layer = embedding(sparse=True)
    optimizer = make(name, list(layer.parameters()), {}, release)
    with pytest.raises(RuntimeError, match=f"^sparse gradients: not supported by {name}; "):
        layer(torch.tensor([1, 2, 1])).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_sparse_gradients(momentum: float, release: bool) -> None:
    layers = [embedding(sparse=True), embedding(sparse=False)]
    for layer in layers:
        optimizer = Sgd(layer.parameters(), 0.1, momentum=momentum, release=release)
        for step in range(3):
            layer(torch.tensor([step, 2, 2])).square().sum().backward()
            if release and layer.sparse:
                dense = layer.weight.detach().clone()
                assert optimizer.gradient_norm() > 0
                assert dense.isfinite().all()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(layers[0].weight, layers[1].weight, atol=1e-6)
    assert not torch.allclose(layers[0].weight, embedding(sparse=False).weight)


def test_the_norm_of_a_sparse_gradient_sums_what_rows_share() -> None:
    """Row 2 is used twice: its gradient is the sum, 2 + 2 at each of 4 entries."""
    layer = nn.Embedding(3, 4, sparse=True)
    optimizer = Sgd(layer.parameters(), 0.1, release=True)
    (2 * layer(torch.tensor([2, 2]))).sum().backward()
    assert optimizer.gradient_norm().item() == pytest.approx((4 * 4**2) ** 0.5)


# Dtypes -------------------------------------------------------------------------------------------


@every_name
def test_complex_parameters_step_as_torchs_or_are_refused(name: str) -> None:
    weight = torch.complex(*gradients(2, 6, 4, dtype=F32))
    if name not in ("AdamW", "Sgd", "TopR"):
        with pytest.raises(ValueError, match=f"^complex parameters: not supported by {name}$"):
            make(name, [nn.Parameter(weight)], {}, release=False)
        return
    options = {"fraction": 1.0} if name == "TopR" else {}
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    torchs = torch.optim.SGD if name == "Sgd" else torch.optim.AdamW
    pairs = [
        (ours, make(name, [ours], options, release=True)),
        (theirs, torchs([theirs], lr=0.05, weight_decay=0.1)),
    ]
    for param, optimizer in pairs:
        for step in range(3):
            target = torch.complex(*gradients(2, 6, 4, seed=step, dtype=F32))
            (param - target).abs().square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, weight, atol=1e-3)


def test_topr_keeps_the_largest_moduli_of_a_complex_gradient() -> None:
    param = nn.Parameter(torch.zeros(4, dtype=torch.cfloat))
    optimizer = TopR([param], 0.1, fraction=0.5, weight_decay=0.0)
    param.grad = torch.tensor([3 + 0j, 0 + 4j, 2 + 2j, 1 + 1j])
    optimizer.step()
    assert (param != 0).tolist() == [True, True, False, False]


@every_name
def test_float16_steps_as_float32_or_is_refused(name: str) -> None:
    weight, *grads = gradients(4, 6, 8, dtype=F32)
    half, halves = weight.half(), [grad.half() for grad in grads]
    torchs = ("Adafactor", "AdamW", "LoraFA", "LoraPro", "LoraRiemannian", "TopR")
    if name in torchs:  # torch's, with squares in float16
        with pytest.raises(ValueError, match=f"^float16 parameters: not supported by {name}, "):
            make(name, [nn.Parameter(half)], {}, release=False)
        return
    ours = stepped((name, {}, False), half, halves)
    expected = stepped((name, {}, False), half.float(), [grad.float() for grad in halves])
    assert ours.dtype == torch.float16
    assert torch.allclose(ours.float(), expected, atol=5e-3)


def test_why_adamw_is_refused_in_float16() -> None:
    """Torch's own ends in NaN, from a gradient of 1e-4: its square is 0, and so is eps."""
    param = nn.Parameter(torch.ones(3, dtype=torch.float16))
    theirs = torch.optim.AdamW([param])
    param.grad = torch.tensor([1e-4, 0.0, 1e-5], dtype=torch.float16)
    theirs.step()
    assert not param.isfinite().any()
    with pytest.raises(ValueError, match="use bfloat16, or keep the parameters in float32"):
        AdamW([param])


def test_a_refused_group_is_not_added() -> None:
    optimizer = AdamW([nn.Parameter(torch.zeros(3))], release=True)
    with pytest.raises(ValueError, match="float16"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.float16))]})
    assert len(optimizer.param_groups) == 1


def test_a_float16_step_of_lomo_by_value() -> None:
    """From 1 with gradient 2 at lr 0.25 and decay 0.5: (1 - 0.125) - 0.5."""
    param = nn.Parameter(torch.ones(3, dtype=torch.float16))
    optimizer = Lomo([param], 0.25, weight_decay=0.5)
    (2 * param).sum().backward()
    optimizer.step()
    assert param.tolist() == [0.375, 0.375, 0.375]
