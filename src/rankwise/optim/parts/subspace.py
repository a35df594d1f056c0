"""The subspace of one parameter: which side is projected, onto which basis, and when that changes.

A gradient G (m, n) is seen as (s, L), where s is the side that is projected. P (s, r) is the basis
and R = P^T G (r, L) the projected gradient. With `side="both"` a second basis Q (L, r) projects the
other side too: R = P^T G Q (r, r).
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from rankwise.optim.parts import projectors, shapes
from rankwise.optim.parts.descent import Batch, State
from rankwise.optim.parts.processes import from_first_process
from rankwise.optim.parts.rules import Rule


@dataclass(frozen=True)
class Subspace:
    """Settings of a subspace; the bases themselves are in the optimizer's state.

    Names, defaults and allowed values are those of `ProjectedAdam`, which documents them.

    Raises:
        ValueError: two settings exclude each other.
    """

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
        """Return the subspace that a parameter group's options describe."""
        names = [field.name for field in fields(cls) if field.name in group]
        return cls(**{name: group[name] for name in names})

    def __post_init__(self):
        self._check_projector()
        self._check_transport()

    def _check_projector(self) -> None:
        """Refuse options that need singular vectors where the basis is drawn or fixed."""
        needs_svd = {
            "rank_rule": self.rank_rule in ("energy", "svt"),
            "side": self.side == "both",
            "random_from_step": self.random_from_step is not None,
            "drift": self.drift > 0,
        }
        for name, is_used in needs_svd.items():
            if is_used and self.projector not in ("svd", "rsvd"):
                raise ValueError(
                    f"projector: got {self.projector}, "
                    f"allowed: svd or rsvd with {name} {getattr(self, name)}"
                )

    def _check_transport(self) -> None:
        """Refuse transports that have no meaning.

        With drift only some matrices of a batch get a new basis. With two bases a moment would need
        a rotation on either side.
        """
        if self.drift and self.transport != "none":
            raise ValueError(f"transport: got {self.transport}, allowed: none with drift")
        if self.side == "both" and self.transport == "project":
            raise ValueError("transport: got project, allowed: none or reset with side both")

    @property
    def redrawn(self) -> bool:
        """Whether the basis is drawn from a seed whenever it is needed, and not kept."""
        return self.projector in projectors.DRAWN

    # Shapes ---------------------------------------------------------------------------------------

    def view(self, matrix: Tensor) -> Tensor:  # (m, ...) -> (s, L)
        """View a weight or gradient as (s, L), sharing its memory.

        Raises:
            ValueError: the granularity does not divide its sides.
        """
        return shapes.as_projected(matrix, self.side, self.granularity)

    def matrix_rank(self, size: int, other: int) -> int:
        """Return the rank of one matrix (s, L), at least 1 and at most its shorter side.

        Args:
            size: s, the side that is projected.
            other: L, the other side.
        """
        return shapes.matrix_rank(size, other, self.rank, self.rank_rule, self.reference_width)

    def shape(self, param: Tensor) -> tuple[int, int, int]:
        """Return (s, L, r) of a parameter."""
        # The modes count allocations and FLOPs; this tensor exists for its shape only.
        with _disable_current_modes():
            size, other = self.view(torch.empty(param.shape, device="meta")).shape
        return size, other, self.matrix_rank(size, other)

    def low(self, param: Tensor) -> Tensor:  # (r, L), or (r, r) for both sides
        """Return an empty tensor of the shape of a parameter's projected gradient."""
        _, other, rank = self.shape(param)
        return param.new_empty(rank, rank if self.side == "both" else other)

    def init_state(self, param: Tensor) -> State:
        """Return what is kept of the basis: nothing if redrawn, r indices for dct, else P."""
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

    # Steps ----------------------------------------------------------------------------------------

    def basis(self, batch: Batch, step: int | None = None) -> Tensor:
        """Return P at a step, by default the batch's.

        Args:
            batch: parameters of one shape, with their state.
            step: the step for which a redrawn basis is drawn. For a kept basis the result is always
                the current one; with `step` it is a copy, which a refresh does not change.

        Returns:
            (B, s, r); or (s, r) where the basis is drawn, for all matrices share one draw.
        """
        like = batch.params[0]
        size, _, rank = self.shape(like)
        if self.redrawn:
            generator = self._generator(step or batch.step, like)
            return projectors.draw(self.projector, size, rank, generator, like)
        if "columns" in batch.state:
            return projectors.dct_basis(batch.state["columns"], size, like)
        kept = batch.state["basis"]
        return kept if step is None else kept.clone()

    def rule_step(self, step: int) -> int:
        """Return the step that the inner rule counts: from its last reset, if it is reset."""
        return (step - 1) % self.interval_steps + 1 if self.transport == "reset" else step

    def refresh(self, batch: Batch, rule: Rule) -> None:
        """If a refresh is due, find a new basis in the gradients and transport the rule's state.

        Args:
            batch: parameters of one shape, with their gradients; its state is updated in place.
            rule: the inner rule, whose tensors are in the batch's state too.

        References:
            Zhao et al. 2024, GaLore, arXiv 2403.03507, Algorithm 1.
            Robert et al. 2024, LDAdam, arXiv 2410.16103, eq. 5 (`transport="project"`).
        """
        due = (batch.step - 1) % self.interval_steps == 0
        stale = from_first_process(self._stale(batch)) if self.drift and not due else None
        if not due and (stale is None or not stale.any()):
            return
        grads = [self.view(grad.contiguous()) for grad in batch.grads]
        old = None
        if self.transport == "project" and batch.step > 1:
            old = self.basis(batch, batch.step - 1)
        self._renew(batch, grads, stale)
        if old is not None:
            rule.transport(batch.state, self.basis(batch).mT @ old, batch.step - 1)
        elif self.transport == "reset" and batch.step > 1:
            for name in rule.init_state(self.low(batch.params[0])):
                batch.state[name].zero_()
        if self.drift:
            batch.state["captured"].copy_(from_first_process(self._captured(batch)))

    def _renew(self, batch: Batch, grads: list[Tensor], stale: Tensor | None) -> None:
        """Put new bases into the state: of all matrices, or of the `stale` ones alone."""
        if self.redrawn:
            return
        if "columns" in batch.state:
            columns = projectors.dct(grads, batch.state["columns"].shape[-1])
            batch.state["columns"].copy_(from_first_process(columns))
            return
        _replace(batch.state["basis"], self._new_bases(batch, grads), stale)
        if "other_basis" in batch.state:
            transposed = [grad.mT for grad in grads]
            _replace(batch.state["other_basis"], self._new_bases(batch, transposed), stale)

    def _new_bases(
        self,
        batch: Batch,
        grads: list[Tensor],  # B times (s, L)
    ) -> Tensor:  # (B, s, r)
        rank = self.matrix_rank(*grads[0].shape)
        like = batch.params[0]
        generator = self._generator(batch.step, like)
        if self.random_from_step is not None and batch.step >= self.random_from_step:
            size = grads[0].shape[0]
            drawn = projectors.draw("orthonormal", size, rank, generator, like)
            return drawn.expand(len(grads), -1, -1)
        if self.projector == "svd":
            basis, values = projectors.svd(grads, rank)
        else:
            oversample = (self.sketch_factor - 1) * rank + self.oversample
            basis, values = projectors.rsvd(
                grads, rank, oversample, self.power_iterations, generator
            )
        return basis * self._weights(values[:, :rank], grads)[:, None, :]

    def _weights(self, values: Tensor, grads: list[Tensor]) -> Tensor:  # (B, r)
        """The factor of each basis vector; 0 removes it."""
        if self.rank_rule == "energy":
            return projectors.energy_weights(values, grads, self.energy)
        if self.rank_rule == "svt":
            return projectors.threshold_weights(values, self.threshold)
        return torch.ones_like(values)

    def _generator(self, step: int, like: Tensor) -> torch.Generator | None:
        """Seed a generator by the optimizer's seed and the step: a resumed run draws the same.

        A basis that is redrawn at every use is seeded by the step of its last refresh.
        """
        if like.is_meta:
            return None
        window = step - (step - 1) % self.interval_steps if self.redrawn else step
        return torch.Generator(like.device).manual_seed(self.seed * 1_000_003 + window)

    # Drift ----------------------------------------------------------------------------------------

    def _captured(self, batch: Batch) -> Tensor:  # (B,)
        """Return ||P^T G|| / ||G||: the share of the gradient that the basis sees."""
        norm = torch.linalg.vector_norm
        shares = []
        for grad, basis in zip(batch.grads, self.basis(batch), strict=True):
            seen = self.view(grad.contiguous())
            shares.append(norm(basis.mT @ seen) / norm(seen))
        # A gradient of zeros gives 0 / 0. Its basis is as good as any, so its share counts as 1.
        return torch.stack(shares).nan_to_num(nan=1.0)

    def _stale(self, batch: Batch) -> Tensor:  # (B,)
        """Which bases capture less than `drift` of what they captured when they were new."""
        return self._captured(batch) < self.drift * batch.state["captured"]


