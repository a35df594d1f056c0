"""Adafactor as torch has it: the second moment is kept as row and column means, m + n numbers.

Source: Shazeer & Stern 2018, arXiv 1804.04235, Algorithm 4. Torch's step is relative to the weight,
as in the paper (`scale_parameter=True` of transformers' Adafactor). transformers' Trainer turns
that off, so its Adafactor is another optimizer. A vector keeps its whole second moment. Each tensor
keeps a step count too (4 bytes). State has the weight's dtype, as torch has it. For weights in bf16
the second moment stops decaying after one or two thousand steps, when a step's share is rounded
away.
"""

import torch
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import settings
from rankwise.optim.parts.release import Releasing


class Adafactor(Releasing, torch.optim.Adafactor):
    """torch.optim.Adafactor with gradient release.

        v_r, v_c <- means of G^2 over rows and columns, with decay 1 - t^beta2_decay
        U = G / sqrt(v_r v_c^T / mean(v_r))
        U <- U / max(1, RMS(U) / clip)
        W <- (1 - lr * weight_decay) W - min(lr, 1 / sqrt(t)) * max(1e-3, RMS(W)) * U

    RMS is the root mean square of a tensor's entries.

    Args:
        params: parameters, or parameter groups.
        lr: relative learning rate.
        beta2_decay: exponent of the second moment's decay, negative.
        clip: largest root mean square of an update before it is scaled.
        weight_decay: decoupled, per unit of learning rate.
        release: step inside backward and free each gradient.

    References:
        Shazeer & Stern 2018, Adafactor, arXiv 1804.04235, Algorithm 4.

    Example:
        >>> optimizer = Adafactor(model.parameters(), lr=1e-2)
        >>> model(inputs).square().mean().backward()
        >>> optimizer.step()
    """

    STATE = "m + n + 1"
    VECTOR = "k + 1"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        *,
        beta2_decay: float = -0.8,
        clip: float = 1.0,
        weight_decay: float = 0.0,
        release: bool = False,
    ):
        self.check_options({**settings(locals()), "release": release})
        super().__init__(params, lr, beta2_decay=beta2_decay, d=clip, weight_decay=weight_decay)
        if release:
            self.release()

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch, whose name for `clip` is `d`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["d"] = group.pop("clip", group["d"])

    def _init_group(self, group: dict, *lists: list) -> bool:
        """Leave out tensors without entries, whose root mean square torch would divide by 0."""
        params = [param for param in group["params"] if param.numel()]
        return super()._init_group({**group, "params": params}, *lists)

    def allocate(self) -> None:
        """Allocate the state of every parameter now, rather than at its first step.

        Torch's Adafactor cannot step on the meta device, where planning predicts the state's size.
        """
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = torch.empty_like(param)
            # Torch's own initializer; it fills the six lists with what a step would use.
            self._init_group(group, [], [], [], [], [], [])
        self.zero_grad()
