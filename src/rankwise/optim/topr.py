"""TopR: AdamW on the largest entries of each gradient.

Source: published system A, its "LoRA + TopR". Error feedback: Stich et al. 2018, arXiv 1809.07599.
The moments stay dense, so entries that are masked now go on moving by momentum and decay. TopR
filters gradients; it neither trains sparsely nor saves memory. Where we differ from the published
code: `least=0` is its form, in which a tensor of two entries gets no gradient at fraction 0.3 or
less. Our default is 1. Error feedback and lazy steps are additions.
"""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.release import Releasing


class TopR(Releasing, torch.optim.AdamW):
    """AdamW on the top `fraction` of each gradient's entries by magnitude.

        k = max(least, floor(fraction * number of entries))
        g <- the k largest |G|, or |G + E| with error feedback; zero elsewhere
        E <- G + E - g
        W <- AdamW(g)

    A fraction of 1 is AdamW, bitwise.

    Args:
        params: parameters, or parameter groups; every option may also be set by group.
        lr: learning rate.
        fraction: share of each tensor's entries that is kept, in (0, 1].
        least: fewest entries kept per tensor.
        error_feedback: add what was dropped to the next gradient, at mn numbers more of state.
        lazy: move kept entries only.
        betas: decays of Adam's two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.

    References:
        Stich et al. 2018, Sparsified SGD with Memory, arXiv 1809.07599 (`error_feedback`).

    Example:
        >>> optimizer = TopR(model.parameters(), lr=1e-4, fraction=0.1)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    COMPLEX = True
    VECTOR = "(2 + error_feedback) * k + 1"

    def __init__(
        self,
        params: ParamsT,
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
        self.check_options({**settings(locals()), "release": release})
        super().__init__(params, lr, tuple(betas), eps, weight_decay)
        # torch's AdamW knows only its own options: ours are added to the groups that it has made.
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

    @classmethod
    def formula(cls, *, error_feedback: bool, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, with or without the error."""
        return "3 * m * n + 1" if error_feedback else "2 * m * n + 1"

    @torch.no_grad()
    def _step_all(self) -> None:
        """Take torch's step with masked gradients in place of the real ones, and put those back."""
        groups = {}  # of every parameter that has a gradient
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    groups[param] = group
        original_grads = {param: param.grad for param in groups}
        before = {param: param.clone() for param, group in groups.items() if group["lazy"]}
        errors = {}
        # Errors are out of the state during the step: torch initializes the state only if it is
        # empty.
        for param, group in groups.items():
            whole = param.grad
            if group["error_feedback"]:
                whole = param.grad + self.state[param].pop("error", 0)
            count = max(group["least"], int(group["fraction"] * whole.numel()))
            param.grad = top(whole, count)
            if group["error_feedback"]:
                errors[param] = whole - param.grad
        super()._step_all()
        for param, old in before.items():
            param.copy_(torch.where(param.grad == 0, old, param))
        for param, grad in original_grads.items():
            param.grad = grad
            if param in errors:
                self.state[param]["error"] = errors[param]


def top(
    grad: Tensor,  # any shape
    count: int,
) -> Tensor:  # as grad
    """Return the `count` entries of largest magnitude, zero elsewhere.

    Which of several equal entries are kept is arbitrary.

    Args:
        grad: a gradient.
        count: how many entries are kept.

    Returns:
        A new tensor, or `grad` itself if all entries are kept.

    References:
        Stich et al. 2018, Sparsified SGD with Memory, arXiv 1809.07599 (its top-k operator).
    """
    if count >= grad.numel():
        return grad
    kept = grad.abs().flatten().topk(count).indices
    flat = torch.zeros_like(grad).flatten()
    return flat.index_copy_(0, kept, grad.flatten()[kept]).view_as(grad)
