"""AdamW as torch has it (Loshchilov & Hutter 2019), the baseline of all comparisons.

Its state is 2mn numbers and one step count (4 bytes) per tensor.
"""

import torch
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.release import Releasing


class AdamW(Releasing, torch.optim.AdamW):
    """torch.optim.AdamW with gradient release.

        m <- b1 m + (1 - b1) G
        v <- b2 v + (1 - b2) G^2
        W <- (1 - lr * weight_decay) W - lr * m_hat / (sqrt(v_hat) + eps)

    m_hat and v_hat are corrected for their start at zero, by 1 / (1 - b^t). With release the steps
    are bitwise the same; gradients can then be neither accumulated nor clipped.

    Where we differ from transformers' Trainer: it exempts biases and the weights of normalisation
    from the decay. Here all that trains decays, as torch's optimizer does.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        betas: decays of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, per unit of learning rate.
        foreach: step all tensors at once, with temporary memory of all their sizes; torch's default
            on a GPU.
        fused: step by one kernel, without temporary memory.
        release: step inside backward and free each gradient.

    References:
        Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, arXiv 1711.05101, Algorithm
        2.

    Example:
        >>> optimizer = AdamW(model.parameters(), lr=1e-5, release=True)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    COMPLEX = True
    SHARDED = True
    STATE = "2 * m * n + 1"
    VECTOR = "2 * k + 1"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        foreach: bool | None = None,
        fused: bool | None = None,
        release: bool = False,
    ):
        self.check_options({**settings(locals()), "release": release})
        kernels = {"foreach": foreach, "fused": fused}
        super().__init__(params, lr, tuple(betas), eps, weight_decay, **kernels)
        if release:
            self.release()
