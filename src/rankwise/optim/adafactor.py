"""Adafactor as torch has it (Shazeer & Stern 2018, Algorithm 4): the second moment as row and column means, m + n numbers.

Torch's step is relative: the learning rate is multiplied by the weight's root mean square, max(eps2, RMS(W)), and capped at
1 / sqrt(t); decay is decoupled. A vector keeps its whole second moment. Each tensor has a step count (4 B).
"""

import torch

from rankwise.optim.parts.release import Releasing


class Adafactor(Releasing, torch.optim.Adafactor):
    """torch.optim.Adafactor; with `release` it steps inside backward."""

    STATE = "m + n + 1"
    VECTOR = "k + 1"

    def __init__(
        self,
        params,
        lr: float = 1e-2,
        *,
        beta2_decay: float = -0.8,
        clip: float = 1.0,
        weight_decay: float = 0.0,
        release: bool = False,
    ):
        super().__init__(params, lr, beta2_decay=beta2_decay, d=clip, weight_decay=weight_decay)
        if release:
            self.release()

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step, which the meta device cannot take."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = torch.empty_like(param)
            self._init_group(group, [], [], [], [], [], [])
        self.zero_grad()
