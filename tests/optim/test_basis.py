"""The bases of projections: when they change, what is carried over then, and the law of random ones."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import B1, B2, F64, adam, close, gradients
from helpers.projected_adam import PLAIN, bases, dct_ii, moved, optimize, seen, spectrum, unseen
from rankwise.optim import ProjectedAdam
from rankwise.optim.parts import projectors

ZEROS = torch.zeros(6, 10, dtype=F64)

# When the basis changes ---------------------------------------------------------------------------


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_basis_changes_at_every_interval(projector: str, interval: int) -> None:
    """Published system A's test, t % T == 1, never refreshes again at T = 1."""
    param, changed = nn.Parameter(torch.zeros(6, 30, dtype=F64)), []
    optimizer = ProjectedAdam([param], rank=2, projector=projector, interval_steps=interval)
    key = "columns" if projector == "dct" else "basis"
    optimizer.allocate()
    for t in range(1, 8):
        old = optimizer.state[param][key].clone()
        columns = [t % 6, (t + 1) % 6]  # other columns of the DCT lead at every step
        param.grad = dct_ii(6)[:, columns] @ gradients(1, 2, 30, seed=t)[0]
        optimizer.step()
        if not torch.equal(old, optimizer.state[param][key]):
            changed.append(t)
    assert changed == list(range(1, 8, interval))


@pytest.mark.parametrize(
    ("drift", "changes"),
    [(0.0, [1]), (0.3, [1, 6]), (0.7, [1, 6]), (0.85, [1, 4, 6]), (0.999, [1, 3, 4, 6])],
)
def test_drift_refreshes_early_and_only_then(drift: float, changes: list[int]) -> None:
    """G = u u^T turns away from its first by these cosines: a refresh wherever one falls below drift."""
    cosines = [1.0, 1.0, 0.99, 0.8, 0.8, 0.0]
    first, last = torch.eye(8, dtype=F64)[[0, 4]]
    turning, steady = (nn.Parameter(torch.zeros(8, 8, dtype=F64)) for _ in range(2))
    optimizer = ProjectedAdam([steady, turning], rank=1, interval_steps=1000, drift=drift)
    optimizer.allocate()
    changed = {turning: [], steady: []}
    for t, cosine in enumerate(cosines, start=1):
        old = {param: optimizer.state[param]["basis"].clone() for param in changed}
        u = cosine * first + math.sqrt(1 - cosine**2) * last
        turning.grad, steady.grad = torch.outer(u, u), torch.outer(first, first)
        optimizer.step()
        for param, times in changed.items():
            if not torch.equal(old[param], optimizer.state[param]["basis"]):
                times.append(t)
    assert changed == {turning: changes, steady: [1]}


@pytest.mark.parametrize(
    "options",
    [{"drift": 0.99}, {"rank_rule": "energy", "drift": 0.99}, {"rank_rule": "energy"}],
    ids=str,
)
def test_a_first_gradient_of_zeros_does_not_hold_the_matrix_still(options: dict) -> None:
    """lora_A's first gradient is zero. Later ones move the weight, with drift in their own subspace at once."""
    signal = spectrum([1.0], 6, 10)
    param, _ = optimize(ZEROS, [0 * signal, signal, signal], rank=2, **options, **PLAIN)
    if "drift" in options:
        assert close(-param, 2 * signal, 1e-9)
    assert (param != 0).any()


@pytest.mark.parametrize(("start", "random"), [(1, [1, 3, 5]), (3, [3, 5]), (4, [5]), (None, [])])
def test_from_a_step_on_the_basis_is_random(start: int | None, random: list[int]) -> None:
    """GoLore: a singular basis holds all of a gradient of rank 1, a random one does not; either is orthonormal."""
    param, is_random = nn.Parameter(torch.zeros(20, 30, dtype=F64)), []
    optimizer = ProjectedAdam([param], rank=2, interval_steps=2, random_from_step=start)
    for t in range(1, 7):
        u, v = gradients(1, 20, 1, seed=t)[0], gradients(1, 30, 1, seed=t)[0]
        param.grad = u @ v.mT
        old = optimizer.state[param]["basis"].clone() if t > 1 else None
        optimizer.step()
        basis = optimizer.state[param]["basis"]
        assert close(basis.mT @ basis, torch.eye(2, dtype=F64), atol=1e-12)
        if t % 2 == 0:
            assert torch.equal(basis, old)
        elif not close(basis @ (basis.mT @ u), u, atol=1e-9):
            is_random.append(t)
    assert is_random == random


