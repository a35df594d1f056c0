"""Sparse LoRA: W x + (alpha / r) B A x with zeros in A (r, n) and B (m, r), put there while they train.

LoRA is Hu et al. 2021 (arXiv 2106.09685), by peft. The zeros are our own design, for the name has no one source (SparseLoRA of
Khaki et al. 2025 leaves A and B dense: it is contextual_sparse_lora).

kind: `magnitude` zeroes the floor(s * numel) smallest entries of each A and each B. `structured` drops the floor(s * r) rank
components i with the smallest ||B_:i|| ||A_i:||, a row of A and a column of B. `proximal_l1` takes, after every optimizer step
from `begin_step` on, a <- sign(a) max(|a| - lr * l1, 0) with the step's learning rate: under Adam a subgradient of the penalty
in the loss ends in no exact zeros, this does. It uses none of the options below.
schedule: pruning comes at step t0 = `begin_step` and every dt = `every_steps` steps, to s = `sparsity` at once (`one_shot`) or
to s_t = s (1 - (1 - (t - t0) / (k dt))^3), k = `prune_count`, which is 0 at t0 and s from t0 + k dt on (`cubic`: Zhu & Gupta
2017, arXiv 1710.01878, equation 1, from s_i = 0). B is zero before the first step: begin after a warm-up, or the smallest
entries are those that have not trained yet.
hold: zeroed entries are zeroed again after every optimizer step, for Adam's momentum revives them otherwise, and never come
back; the masks are buffers, saved with the model. False is published system B (685_lora_project, 3e93b0b) under `kind:
magnitude, schedule: one_shot, sparsity: 0.5`: at each pruning, there the end of an epoch, the smaller half of every A and B is
zeroed and may regrow at once. It zeroes what is at most the median, we exactly floor(s * numel). Its L1 penalty and its
`gradual` schedule are settings that its code never reads.

The zeros save nothing: A, B, their gradients, Adam's moments and the kernels stay dense; only `structured` could be cut to a
smaller r. The product is denser than its factors: of B A, 1 - (1 - (1 - s)^2)^r is not zero for independent masks, 15 % at
s = 0.9, r = 16.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig
from torch import nn

from rankwise.methods.parts.peft_base import PeftMethod, pairs, product_rank
from rankwise.methods.parts.pruning import (
    component_norms,
    cubic_sparsity,
    keep_largest,
    soft_threshold,
)


@dataclass(frozen=True)
class SparseLora(PeftMethod):
    """Options; `targets` are roles (query, key, value, ...), which each model's entry maps to its module names."""

    TRAINABLE = "r * (m + n)"
    QUANTIZED = True

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0
    kind: Literal["magnitude", "structured", "proximal_l1"] = "magnitude"
    schedule: Literal["one_shot", "cubic"] = "cubic"
    sparsity: float = 0.5
    begin_step: int = 100
    every_steps: int = 10
    prune_count: int = 20
    hold: bool = True
    l1: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity: got {self.sparsity}, allowed: 0 or more, below 1")
        for name in ("every_steps", "prune_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, allowed: 1 or more")

    def config(self, names: dict) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        adapted = super().prepare(model, names)
        if self.kind != "proximal_l1" and self.hold:
            for factor in (factor for pair in pairs(adapted) for factor in pair):
                factor.register_buffer("mask", torch.ones_like(factor.weight, dtype=torch.bool))
        return adapted

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if self.kind == "proximal_l1":
            if step >= self.begin_step:
                self._shrink(model, optimizer)
            return
        due = step >= self.begin_step and (step - self.begin_step) % self.every_steps == 0
        for a, b in pairs(model):
            if due:
                self._prune(a, b, self.target(step))
            elif self.hold:
                _zero(a, a.mask)
                _zero(b, b.mask)

    def observe(self, model: nn.Module) -> dict[str, float]:
        """`sparsity_fraction`: the share of zeros among all entries of A and B."""
        factors = [factor.weight for pair in pairs(model) for factor in pair]
        zeros = sum(int((weight == 0).sum()) for weight in factors)
        return {
            "sparsity_fraction": zeros / sum(weight.numel() for weight in factors),
            **product_rank(model),
        }

    def target(self, step: int) -> float:
        """The sparsity that a pruning at `step` aims at."""
        if self.schedule == "one_shot":
            return self.sparsity if step >= self.begin_step else 0.0
        return cubic_sparsity(
            step, 0.0, self.sparsity, self.begin_step, self.every_steps, self.prune_count
        )

    def _prune(self, a: nn.Linear, b: nn.Linear, sparsity: float) -> None:
        if self.kind == "structured":
            components = keep_largest(component_norms(a.weight, b.weight), sparsity, _kept(a)[:, 0])
            masks = components[:, None].expand_as(a.weight), components.expand_as(b.weight)
        else:
            masks = tuple(
                keep_largest(factor.weight.abs(), sparsity, _kept(factor)) for factor in (a, b)
            )
        for factor, mask in zip((a, b), masks, strict=True):
            _zero(factor, mask)
            if self.hold:
                factor.mask.copy_(mask)

    def _shrink(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        rates = {
            id(param): group["lr"] for group in optimizer.param_groups for param in group["params"]
        }
        for factor in (factor for pair in pairs(model) for factor in pair):
            factor.weight.copy_(soft_threshold(factor.weight, rates[id(factor.weight)] * self.l1))


def _kept(factor: nn.Linear) -> torch.Tensor:
    """What earlier prunings left; everything where nothing is held."""
    return getattr(factor, "mask", torch.ones_like(factor.weight, dtype=torch.bool))


def _zero(factor: nn.Linear, mask: torch.Tensor) -> None:
    factor.weight.masked_fill_(~mask, 0.0)
