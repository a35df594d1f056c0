"""SGD as torch has it: mn numbers of momentum, none without it.

Unlike in our other optimizers decay is coupled: it is added to the gradient (L2 regularization).
"""

import torch
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.release import Releasing


class Sgd(Releasing, torch.optim.SGD):
    """torch.optim.SGD with gradient release.

        M <- momentum * M + G + weight_decay * W
        W <- W - lr * M

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        momentum: decay of M, in [0, 1); 0 keeps no state.
        weight_decay: coupled, added to the gradient.
        foreach: step all tensors at once, with temporary memory of all their sizes; torch's default
            on a GPU.
        fused: step by one kernel, without temporary memory.
        release: step inside backward and free each gradient.

    References:
        Sutskever et al. 2013, On the importance of initialization and momentum in deep learning;
        torch multiplies M, not G, by the learning rate.

    Example:
        >>> optimizer = Sgd(model.parameters(), lr=1e-2, momentum=0.9)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    COMPLEX = True
    HALF = True
    SPARSE = True
    SHARDED = True
    STATE = "(momentum > 0) * m * n"
    VECTOR = "(momentum > 0) * k"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        fused: bool | None = None,
        release: bool = False,
    ):
        self.check_options({**settings(locals()), "release": release})
        kernels = {"foreach": foreach, "fused": fused}
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay, **kernels)
        if release:
            self.release()