# What is carried over -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "interval", "cosine"),
    [
        ("none", 2, math.sqrt(16 / 145)),
        ("none", 1, 0.0),
        ("project", 1, 16 / 145),
        ("project", 2, math.sqrt(16 / 145)),
    ],
)
def test_what_momentum_is_worth_under_a_new_basis(
    transport: str, interval: int, cosine: float
) -> None:
    """E ||P P^T u||^2 = (s + r + 1) / r ||u||^2, P (128, 16): cosine .33 in the same basis, 0 stale, .11 transported."""
    grad, cosines = gradients(1, 128, 160)[0], []
    options = {"projector": "normal", "transport": transport, "interval_steps": interval}
    for seed in range(24):
        param = nn.Parameter(torch.zeros_like(grad))
        optimizer = ProjectedAdam([param], rank=16, momentum=0.9, seed=seed, **PLAIN, **options)
        param.grad = grad.clone()
        optimizer.step()
        before = param.detach().clone()
        param.grad = torch.zeros_like(grad)  # the second step is by momentum alone
        optimizer.step()
        cosines.append(torch.cosine_similarity((before - param).flatten(), grad.flatten(), dim=0))
    assert torch.stack(cosines).mean().item() == pytest.approx(cosine, abs=0.01)


@pytest.mark.parametrize("rule", ["adam", "factored", "sgd"])
def test_a_signed_permutation_of_the_basis_is_transported_exactly(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules are equivariant to it, so with their state carried over nothing changes; without, it does."""
    basis = torch.linalg.qr(gradients(1, 6, 3)[0])[0]
    turned = basis[:, [2, 0, 1]] * torch.tensor([1.0, -1.0, -1.0], dtype=F64)

    def trained(transport: str, second_basis: Tensor) -> Tensor:
        sequence = iter([basis, second_basis])
        values = torch.ones(1, 3, dtype=F64)
        monkeypatch.setattr(projectors, "svd", lambda *_: (next(sequence)[None], values))
        options = {"rank": 3, "rule": rule, "momentum": 0.9, "interval_steps": 3}
        return optimize(ZEROS, gradients(5, 6, 10), transport=transport, **options)[0]

    unchanged = trained("project", basis)
    assert close(unchanged, trained("project", turned), atol=1e-12)
    assert not close(unchanged, trained("none", turned), atol=1e-3)


@pytest.mark.parametrize(
    ("projector", "shape"),
    [("svd", (6, 10)), ("svd", (10, 6)), ("dct", (6, 10)), ("orthonormal", (6, 10))],
)
def test_transport_is_ldadams_rule(
    projector: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q = P_new^T P: M <- Q M, v <- (1 - b2^t) |Q^2 (v_hat - m_hat^2) + (Q m_hat)^2| after t steps in P."""
    drawn, draw = [], projectors.draw

    def spy(*arguments) -> Tensor:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    param, expected = nn.Parameter(torch.zeros(shape, dtype=F64)), torch.zeros(shape, dtype=F64)
    options = {"rank": 3, "projector": projector, "transport": "project", "interval_steps": 2}
    optimizer = ProjectedAdam([param], 0.1, **options, scale=1.0)
    old, m, v = None, torch.zeros(3, 10, dtype=F64), torch.zeros(3, 10, dtype=F64)
    grads = gradients(6, *shape)
    if projector == "dct":  # another column leads in each interval
        weights = [torch.eye(6, dtype=F64)[t // 2] * 9 + 1 for t in range(1, 7)]
        grads = [dct_ii(6) @ (w[:, None] * grad) for w, grad in zip(weights, grads, strict=True)]
    for t, grad in enumerate(grads, start=1):
        param.grad = grad.clone()
        optimizer.step()
        basis = drawn[-1] if projector == "orthonormal" else bases(optimizer.state[param], 6)[0]
        if t in (3, 5):
            q, mean, square = basis.mT @ old, m / (1 - B1 ** (t - 1)), v / (1 - B2 ** (t - 1))
            assert not close(q, torch.eye(3, dtype=F64), atol=1e-3)
            m = q @ m
            v = (1 - B2 ** (t - 1)) * ((q**2) @ (square - mean**2) + (q @ mean) ** 2).abs()
        direction = basis @ adam(m, v, basis.mT @ seen(grad, "short"), t, 1e-8, "torch")
        expected = expected - 0.1 * unseen(direction, param.shape, "short")
        assert close(param, expected, atol=1e-11)
        old = basis


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct", "normal"])
def test_reset_begins_anew_at_every_interval(projector: str) -> None:
    """With moments and step count zeroed, each interval is an optimizer's first, if its basis is."""
    grads = gradients(6, 6, 10)
    options = {"rank": 3, "projector": projector, "interval_steps": 3, "transport": "reset"}
    whole, optimizer = optimize(ZEROS, grads, **options)
    assert optimizer.state[whole]["step"] == 6
    kept, _ = optimize(ZEROS, grads, **{**options, "transport": "none"})
    assert not close(whole, kept, atol=1e-3)
    if projector in ("svd", "dct"):  # the others draw by the step
        first, _ = optimize(ZEROS, grads[:3], **options)
        second, _ = optimize(first.detach(), grads[3:], **options)
        assert close(whole, second, atol=1e-13)


# Bases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("projector", "variance", "middle"),
    [("normal", 2 / 3, 1.0), ("rademacher", 1 / 3, 1.0), ("orthonormal", 1 / 4, 1 / 2)],
)
def test_drawn_bases_have_their_law(projector: str, variance: float, middle: float) -> None:
    """Of 800 bases (6, 3) the mean of P P^T is I, or (r/s) I, to 5 standard deviations of its widest entry."""
    size, rank, count = 6, 3, 800
    param, eye = nn.Parameter(torch.zeros(size, size, dtype=F64)), torch.eye(size, dtype=F64)
    optimizer = ProjectedAdam([param], rank=rank, projector=projector, interval_steps=1, **PLAIN)
    moves = []
    for _ in range(count):
        before = param.detach().clone()
        param.grad = eye.clone()
        optimizer.step()
        moves.append(before - param.detach())  # P P^T I
    products = torch.stack(moves)
    mean = products.mean(0)
    assert (mean - middle * eye).abs().max() < 5 * math.sqrt(variance / count)
    if projector == "rademacher":
        assert close(mean.diagonal(), torch.ones(size, dtype=F64), atol=1e-9)
    if projector == "orthonormal":  # P P^T is a projection onto r dimensions
        assert close(products @ products, products, atol=1e-9)
        trace = products.diagonal(dim1=1, dim2=2).sum(1)
        assert close(trace, torch.full((count,), float(rank), dtype=F64))


@pytest.mark.parametrize("projector", ["rsvd", "normal", "rademacher", "orthonormal"])
def test_the_seed_decides_the_draw(projector: str) -> None:
    grad = gradients(1, 30, 40)[0]
    options = {"rank": 4, "projector": projector, "power_iterations": 0}
    one, same, other = (moved(grad, seed=seed, **options, **PLAIN) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not close(one, other, atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_the_randomized_basis_is_the_svds_where_the_spectrum_falls(shape: tuple[int, int]) -> None:
    grad = spectrum([10, 9, 8, 7, 6, 5] + [1e-4] * 50, *shape)
    exact = moved(grad, rank=6, projector="svd", **PLAIN)
    randomized = moved(grad, rank=6, projector="rsvd", **PLAIN)
    assert torch.linalg.matrix_norm(exact - randomized, ord=2) < 1e-6


@pytest.mark.parametrize("power_iterations", [0, 1])
def test_the_randomized_basis_is_exact_up_to_its_rank(power_iterations: int) -> None:
    grad = spectrum([3, 2, 1, 0.5], 40, 30)
    options = {"rank": 5, "projector": "rsvd", "power_iterations": power_iterations}
    assert close(moved(grad, **options, **PLAIN), grad, atol=1e-12)


def test_a_wider_sketch_loses_less() -> None:
    """On average; and never less than the SVD. sketch_factor 2 is published system A's 2 r + 4."""
    grad, losses = gradients(1, 60, 80)[0], {}
    options = {"rank": 8, "projector": "rsvd", "oversample": 0, "power_iterations": 0}
    for factor in (1, 2, 6):
        kept = [moved(grad, seed=s, sketch_factor=factor, **options, **PLAIN) for s in range(8)]
        losses[factor] = torch.stack([(grad - each).square().sum() for each in kept]).mean()
    least = (grad - moved(grad, rank=8, **PLAIN)).square().sum()
    assert losses[1] > losses[2] > losses[6] > least * (1 - 1e-12)


@pytest.mark.parametrize("shape", [(4, 3, 5), (6, 2, 1), (3, 2, 2, 2)])
@pytest.mark.parametrize(
    "options",
    [{}, {"rule": "sgd"}, {"scheme": "original"}, {"side": "left", "projector": "normal"}],
    ids=str,
)
def test_more_dimensions_are_the_first_by_the_rest(shape: tuple[int, ...], options: dict) -> None:
    grads, start = gradients(4, *shape), torch.ones(shape, dtype=F64)
    options = {"rank": 2, "interval_steps": 2, **options}
    whole, _ = optimize(start, grads, **options)
    flat, _ = optimize(start.flatten(1), [grad.flatten(1) for grad in grads], **options)
    assert torch.equal(whole.flatten(1), flat)
