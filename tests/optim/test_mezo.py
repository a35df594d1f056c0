"""MeZO: two losses, a step along one drawn direction, and nothing kept."""

import io

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients
from rankwise.optim import MeZO

LR, DECAY, SIZE, SEED = 0.01, 0.1, 1e-3, 5
SHAPES = [(6, 4), (3, 2, 2), (5,)]


def model() -> list[nn.Parameter]:
    return [nn.Parameter(gradients(1, *shape, seed=1)[0]) for shape in SHAPES]


def targets() -> list[Tensor]:
    return [gradients(1, *shape, seed=2)[0] for shape in SHAPES]


def quadratic(params: list[Tensor]) -> Tensor:
    """Half the squared distance; its slope along z is exactly (W - T) . z, also between two points."""
    pairs = zip(params, targets(), strict=True)
    return sum((param - target).square().sum() for param, target in pairs) / 2


def make(params: list[nn.Parameter]) -> MeZO:
    return MeZO(params, LR, perturbation=SIZE, weight_decay=DECAY, seed=SEED)


def directions(step: int) -> list[Tensor]:
    """Normal numbers of one generator, for one parameter after the other."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
    return [torch.randn(shape, generator=generator, dtype=F64) for shape in SHAPES]


def test_steps_are_the_two_point_estimate() -> None:
    """Malladi et al. 2023, algorithm 1, on a function whose slope is known in closed form."""
    params = model()
    optimizer = make(params)
    values = [param.detach().clone() for param in params]
    for step in range(5):
        before = quadratic(values)
        loss = optimizer.step(lambda: quadratic(params))
        z = directions(step)
        slope = sum(
            ((value - target) * part).sum()
            for value, target, part in zip(values, targets(), z, strict=True)
        )
        squares = sum(part.square().sum() for part in z)
        # The mean of a quadratic at both ends is its middle, plus half of (size ||z||)^2.
        assert close(loss, before + SIZE**2 * squares / 2, 1e-10)
        assert close(optimizer.gradient_norm(), slope.abs() * squares.sqrt(), 1e-8)
        values = [
            (1 - LR * DECAY) * value - LR * slope * part
            for value, part in zip(values, z, strict=True)
        ]
        for param, value in zip(params, values, strict=True):
            assert close(param, value, 1e-8)
    assert not close(params[0], model()[0], 1e-2)


def test_it_needs_no_gradient_and_keeps_nothing() -> None:
    params = model()
    optimizer = make(params)
    graphs = []

    def loss() -> Tensor:
        value = quadratic(params)
        graphs.append(value.requires_grad)
        return value

    optimizer.step(loss)
    assert graphs == [False, False]
    assert all(param.grad is None for param in params)
    assert not optimizer.state
    assert optimizer.gradients_bytes() == 0
    frozen = model()
    frozen[1].requires_grad_(False)
    make(frozen).step(lambda: quadratic(frozen))
    assert torch.equal(frozen[1], model()[1])
    assert not torch.equal(frozen[0], model()[0])


def test_a_run_resumes_to_the_bit() -> None:
    straight, first, second = model(), model(), model()
    one = make(straight)
    for _ in range(6):
        one.step(lambda: quadratic(straight))
    stopped = make(first)
    for _ in range(4):
        stopped.step(lambda: quadratic(first))
    file = io.BytesIO()
    torch.save([[param.detach() for param in first], stopped.state_dict()], file)
    values, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    with torch.no_grad():
        for param, value in zip(second, values, strict=True):
            param.copy_(value)
    resumed = make(second)
    resumed.load_state_dict(state)
    for _ in range(2):
        resumed.step(lambda: quadratic(second))
    for whole, other in zip(straight, second, strict=True):
        assert torch.equal(whole, other)


def test_what_it_cannot_do_is_one_sentence() -> None:
    params = model()
    with pytest.raises(
        ValueError, match=r"^closure: got none, allowed: a function that returns the loss"
    ):
        make(params).step()
    with pytest.raises(RuntimeError, match="no step was taken"):
        make(params).gradient_norm()
    with pytest.raises(ValueError, match=r"param_groups\[1\].seed: got 3, allowed: 0, as in"):
        MeZO([{"params": params[:1]}, {"params": params[1:], "seed": 3}])
    with pytest.raises(ValueError, match=r"^complex parameters: not supported by MeZO$"):
        MeZO([nn.Parameter(torch.zeros(3, dtype=torch.cfloat))])
    adamw = torch.optim.AdamW(model())
    with pytest.raises(
        ValueError, match=r"^MeZO.load_state_dict: param_groups\[0\]: got a state without"
    ):
        make(params).load_state_dict(adamw.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_step(dtype: torch.dtype) -> None:
    param = nn.Parameter(torch.ones(6, 4, dtype=dtype))
    optimizer = MeZO([param], 0.05, perturbation=0.01)
    optimizer.step(lambda: param.float().square().sum())
    assert param.isfinite().all()
    assert (param != 1).any()
