"""What tests of gradient release share: a small net, its batches, and every kind of releasing optimizer."""

import inspect

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim
from rankwise.optim.parts.released_gradient import is_released

F64 = torch.float64
# Written out, because dir(rankwise.optim) would import bitsandbytes in every spawned process.
FUSED = [
    "AdaLomo", "Adafactor", "AdamW", "Apollo", "Fira", "Flora", "Frugal", "LDAdam", "Lomo", "MLorc", "Muon",
    "Sgd", "TopR",
]  # fmt: skip
GATHERED = ["ProjFactor", "ProjectedAdam"]

# Gathering optimizers whose basis is drawn from a seed: it does not depend on micro-batches.
DRAWN = [
    ("ProjectedAdam", {"projector": "normal"}),
    ("ProjectedAdam", {"projector": "rademacher", "scheme": "original"}),
    ("ProjectedAdam", {"projector": "orthonormal", "transport": "project"}),
    (
        "ProjectedAdam",
        {"projector": "normal", "rule": "sgd", "granularity": 2.0, "transport": "reset"},
    ),
    ("ProjFactor", {}),
    ("ProjFactor", {"granularity": 2.0, "transport": "project"}),
]
# Gathering optimizers whose basis is found in the gradient.
FOUND = [
    ("ProjectedAdam", {}),
    ("ProjectedAdam", {"projector": "rsvd", "drift": 0.9}),
    ("ProjectedAdam", {"projector": "dct", "transport": "project"}),
    ("ProjectedAdam", {"side": "both", "rank_rule": "energy"}),
    ("ProjFactor", {"projector": "svd"}),
]
KINDS = [(name, {}) for name in FUSED] + DRAWN + FOUND
# One of each kind: torch's step, our own loop, gathered with a drawn and with a found basis.
FEW = [("AdamW", {}), ("Fira", {}), DRAWN[2], FOUND[1]]


def few_fast(kinds: list[tuple[str, dict]]) -> list:
    """Test cases, of which all but one of each kind are slow."""
    return [
        pytest.param(*kind, id=str(kind), marks=() if kind in FEW else pytest.mark.slow)
        for kind in kinds
    ]


every_kind = pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
every_kind_few_fast = pytest.mark.parametrize(("name", "options"), few_fast(KINDS))
every_fused = pytest.mark.parametrize("name", FUSED)
every_drawn = pytest.mark.parametrize(("name", "options"), DRAWN, ids=str)


class Net(nn.Module):
    """An embedding tied to the output, two matrices of one shape, and a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 8)
        self.one = nn.Linear(8, 8)
        self.two = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 12)
        self.out.weight = self.embedding.weight
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.one(self.embedding(x)))
        return self.out(self.norm(self.two(hidden)))

    @property
    def matrices(self) -> list[Tensor]:
        return [param for param in self.parameters() if param.ndim == 2]


def batch(step: int, count: int = 8) -> tuple[Tensor, Tensor]:
    """Random tokens and random targets."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, 12, (count,), generator=generator)
    targets = torch.randint(0, 12, (count,), generator=generator)
    return tokens, targets


def loss_of(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(data[0]), data[1])


def make(
    name: str, model: nn.Module, options: dict, *, release: bool, lr: float = 0.05
) -> torch.optim.Optimizer:
    """The optimizer `name` on a model, with a small rank and interval where it has them."""
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    common = {"rank": 2, "interval_steps": 2, "weight_decay": 0.1}
    known = {key: value for key, value in common.items() if key in arguments}
    return cls(model.parameters(), lr, **known, **options, release=release)


def is_alive(grad: Tensor | None) -> bool:
    """Whether a gradient takes memory; what stands in for a released one does not."""
    return grad is not None and not is_released(grad)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, start: int = 0, stop: int = 5
) -> nn.Module:
    for step in range(start, stop):
        loss_of(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def equal(one: nn.Module, other: nn.Module, atol: float = 0.0) -> bool:
    """Whether two models have the same parameters, by default to the last bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=atol, atol=atol) for a, b in pairs)


def values(model: nn.Module) -> list[Tensor]:
    """Copies of a model's parameters."""
    return [param.detach().clone() for param in model.parameters()]


def unchanged(model: nn.Module, before: list[Tensor]) -> bool:
    """Whether a model's parameters are the copies, to the last bit."""
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
