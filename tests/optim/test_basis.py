"""The bases of projections: when they change, what is carried over then, and the law of those that are drawn."""

import math

import pytest
import torch
from torch import nn

from helpers.optimizing import B1, B2, F64, close, gradients
from helpers.projected_adam import (
    PLAIN,
    adam,
    bases,
    dct_ii,
    moved,
    optimize,
    seen,
    spectrum,
    unseen,
)
from rankwise.optim import ProjectedAdam
from rankwise.optim.parts import projectors

# When the basis changes -----------------------------------------------------------------------------------------------


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
        signal = torch.zeros(6, 30, dtype=F64)
        chosen = [t % 6, (t + 1) % 6]
        signal[:] = dct_ii(6)[:, chosen] @ gradients(1, 2, 30, seed=t)[0]
        param.grad = signal
        optimizer.step()
        if not torch.equal(old, optimizer.state[param][key]):
            changed.append(t)
    assert changed == [t for t in range(1, 8) if (t - 1) % interval == 0]


@pytest.mark.parametrize(
    ("drift", "changes"),
    [(0.0, [1]), (0.3, [1, 6]), (0.7, [1, 6]), (0.85, [1, 4, 6]), (0.999, [1, 3, 4, 6])],
)
def test_drift_refreshes_early_and_only_then(drift: float, changes: list[int]) -> None:
    """G = u u' turns away by the cosines of `shares` from its first: a refresh wherever ||P'G|| / ||G|| falls below drift."""
    first, last = torch.eye(8, dtype=F64)[[0, 4]]
    shares = [1.0, 1.0, 0.99, 0.8, 0.8, 0.0]
    steady = nn.Parameter(torch.zeros(8, 8, dtype=F64))
    param = nn.Parameter(torch.zeros(8, 8, dtype=F64))
    optimizer = ProjectedAdam([steady, param], rank=1, interval_steps=1000, drift=drift)
    optimizer.allocate()
    seen_changes, steady_changes = [], []
    for t, share in enumerate(shares, start=1):
        old, old_steady = (optimizer.state[p]["basis"].clone() for p in (param, steady))
        u = share * first + math.sqrt(1 - share**2) * last
        param.grad = torch.outer(u, u)
        steady.grad = torch.outer(first, first)
        optimizer.step()
        seen_changes += [t] * (not torch.equal(old, optimizer.state[param]["basis"]))
        steady_changes += [t] * (not torch.equal(old_steady, optimizer.state[steady]["basis"]))
    assert seen_changes == changes
    assert steady_changes == [1]


@pytest.mark.parametrize(
    "options",
    [{"drift": 0.99}, {"rank_rule": "energy", "drift": 0.99}, {"rank_rule": "energy"}],
    ids=str,
)
def test_a_first_gradient_of_zeros_does_not_hold_the_matrix_still(options: dict) -> None:
    """As that of lora_A is: what comes after moves the weight, with drift in its own subspace at once."""
    grads = [torch.zeros(6, 10, dtype=F64), spectrum([1.0], 6, 10), spectrum([1.0], 6, 10)]
    param, _ = optimize(torch.zeros(6, 10, dtype=F64), grads, rank=2, **options, **PLAIN)
    if "drift" in options:
        assert close(-param, 2 * grads[1], 1e-9)
    assert (param != 0).any()


