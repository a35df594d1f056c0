"""Gradient release: step each parameter as its gradient appears in backward, then free that gradient (LOMO, 2306.09782).

A step then never holds all gradients at once. The price: gradients cannot be accumulated over backward passes, and their
global norm is not known before the first of them is used, so it cannot be clipped. With several processes the gradient is
averaged over them in the hook, layer by layer; the model itself must not be wrapped in DistributedDataParallel.
"""

from collections.abc import Callable

import torch
from torch import Tensor, distributed


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average_(tensor: Tensor) -> Tensor:
    """Replace `tensor` by its mean over the processes."""
    if processes() > 1:
        distributed.all_reduce(tensor)
        tensor.div_(processes())
    return tensor


class Releasing:
    """Mixed in before a torch optimizer: `release=True` moves its step into backward."""

    RELEASE = "fused"  # steps inside backward; "gathered" sums projections there, and `step()` steps
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
            raise RuntimeError("a released gradient has already been applied: backward ran twice before optimizer.step()")
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
            raise ValueError("closure: got one, allowed: none with release, which steps inside backward")
        self._done.clear()
        self._norms.clear()
        return None

    def gradients_bytes(self) -> int:
        """Bytes of the gradients that are there at once, at most: with release, those of the largest parameter."""
        sizes = [p.numel() * p.element_size() for group in self.param_groups for p in group["params"]]
        return max(sizes, default=0) if self.released else sum(sizes)

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients of this step, which release has used and freed already: known, not clipped."""
        return torch.linalg.vector_norm(torch.stack(self._norms))
