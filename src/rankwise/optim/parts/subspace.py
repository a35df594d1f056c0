"""The subspace that gradients are projected to: which side, which basis, what rank, when it is refreshed.

A gradient G (m, n) is seen as (s, L): s the side that is projected, L the other one (`Subspace.view`). P (s, r) is its
basis, R = P'G (r, L) the projected gradient; with `side: both`, R = P'G Q (r, r).
"""

from dataclasses import dataclass, fields
from fractions import Fraction

import torch
from torch import Tensor, distributed
from torch.utils._python_dispatch import _disable_current_modes

from rankwise.optim.parts import projectors
from rankwise.optim.parts.descent import Batch, State
from rankwise.optim.parts.release import processes
from rankwise.optim.parts.rules import Rule


@dataclass(frozen=True)
class Subspace:
    """Settings; the names and defaults are those of ProjectedAdam, which documents them."""

    rank: int
    projector: str = "svd"
    side: str = "short"
    granularity: float = 1.0
    rank_rule: str = "fixed"
    reference_width: int = 768
    energy: float = 0.9
    threshold: float = 0.1
    oversample: int = 4
    sketch_factor: int = 1
    power_iterations: int = 1
    interval_steps: int = 200
    drift: float = 0.0
    random_from_step: int | None = None
    transport: str = "none"
    seed: int = 0

    @classmethod
    def of(cls, group: dict) -> "Subspace":
        """The subspace that a parameter group's options describe."""
        return cls(
            **{field.name: group[field.name] for field in fields(cls) if field.name in group}
        )

    def __post_init__(self):
        if self.rank < 1 or self.interval_steps < 1:
            raise ValueError(
                f"rank, interval_steps: got {self.rank}, {self.interval_steps}, allowed: 1 and more"
            )
        spectral = {
            "rank_rule": self.rank_rule in ("energy", "svt"),
            "side": self.side == "both",
            "random_from_step": self.random_from_step is not None,
            "drift": self.drift > 0,
        }
        for option in (
            name
            for name, asked in spectral.items()
            if asked and self.projector not in ("svd", "rsvd")
        ):
            raise ValueError(
                f"{option} {getattr(self, option)}: got projector {self.projector}, allowed: svd, rsvd"
            )
        if self.transport != "none" and (
            self.drift or (self.side == "both" and self.transport == "project")
        ):
            raise ValueError(
                f"transport: got {self.transport}, allowed: none with drift; none, reset with side both"
            )

    @property
    def redrawn(self) -> bool:
        """Whether the basis is drawn from a seed whenever it is needed, and not kept."""
        return self.projector in projectors.DRAWN

    # Shapes -----------------------------------------------------------------------------------------------------------

    def view(self, matrix: Tensor) -> Tensor:
        """The tensor as (s, L), sharing its memory; more than two dimensions are (first, rest).

        With granularity c each row of a tall matrix is cut in c pieces, or 1/c rows are glued; on the left side of a wide
        one c consecutive rows are joined (VLoRP: 2505.01744).

        Raises:
            ValueError: c does not divide the sides.
        """
        matrix = matrix.view(matrix.shape[0], -1)
        m, n = matrix.shape
        right = (
            self.side == "right"
            or (self.side == "short" and m >= n)
            or (self.side in ("long", "both") and m < n)
        )
        if self.granularity != 1:
            c = Fraction(self.granularity).limit_denominator(
                10**6
            )  # 1/3 is meant, not its nearest float
            c = c if right else 1 / c
            rows, columns = m * c, n / c
            if rows != int(rows) or columns != int(columns):
                raise ValueError(
                    f"granularity: got {self.granularity:g}, allowed: what divides the sides of a {m} x {n} matrix"
                )
            matrix = matrix.view(int(rows), int(columns))
        return matrix.mT if right else matrix

    def matrix_rank(self, size: int, other: int) -> int:
        """The rank of one matrix (s, L), at least 1 and at most its shorter side."""
        short = min(size, other)
        wanted = {
            "proportional": self.rank * short // self.reference_width,
            "percent": self.rank * short // 100,
        }
        return min(max(1, wanted.get(self.rank_rule, self.rank)), short)

    def shape(self, param: Tensor) -> tuple[int, int, int]:
        """(s, L, r) of a parameter."""
        with (
            _disable_current_modes()
        ):  # only a shape: not for the eyes of those who count allocations
            size, other = self.view(torch.empty(param.shape, device="meta")).shape
        return size, other, self.matrix_rank(size, other)

    def low(self, param: Tensor) -> Tensor:
        """An empty tensor of the projected gradient's shape."""
        _, other, rank = self.shape(param)
        return param.new_empty(rank, rank if self.side == "both" else other)

    def init_state(self, param: Tensor) -> State:
        """What is kept of the basis: nothing if it is redrawn, r indices for dct, else s r numbers."""
        size, other, rank = self.shape(param)
        if self.redrawn:
            return {}
        if self.projector == "dct":
            return {"columns": torch.zeros(rank, dtype=torch.int32, device=param.device)}
        state = {"basis": param.new_zeros(size, rank)}
        if self.side == "both":
            state["other_basis"] = param.new_zeros(other, rank)
        if self.drift:
            state["captured"] = param.new_zeros(())
        return state

    # Bases ------------------------------------------------------------------------------------------------------------

    def refresh(self, batch: Batch, rule: Rule) -> None:
        """Where it is due, look for a new basis in `batch.grads` and carry the rule's state over to it."""
        due = (batch.step - 1) % self.interval_steps == 0
        stale = _shared(self._stale(batch)) if self.drift and not due else None
        if not due and (stale is None or not stale.any()):
            return
        grads = [self.view(grad.contiguous()) for grad in batch.grads]
        old = (
            self.basis(batch, batch.step - 1)
            if self.transport == "project" and batch.step > 1
            else None
        )
        self._look(batch, grads, stale)
        if old is not None:
            rule.transport(batch.state, self.basis(batch).mT @ old, batch.step - 1)
        elif self.transport == "reset" and batch.step > 1:
            for name in rule.init_state(self.low(batch.params[0])):
                batch.state[name].zero_()
        if self.drift:
            batch.state["captured"].copy_(_shared(self._captured(batch)))

    def rule_step(self, step: int) -> int:
        """The step that the inner rule counts: since the last reset where its state is reset."""
        return (step - 1) % self.interval_steps + 1 if self.transport == "reset" else step

    def basis(self, batch: Batch, step: int | None = None) -> Tensor:
        """P at a step (the batch's by default): (B, s, r), or (s, r) where all matrices share one draw."""
        like = batch.params[0]
        size, _, rank = self.shape(like)
        if self.redrawn:
            return projectors.draw(
                self.projector, size, rank, self._generator(step or batch.step, like), like
            )
        if "columns" in batch.state:
            return projectors.dct_basis(batch.state["columns"], size, like)
        kept = batch.state["basis"]
        return kept if step is None else kept.clone()

    def _look(self, batch: Batch, grads: list[Tensor], stale: Tensor | None) -> None:
        if self.redrawn:
            return
        if "columns" in batch.state:
            batch.state["columns"].copy_(
                _shared(projectors.dct(grads, batch.state["columns"].shape[-1]))
            )
            return
        self._put(batch.state["basis"], self._found(batch, grads), stale)
        if "other_basis" in batch.state:
            self._put(batch.state["other_basis"], self._found(batch, [g.mT for g in grads]), stale)

    @staticmethod
    def _put(kept: Tensor, new: Tensor, stale: Tensor | None) -> None:
        new = _shared(new.to(kept.dtype))
        kept.copy_(new if stale is None else torch.where(stale[:, None, None], new, kept))

    def _found(self, batch: Batch, grads: list[Tensor]) -> Tensor:  # (B, s, r)
        rank, generator = (
            self.matrix_rank(*grads[0].shape),
            self._generator(batch.step, batch.params[0]),
        )
        if self.random_from_step is not None and batch.step >= self.random_from_step:
            random = projectors.draw(
                "orthonormal", grads[0].shape[0], rank, generator, batch.params[0]
            )
            return random.expand(len(grads), -1, -1)
        if self.projector == "svd":
            basis, values = projectors.svd(grads, rank)
        else:
            extra = (self.sketch_factor - 1) * rank + self.oversample
            basis, values = projectors.rsvd(grads, rank, extra, self.power_iterations, generator)
        return basis * self._weights(values[:, :rank], grads)[:, None, :]

    def _weights(self, values: Tensor, grads: list[Tensor]) -> Tensor:  # (B, r)
        """What each basis vector is scaled by: 0 cuts it off.

        energy: the fewest whose squares hold that share of ||G||^2 (AdaRankGrad: 2410.17881). svt: sqrt(max(1 - tau/sigma, 0))
        with tau = threshold sigma_1, so that P P'G = U max(S - tau, 0) V' at a refresh (Cai, Candes & Shen 2010).
        """
        if self.rank_rule == "energy":
            total = torch.stack(
                [torch.linalg.vector_norm(g, dtype=values.dtype) ** 2 for g in grads]
            )
            before = values.square().cumsum(1) - values.square()
            kept = (before < self.energy * total[:, None]) | (
                total[:, None] == 0
            )  # of a gradient of zeros all
            return kept.to(values.dtype)
        if self.rank_rule == "svt":
            return (
                (
                    1
                    - self.threshold
                    * values[:, :1]
                    / values.clamp(min=torch.finfo(values.dtype).tiny)
                )
                .clamp(min=0)
                .sqrt()
            )
        return torch.ones_like(values)

    def _generator(self, step: int, like: Tensor) -> torch.Generator | None:
        """Seeded by the optimizer's seed and the step of the last refresh, on the parameter's own device."""
        if like.is_meta:
            return None
        window = step - (step - 1) % self.interval_steps if self.redrawn else step
        return torch.Generator(like.device).manual_seed(self.seed * 1_000_003 + window)

    def _captured(self, batch: Batch) -> Tensor:  # (B,)
        """||P'G|| / ||G||: how much of the gradient the basis still sees; 1 of a gradient of zeros."""
        grads = [self.view(grad.contiguous()) for grad in batch.grads]
        norm = torch.linalg.vector_norm
        share = torch.stack(
            [norm(p.mT @ g) / norm(g) for p, g in zip(self.basis(batch), grads, strict=True)]
        )
        return share.nan_to_num(nan=1.0)

    def _stale(self, batch: Batch) -> Tensor:  # (B,)
        return self._captured(batch) < self.drift * batch.state["captured"]


