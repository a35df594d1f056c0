"""Adam inside a low-rank subspace of the gradient: GaLore and its relatives, as options.

Source: GaLore (Zhao et al. 2024, arXiv 2403.03507, Algorithm 1). Its relatives, by options:

    rSVDAdam of published system A  projector rsvd, side left, rank_rule proportional,
                                    interval_steps 500, scale 1
    its "SVT", which truncates      the same, with rank_rule fixed or percent, sketch_factor 2
    singular value thresholding     projector rsvd, rank_rule svt (soft) or energy
    GoLore (2410.11289)             random_from_step: bases are then random and orthonormal
    VLoRP's schemes (2505.01744)    scheme subspace (SS) or original (OS), granularity, projector
                                    normal or rademacher
    DCT subspaces (2505.17967)      projector dct, transport project

Where we differ from the authors' codes:

- The basis is refreshed at steps 1, T+1, 2T+1, ... also for T = 1. System A then never refreshes
  again.
- Sketches and random bases are drawn from the seed and the step, so a resumed run draws the same
  ones.
- Matrices of one shape share a draw.
- With `side="long"` a wide matrix takes the right branch; GaLore's reverse_std crashes at r = m.
- DCT subspaces have GaLore's interval and scale by default. The authors' DCTAdamW selects new
  columns at every step, without a scale: that is interval_steps 1 and scale 1. Its options
  rotate_subspace and sim_type "makhoul" are transport "project" and our basis, the DCT-II. By
  default it does not move moments to the new columns, and takes the DCT-III. Its optional error
  feedback does not exist here.
- For weights in bf16 and fp16 second moments are fp32, theirs have the weight's dtype.

An SVD of a gradient that is not finite raises an error; a drawn basis lets the loss become
non-finite.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.descent import Batch, Descent, LowRank, State
from rankwise.optim.parts.gathering import GatheringOptimizer
from rankwise.optim.parts.rules import AdamRule, FactoredRule, Rule, SgdRule, WholeGradient
from rankwise.optim.parts.stacked import settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, each, project


class ProjectedAdam(GatheringOptimizer):
    """Adam, or another inner rule, on gradients projected to rank r.

        R = P^T G                                       (r, L)
        D = Adam(R), with moments of R's shape          (r, L)
        W <- (1 - lr * weight_decay) W - lr * scale * P D

    G is seen as (s, L), s being the side that is projected. P (s, r) is the basis; it is renewed
    every `interval_steps`. With `side="both"` R = P^T G Q and the step is P D Q^T. Vectors, and
    matrices of a group with `"dense": True`, step by the inner rule on the whole gradient.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side; in the units of `rank_rule`.
        rank_rule: "fixed" takes `rank` as it is; "proportional" takes rank / reference_width of the
            shorter side; "percent" takes rank percent of it. With "energy" and "svt" `rank` is the
            cap: "energy" uses the fewest singular vectors that hold the share `energy` of the
            squared norm, "svt" shrinks singular values by `threshold`.
        reference_width: shorter side at which a proportional rank is `rank`.
        energy: share of the squared norm, in (0, 1], for rank_rule "energy".
        threshold: as a share of the largest singular value, in [0, 1], for rank_rule "svt".
        projector: "svd" and "rsvd" (randomized) take leading singular vectors of the gradient;
            "dct" picks columns of a fixed cosine basis; "normal", "rademacher" and "orthonormal"
            draw from `seed`.
        side: what is projected: the "short" or "long" side, "left" (rows), "right" (columns), or
            "both".
        granularity: c of VLoRP. Rows of a tall matrix are cut in c pieces, or 1/c rows are joined.
        rule: inner rule: "adam", "sgd", or "factored" (Adam with a factored second moment).
        scheme: "subspace" keeps the rule's state in the subspace; "original" keeps that of the
            back-projected gradient P P^T G, in the weight's size.
        transport: what happens to the state when the basis changes: "none" keeps it as it is,
            "reset" zeroes it, "project" rotates it into the new basis.
        oversample: columns of rsvd's sketch beyond sketch_factor * r.
        sketch_factor: rsvd's sketch has sketch_factor * r + oversample columns.
        power_iterations: of rsvd.
        interval_steps: T, steps between refreshes of the basis.
        drift: refresh a matrix early when its basis captures less than this share of the norm that
            it captured when it was new; 0 never does.
        random_from_step: from this step on bases are random and orthonormal; None never.
        scale: what the projected step is multiplied by.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        convention: where `eps` enters: "torch" after bias correction; "transformers" before it, and
            weight decay then follows the step.
        momentum: of rule "sgd".
        weight_decay: decoupled, per unit of learning rate.
        release: project each gradient as it appears in backward, and free it. Bases are then found
            in the first micro-batch of a step.
        seed: of sketches and random bases.

    Raises:
        ValueError: options that exclude each other, or a granularity that does not divide a matrix.

    References:
        Zhao et al. 2024, GaLore, arXiv 2403.03507, Algorithm 1.
        Robert et al. 2024, LDAdam, arXiv 2410.16103, eq. 5 (`transport="project"`).
        Refael et al. 2024, AdaRankGrad, arXiv 2410.17881 (`rank_rule="energy"`).
        Cai, Candes & Shen 2010, singular value thresholding (`rank_rule="svt"`).

    Example:
        >>> optimizer = ProjectedAdam(model.parameters(), lr=1e-4, rank=4, projector="rsvd")
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    RELEASE = "gathered"  # planning reads it here, in the source, without importing torch
    VECTOR = "(2 if rule != 'sgd' else momentum > 0) * k"
    DENSE = "{'adam': 2 * k, 'sgd': (momentum > 0) * k, 'factored': k + m + n}[rule]"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        rank: int,
        rank_rule: Literal["fixed", "proportional", "percent", "energy", "svt"] = "fixed",
        reference_width: int = 768,
        energy: float = 0.9,
        threshold: float = 0.1,
        projector: Literal["svd", "rsvd", "normal", "rademacher", "orthonormal", "dct"] = "svd",
        side: Literal["short", "long", "left", "right", "both"] = "short",
        granularity: float = 1.0,
        rule: Literal["adam", "sgd", "factored"] = "adam",
        scheme: Literal["subspace", "original"] = "subspace",
        transport: Literal["none", "reset", "project"] = "none",
        oversample: int = 4,
        sketch_factor: int = 1,
        power_iterations: int = 1,
        interval_steps: int = 200,
        drift: float = 0.0,
        random_from_step: int | None = None,
        scale: float = 0.25,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        convention: Literal["torch", "transformers"] = "torch",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        release: bool = False,
        seed: int = 0,
    ):
        super().__init__(params, settings(locals()), release)

    @classmethod
    def formula(
        cls, *, rule: str, scheme: str, side: str, momentum: float, **options: object
    ) -> str:
        """Return the formula of the numbers kept per matrix: those of the basis and of the rule."""
        if scheme == "original":
            rows, columns = "m", "n"
        else:
            rows, columns = "r", "r" if side == "both" else "L"
        if rule == "adam":
            kept = f"2 * {rows} * {columns}"
        elif rule == "factored":
            kept = f"{rows} * {columns} + {rows} + {columns}"
        else:
            kept = f"{rows} * {columns}" if momentum else "0"
        return f"{basis_numbers(side=side, **options)}{kept}"

    def effective_rank(self) -> float | None:
        """Return the mean number of basis vectors in use per matrix.

        Returns:
            None if no group has an adaptive rank rule ("energy" or "svt"), or before the first
            step.
        """
        counts = []
        for group in self.param_groups:
            if group["rank_rule"] not in ("energy", "svt"):
                continue
            for param in group["params"]:
                if "basis" in self.state[param]:
                    is_used = (self.state[param]["basis"] != 0).any(0)  # (r,)
                    counts.append(is_used.sum())
        return torch.stack(counts).double().mean().item() if counts else None

    def descent(self, group: dict, param: Tensor) -> Descent:
        """Return the rule itself for vectors and dense groups, else on projected gradients."""
        rule = inner_rule(group)
        if group["dense"] or param.ndim < 2:
            return WholeGradient(rule)
        scheme = SubspaceScheme if group["scheme"] == "subspace" else OriginalScheme
        return scheme(Subspace.of(group), rule, group["scale"])


