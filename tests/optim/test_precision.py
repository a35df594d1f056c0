"""Weights in bf16: second moments, their sums and norms are fp32, so they decay; predicted bytes are those kept."""

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from helpers.optimizing import gradients

BF16 = torch.bfloat16
SLOW_SUMS = {
    "exp_avg_sq", "row_sums", "column_sums", "squares", "residual_norm", "update_norm",
}  # fmt: skip
# Adam's v: (1 - .999) at the first gradient of ones, times .999 at each of 100 gradients of zeros.
AFTER_100_STEPS = 0.001 * 0.999**100
PROJECTED = [
    ("ProjectedAdam", {"projector": "svd"}),
    ("ProjectedAdam", {"projector": "rsvd", "transport": "project", "interval_steps": 300}),
    ("ProjectedAdam", {"projector": "dct", "interval_steps": 300}),
    ("ProjectedAdam", {"projector": "normal", "scheme": "original"}),
    ("ProjectedAdam", {"projector": "svd", "rule": "factored"}),
    ("ProjectedAdam", {"side": "both"}),
    ("Fira", {}),
    ("Apollo", {}),
    ("ProjFactor", {}),
    ("ProjFactor", {"projector": "svd", "granularity": 2.0}),
]
OTHERS = [("LDAdam", {}), ("Flora", {}), ("AdaLomo", {"release": False})]


def optimizer_of(name: str, param: nn.Parameter, options: dict) -> torch.optim.Optimizer:
    rank = {} if name == "AdaLomo" else {"rank": 2}
    return getattr(rankwise.optim, name)([param], 1e-3, **rank, **options)


def step(optimizer: torch.optim.Optimizer, param: nn.Parameter, grads: list[Tensor]) -> None:
    for grad in grads:
        param.grad = grad.to(param.dtype)
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), PROJECTED, ids=str)
def test_second_moments_of_matrices_decay(name: str, options: dict) -> None:
    """After 100 gradients of zeros .999^100 = .9048 is left; in bf16 .999 v would be v."""
    grad = gradients(1, 6, 10)[0]
    param = nn.Parameter(torch.ones(6, 10, dtype=BF16))
    optimizer = optimizer_of(name, param, options)
    step(optimizer, param, [grad])
    state = optimizer.state[param]
    keys = [key for key in ("exp_avg_sq", "row_sums", "column_sums") if key in state]
    before = {key: state[key].clone() for key in keys}
    step(optimizer, param, 100 * [torch.zeros_like(grad)])
    assert keys
    for key in keys:
        assert before[key].max() > 0
        assert torch.allclose(state[key], 0.999**100 * before[key], rtol=1e-4)


@pytest.mark.parametrize("group", [{}, {"dense": True}], ids=["vector", "dense"])
@pytest.mark.parametrize("name", ["ProjectedAdam", "Fira", "Apollo", "ProjFactor"])
def test_second_moments_of_what_is_not_projected_decay(name: str, group: dict) -> None:
    shape = (3, 4) if group else (7,)
    param = nn.Parameter(torch.ones(shape, dtype=BF16))
    optimizer = getattr(rankwise.optim, name)([{"params": [param], **group}], 1e-3, rank=2)
    step(optimizer, param, [torch.ones(shape), *(100 * [torch.zeros(shape)])])
    expected = torch.full(shape, AFTER_100_STEPS)
    assert torch.allclose(optimizer.state[param]["exp_avg_sq"], expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3), (7,)])
