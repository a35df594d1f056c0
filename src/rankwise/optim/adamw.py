"""AdamW as torch has it (Loshchilov & Hutter 2019): the baseline. State: 2mn numbers and one step count (4 B) a tensor."""

import torch

from rankwise.optim.parts.release import Releasing


class AdamW(Releasing, torch.optim.AdamW):
    """torch.optim.AdamW; with `release` it steps inside backward, bitwise the same without clipping and accumulation."""

    STATE = "2 * m * n + 1"
    VECTOR = "2 * k + 1"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        release: bool = False,
    ):
        super().__init__(params, lr, tuple(betas), eps, weight_decay)
        if release:
            self.release()
