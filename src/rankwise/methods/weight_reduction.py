"""Weight reduction: a linear layer's weight W (m, n) becomes the trainable product (A diag C) B of rank r.

A (m, r), C (r) and B (r, n) start as the leading singular triplets of W, found by a randomized SVD (Halko, Martinsson & Tropp
2011, arXiv 0909.4061; 8 columns of oversampling, 2 power iterations). The bias and the rest of the model are frozen.
Source: published system A (HPMLProj, ec7ccdb, "Weight Reduction" and "Weight Reduction + SVT"), which is the case
`forward: rebuilt, residual: dropped, svt: none` or `svt: zero_pad`. Its weights train r (m + n + 1) numbers a matrix.

forward: `rebuilt` forms the dense (A diag C) B at every call, as published, so it costs more FLOPs than the dense layer;
`factored` computes ((x B') * C) A', 2 N r (m + n) FLOPs for N tokens, less than dense below r = m n / (m + n).
residual: `dropped`, as published, loses the tail of W's spectrum; `kept` adds the frozen W - (A diag C) B, so that training
starts from the pretrained model, as PiSSA does (Meng et al. 2024, arXiv 2404.02948), and saves no weights and no FLOPs.
svt: every `svt_interval_steps` updates the product is cut to its best approximation of rank k = `svt_keep` * r (Eckart &
Young 1936): QR of A diag C and of B', SVD of the r x r core. It is a truncation, there is no threshold. `zero_pad`, as
published, writes zeros into the cut columns and leaves Adam's moments: nothing shrinks, and the moments belong to other
columns. `shrink` cuts the parameters themselves to rank k, once, and with them gradients, FLOPs and optimizer state. Adam's
first moments follow by the linear map between the two factorisations' gradients; second moments follow as mean and variance,
v_hat - m_hat^2 through the squared map, |.| at the end, as LDAdam does (Robert et al. 2024, arXiv 2410.16103), for v itself
under the map may be negative. An optimizer that keeps other things than Adam's two moments starts anew in these parameters.

Where we differ from the published code: it also truncates at the end of every epoch, we count updates only; a rank of 1 is
cut to 1, not to 0.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankwise.methods.parts.base import Method, train_only
from rankwise.methods.parts.effective_rank import effective_rank
from rankwise.methods.parts.low_rank_linear import Factors, LowRankLinear, transport, truncate
from rankwise.methods.parts.peft_base import modules_of


@dataclass(frozen=True)
class WeightReduction(Method):
    """Options; `targets` are roles (query, key, value, ...), which each model's entry maps to its module names."""

    TRAINABLE = "r * (m + n + 1)"

    rank: int
    targets: tuple[str, ...] = ("query", "key", "value")
    forward: Literal["rebuilt", "factored"] = "rebuilt"
    residual: Literal["dropped", "kept"] = "dropped"
    svt: Literal["none", "shrink", "zero_pad"] = "none"
    svt_interval_steps: int = 50
    svt_keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.svt_keep <= 1:
            raise ValueError(f"svt_keep: got {self.svt_keep}, allowed: above 0, at most 1")
        if self.svt_interval_steps < 1:
            raise ValueError(
                f"svt_interval_steps: got {self.svt_interval_steps}, allowed: 1 or more"
            )

    @property
    def IDENTITY(self) -> bool:
        """Whether the residual makes up for what the factors lack."""
        return self.residual == "kept"

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        train_only(model, tuple(names["new_head"]))
        form = {"rebuilt": self.forward == "rebuilt", "keep_residual": self.residual == "kept"}
        for name, linear in modules_of(model, self.targets, names).items():
            model.set_submodule(name, LowRankLinear(linear, self.rank, **form))
        return model

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        others = {
            type(layer).__name__ for layer in modules_of(model, self.targets, names).values()
        } - {"Linear"}
        return (
            f"factorises Linear layers, the targets are {', '.join(sorted(others))}"
            if others
            else None
        )

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if self.svt == "none" or step % self.svt_interval_steps:
            return
        k = max(1, int(self.svt_keep * self.rank))
        for _, layer in _low_rank(model):
            if self.svt == "zero_pad":
                layer.zero_pad(truncate(Factors(*(p.detach() for p in layer.factors)), k))
            elif len(layer.c) > k:
                shrink(layer, optimizer, k)

    def resume(self, model: nn.Module, step: int) -> None:
        if step >= self.svt_interval_steps:
            self.settle(model)

    def settle(self, model: nn.Module) -> None:
        for _, layer in _low_rank(model) if self.svt == "shrink" else ():
            layer.replace(
                truncate(
                    Factors(*(p.detach() for p in layer.factors)),
                    max(1, int(self.svt_keep * self.rank)),
                )
            )

    @torch.no_grad()
    def observe(self, model: nn.Module) -> dict[str, float]:
        ranks = [
            effective_rank(layer.factors.a * layer.factors.c, layer.factors.b)
            for _, layer in _low_rank(model)
        ]
        return {"product_effective_rank": sum(ranks) / len(ranks)}

    def merge(self, model: nn.Module) -> nn.Module | None:
        for name, layer in _low_rank(model):
            model.set_submodule(name, layer.merged())
        return model


def _low_rank(model: nn.Module) -> list[tuple[str, LowRankLinear]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LowRankLinear)
    ]


@torch.no_grad()
def shrink(layer: LowRankLinear, optimizer: torch.optim.Optimizer, k: int) -> None:
    """Cut a layer's parameters to rank k, and what the optimizer keeps of them."""
    old = Factors(*(param.detach() for param in layer.factors))
    new = truncate(old, k)
    if all(_has_moments(optimizer, param) for param in layer.factors):
        mean, variance = (
            Factors(*part)
            for part in zip(*(_statistics(optimizer, p) for p in layer.factors), strict=True)
        )
        for param, m, v in zip(layer.factors, *transport(mean, variance, old, new), strict=True):
            _keep_statistics(optimizer, param, m, v)
    else:
        for param in layer.factors:
            optimizer.state.pop(param, None)
    layer.replace(new)


def _has_moments(optimizer: torch.optim.Optimizer, param: Tensor) -> bool:
    state = optimizer.state.get(param, {})
    tensors = {
        key: value.shape
        for key, value in state.items()
        if isinstance(value, Tensor) and key != "step"
    }
    return tensors == {"exp_avg": param.shape, "exp_avg_sq": param.shape} and "betas" in _group(
        optimizer, param
    )


def _group(optimizer: torch.optim.Optimizer, param: Tensor) -> dict:
    return next(
        group for group in optimizer.param_groups if any(p is param for p in group["params"])
    )


def _corrections(optimizer: torch.optim.Optimizer, param: Tensor) -> tuple[float, float]:
    """Adam's bias corrections, 1 - beta^t."""
    b1, b2 = _group(optimizer, param)["betas"]
    step = float(optimizer.state[param]["step"])
    return 1 - b1**step, 1 - b2**step


def _statistics(optimizer: torch.optim.Optimizer, param: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a parameter's gradient, as Adam's moments have them."""
    first, second = _corrections(optimizer, param)
    mean = optimizer.state[param]["exp_avg"] / first
    return mean, optimizer.state[param]["exp_avg_sq"] / second - mean**2


def _keep_statistics(
    optimizer: torch.optim.Optimizer, param: Tensor, mean: Tensor, variance: Tensor
) -> None:
    first, second = _corrections(optimizer, param)
    optimizer.state[param]["exp_avg"] = mean * first
    optimizer.state[param]["exp_avg_sq"] = (variance + mean**2).abs() * second
