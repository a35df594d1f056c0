"""Optimizers that project nothing: AdamW, SGD, Adafactor, LOMO and bitsandbytes' AdamW, by entry."""

import inspect
import math

import bitsandbytes
import pytest
import torch
from lomo_optim import Lomo
from torch import Tensor, nn
from transformers.optimization import Adafactor

import rankwise.optim
from helpers.conformance import request_of
from helpers.optimizing import F64, close, gradients
from rankwise.methods.parts.base import optimizer_class
from references.registry import entries

SHAPES = [(6, 10), (10, 6), (8, 8), (7,)]
RATE, DECAY = 0.05, 0.1


def options_of(entry: str) -> tuple[type, dict]:
    """The entry's optimizer and its options, without release."""
    options = dict(request_of(entry, "tiny")["method"]["optimizer"])
    cls = optimizer_class(options.pop("module"))
    if "release" in inspect.signature(cls).parameters:
        options["release"] = False
    return cls, options


def start(dtype: torch.dtype = F64) -> list[Tensor]:
    return [gradients(1, *shape, seed=i, dtype=dtype)[0] for i, shape in enumerate(SHAPES)]


def grads_of(step: int, dtype: torch.dtype = F64) -> list[Tensor]:
    seeds = range(100 * step, 100 * step + len(SHAPES))
    return [gradients(1, *s, seed=i, dtype=dtype)[0] for s, i in zip(SHAPES, seeds, strict=True)]


def stepped(cls: type, dtype: torch.dtype = F64, steps: int = 6, **options: object) -> list[Tensor]:
    """The parameters after some steps."""
    params = [nn.Parameter(value.clone()) for value in start(dtype)]
    optimizer = cls(params, lr=RATE, **options)
    for step in range(1, steps + 1):
        for param, grad in zip(params, grads_of(step, dtype), strict=True):
            param.grad = grad
        optimizer.step()
    return [param.detach() for param in params]


def check(ours: list[Tensor], theirs: list[Tensor], atol: float) -> None:
    for one, other, first in zip(ours, theirs, start(), strict=True):
        assert close(one.double(), other.double(), atol)
        assert not close(one.double(), first, 1e-2)


# Written out --------------------------------------------------------------------------------------


def adamw(value: Tensor, grads: list[Tensor], o: dict) -> Tensor:
    """Loshchilov & Hutter 2019, algorithm 2."""
    b1, b2 = o["betas"]
    m = v = 0
    for t, grad in enumerate(grads, start=1):
        m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
        direction = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + o["eps"])
        value = (1 - RATE * DECAY) * value - RATE * direction
    return value


def sgd(value: Tensor, grads: list[Tensor], o: dict) -> Tensor:
    """Momentum of the gradient with coupled decay; the rate multiplies the momentum."""
    momentum = 0
    for grad in grads:
        momentum = o["momentum"] * momentum + grad + DECAY * value
        value = value - RATE * momentum
    return value


def adafactor(value: Tensor, grads: list[Tensor], o: dict) -> Tensor:
    """Shazeer & Stern 2018, algorithms 4 and 5; torch's decay is per unit of the rate itself."""
    rows = columns = square = 0
    for t, grad in enumerate(grads, start=1):
        decay = 1 - t ** o["beta2_decay"]
        if grad.ndim == 2:
            rows = decay * rows + (1 - decay) * (grad**2).mean(1)
            columns = decay * columns + (1 - decay) * (grad**2).mean(0)
            square = torch.outer(rows, columns) / rows.mean()
        else:
            square = decay * square + (1 - decay) * grad**2
        update = grad / square.sqrt()
        update = update / max(1.0, (update**2).mean().sqrt().item() / o["clip"])
        size = max(1e-3, (value**2).mean().sqrt().item())
        rate = min(RATE, 1 / math.sqrt(t)) * size
        value = (1 - RATE * DECAY) * value - rate * update
    return value


def lomo(value: Tensor, grads: list[Tensor], o: dict) -> Tensor:
    """Lv et al. 2023, algorithm 1, with the authors' decay."""
    for grad in grads:
        value = (1 - RATE * DECAY) * value - RATE * grad
    return value


WRITTEN_OUT = {"AdamW": adamw, "Sgd": sgd, "Adafactor": adafactor, "Lomo": lomo}


@pytest.mark.parametrize(
    "entry", entries("test_plain_optimizers.py::test_steps_are_the_equations_of_the_entry")
)
def test_steps_are_the_equations_of_the_entry(entry: str) -> None:
    cls, options = options_of(entry)
    options["weight_decay"] = DECAY
    ours = stepped(cls, **options)
    all_grads = zip(*[grads_of(step) for step in range(1, 7)], strict=True)
    pairs = zip(start(), all_grads, strict=True)
    formula = WRITTEN_OUT[cls.__name__]
    check(ours, [formula(value, list(grads), options) for value, grads in pairs], 1e-9)


