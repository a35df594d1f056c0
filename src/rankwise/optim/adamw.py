"""AdamW as torch has it (Loshchilov & Hutter 2019): the baseline. State: 2mn numbers and one step count (4 B) a tensor."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AdamW:
    """Settings, torch's defaults."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def build(self, params: Iterable[Tensor], learning_rate: float, seed: int = 0) -> torch.optim.Optimizer:
        """torch.optim.AdamW over `params`; it draws nothing, so `seed` is not used."""
        return torch.optim.AdamW(params, learning_rate, tuple(self.betas), self.eps, self.weight_decay)
