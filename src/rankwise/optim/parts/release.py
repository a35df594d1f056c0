"""Gradient release: `release: true` uses each gradient as it appears in backward and frees it (LOMO, 2306.09782).

A step then never holds all gradients at once. An optimizer releases in one of two ways.

fused (AdamW, SGD, Adafactor, Fira, APOLLO, Flora, LDAdam, TopR, LOMO, AdaLomo): the parameter steps inside backward. Nothing
can be accumulated (a second backward before `step()` is an error), and the global norm is known only afterwards, by
`gradient_norm`, so nothing is clipped; a study that asks for either is refused while planning. Without both, every step is
bitwise the one without release.

gathered (ProjectedAdam, ProjFactor): the gradient is projected and added to a small buffer, and `step()` steps. Micro-batches
accumulate in the subspace, exactly, for the basis stays the same within a step; a refresh looks at the first micro-batch.
`clip_grad_norm_` clips in the subspace. Gradients that are not projected (vectors, dense groups) stay until the step.

Several processes: the model is not wrapped in DistributedDataParallel; what is released is averaged over the processes, fused
in the hook, layer by layer, gathered at the step, projected and small. Bases come from the first process. Resuming: state dicts
are taken between steps, when nothing is gathered, and hold nothing of release.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many processes train together."""
    return (
        distributed.get_world_size()
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def average_(tensor: Tensor) -> Tensor:
    """Replace `tensor` by its mean over the processes."""
    if processes() > 1:
        distributed.all_reduce(tensor)
        tensor.div_(processes())
    return tensor


class Releasing:
    """Mixed in before a torch optimizer: `release=True` moves its step into backward."""

    RELEASE = (
        "fused"  # steps inside backward; "gathered" sums projections there, and `step()` steps
    )
    STATE = "2 * m * n"  # numbers kept a matrix (m, n), seen as (s, L) and projected to (r, L)
    VECTOR = "2 * k"  # numbers kept a vector of k
    DENSE = "2 * k"  # numbers kept a matrix of k numbers in a dense group
    released = False

    @classmethod
    def formula(cls, **options: object) -> str:
        """STATE for the given options."""
        return cls.STATE

    def release(self) -> None:
        """From now on, step inside backward; `step()` only closes the step."""
        self.released, self._done, self._norms = True, set(), []
        for group in self.param_groups:
            self._watch(group["params"])

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        if self.released:
            self._watch(self.param_groups[-1]["params"])

    def _watch(self, params: list[Tensor]) -> None:
        for param in params:
            param.register_post_accumulate_grad_hook(self._on_gradient)

    @torch.no_grad()
    def _on_gradient(self, param: Tensor) -> None:
        if id(param) in self._done:
            raise RuntimeError(
                "a released gradient has already been applied: backward ran twice before optimizer.step()"
            )
        self._done.add(id(param))
        average_(param.grad)
        self._norms.append(torch.linalg.vector_norm(param.grad))
        self._step_of(param)
        param.grad = None

    def _step_of(self, param: Tensor) -> None:
        """Step the one parameter that has a gradient: all others are freed or yet to come."""
        super().step()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step; with release it has happened in backward."""
        if not self.released:
            return super().step(closure)
        if closure is not None:
            raise ValueError(
                "closure: got one, allowed: none with release, which steps inside backward"
            )
        self._done.clear()
        self._norms.clear()
        return None

    def gradients_bytes(self) -> int:
        """Bytes of the gradients that are there at once, at most: with release, those of the largest parameter."""
        sizes = [
            p.numel() * p.element_size() for group in self.param_groups for p in group["params"]
        ]
        return max(sizes, default=0) if self.released else sum(sizes)

    def gradients(self) -> list[Tensor]:
        """The gradients that are there, and what stands for those that are not."""
        return [
            p.grad for group in self.param_groups for p in group["params"] if p.grad is not None
        ]

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients of this step, which release has used and freed already: known, not clipped.

        Raises:
            RuntimeError: no gradient has come since the last step.
        """
        if not self._norms:
            raise RuntimeError("gradient_norm: no gradient has been released since the last step")
        return torch.linalg.vector_norm(torch.stack(self._norms))