def _replace(kept: Tensor, new: Tensor, stale: Tensor | None) -> None:
    """Write new bases (B, s, r) into the state: all of them, or the stale ones alone."""
    new = from_first_process(new.to(kept.dtype))
    kept.copy_(new if stale is None else torch.where(stale[:, None, None], new, kept))


def project(
    space: Subspace,
    batch: Batch,
    basis: Tensor,  # (B, s, r) or (s, r)
) -> Tensor:  # (B, r, L), or (B, r, r) for both sides
    """Return R = P^T G, or P^T G Q for both sides; matrix by matrix, so no gradient is copied.

    Args:
        space: settings of the subspace.
        batch: parameters of one shape, with their gradients; its state holds Q.
        basis: P, from `Subspace.basis` or `each`.
    """
    grads = [space.view(grad.contiguous()) for grad in batch.grads]
    projected = [own.mT @ grad for own, grad in zip(each(basis, len(grads)), grads, strict=True)]
    low = torch.stack(projected)
    return low @ batch.state["other_basis"] if space.side == "both" else low


def each(basis: Tensor, count: int) -> Tensor:  # (B, s, r)
    """Return one basis per matrix, also where all of them share one.

    Args:
        basis: (B, s, r), or (s, r) if all matrices share it.
        count: B.

    Returns:
        `basis` itself, or B views of it.
    """
    return basis if basis.ndim == 3 else basis.expand(count, -1, -1)


def basis_numbers(*, projector: str, side: str = "short", drift: float = 0.0, **_: object) -> str:
    """Return the terms of a state formula that count the basis, each followed by " + ".

    Args:
        projector: as in `Subspace`.
        side: as in `Subspace`.
        drift: as in `Subspace`.
        **_: other options of the optimizer, which do not matter here.

    Returns:
        For example "s * r + "; nothing if the basis is drawn from a seed.
    """
    terms = []
    if drift:
        terms.append("1")
    if side == "both":
        terms.append("L * r")
    if projector in ("svd", "rsvd"):
        terms.append("s * r")
    elif projector == "dct":
        terms.append("r")
    return "".join(f"{term} + " for term in terms)
