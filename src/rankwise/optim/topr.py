"""TopR: AdamW on the largest entries of each gradient (published system A, its "LoRA + TopR").

Of each tensor the k = max(least, floor(fraction numel)) largest |g| are kept, the rest are zero; then AdamW as torch has it.
`least: 0` is the published form, in which a tensor of two entries gets no gradient at fraction 0.3 or less; `least: 1` is
sound. The moments stay dense, so that masked entries go on moving by momentum and decay: it filters gradients, it does not
train sparsely, and it saves no memory. `error_feedback` adds what was dropped to the next gradient, e <- g + e - top(g + e)
(Stich et al. 2018), at mn numbers more. `lazy` moves kept entries only. Fraction 1 is AdamW, bitwise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rankwise.optim.parts.release import Releasing


class TopR(Releasing, torch.optim.AdamW):
    """AdamW on the top `fraction` of each gradient's entries, at least `least`."""

    @classmethod
    def formula(cls, *, error_feedback: bool, **options: object) -> str:
        return "3 * m * n + 1" if error_feedback else "2 * m * n + 1"

    VECTOR = "(2 + error_feedback) * k + 1"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        fraction: float = 0.1,
        least: int = 1,
        error_feedback: bool = False,
        lazy: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        release: bool = False,
    ):
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction: got {fraction}, allowed: above 0, at most 1")
        super().__init__(params, lr, tuple(betas), eps, weight_decay)
        options = {
            "fraction": fraction,
            "least": least,
            "error_feedback": error_feedback,
            "lazy": lazy,
        }
        self.defaults.update(options)
        for group in self.param_groups:
            group.update({**options, **group})
        if release:
            self.release()

    @torch.no_grad()
    def _masked_step(self, step: Callable, *arguments: object) -> Tensor | None:
        """Step with masked gradients in the place of the real ones, which come back untouched."""
        groups = {
            p: group for group in self.param_groups for p in group["params"] if p.grad is not None
        }
        given = {p: p.grad for p in groups}
        before = {p: p.clone() for p, group in groups.items() if group["lazy"]}
        errors = {}
        for param, group in groups.items():
            feedback = group["error_feedback"]
            whole = param.grad + self.state[param].pop("error", 0) if feedback else param.grad
            param.grad = top(whole, max(group["least"], int(group["fraction"] * whole.numel())))
            if feedback:
                errors[param] = whole - param.grad
        loss = step(*arguments)
        for param, old in before.items():
            param.copy_(torch.where(param.grad == 0, old, param))
        for param, grad in given.items():
            param.grad = grad
            if param in errors:
                self.state[param]["error"] = errors[param]
        return loss

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step; with release it has happened in backward."""
        if self.released:
            return super().step(closure)
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self._masked_step(super().step)
            return loss
        return self._masked_step(super().step)

    def _step_of(self, param: Tensor) -> None:
        self._masked_step(lambda: super(Releasing, self).step())


def top(grad: Tensor, count: int) -> Tensor:
    """The `count` entries of largest magnitude, the others zero; ties arbitrary."""
    if count >= grad.numel():
        return grad
    kept = grad.abs().flatten().topk(count).indices
    return torch.zeros_like(grad).flatten().index_copy_(0, kept, grad.flatten()[kept]).view_as(grad)