def project(
    space: Subspace,
    batch: Batch,
    basis: Tensor,  # (B, s, r) or (s, r)
) -> Tensor:  # (B, r, L), or (B, r, r) for both sides
    """R = P'G, matrix by matrix, so that no gradient is copied."""
    grads = [space.view(grad.contiguous()) for grad in batch.grads]
    low = torch.stack([p.mT @ g for p, g in zip(each(basis, len(grads)), grads, strict=True)])
    return low @ batch.state["other_basis"] if space.side == "both" else low


def each(basis: Tensor, count: int) -> Tensor:  # (B, s, r)
    """One basis a matrix, where they may share it."""
    return basis if basis.ndim == 3 else basis.expand(count, -1, -1)


def _shared(found: Tensor) -> Tensor:
    """The first process's, so that all project alike."""
    if processes() > 1:
        found = found.contiguous()
        distributed.broadcast(found, 0)
    return found


def basis_numbers(*, projector: str, side: str = "short", drift: float = 0.0, **_: object) -> str:
    """The start of a formula of numbers kept: those of the basis, and with `drift` what it captured."""
    kept = {"svd": "s * r + ", "rsvd": "s * r + ", "dct": "r + "}.get(projector, "")
    return f"{'1 + ' if drift else ''}{'L * r + ' if side == 'both' else ''}{kept}"