@pytest.mark.parametrize(("start", "random"), [(1, [1, 3, 5]), (3, [3, 5]), (4, [5]), (None, [])])
def test_from_a_step_on_the_basis_is_random(start: int | None, random: list[int]) -> None:
    """GoLore: a singular basis holds all of a gradient of rank 1, a random one does not; either is orthonormal."""
    param, found = nn.Parameter(torch.zeros(20, 30, dtype=F64)), []
    optimizer = ProjectedAdam([param], rank=2, interval_steps=2, random_from_step=start)
    for t in range(1, 7):
        u, v = gradients(1, 20, 1, seed=t)[0], gradients(1, 30, 1, seed=t)[0]
        param.grad = u @ v.mT
        old = optimizer.state[param].get("basis", torch.zeros(20, 2, dtype=F64)).clone()
        optimizer.step()
        basis = optimizer.state[param]["basis"]
        assert close(basis.mT @ basis, torch.eye(2, dtype=F64), atol=1e-12)
        if t % 2 == 0:
            assert torch.equal(basis, old)
        elif not close(basis @ (basis.mT @ u), u, atol=1e-9):
            found.append(t)
    assert found == random


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
    """E||P P'u||^2 = (s + r + 1) / r ||u||^2: kept .33 of the cosine, stale none, transported .11. P is (128, 16)."""
    grad, cosines = gradients(1, 128, 160)[0], []
    for seed in range(24):
        param = nn.Parameter(torch.zeros_like(grad))
        options = {
            "projector": "normal",
            "transport": transport,
            "interval_steps": interval,
            "seed": seed,
            "momentum": 0.9,
        }
        optimizer = ProjectedAdam([param], rank=16, **PLAIN, **options)
        for gradient in (grad, torch.zeros_like(grad)):
            before = param.detach().clone()
            param.grad = gradient.clone()
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
    results = {}
    for transport, sequence in (
        ("project", [basis, basis]),
        ("project", [basis, turned]),
        ("none", [basis, turned]),
    ):
        coming = iter(sequence)
        monkeypatch.setattr(
            projectors,
            "svd",
            lambda g, r, coming=coming: (next(coming)[None], torch.ones(1, 3, dtype=F64)),
        )
        options = {
            "rank": 3,
            "rule": rule,
            "momentum": 0.9,
            "transport": transport,
            "interval_steps": 3,
        }
        results[transport, sequence[1] is turned] = optimize(
            torch.zeros(6, 10, dtype=F64), gradients(5, 6, 10), **options
        )[0]
    assert close(results["project", False], results["project", True], atol=1e-12)
    assert not close(results["project", False], results["none", True], atol=1e-3)


