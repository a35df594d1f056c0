"""The projected optimizer against its mathematics, and against torch where the two must agree."""

import copy
import io

import pytest
import torch
from torch import nn

from rankwise.optim.adamw import AdamW
from rankwise.optim.projected_adam import Projected, ProjectedAdam
from rankwise.optim.projectors import rsvd_basis, svd_basis
from rankwise.optim.rules import Adam, adam_direction

SYSTEM_A = {
    "rank_rule": "proportional",
    "projector": "rsvd",
    "side": "left",
    "interval_steps": 500,
    "scale": 1.0,
    "weight_decay": 0.01,
}


def low_rank(m: int, n: int, rank: int, noise: float = 0.0, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    exact = torch.randn(m, rank, generator=g, dtype=torch.float64) @ torch.randn(rank, n, generator=g, dtype=torch.float64)
    return exact + noise * torch.randn(m, n, generator=g, dtype=torch.float64)


def steps(settings, weight: torch.Tensor, grads: list[torch.Tensor], lr: float = 0.1, seed: int = 0) -> torch.Tensor:
    param = nn.Parameter(weight.clone())
    optimizer = settings.build([param], lr, seed)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
        assert torch.equal(param.grad, grad), "the gradient was modified"
    return param.detach()


def gradients(count: int, *shape: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def test_adams_direction_is_torchs() -> None:
    param, ours = nn.Parameter(torch.zeros(5, 3, dtype=torch.float64)), torch.zeros(5, 3, dtype=torch.float64)
    theirs = torch.optim.Adam([param], 0.1)
    m, v = torch.zeros_like(ours), torch.zeros_like(ours)
    for t, grad in enumerate(gradients(6, 5, 3), start=1):
        param.grad = grad
        theirs.step()
        ours -= 0.1 * adam_direction(grad, m, v, t, 0.9, 0.999, 1e-8)
    assert torch.allclose(ours, param, atol=1e-14)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
def test_one_step_is_its_equations(shape: tuple[int, int]) -> None:
    """W <- (1 - lr wd) W - lr P m_hat / (sqrt(v_hat) + eps), R = P'G: system A's update, written out."""
    grad, weight = low_rank(*shape, rank=3, noise=0.1), gradients(1, *shape)[0]
    settings = ProjectedAdam(rank=4, **{**SYSTEM_A, "rank_rule": "fixed"})
    found = steps(settings, weight, [grad])
    basis = rsvd_basis(grad, 4, 4, 1, torch.Generator().manual_seed(1))
    low = basis.mT @ grad
    m, v = 0.1 * low, 0.001 * low**2
    direction = basis @ ((m / (1 - 0.9)) / ((v / (1 - 0.999)).sqrt() + 1e-8))
    assert torch.allclose(found, weight * (1 - 0.1 * 0.01) - 0.1 * direction, atol=1e-7)


def test_a_signed_permutation_as_basis_is_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam is not rotation-equivariant, so full rank is not Adam; with a signed permutation it is, exactly."""
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    monkeypatch.setattr(Projected, "_basis", lambda self, g, step: torch.eye(6, dtype=torch.float64)[:, order] * signs)
    grads, weight = gradients(8, 6, 10), torch.zeros(6, 10, dtype=torch.float64)
    found = steps(ProjectedAdam(rank=6, scale=1.0, side="left"), weight, grads)
    param = nn.Parameter(weight.clone())
    theirs = torch.optim.Adam([param], 0.1)
    for grad in grads:
        param.grad = grad
        theirs.step()
    assert torch.allclose(found, param, atol=1e-14)


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_within_an_interval_the_weight_moves_in_rank_r(projector: str, shape: tuple[int, int]) -> None:
    weight = torch.zeros(shape, dtype=torch.float64)
    settings = ProjectedAdam(rank=3, projector=projector, interval_steps=5)
    grads = gradients(10, *shape)
    assert torch.linalg.matrix_rank(steps(settings, weight, grads[:5])) == 3
    assert torch.linalg.matrix_rank(steps(settings, weight, grads)) == 6


def test_a_refresh_at_every_step_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published system A's test, t % T == 1, never refreshes again at T = 1; ours does."""
    seen = []
    monkeypatch.setattr(Projected, "_basis", lambda self, g, step: seen.append(step) or svd_basis(g, 2))
    steps(ProjectedAdam(rank=2, interval_steps=1, side="left"), torch.zeros(4, 8, dtype=torch.float64), gradients(4, 4, 8))
    assert seen == [1, 2, 3, 4]
    seen.clear()
    steps(ProjectedAdam(rank=2, interval_steps=3, side="left"), torch.zeros(4, 8, dtype=torch.float64), gradients(7, 4, 8))
    assert seen == [1, 4, 7]


@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_bases_are_orthonormal_and_span_a_low_rank_gradient(shape: tuple[int, int]) -> None:
    grad = low_rank(*shape, rank=5).float()
    for basis in (svd_basis(grad, 5), rsvd_basis(grad, 5, 4, 1, torch.Generator().manual_seed(0))):
        assert torch.allclose(basis.mT @ basis, torch.eye(5), atol=1e-5)
        assert torch.allclose(basis @ (basis.mT @ grad), grad, atol=1e-3)


def test_the_randomized_basis_is_the_svds_where_the_spectrum_falls() -> None:
    grad = low_rank(60, 80, rank=6, noise=1e-4).float()
    exact, found = svd_basis(grad, 6), rsvd_basis(grad, 6, 4, 1, torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_norm(exact @ exact.mT - found @ found.mT, ord=2) < 1e-3


def test_the_projection_error_is_the_spectrums_tail() -> None:
    grad = gradients(1, 20, 30)[0]
    basis = svd_basis(grad, 7).double()
    tail = torch.linalg.svdvals(grad)[7:].square().sum()
    assert torch.allclose((grad - basis @ (basis.mT @ grad)).square().sum(), tail, rtol=1e-5)


@pytest.mark.parametrize(("side", "shape", "numbers"), [
    ("left", (40, 10), 40 * 5 + 2 * 5 * 10), ("left", (10, 40), 10 * 5 + 2 * 5 * 40),
    ("short", (40, 10), 10 * 5 + 2 * 5 * 40), ("short", (10, 40), 10 * 5 + 2 * 5 * 40), ("right", (10, 40), 40 * 5 + 2 * 5 * 10),
])  # fmt: skip
def test_state_is_the_formula(side: str, shape: tuple[int, int], numbers: int) -> None:
    state = Projected(ProjectedAdam(rank=5, side=side)).init_state(torch.empty(shape, device="meta"))
    assert sum(tensor.numel() for tensor in state.values()) == numbers


def test_a_proportional_rank_is_the_share_of_the_shorter_side() -> None:
    settings = ProjectedAdam(rank=16, rank_rule="proportional", reference_width=768)
    assert [settings.matrix_rank(shape) for shape in [(768, 768), (512, 768), (30522, 768), (2, 768), (3072, 768)]] == [
        16,
        10,
        16,
        1,
        16,
    ]


@pytest.mark.parametrize(
    "settings", [ProjectedAdam(rank=2, projector="rsvd", interval_steps=3), AdamW()], ids=["projected", "adamw"]
)
def test_a_resumed_run_is_the_uninterrupted_one(settings) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))

    def advance(net: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
        for step in range(start, stop):
            x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    whole, first = model(), model()
    advance(whole, settings.build(whole.parameters(), 0.01), 0, 9)
    optimizer = settings.build(first.parameters(), 0.01)
    advance(first, optimizer, 0, 4)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second = model()
    second.load_state_dict(loaded["model"])
    resumed = settings.build(second.parameters(), 0.01)
    resumed.load_state_dict(loaded["optimizer"])
    advance(second, resumed, 4, 9)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_state_keeps_its_dtype_through_a_round_trip() -> None:
    param = nn.Parameter(torch.randn(4, 6).bfloat16())
    optimizer = ProjectedAdam(rank=2).build([param], 0.1)
    optimizer.allocate()
    optimizer.state[param]["exp_avg_sq"] = optimizer.state[param]["exp_avg_sq"].float()
    before = {key: value.dtype for key, value in optimizer.state[param].items() if torch.is_tensor(value)}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {key: value.dtype for key, value in optimizer.state[param].items() if torch.is_tensor(value)} == before


def test_vectors_step_by_adam() -> None:
    weight, grads = torch.zeros(7, dtype=torch.float64), gradients(3, 7)
    param = nn.Parameter(weight.clone())
    theirs = torch.optim.Adam([param], 0.1)
    for grad in grads:
        param.grad = grad
        theirs.step()
    assert torch.allclose(steps(ProjectedAdam(rank=2), weight, grads), param, atol=1e-14)


def test_the_seed_decides_the_sketch() -> None:
    weight, grads = torch.zeros(30, 40, dtype=torch.float64), gradients(1, 30, 40)
    settings = ProjectedAdam(rank=4, projector="rsvd")
    assert torch.equal(steps(settings, weight, grads, seed=1), steps(settings, weight, grads, seed=1))
    assert not torch.equal(steps(settings, weight, grads, seed=1), steps(settings, weight, grads, seed=2))


def test_adam_as_a_descent_has_two_moments() -> None:
    assert sum(t.numel() for t in Adam().init_state(torch.empty(3, 4, device="meta")).values()) == 24
