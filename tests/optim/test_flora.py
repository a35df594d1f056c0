"""Flora, step by step against the authors' flora_opt, with one set of bases for both."""

import math

import pytest
import torch
from flora_opt.optimizers.torch import flora as authors
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients, optimize
from rankwise.optim import Flora
from rankwise.optim.parts import projectors

LR, DECAY, RANK, KAPPA = 0.1, 0.1, 3, 3


class Bases:
    """Bases by order of first use, whoever asks; a seed always gets the same basis again."""

    def __init__(self, size: int):
        self.bases = [basis / math.sqrt(RANK) for basis in gradients(9, size, RANK, seed=3)]
        self.used: dict[str, list[int]] = {"ours": [], "theirs": []}

    def of(self, who: str, seed: int) -> Tensor:
        """The basis (s, r) for a seed."""
        if seed not in self.used[who]:
            self.used[who].append(seed)
        return self.bases[self.used[who].index(seed)]

    def ours(self, kind, size: int, rank: int, generator: torch.Generator, like) -> Tensor:
        return self.of("ours", generator.initial_seed())

    def theirs(self, shape: tuple[int, int], seed: int, device, dtype) -> Tensor:
        """Standard normal numbers; they divide by sqrt(r) afterwards."""
        basis = math.sqrt(RANK) * self.of("theirs", seed)
        return basis if shape == tuple(basis.shape) else basis.mT


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> Bases:
    given = Bases(min(shape))
    monkeypatch.setattr(projectors, "draw", given.ours)
    monkeypatch.setattr(authors, "stable_randn", given.theirs)
    return given


def run_both(
    grads: list[Tensor], group: dict, their_rank: int | None, **options
) -> list[tuple[Tensor, Tensor]]:
    """Our weight and the authors' after each step."""
    ours, theirs = (nn.Parameter(gradients(1, *grads[0].shape, seed=1)[0]) for _ in range(2))
    scale_parameter = options.get("scale_parameter", True)
    optimizer = Flora(
        [{"params": [ours], **group}],
        LR,
        rank=RANK,
        interval_steps=KAPPA,
        weight_decay=DECAY,
        **options,
    )
    reference = authors.Flora(
        [theirs],
        LR,
        rank=their_rank,
        kappa=KAPPA,
        beta1=options.get("momentum", 0.9),
        clip_threshold=options.get("clip", 1.0),
        scale_parameter=scale_parameter,
        weight_decay=DECAY,
    )
    weights = []
    for grad in grads:
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        optimizer.step()
        reference.step()
        weights.append((ours.detach().clone(), theirs.detach().clone()))
    return weights


@pytest.mark.parametrize(
    "options",
    [{}, {"clip": 0.05}, {"scale_parameter": False}, {"momentum": 0.5}, {"momentum": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_matrices_step_as_the_authors(shape: tuple[int, int], options: dict, bases: Bases) -> None:
    """Ten steps: three redraws, and the first steps after each of them."""
    for ours, theirs in run_both(gradients(10, *shape), {}, RANK, **options):
        assert close(ours, theirs, 1e-12)
    assert len(bases.used["ours"]) == 4
    if options.get("momentum") != 0.0:  # theirs then keeps no momentum
        assert len(bases.used["theirs"]) == 4


@pytest.mark.parametrize("scale_parameter", [True, False])
@pytest.mark.parametrize(("shape", "group"), [((7,), {}), ((6, 10), {"dense": True})])
def test_vectors_and_dense_groups_step_as_the_authors_without_a_rank(
    shape: tuple[int, ...], group: dict, scale_parameter: bool
) -> None:
    grads = gradients(10, *shape)
    for ours, theirs in run_both(grads, group, None, scale_parameter=scale_parameter):
        assert close(ours, theirs, 1e-12)


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_a_steps_root_mean_square_is_clipped_on_a_square_matrix(rank: int) -> None:
    """RMS(step) / lr is at most clip * RMS(W), also where the projection back makes it long."""
    param = nn.Parameter(torch.full((64, 64), 0.5, dtype=F64))
    optimizer, sizes = Flora([param], 1e-3, rank=rank, interval_steps=50), []
    for grad in gradients(1, 64, 64) * 30:
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        step_rms = (param.detach() - before).square().mean().sqrt()
        sizes.append((step_rms / 1e-3 / before.square().mean().sqrt()).item())
    assert max(sizes) == pytest.approx(1.0, abs=1e-9)


def test_a_weight_of_zeros_counts_with_the_smallest_size() -> None:
    """The first step of a single number: U = sign(g), D = (1 - .9) U = .1, times lr and `smallest`."""
    grad, start = torch.tensor([[-4.0]], dtype=F64), torch.zeros(1, 1, dtype=F64)
    moved, _ = optimize(Flora, start, [grad], lr=0.5, rank=1, smallest=0.01)
    assert moved.item() == pytest.approx(0.5 * 0.01 * 0.1, abs=1e-15)


def test_without_momentum_a_gradient_of_zeros_moves_nothing() -> None:
    grad, start = gradients(1, 6, 10)[0], torch.zeros(6, 10, dtype=F64)
    first, _ = optimize(Flora, start, [grad], rank=3, momentum=0.0)
    both, _ = optimize(Flora, start, [grad, 0 * grad], rank=3, momentum=0.0)
    assert torch.equal(both, first)
    assert (first != 0).all()


def test_the_seed_decides_the_projection() -> None:
    grads, start = gradients(2, 6, 10), torch.ones(6, 10, dtype=F64)
    one, same, other = (optimize(Flora, start, grads, rank=2, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)