@pytest.mark.parametrize(("name", "options"), OTHERS[1:], ids=str)
def test_late_second_moments_of_adafactors_kind_decay(
    name: str, options: dict, shape: tuple[int, ...]
) -> None:
    """From step 2001 to 2100 a share of the product of 1 - t^-.8 is left: .80; in bf16 none would go."""
    param = nn.Parameter(torch.ones(shape, dtype=BF16))
    optimizer = optimizer_of(name, param, options)
    ones = torch.ones(shape)
    step(optimizer, param, 2000 * [ones])
    state = optimizer.state[param]
    keys = [key for key in ("squares", "row_sums", "column_sums") if key in state]
    before = {key: state[key].clone() for key in keys}
    step(optimizer, param, 100 * [0 * ones])
    left = 1.0
    for t in range(2001, 2101):
        left *= 1 - t**-0.8
    assert keys
    assert 0.79 < left < 0.81
    for key in keys:
        assert torch.allclose(state[key], left * before[key], rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), PROJECTED + OTHERS, ids=str)
@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32, torch.float64], ids=str)
def test_only_slow_sums_are_wider_than_the_weight(
    name: str, options: dict, dtype: torch.dtype
) -> None:
    """After a step and as planned on meta, of a matrix and a vector."""
    for shape in ((6, 10), (7,)):
        param = nn.Parameter(torch.zeros(shape, dtype=dtype))
        stepped = optimizer_of(name, param, options)
        step(stepped, param, gradients(1, *shape))
        meta = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))
        planned = optimizer_of(name, meta, options)
        planned.allocate()
        for state in (stepped.state[param], planned.state[meta]):
            for key, tensor in state.items():
                if key in ("step", "columns"):
                    continue
                is_wide = key in SLOW_SUMS and dtype != torch.float64
                assert tensor.dtype == (torch.float32 if is_wide else dtype), key
        assert param.isfinite().all()
        assert (param != 0).any()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # P (6, 2) and m (2, 10) in bf16, v (2, 10) in fp32.
        ("ProjectedAdam", {}, 2 * 12 + 2 * 20 + 4 * 20),
        # The same without P, and a norm.
        ("Apollo", {}, 2 * 20 + 4 * 20 + 4),
        ("Fira", {}, 2 * 12 + 2 * 20 + 4 * 20 + 4),
        # M (2, 10) in bf16; 6 and 10 sums in fp32.
        ("ProjFactor", {}, 2 * 20 + 4 * 16),
        ("Flora", {}, 2 * 20 + 4 * 16),
        ("AdaLomo", {"release": False}, 4 * 16),
        # P, m, v, and the error (6, 10) in bf16.
        ("LDAdam", {}, 2 * 12 + 2 * 20 + 4 * 20 + 2 * 60),
        # torch's own keep the weight's dtype, and a step count of 4 bytes.
        ("AdamW", {}, 2 * 120 + 4),
        ("Adafactor", {}, 2 * 16 + 4),
    ],
)
def test_bytes_of_a_bfloat16_matrix(name: str, options: dict, expected: int) -> None:
    param = nn.Parameter(torch.ones(6, 10, dtype=BF16))
    cls = getattr(rankwise.optim, name)
    rank = {} if name in ("AdaLomo", "AdamW", "Adafactor") else {"rank": 2}
    optimizer = cls([param], **rank, **options)
    step(optimizer, param, gradients(1, 6, 10))
    tensors = [value for value in optimizer.state[param].values() if torch.is_tensor(value)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == expected


@pytest.mark.parametrize(
    ("name", "options"),
    # Not those whose projected gradient has numbers near zero, of which Adam takes the sign alone.
    [case for case in PROJECTED + OTHERS if case[0] != "LDAdam" and "side" not in case[1]],
    ids=str,
)
def test_steps_in_bfloat16_follow_those_in_fp32(name: str, options: dict) -> None:
    """Twelve steps of one gradient, from weights and gradients that bf16 holds: within bf16's rounding."""
    grad = gradients(1, 6, 10)[0].to(BF16)
    moved = []
    for dtype in (BF16, torch.float32):
        param = nn.Parameter(torch.zeros(6, 10, dtype=dtype))
        step(optimizer_of(name, param, options), param, 12 * [grad])
        moved.append(param.detach().float())
    narrow, exact = moved
    assert (narrow - exact).norm() < 0.03 * exact.norm()
