"""Gradient release: each gradient is used and freed as soon as backward has computed it.

Memory then holds one full gradient at a time instead of all of them (LOMO: Lv et al. 2023, arXiv
2306.09782). An optimizer releases in one of two ways, which its constant `RELEASE` names.

"fused" (AdamW, SGD, Adafactor, Fira, APOLLO, Flora, LDAdam, TopR, LOMO, AdaLomo): each parameter
steps inside backward. Every step is then bitwise the step without release. Two things become
impossible, and a study that asks for one of them is refused while it is planned:

- Gradients cannot be accumulated. A second backward before `step()` raises an error.
- Gradients cannot be clipped by their global norm, because that is known only when all of them have
  been used. `gradient_norm()` returns it afterwards.

"gathered" (ProjectedAdam, ProjFactor): each gradient is projected inside backward, the projection
is added to a small buffer, and `step()` steps. Micro-batches accumulate exactly, because
projections are linear and the basis does not change within a step; a refresh looks at the first
micro-batch only. `clip_grad_norm_` clips the projections. Gradients that are not projected (of
vectors and of groups with `dense`) stay until the step.

With several processes the model is not wrapped in DistributedDataParallel. Fused optimizers average
each gradient over the processes in its hook; gathering ones average the projections before the
step. The first process's bases are used by all. State dicts are taken between steps, when nothing
is gathered, so a checkpoint does not depend on release.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rankwise.optim.parts.processes import average_


class Releasing:
    """Mixin in front of a torch optimizer: `release()` moves its step into backward.

    It also holds the three formulas for the numbers that an optimizer keeps between steps, as
    Python expressions. Their names: m rows, n columns; s the projected side, L the other one; r the
    rank; k the numbers of a vector; and the optimizer's own options.
    """

    RELEASE = "fused"  # or "gathered"; the module's docstring explains both
    STATE = "2 * m * n"  # numbers kept per matrix
    VECTOR = "2 * k"  # numbers kept per vector
    DENSE = "2 * k"  # numbers kept per matrix of k numbers in a group with `dense`
    released = False

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, for the given options.

        Args:
            **options: every option of the optimizer, by name.

        Returns:
            A Python expression in the names that the class lists.
        """
        return cls.STATE

    def release(self) -> None:
        """From now on step inside backward; `step()` only marks the end of a step."""
        self.released = True
        self._done: set[int] = set()  # ids of the parameters that have stepped in this backward
        self._norms: list[Tensor] = []
        for group in self.param_groups:
            self._watch(group["params"])

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch; it is released too if the optimizer is."""
        super().add_param_group(param_group)
        if self.released:
            self._watch(self.param_groups[-1]["params"])

    def _watch(self, params: list[Tensor]) -> None:
        for param in params:
            param.register_post_accumulate_grad_hook(self._on_gradient)

    @torch.no_grad()
    def _on_gradient(self, param: Tensor) -> None:
        """Step one parameter and free its gradient; torch calls this when it is complete."""
        if id(param) in self._done:
            raise RuntimeError(
                "released gradient: got a second backward before optimizer.step(), allowed: one, "
                "because this optimizer applies each gradient inside backward"
            )
        self._done.add(id(param))
        average_(param.grad)
        self._norms.append(torch.linalg.vector_norm(param.grad))
        self._step_of(param)
        param.grad = None

    def _step_of(self, param: Tensor) -> None:
        """Step `param`, the only one with a gradient: others are freed or still to come."""
        super().step()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step; with release it was taken in backward, and this marks its end.

        Args:
            closure: recomputes the loss, as in torch; not with release.

        Returns:
            The closure's loss, or None.

        Raises:
            ValueError: a closure with release.
        """
        if not self.released:
            return super().step(closure)
        if closure is not None:
            raise ValueError(
                "closure: got one, allowed: none with release, which steps in backward"
            )
        self._done.clear()
        self._norms.clear()
        return None

    def gradients_bytes(self) -> int:
        """Return the most bytes of gradients alive at once; with release, one parameter's."""
        sizes = []
        for group in self.param_groups:
            sizes += [param.numel() * param.element_size() for param in group["params"]]
        return max(sizes, default=0) if self.released else sum(sizes)

    def gradients(self) -> list[Tensor]:
        """Return all gradients that exist now."""
        params = [param for group in self.param_groups for param in group["params"]]
        return [param.grad for param in params if param.grad is not None]

    def gradient_norm(self) -> Tensor:  # ()
        """Return the norm of all gradients that were released since the last step.

        Raises:
            RuntimeError: no gradient was released since the last step.
        """
        if not self._norms:
            raise RuntimeError("gradient_norm: no gradient was released since the last step")
        return torch.linalg.vector_norm(torch.stack(self._norms))


def clip_norm_(tensors: list[Tensor], max_norm: float) -> Tensor:  # ()
    """Scale tensors in place to a joint norm of at most `max_norm`; return the norm before.

    The 1e-6 is that of torch.nn.utils.clip_grad_norm_.

    Args:
        tensors: gradients or projections, at least one.
        max_norm: largest allowed Euclidean norm of all entries together.

    Returns:
        The joint norm before scaling.

    Raises:
        RuntimeError: there are no tensors.
    """
    norms = torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
    norm = torch.linalg.vector_norm(norms)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for tensor in tensors:
        tensor.mul_(scale)
    return norm
