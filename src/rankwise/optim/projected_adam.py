"""Adam inside a low-rank subspace of the gradient: G (s, L) -> R = P'G (r, L) -> Adam -> P D.

Sources: GaLore (Zhao et al. 2024, 2403.03507, Algorithm 1) and its kin, by options:

    rSVDAdam of published system A   projector rsvd, side left, rank_rule proportional, interval 500, scale 1
    its "SVT", which truncates       the same, rank_rule fixed or percent, sketch_factor 2
    singular value thresholding      projector rsvd, rank_rule svt (soft) or energy
    GoLore (2410.11289)              random_from_step: the basis is then a random orthonormal one
    VLoRP's schemes (2505.01744)     scheme subspace (SS) or original (OS), granularity, projector normal or rademacher
    DCT subspaces (2505.17967)       projector dct, transport project

Scheme `original` keeps Adam's moments of the back-projected gradient P P'G, in the size of the weight. Moments are neither
rotated nor reset when the basis changes, unless `transport` says so: `project` rotates them (LDAdam's rule), `reset` zeroes
them. `drift` refreshes a matrix early, when its basis captures less than that share of what it captured when it was new.
Where we differ from the authors' code: a basis is refreshed at steps 1, T+1, 2T+1, ... also for T = 1 (system A: then never
again); sketches are drawn from the seed and the step, so that a resumed run draws the same; same-shaped matrices share a
draw; with `side: long` a wide matrix takes the branch it should (GaLore's reverse_std crashes at r = m).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rankwise.optim.parts.descent import Batch, Descent, LowRank, State
from rankwise.optim.parts.rules import Adam, Elementwise, Factored, Rule, Sgd
from rankwise.optim.parts.stacked import DescentOptimizer, settings
from rankwise.optim.parts.subspace import Subspace, basis_numbers, each, project


class ProjectedAdam(DescentOptimizer):
    """Adam, or another inner rule, on projected gradients; vectors and `dense` groups by the rule alone.

    Args:
        params: parameters, or groups; any option may be given by group.
        lr: learning rate.
        rank: r, capped at the matrix's shorter side.
        rank_rule: fixed r; proportional (r / reference_width of the shorter side); percent of it; energy or svt (r is the cap).
        reference_width: the width at which a proportional rank is r.
        energy: share of the squared norm that rank_rule energy keeps.
        threshold: tau as a share of the largest singular value, for rank_rule svt.
        projector: svd and rsvd look at the gradient, dct picks columns of a fixed basis, the others draw from `seed`.
        side: what is projected: the short side, the long, left (rows), right (columns), or both.
        granularity: c of VLoRP: rows are cut in c pieces before projection; below 1, rows are glued.
        rule: adam, sgd, or factored (row and column sums for the second moment).
        scheme: subspace keeps moments of P'G, original of P P'G.
        transport: what becomes of the moments when the basis changes.
        sketch_factor, oversample, power_iterations: of rsvd, whose sketch has sketch_factor r + oversample columns.
        interval_steps: T, steps between refreshes.
        drift: refresh early below this share of the captured norm; 0 is never.
        random_from_step: from this step on the basis is a random orthonormal one.
        scale: what the projected step is multiplied by.
        betas, eps, convention: Adam's; see rules.adam_direction. transformers also decays after the step.
        momentum: of rule sgd.
        weight_decay: decoupled, per unit of learning rate.
        release: project each gradient as it appears and free it; bases are then found in a step's first micro-batch.
        seed: of sketches and random bases.

    Raises:
        ValueError: options that exclude each other, or a granularity that does not divide a matrix.
    """

    RELEASE = "gathered"
    VECTOR = "(2 if rule != 'sgd' else momentum > 0) * k"
    DENSE = "{'adam': 2 * k, 'sgd': (momentum > 0) * k, 'factored': k + m + n}[rule]"

    @classmethod
    def formula(
        cls, *, rule: str, scheme: str, side: str, momentum: float, **options: object
    ) -> str:
        """Numbers kept a matrix: the basis, and the rule's for what it sees."""
        rows, columns = (
            ("m", "n") if scheme == "original" else ("r", "r" if side == "both" else "L")
        )
        seen = f"{rows} * {columns}"
        kept = {
            "adam": f"2 * {seen}",
            "sgd": seen if momentum else "0",
            "factored": f"{seen} + {rows} + {columns}",
        }
        return f"{basis_numbers(side=side, **options)}{kept[rule]}"

    def __init__(
        self,
        params,
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

    def effective_rank(self) -> float | None:
        """Mean number of basis vectors in use a matrix, where the rank rule decides on them."""
        adaptive = [
            p for g in self.param_groups if g["rank_rule"] in ("energy", "svt") for p in g["params"]
        ]
        bases = [self.state[p]["basis"] for p in adaptive if "basis" in self.state[p]]
        return (
            torch.stack([(basis != 0).any(0).sum() for basis in bases]).double().mean().item()
            if bases
            else None
        )

    def descent(self, group: dict, param: Tensor) -> Descent:
        rules: dict[str, Rule] = {
            "adam": Adam(group["betas"], group["eps"], group["convention"]),
            "sgd": Sgd(group["momentum"]),
            "factored": Factored(group["betas"], group["eps"]),
        }
        rule = rules[group["rule"]]
        if group["dense"] or param.ndim < 2:
            return Elementwise(rule)
        return (Projected if group["scheme"] == "subspace" else Original)(
            Subspace.of(group), rule, group["scale"]
        )


@dataclass(frozen=True)
class Projected:
    """The inner rule on R = P'G; state: the basis and the rule's, of R's shape."""

    space: Subspace
    rule: Rule
    scale: float = 1.0

    def init_state(self, param: Tensor) -> State:
        return {**self.space.init_state(param), **self.rule.init_state(self.space.low(param))}

    def gather(self, batch: Batch, *, first: bool = True) -> Tensor:
        if first:
            self.space.refresh(batch, self.rule)
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[LowRank]:
        low = self.gather(batch) if batch.gathered is None else batch.gathered
        basis = each(self.space.basis(batch), len(batch.params))
        step = self.scale * self.rule.direction(low, batch.state, self.space.rule_step(batch.step))
        if "other_basis" in batch.state:
            step = step @ batch.state["other_basis"].mT
        for left, right in zip(basis, step, strict=True):
            yield LowRank(left, right, self.space.view)


@dataclass(frozen=True)
class Original(Projected):
    """The inner rule on P P'G, in the weight's own space (VLoRP's OS); state: the basis and the rule's, of W's shape."""

    def init_state(self, param: Tensor) -> State:
        return {**self.space.init_state(param), **self.rule.init_state(param.flatten(1))}

    def gather(self, batch: Batch, *, first: bool = True) -> Tensor:
        if first:
            self.space.refresh(batch, Sgd())  # moments of the original space need no transport
        return project(self.space, batch, self.space.basis(batch))

    def directions(self, batch: Batch) -> Iterator[Tensor]:
        low = self.gather(batch) if batch.gathered is None else batch.gathered
        basis = each(self.space.basis(batch), len(batch.params))
        if "other_basis" in batch.state:
            low = low @ batch.state["other_basis"].mT
        for index, (left, right) in enumerate(zip(basis, low, strict=True)):
            whole = torch.zeros_like(batch.params[index])
            self.space.view(whole).addmm_(left, right)
            state = {key: value[index] for key, value in batch.state.items()}
            yield self.scale * self.rule.direction(whole.flatten(1), state, batch.step).view_as(
                whole
            )