def inner_rule(group: dict) -> Rule:
    """Return the inner rule that a parameter group's options describe."""
    if group["rule"] == "adam":
        return AdamRule(group["betas"], group["eps"], group["convention"])
    if group["rule"] == "sgd":
        return SgdRule(group["momentum"])
    return FactoredRule(group["betas"], group["eps"])


@dataclass(frozen=True)
class SubspaceScheme:
    """The inner rule on R = P^T G; state: the basis, and the rule's state of R's shape."""

    space: Subspace
    rule: Rule
    scale: float = 1.0

    def init_state(self, param: Tensor) -> State:
        return {**self.space.init_state(param), **self.rule.init_state(self.space.low(param))}

    def gather(self, batch: Batch, *, refresh: bool = True) -> Tensor:
        """Project the gradients; a refresh also carries the rule's state into the new basis."""
        if refresh:
            self.space.refresh(batch, self.rule)
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[LowRank]:
        """Yield scale * P D with D the rule's direction for R, as factors."""
        low = self.gather(batch) if batch.gathered is None else batch.gathered  # (B, r, L)
        basis = each(self.space.basis(batch), len(batch.params))
        rule_step = self.space.rule_step(batch.step)
        step = self.scale * self.rule.direction(low, batch.state, rule_step).to(basis.dtype)
        if "other_basis" in batch.state:
            step = step @ batch.state["other_basis"].mT
        for left, right in zip(basis, step, strict=True):
            yield LowRank(left, right, self.space.view)


@dataclass(frozen=True)
class OriginalScheme(SubspaceScheme):
    """The inner rule on P P^T G; state: the basis, and the rule's state of the weight's shape.

    This is VLoRP's scheme OS. Its moments need no transport, because they are not in the subspace.
    """

    def init_state(self, param: Tensor) -> State:
        return {**self.space.init_state(param), **self.rule.init_state(param.flatten(1))}

    def gather(self, batch: Batch, *, refresh: bool = True) -> Tensor:
        """Project the gradients; a refresh changes the basis alone."""
        if refresh:
            self.space.refresh(batch, SgdRule())  # a rule without state, so nothing is carried over
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        """Yield scale times the rule's direction for the back-projected gradient."""
        low = self.gather(batch) if batch.gathered is None else batch.gathered  # (B, r, L)
        basis = each(self.space.basis(batch), len(batch.params))
        if "other_basis" in batch.state:
            low = low @ batch.state["other_basis"].mT
        for index, (left, right) in enumerate(zip(basis, low, strict=True)):
            whole = torch.zeros_like(batch.params[index])
            self.space.view(whole).addmm_(left, right)
            state = batch.state_of(index)
            # No name for the rule's direction: it would stay in memory while the next one is
            # computed.
            yield self.scale * self.rule.direction(whole.flatten(1), state, batch.step).view_as(
                whole
            )
