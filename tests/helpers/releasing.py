"""A net, its batches, and every kind of optimizer that releases gradients: shared by the tests of gradient release."""

import inspect

import pytest
import torch
from torch import Tensor, nn

import rankwise.optim

F64 = torch.float64
RELEASING = [
    name
    for name in dir(rankwise.optim)
    if "release" in inspect.signature(getattr(rankwise.optim, name)).parameters
]
FUSED = [name for name in RELEASING if getattr(rankwise.optim, name).RELEASE == "fused"]
GATHERED = [name for name in RELEASING if getattr(rankwise.optim, name).RELEASE == "gathered"]
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
FOUND = [
    ("ProjectedAdam", {}),
    ("ProjectedAdam", {"projector": "rsvd", "drift": 0.9}),
    ("ProjectedAdam", {"projector": "dct", "transport": "project"}),
    ("ProjectedAdam", {"side": "both", "rank_rule": "energy"}),
    ("ProjFactor", {"projector": "svd"}),
]
KINDS = [(name, {}) for name in FUSED] + DRAWN + FOUND
every_kind = pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
every_fused = pytest.mark.parametrize("name", FUSED)
every_drawn = pytest.mark.parametrize(("name", "options"), DRAWN, ids=str)


class Net(nn.Module):
    """An embedding tied to the output, two matrices of one shape, a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 8)
        self.one, self.two, self.norm, self.out = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 12),
        )
        self.out.weight = self.embedding.weight
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.two(torch.tanh(self.one(self.embedding(x))))))

    @property
    def matrices(self) -> list[Tensor]:
        return [p for p in self.parameters() if p.ndim == 2]


def batch(step: int, count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 12, (count,), generator=generator), torch.randint(
        0, 12, (count,), generator=generator
    )


def loss_of(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(data[0]), data[1])


def make(
    name: str, model: nn.Module, options: dict, *, release: bool, lr: float = 0.05
) -> torch.optim.Optimizer:
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    fixed = {"rank": 2, "interval_steps": 2, "weight_decay": 0.1}
    return cls(
        model.parameters(),
        lr,
        **{k: v for k, v in fixed.items() if k in arguments},
        **options,
        release=release,
    )


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, start: int = 0, stop: int = 5
) -> nn.Module:
    for step in range(start, stop):
        loss_of(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def equal(one: nn.Module, other: nn.Module, atol: float = 0.0) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=atol, atol=atol) for a, b in pairs)
