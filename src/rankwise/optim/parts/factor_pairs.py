"""AdamW for LoRA's factors, with gradients that are adjusted by pairs.

A pair is A (r, n), B (m, r) and the factor s of W' = W + s B A. With G the gradient of the loss
with respect to W', the factors' own gradients are s B'G and s G A'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.precision import wide
from rankwise.optim.parts.release import Releasing

Pairs = Sequence[tuple[Tensor, Tensor, float]]


class PairedAdamW(Releasing, torch.optim.AdamW):
    """AdamW whose subclass adjusts the gradients of pairs; other parameters step as in AdamW.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        pairs: (A, B, s) of every adapted matrix; without any, the optimizer is AdamW. A factor that
            is in no parameter group stays as it is.
        settings: the arguments of the subclass; all but the pairs are options of every group.

    Raises:
        ValueError: an option has a wrong value, or A and B have no product.
    """

    STATE = "2 * m * n + 1"
    VECTOR = "2 * k + 1"
    DENSE = "2 * k + 1"

    def __init__(self, params: ParamsT, lr: float, pairs: Pairs, settings: dict):
        options = {name: value for name, value in settings.items() if name != "pairs"}
        self.check_options({"lr": lr, **options})
        self.pairs = [(a, b, float(scale)) for a, b, scale in pairs]
        for number, (a, b, _) in enumerate(self.pairs):
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
                raise ValueError(
                    f"{type(self).__name__}: pairs[{number}]: got shapes {tuple(a.shape)} and "
                    f"{tuple(b.shape)}, allowed: A of (r, n) and B of (m, r)"
                )
        adam = {name: options[name] for name in ("betas", "eps", "weight_decay")}
        super().__init__(params, lr, **{**adam, "betas": tuple(adam["betas"])})
        own = {name: value for name, value in options.items() if name not in adam}
        # torch's AdamW knows only its own options: ours are added to the groups that it has made.
        self.defaults.update(own)
        for group in self.param_groups:
            group.update({**own, **group})

    def adjusted(
        self,
        a: Tensor,  # (r, n)
        b: Tensor,  # (m, r)
        scale: float,
        group: dict,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients with which A and B step, in new memory; None for one that has none.

        Args:
            a: A, with its gradient.
            b: B, with its gradient.
            scale: s.
            group: the parameter group of B, with the options.

        Raises:
            NotImplementedError: a subclass must define it.
        """
        raise NotImplementedError

    @torch.no_grad()
    def _step_all(self) -> None:
        """Step with the adjusted gradients in place of the real ones, and put those back."""
        groups = {id(param): group for group in self.param_groups for param in group["params"]}
        originals = {}
        for a, b, scale in self.pairs:
            if id(b) not in groups:
                continue
            adjusted = self.adjusted(a, b, scale, groups[id(b)])
            for param, grad in zip((a, b), adjusted, strict=True):
                if grad is not None:
                    originals[param] = param.grad
                    param.grad = grad.to(param.dtype)
        try:
            super()._step_all()
        finally:
            for param, grad in originals.items():
                param.grad = grad

    def release(self) -> None:
        """Refused: a pair steps with both of its gradients.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"release: not supported by {type(self).__name__}, which needs the gradients of A and "
            "B at once"
        )

    def __getstate__(self) -> dict:
        """Return what a copy or a pickle keeps: the pairs, too."""
        return {**super().__getstate__(), "pairs": self.pairs}


class Spectrum(NamedTuple):
    """The eigenvalues and eigenvectors of a Gram matrix S = Q diag(values) Q'."""

    values: Tensor  # (r), 0 or more
    vectors: Tensor  # (r, r)

    def inverse(self, damping: float) -> Tensor:  # (r, r)
        """(S + damping I)^-1."""
        return (self.vectors / (self.values + damping)) @ self.vectors.mT


def row_gram(
    a: Tensor,  # (r, n)
) -> Spectrum:
    """The spectrum of A A', in fp32 or fp64."""
    values, vectors = torch.linalg.eigh(wide(a) @ wide(a).mT)
    return Spectrum(values.clamp(min=0), vectors)  # rounding can make a zero negative
