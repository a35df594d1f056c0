"""Weight reduction: a linear layer's weight W (m, n) becomes a trainable (A diag C) B of rank r.

A (m, r), C (r) and B (r, n) start as the leading singular triplets of W, found by a randomized SVD
(Halko, Martinsson & Tropp 2011, arXiv 0909.4061; 8 columns of oversampling, 2 power iterations).
The bias and the rest of the model are frozen. Source: published system A (HPMLProj, ec7ccdb,
"Weight Reduction" and "Weight Reduction + SVT"), which is the case `forward: rebuilt, residual:
dropped, svt: none` or `svt: zero_pad`. r (m + n + 1) numbers train in each matrix.

forward: `rebuilt` forms the dense (A diag C) B at every call, as published, so it costs more FLOPs
than the dense layer. `factored` computes ((x B') * C) A', 2 N r (m + n) FLOPs for N tokens, less
than dense below r = m n / (m + n).

residual: `dropped`, as published, loses the tail of W's spectrum. `kept` adds the frozen W - (A
diag C) B, so that training starts from the pretrained model, as PiSSA does (Meng et al. 2024, arXiv
2404.02948); it saves no weights and no FLOPs.

svt: every `svt_interval_steps` updates the product is cut to its best approximation of rank k =
`svt_keep` * r (Eckart & Young 1936): QR of A diag C and of B', SVD of the r x r core. It is a
truncation; there is no threshold. `zero_pad`, as published, writes zeros into the cut columns and
leaves Adam's moments alone: nothing shrinks, and the moments belong to other columns. `shrink` cuts
the parameters themselves to rank k, once, and with them gradients, FLOPs and optimizer state.
Adam's first moments follow by the linear map between the gradients of the two factorisations.
Second moments follow as mean and variance, v_hat - m_hat^2 through the squared map, |.| at the end,
as in LDAdam (Robert et al. 2024, arXiv 2410.16103), because v itself may turn negative under the
map. An optimizer whose state is not Adam's two moments starts anew in these parameters.

Where we differ from the published code: it also truncates at the end of every epoch, we count
updates only; a rank of 1 is cut to 1, not to 0.
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
    """Trains the factors; each model's entry maps `targets` to its module names."""

    TRAINABLE = "r * (m + n + 1)"
    ADDS_PARAMETERS = False  # its factors take the place of matrices

    rank: int
    targets: tuple[str, ...] = ("query", "key", "value")
    forward: Literal["rebuilt", "factored"] = "rebuilt"
    residual: Literal["dropped", "kept"] = "dropped"
    svt: Literal["none", "shrink", "zero_pad"] = "none"
    svt_interval_steps: int = 50
    svt_keep: float = 0.5

    @property
    def IDENTITY(self) -> bool:
        """Whether the residual makes up for what the factors lack."""
        return self.residual == "kept"

    @property
    def truncated_rank(self) -> int:
        """k, the rank after a truncation."""
        return max(1, int(self.svt_keep * self.rank))

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Replace the targets by their factors; these and a new head train."""
        train_only(model, tuple(names["new_head"]))
        form = {"rebuilt": self.forward == "rebuilt", "keep_residual": self.residual == "kept"}
        for name, linear in modules_of(model, self.targets, names).items():
            model.set_submodule(name, LowRankLinear(linear, self.rank, **form))
        return model

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse targets that are not plain Linear layers."""
        targets = modules_of(model, self.targets, names).values()
        others = {type(layer).__name__ for layer in targets} - {"Linear"}
        if others:
            return f"factorises Linear layers, the targets are {', '.join(sorted(others))}"
        return None

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Truncate every `svt_interval_steps` steps; `shrink` does so only once."""
        if self.svt == "none" or step % self.svt_interval_steps:
            return
        k = self.truncated_rank
        for _, layer in _low_rank_layers(model):
            if self.svt == "zero_pad":
                layer.zero_pad(truncate(layer.detached_factors(), k))
            elif len(layer.c) > k:
                shrink(layer, optimizer, k)

    def resume(self, model: nn.Module, step: int) -> None:
        """Shrink the parameters if a truncation was due by `step`."""
        if step >= self.svt_interval_steps:
            self.settle(model)

    def settle(self, model: nn.Module) -> None:
        """Shrink the parameters to the truncated rank, if `svt` is shrink."""
        if self.svt != "shrink":
            return
        for _, layer in _low_rank_layers(model):
            layer.replace(truncate(layer.detached_factors(), self.truncated_rank))

    @torch.no_grad()
    def observe(self, model: nn.Module) -> dict[str, float]:
        ranks = []
        for _, layer in _low_rank_layers(model):
            ranks.append(effective_rank(layer.factors.a * layer.factors.c, layer.factors.b))
        return {"product_effective_rank": sum(ranks) / len(ranks)}

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Multiply the factors into ordinary linear layers."""
        for name, layer in _low_rank_layers(model):
            model.set_submodule(name, layer.merged())
        return model


