"""Entries with projected gradients, each step written out: GaLore, GoLore, DCT, VLoRP's schemes, system A's rSVD.

Random draws are taken from our side, and so are the signs of singular vectors, which are arbitrary.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.conformance import request_of
from helpers.optimizing import B1, B2, F64, adam, close, gradients
from helpers.projected_adam import dct_ii, seen, spectrum, unseen
from rankwise.optim import ProjectedAdam
from rankwise.optim.parts import projectors
from references.registry import entries

SHAPES = [(24, 40), (40, 24), (24, 24)]
RATE, DECAY, INTERVAL, STEPS = 0.1, 0.1, 3, 7
# Of the shorter side, 24: a proportional rank of 12 / 64, and 20 percent, are 4 too.
RANKS = {"proportional": 12, "percent": 20}
WORDS = {
    "fixed": 4,
    "proportional": 12 * 24 // 64,
    "percent": 20 * 24 // 100,
    "energy": 4,
    "svt": 4,
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The matrices that were drawn since the list was last cleared."""
    matrices, draw = [], projectors.draw

    def spy(*arguments: object) -> Tensor:
        matrices.append(draw(*arguments))
        return matrices[-1]

    monkeypatch.setattr(projectors, "draw", spy)
    return matrices


def options_of(entry: str) -> dict:
    options = dict(request_of(entry, "tiny")["method"]["optimizer"])
    assert options.pop("module") == "projected_adam"
    options |= {"release": False, "interval_steps": INTERVAL, "weight_decay": DECAY}
    options["rank"] = RANKS.get(options["rank_rule"], 4)
    if options["random_from_step"] is not None:
        options["random_from_step"] = 4
    return options


def randomized_svd(g: Tensor, sketch: Tensor, power_iterations: int) -> tuple[Tensor, Tensor]:
    """Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1, with a given sketch (L, l)."""
    q = torch.linalg.qr(g @ sketch).Q
    for _ in range(power_iterations):
        q = torch.linalg.qr(g @ torch.linalg.qr(g.mT @ q).Q).Q
    inner = torch.linalg.svd(q.mT @ g, full_matrices=False)
    return q @ inner.U, inner.S


def new_basis(g: Tensor, o: dict, t: int, draw: list[Tensor], ours: dict) -> Tensor:
    """P (s, r) at a refresh."""
    rank = WORDS[o["rank_rule"]]
    if o["projector"] == "normal" or (o["random_from_step"] and t >= o["random_from_step"]):
        return draw[0]
    if o["projector"] == "dct":
        table = dct_ii(len(g))
        strength = torch.stack([(table[:, k] @ g).abs().sum() for k in range(len(g))])
        return table[:, strength.argsort(descending=True)[:rank].sort().values]
    if o["projector"] == "svd":
        u, values, _ = torch.linalg.svd(g, full_matrices=False)
    else:
        assert draw[0].shape == (g.shape[1], o["sketch_factor"] * rank + o["oversample"])
        u, values = randomized_svd(g, draw[0], o["power_iterations"])
    basis = u[:, :rank] * torch.where((u[:, :rank] * ours["basis"]).sum(0) < 0, -1.0, 1.0)
    if (
        o["rank_rule"] == "svt"
    ):  # P P^T G = U max(S - tau, 0) V^T, with tau a share of the largest value
        return (
            basis
            * ((values[:rank] - o["threshold"] * values[0]).clamp(min=0) / values[:rank]).sqrt()
        )
    if o["rank_rule"] == "energy":  # the fewest that hold a share of the squared norm
        held_by_those_before = values[:rank].square().cumsum(0) - values[:rank].square()
        return basis * (held_by_those_before < o["energy"] * g.square().sum())
    return basis