@pytest.mark.parametrize(
    ("projector", "shape"),
    [("svd", (6, 10)), ("svd", (10, 6)), ("dct", (6, 10)), ("orthonormal", (6, 10))],
)
def test_transport_is_ldadams_rule(
    projector: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q = P_new'P: M <- Q M, v <- (1 - b2^t) |Q^2 (v_hat - m_hat^2) + (Q m_hat)^2| after t steps in the old basis."""
    drawn, draw = [], projectors.draw
    monkeypatch.setattr(projectors, "draw", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    param, old, expected = (
        nn.Parameter(torch.zeros(shape, dtype=F64)),
        None,
        torch.zeros(shape, dtype=F64),
    )
    optimizer = ProjectedAdam(
        [param], 0.1, rank=3, projector=projector, transport="project", interval_steps=2, scale=1.0
    )
    m = v = torch.zeros(3, 10, dtype=F64)
    for t, grad in enumerate(gradients(6, *shape), start=1):
        if projector == "dct":  # other columns in each interval
            grad[:] = dct_ii(6) @ (torch.eye(6, dtype=F64)[t // 2] * 9 + 1).diag() @ grad
        param.grad = grad.clone()
        optimizer.step()
        basis = drawn[-1] if projector == "orthonormal" else bases(optimizer.state[param], 6)[0]
        if t in (3, 5):
            q, mean, square = basis.mT @ old, m / (1 - B1 ** (t - 1)), v / (1 - B2 ** (t - 1))
            assert not close(q, torch.eye(3, dtype=F64), atol=1e-3)
            m, v = (
                q @ m,
                (1 - B2 ** (t - 1)) * ((q**2) @ (square - mean**2) + (q @ mean) ** 2).abs(),
            )
        old, m, v = basis, m.clone(), v.clone()
        expected = expected - 0.1 * unseen(
            basis @ adam(m, v, basis.mT @ seen(grad, "short"), t, 1e-8, "torch"),
            param.shape,
            "short",
        )
        assert close(param, expected, atol=1e-11)


@pytest.mark.parametrize("projector", ["svd", "rsvd", "dct", "normal"])
def test_reset_begins_anew_at_every_interval(projector: str) -> None:
    """With moments and step count zeroed, each interval is an optimizer's first (where bases do not depend on the step)."""
    grads, options = (
        gradients(6, 6, 10),
        {"rank": 3, "projector": projector, "interval_steps": 3, "transport": "reset"},
    )
    whole, optimizer = optimize(torch.zeros(6, 10, dtype=F64), grads, **options)
    assert optimizer.state[whole]["step"] == 6
    first, _ = optimize(torch.zeros(6, 10, dtype=F64), grads[:3], **options)
    second, _ = optimize(first.detach(), grads[3:], **options)
    kept, _ = optimize(torch.zeros(6, 10, dtype=F64), grads, **{**options, "transport": "none"})
    assert not close(whole, kept, atol=1e-3)
    if projector in ("svd", "dct"):
        assert close(whole, second, atol=1e-13)


# Bases ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projector", ["normal", "rademacher", "orthonormal"])
def test_drawn_bases_have_their_law(projector: str) -> None:
    """Gradient I at each of 800 redraws: the mean of P P' is I, or (r/s) I, to 5 of its standard deviations."""
    size, rank, count = 6, 3, 800
    param = nn.Parameter(torch.zeros(size, size, dtype=F64))
    optimizer = ProjectedAdam([param], rank=rank, projector=projector, interval_steps=1, **PLAIN)
    eye, one = torch.eye(size, dtype=F64), []
    for _ in range(count):
        before = param.detach().clone()
        param.grad = eye.clone()
        optimizer.step()
        one.append(before - param.detach())
    mean, middle = torch.stack(one).mean(0), rank / size if projector == "orthonormal" else 1.0
    spread = {"normal": 2 / rank, "rademacher": 1 / rank, "orthonormal": 0.25}[
        projector
    ] ** 0.5  # of one entry, at most
    assert (mean - middle * eye).abs().max() < 5 * spread / math.sqrt(count)
    if projector == "rademacher":
        assert close(mean.diagonal(), torch.ones(size, dtype=F64), atol=1e-9)
    if projector == "orthonormal":  # P P' is a projection onto r dimensions
        stacked = torch.stack(one)
        assert close(stacked @ stacked, stacked, atol=1e-9)
        assert close(
            stacked.diagonal(dim1=1, dim2=2).sum(1), torch.full((count,), float(rank), dtype=F64)
        )


@pytest.mark.parametrize("projector", ["rsvd", "normal", "rademacher", "orthonormal"])
def test_the_seed_decides_the_draw(projector: str) -> None:
    grad = gradients(1, 30, 40)[0]
    one, same, other = (
        moved(grad, rank=4, projector=projector, power_iterations=0, seed=s, **PLAIN)
        for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not close(one, other, atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)])
def test_the_randomized_basis_is_the_svds_where_the_spectrum_falls(shape: tuple[int, int]) -> None:
    grad = spectrum([10, 9, 8, 7, 6, 5] + [1e-4] * 50, *shape)
    exact, found = (moved(grad, rank=6, projector=p, **PLAIN) for p in ("svd", "rsvd"))
    assert torch.linalg.matrix_norm(exact - found, ord=2) < 1e-6


@pytest.mark.parametrize("power_iterations", [0, 1])
def test_the_randomized_basis_is_exact_up_to_its_rank(power_iterations: int) -> None:
    grad = spectrum([3, 2, 1, 0.5], 40, 30)
    found = moved(grad, rank=5, projector="rsvd", power_iterations=power_iterations, **PLAIN)
    assert close(found, grad, atol=1e-12)


def test_a_wider_sketch_loses_less() -> None:
    """sketch_factor 2 is published system A's 2 r + 4; mean over sketches, against the SVD's loss, which is the least."""
    grad, losses = gradients(1, 60, 80)[0], {}
    for factor in (1, 2, 6):
        options = {
            "projector": "rsvd",
            "oversample": 0,
            "sketch_factor": factor,
            "power_iterations": 0,
        }
        found = [moved(grad, rank=8, seed=seed, **options, **PLAIN) for seed in range(8)]
        losses[factor] = torch.stack([(grad - f).square().sum() for f in found]).mean()
    least = (grad - moved(grad, rank=8, **PLAIN)).square().sum()
    assert losses[1] > losses[2] > losses[6] > least * (1 - 1e-12)


@pytest.mark.parametrize("shape", [(4, 3, 5), (6, 2, 1), (3, 2, 2, 2)])
@pytest.mark.parametrize(
    "options",
    [{}, {"rule": "sgd"}, {"scheme": "original"}, {"side": "left", "projector": "normal"}],
    ids=str,
)
def test_more_dimensions_are_the_first_by_the_rest(shape: tuple[int, ...], options: dict) -> None:
    grads = gradients(4, *shape)
    whole, _ = optimize(torch.ones(shape, dtype=F64), grads, rank=2, interval_steps=2, **options)
    flat, _ = optimize(
        torch.ones(shape, dtype=F64).flatten(1),
        [g.flatten(1) for g in grads],
        rank=2,
        interval_steps=2,
        **options,
    )
    assert torch.equal(whole.flatten(1), flat)