def _low_rank_layers(model: nn.Module) -> list[tuple[str, LowRankLinear]]:
    modules = model.named_modules()
    return [(name, module) for name, module in modules if isinstance(module, LowRankLinear)]


@torch.no_grad()
def shrink(layer: LowRankLinear, optimizer: torch.optim.Optimizer, k: int) -> None:
    """Cut a layer's parameters to rank k, and with them their state in the optimizer.

    Adam's moments are carried over by `low_rank_linear.transport`; any other state is dropped.

    Args:
        layer: of rank r, changed in place.
        optimizer: it holds the layer's three parameters; their state is changed in place.
        k: the new rank, at most r.

    References:
        Eckart & Young 1936 (the truncation).
        Robert et al. 2024, LDAdam, arXiv 2410.16103 (the second moments).
    """
    old = layer.detached_factors()
    new = truncate(old, k)
    if all(_has_adam_state(optimizer, param) for param in layer.factors):
        statistics = [_mean_and_variance(optimizer, param) for param in layer.factors]
        mean = Factors(*(mean for mean, _ in statistics))
        variance = Factors(*(variance for _, variance in statistics))
        new_mean, new_variance = transport(mean, variance, old, new)
        for param, m, v in zip(layer.factors, new_mean, new_variance, strict=True):
            _set_moments(optimizer, param, m, v)
    else:
        for param in layer.factors:
            optimizer.state.pop(param, None)
    layer.replace(new)


def _has_adam_state(optimizer: torch.optim.Optimizer, param: Tensor) -> bool:
    """Whether the tensors of a parameter's state are Adam's two moments and nothing else."""
    shapes = {}
    for key, value in optimizer.state.get(param, {}).items():
        if isinstance(value, Tensor) and key != "step":
            shapes[key] = value.shape
    moments = {"exp_avg": param.shape, "exp_avg_sq": param.shape}
    return shapes == moments and "betas" in _group_of(optimizer, param)


def _group_of(optimizer: torch.optim.Optimizer, param: Tensor) -> dict:
    for group in optimizer.param_groups:
        if any(member is param for member in group["params"]):
            return group
    raise KeyError("the optimizer does not have this parameter")


def _bias_corrections(optimizer: torch.optim.Optimizer, param: Tensor) -> tuple[float, float]:
    """Adam's 1 - beta_1^t and 1 - beta_2^t."""
    b1, b2 = _group_of(optimizer, param)["betas"]
    step = float(optimizer.state[param]["step"])
    return 1 - b1**step, 1 - b2**step


def _mean_and_variance(optimizer: torch.optim.Optimizer, param: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a parameter's gradient, from Adam's moments."""
    first, second = _bias_corrections(optimizer, param)
    mean = optimizer.state[param]["exp_avg"] / first
    return mean, optimizer.state[param]["exp_avg_sq"] / second - mean**2


def _set_moments(
    optimizer: torch.optim.Optimizer, param: Tensor, mean: Tensor, variance: Tensor
) -> None:
    first, second = _bias_corrections(optimizer, param)
    optimizer.state[param]["exp_avg"] = mean * first
    optimizer.state[param]["exp_avg_sq"] = (variance + mean**2).abs() * second