def carried(m: Tensor, v: Tensor, q: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Robert et al. 2024 (LDAdam), eq. 5, after t steps in the old basis."""
    mean, square = m / (1 - B1**t), v / (1 - B2**t)
    return q @ m, (1 - B2**t) * (q**2 @ (square - mean**2) + (q @ mean) ** 2).abs()


def shrunk(value: Tensor, update: Tensor, convention: str) -> Tensor:
    """Decoupled decay: torch's before the step, transformers' former AdamW's after it."""
    if convention == "torch":
        return (1 - RATE * DECAY) * value - RATE * update
    return (1 - RATE * DECAY) * (value - RATE * update)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "entry", entries("test_projected_entries.py::test_steps_are_the_equations_of_the_entry")
)
def test_steps_are_the_equations_of_the_entry(
    entry: str, shape: tuple[int, int], drawn: list[Tensor]
) -> None:
    """Zhao et al. 2024, algorithm 1, with the entry's basis, side, shape, scale, scheme and transport.

    Over three bases, with weight decay; a vector and a dense matrix step by Adam.
    """
    o = options_of(entry)
    params = [nn.Parameter(gradients(1, *s, seed=1)[0]) for s in (shape, (7,), (5, 4))]
    optimizer = ProjectedAdam(
        [{"params": params[:2]}, {"params": params[2:], "dense": True}], RATE, **o
    )
    values = [param.detach().clone() for param in params]
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in values]
    basis, m, v, ranks = None, None, None, set()
    for t in range(1, STEPS + 1):
        grads = [spectrum([2.0**-k for k in range(24)], *shape, seed=10 * t)]
        grads += [gradients(1, *s, seed=t)[0] for s in ((7,), (5, 4))]
        drawn.clear()
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        optimizer.step()
        g = seen(grads[0], o["side"], o["granularity"])
        if (t - 1) % INTERVAL == 0:
            old, basis = basis, new_basis(g, o, t, drawn, optimizer.state[params[0]])
            if o["transport"] == "project" and old is not None:
                m, v = carried(m, v, basis.mT @ old, t - 1)
        elif o["projector"] == "normal":
            assert torch.equal(drawn[0], basis)
        low = basis.mT @ g
        if o["scheme"] == "original":
            low = unseen(basis @ low, torch.Size(shape), o["side"])
        if m is None:
            m, v = torch.zeros_like(low), torch.zeros_like(low)
        direction = adam(m, v, low, t, o["eps"], o["convention"])
        if o["scheme"] == "subspace":
            direction = unseen(basis @ direction, torch.Size(shape), o["side"])
        values[0] = shrunk(values[0], o["scale"] * direction, o["convention"])
        for i in (1, 2):
            update = adam(*moments[i], grads[i], t, o["eps"], o["convention"])
            values[i] = shrunk(values[i], update, o["convention"])
        for param, value in zip(params, values, strict=True):
            assert close(param, value, 1e-8), (t, (param - value).abs().max())
        ranks.add(int((basis != 0).any(0).sum()))
    if o["rank_rule"] == "energy":  # 1 - 4^-2 of this spectrum's squares are in two directions
        assert ranks == {2}
    else:
        assert ranks == {4}


def test_the_basis_of_system_a_is_torchs_low_rank_svd(
    drawn: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """System A's code: U of torch.svd_lowrank(G, q=r + 4, niter=1), of a tall gradient. Its sketch is ours."""
    grad, param = gradients(1, 40, 24)[0], nn.Parameter(torch.zeros(40, 24, dtype=F64))
    o = options_of("rsvd")
    optimizer = ProjectedAdam([param], RATE, **o)
    param.grad = grad.clone()
    optimizer.step()
    sketch = drawn[0]
    with monkeypatch.context() as patched:
        patched.setattr(torch, "randn", lambda *_shape, **_options: sketch)
        u, _, _ = torch.svd_lowrank(grad, q=4 + 4, niter=1)
    basis, theirs = optimizer.state[param]["basis"], u[:, :4]
    assert sketch.shape == (24, 8)
    assert close(basis @ basis.mT, theirs @ theirs.mT, 1e-10)
    exact = torch.linalg.svd(grad).U[:, :4]
    assert not close(basis @ basis.mT, exact @ exact.mT, 1e-3)  # this spectrum is flat
    assert math.isclose(theirs.norm().item(), 2.0, abs_tol=1e-9)
