"""SGD as torch has it, m <- mu m + g, W <- W - lr m: mn numbers of momentum, none without it. Decay is coupled (L2)."""

import torch

from rankwise.optim.parts.release import Releasing


class Sgd(Releasing, torch.optim.SGD):
    """torch.optim.SGD; with `release` it steps inside backward."""

    STATE = "(momentum > 0) * m * n"
    VECTOR = "(momentum > 0) * k"

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        release: bool = False,
    ):
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay)
        if release:
            self.release()
