"""Sparse LoRA: W x + (alpha / r) B A x, with zeros that training puts into A (r, n) and B (m, r).

LoRA is Hu et al. 2021 (arXiv 2106.09685), by peft. The zeros are our own design, because the name
has no one source. (SparseLoRA of Khaki et al. 2025 leaves A and B dense: it is
contextual_sparse_lora.)

kind: `magnitude` zeroes the floor(s * numel) smallest entries of each A and each B. `structured`
drops the floor(s * r) rank components i with the smallest ||B_:i|| ||A_i:||, that is, a row of A
and a column of B. `proximal_l1` takes, after every optimizer step from `begin_step` on, a <-
sign(a) max(|a| - lr * l1, 0) with the step's learning rate (under Adam, a subgradient of the
penalty in the loss would end in no exact zeros). It uses none of the options below.

schedule: pruning comes at step t0 = `begin_step` and every dt = `every_steps` steps. `one_shot`
prunes to s = `sparsity` at once. `cubic` prunes to s_t = s (1 - (1 - (t - t0) / (k dt))^3) with k =
`prune_count`, which is 0 at t0 and s from t0 + k dt on (Zhu & Gupta 2017, arXiv 1710.01878,
equation 1, from s_i = 0). B is zero before the first step, so begin after a warm-up; else the
smallest entries are those that have not trained yet.

hold: zeroed entries are zeroed again after every optimizer step and never come back; Adam's
momentum would revive them. The masks are buffers, saved with the model. With `hold: false, kind:
magnitude, schedule: one_shot, sparsity: 0.5` this is published system B (685_lora_project,
3e93b0b): at each pruning, there the end of an epoch, the smaller half of every A and B is zeroed
and may regrow at once. It zeroes what is at most the median, we exactly floor(s * numel). Its L1
penalty and its `gradual` schedule are settings that its code never reads.

The zeros save nothing: A, B, their gradients, Adam's moments and the kernels stay dense. Only
`structured` could be cut to a smaller r. The product is denser than its factors: for independent
masks a share 1 - (1 - (1 - s)^2)^r of B A is not zero, 15 % at s = 0.9, r = 16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankwise.methods.parts.lora_base import LoraBase, factor_pairs
from rankwise.methods.parts.pruning import (
    component_norms,
    cubic_sparsity,
    keep_largest,
    soft_threshold,
)


@dataclass(frozen=True)
class SparseLora(LoraBase):
    """Trains A and B and prunes them; the options are explained above."""

    QUANTIZED = True

    kind: Literal["magnitude", "structured", "proximal_l1"] = "magnitude"
    schedule: Literal["one_shot", "cubic"] = "cubic"
    sparsity: float = 0.5
    begin_step: int = 100
    every_steps: int = 10
    prune_count: int = 20
    hold: bool = True
    l1: float = 0.0

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Add LoRA, and masks if zeros are held."""
        adapted = super().prepare(model, names)
        if self.kind != "proximal_l1" and self.hold:
            for factor in _factors(adapted):
                factor.register_buffer("mask", torch.ones_like(factor.weight, dtype=torch.bool))
        return adapted

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Prune if that is due, else zero the held entries again; or take the proximal step."""
        if self.kind == "proximal_l1":
            if step >= self.begin_step:
                self._shrink(model, optimizer)
            return
        is_due = step >= self.begin_step and (step - self.begin_step) % self.every_steps == 0
        for a, b in factor_pairs(model):
            if is_due:
                self._prune(a, b, self.target(step))
            elif self.hold:
                _zero_outside(a, a.mask)
                _zero_outside(b, b.mask)

    def observe(self, model: nn.Module) -> dict[str, float]:
        """`sparsity_fraction` is the share of zeros among all entries of A and B."""
        zeros = entries = 0
        for factor in _factors(model):
            zeros += int((factor.weight == 0).sum())
            entries += factor.weight.numel()
        return {"sparsity_fraction": zeros / entries, **super().observe(model)}

    def target(self, step: int) -> float:
        """The sparsity that a pruning at `step` aims at."""
        if self.schedule == "one_shot":
            return self.sparsity if step >= self.begin_step else 0.0
        return cubic_sparsity(
            step, 0.0, self.sparsity, self.begin_step, self.every_steps, self.prune_count
        )

    def _prune(self, a: nn.Linear, b: nn.Linear, sparsity: float) -> None:
        if self.kind == "structured":
            norms = component_norms(a.weight, b.weight)  # (r)
            components = keep_largest(norms, sparsity, _mask_of(a)[:, 0])
            masks = components[:, None].expand_as(a.weight), components.expand_as(b.weight)
        else:
            masks = (
                keep_largest(a.weight.abs(), sparsity, _mask_of(a)),
                keep_largest(b.weight.abs(), sparsity, _mask_of(b)),
            )
        for factor, mask in zip((a, b), masks, strict=True):
            _zero_outside(factor, mask)
            if self.hold:
                factor.mask.copy_(mask)

    def _shrink(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """The proximal step, with the learning rate that each factor has now."""
        learning_rates = {}
        for group in optimizer.param_groups:
            for param in group["params"]:
                learning_rates[id(param)] = group["lr"]
        for factor in _factors(model):
            threshold = learning_rates[id(factor.weight)] * self.l1
            factor.weight.copy_(soft_threshold(factor.weight, threshold))


def _factors(model: nn.Module) -> Iterator[nn.Linear]:
    """A and B of every adapted layer."""
    for pair in factor_pairs(model):
        yield from pair


def _mask_of(factor: nn.Linear) -> Tensor:
    """The entries that earlier prunings left; all of them where nothing is held."""
    return getattr(factor, "mask", torch.ones_like(factor.weight, dtype=torch.bool))


def _zero_outside(factor: nn.Linear, mask: Tensor) -> None:
    factor.weight.masked_fill_(~mask, 0.0)