# Others' packages ---------------------------------------------------------------------------------


def test_adafactor_is_transformers_with_scale_parameter() -> None:
    """At a rate below 1 / sqrt(t), which caps torch's; the decay of the two differs."""
    ours = stepped(rankwise.optim.Adafactor)
    theirs = stepped(Adafactor, relative_step=False, scale_parameter=True)
    check(ours, theirs, 1e-9)
    unscaled = stepped(Adafactor, relative_step=False, scale_parameter=False)
    assert not close(ours[0], unscaled[0], 1e-3)


def test_lomo_is_the_authors() -> None:
    """In backward on our side as on theirs, which updates in fp32."""

    def trained(authors: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
        if authors:
            optimizer = Lomo(model, lr=RATE, weight_decay=DECAY)
        else:
            optimizer = rankwise.optim.Lomo(model.parameters(), RATE, weight_decay=DECAY)
        for step in range(5):
            loss = model(gradients(1, 4, 6, seed=step, dtype=torch.float32)[0]).square().mean()
            if authors:
                optimizer.fused_backward(loss, RATE)
            else:
                loss.backward()
                optimizer.step()
        return [param.detach() for param in model.parameters()]

    for one, other in zip(trained(authors=False), trained(authors=True), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


# bitsandbytes -------------------------------------------------------------------------------------

LARGE = (96, 80)  # 7,680 numbers: 30 blocks of 256


@pytest.mark.parametrize(
    "entry", entries("test_plain_optimizers.py::test_the_entry_is_bitsandbytes_own_optimizer")
)
def test_the_entry_is_bitsandbytes_own_optimizer(entry: str) -> None:
    cls, options = options_of(entry)
    options["weight_decay"] = DECAY
    theirs = {"full_adamw_8bit": "AdamW8bit", "full_paged_adamw": "PagedAdamW"}[entry]
    plain = {key: value for key, value in options.items() if key not in ("bits", "min_8bit_size")}

    def trained(optimizer_cls: type, settings: dict) -> list[Tensor]:
        shapes = (LARGE, (7,))
        params = [nn.Parameter(gradients(1, *s, dtype=torch.float32)[0]) for s in shapes]
        optimizer = optimizer_cls(params, lr=RATE, **settings)
        for step in range(1, 6):
            for param in params:
                param.grad = gradients(1, *param.shape, seed=step, dtype=torch.float32)[0]
            optimizer.step()
        return [param.detach() for param in params]

    ours, expected = trained(cls, options), trained(getattr(bitsandbytes.optim, theirs), plain)
    for one, other in zip(ours, expected, strict=True):
        assert torch.equal(one, other)


def test_eight_bit_moments_are_the_nearest_levels_of_their_blocks() -> None:
    """Dettmers et al. 2022, section 2: AdamW in fp32, then each moment as a level times its block's largest.

    The levels are bitsandbytes' tables. On a CPU it misses the nearest level of some by 1e-4 at most.
    """
    param = nn.Parameter(torch.zeros(LARGE))
    optimizer = rankwise.optim.AdamW8bit([param], lr=RATE, weight_decay=DECAY)
    value, m, v = (torch.zeros(LARGE, dtype=F64) for _ in range(3))
    for t in range(1, 4):
        grad = gradients(1, *LARGE, seed=t)[0].float()
        param.grad = grad.clone()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * grad.double(), 0.999 * v + 0.001 * grad.double() ** 2
        direction = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        value = (1 - RATE * DECAY) * value - RATE * direction
        assert (param.detach().double() - value).abs().max() <= 1e-5, t
        state = optimizer.state[param]
        m = quantised(m, state["state1"], state["absmax1"], is_signed=True)
        v = quantised(v, state["state2"], state["absmax2"], is_signed=False)
        value = param.detach().double()


def quantised(moment: Tensor, codes: Tensor, largest: Tensor, *, is_signed: bool) -> Tensor:
    """What the codes stand for, after a check that they are those of the moment."""
    levels = bitsandbytes.functional.create_dynamic_map(signed=is_signed).double()
    blocks, codes = moment.reshape(-1, 256), codes.long().reshape(-1, 256)
    torch.testing.assert_close(largest.double(), blocks.abs().amax(1), atol=0, rtol=1e-6)
    shares = blocks / largest[:, None]
    least = (shares[..., None] - levels).abs().amin(-1)
    lost = (levels[codes] - shares).abs()
    assert (lost - least).max() <= 1e-4
    assert (lost <= least + 1e-9).double().mean() > 0.95
    return (levels[codes] * largest[:, None]).view(LARGE)
