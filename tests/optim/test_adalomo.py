"""AdaLomo, step by step against the authors' lomo_optim, its equations, and torch's Adafactor."""

import lomo_optim
import pytest
import torch
from torch import Tensor, nn

from helpers.optimizing import F64, close, gradients, optimize
from rankwise.optim import AdaLomo

every_shape = pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7,)])


@pytest.mark.parametrize("size", [1.0, 1e-5])
@every_shape
def test_it_steps_as_the_authors(
    shape: tuple[int, ...], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both step inside backward, in fp32; theirs asks for CUDA, which is replaced by the CPU here.

    A step of the smaller weight is 1e-4 by root mean square.
    """
    monkeypatch.setattr(Tensor, "cuda", lambda tensor: tensor)
    start = size * gradients(1, *shape, seed=1)[0].float()
    ours = nn.Parameter(start.clone())
    optimizer = AdaLomo([ours], 0.1, weight_decay=0.1)
    model = nn.ParameterList([nn.Parameter(start.clone())])
    authors = lomo_optim.AdaLomo(model, lr=0.1, weight_decay=0.1)
    for grad in gradients(8, *shape):
        (ours * grad.float()).sum().backward()
        optimizer.step()
        authors.fused_backward((model[0] * grad.float()).sum(), 0.1)
        assert torch.allclose(ours, model[0], rtol=1e-6, atol=1e-6 * max(size, 1e-4))
    assert not torch.allclose(ours, start, rtol=0.1)


@every_shape
@pytest.mark.parametrize(("clip", "size"), [(1.0, 1.0), (0.5, 1.0), (1.0, 1e-5)])
def test_it_is_its_equations(shape: tuple[int, ...], clip: float, size: float) -> None:
    """v by row and column means with decay 1 - t^-0.8; U / max(1, RMS(U) / clip); rate lr max(1e-3, RMS(W))."""
    grads, expected = gradients(5, *shape), size * gradients(1, *shape, seed=1)[0]
    ours, _ = optimize(AdaLomo, expected, grads, release=False, clip=clip, weight_decay=0.1)
    rows = columns = v = 0
    for t, grad in enumerate(grads, start=1):
        decay = 1 - t**-0.8
        if len(shape) == 1:
            v = decay * v + (1 - decay) * grad**2
        else:
            rows = decay * rows + (1 - decay) * (grad**2).mean(1)
            columns = decay * columns + (1 - decay) * (grad**2).mean(0)
            v = torch.outer(rows, columns) / rows.mean()
        update = grad / v.sqrt()
        update = update / max(1.0, (update**2).mean().sqrt().item() / clip)
        rate = 0.1 * max(1e-3, (expected**2).mean().sqrt().item())
        expected = (1 - rate * 0.1) * expected - rate * update
    assert close(ours, expected, 1e-12)


def test_the_weight_decays_by_the_relative_rate() -> None:
    """A gradient of zeros: W = 4 shrinks by 1 - lr RMS(W) wd = 1 - .1 * 4 * .5 = .8, then by 1 - .1 * 3.2 * .5."""
    start = torch.full((2, 3), 4.0, dtype=F64)
    zeros = torch.zeros_like(start)
    once, _ = optimize(AdaLomo, start, [zeros], release=False, weight_decay=0.5)
    twice, _ = optimize(AdaLomo, start, [zeros, zeros], release=False, weight_decay=0.5)
    assert close(once, 0.8 * start, 1e-14)
    assert close(twice, 0.84 * 0.8 * start, 1e-14)


@every_shape
def test_without_decay_it_is_torchs_adafactor(shape: tuple[int, ...]) -> None:
    """At a rate below 1 / sqrt(t), which caps torch's. Torch's decay does not depend on the weight's size."""
    grads, weight = gradients(9, *shape), gradients(1, *shape, seed=1)[0]
    ours, _ = optimize(AdaLomo, weight, grads, release=False)
    theirs, _ = optimize(torch.optim.Adafactor, weight, grads, weight_decay=0.0)
    assert close(ours, theirs, 1e-12)
