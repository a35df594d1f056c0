"""The loss scaling of a profile's step in fp16: what training/loss_scaling.py does, for one update.

The update must be made, but random weights may give gradients that overflow at the scale with which
a training begins, and a skipped update makes no optimizer state. So the scale is 1 here, which
takes the same memory and time.

This module is imported by name, where a profile has `precision: fp16`.
"""

from typing import Any

import torch
from torch import Tensor

from rankwise.core.errors import Unsupported
from rankwise.methods.parts.optimizers import step_without_values


class _ShapesScaler(torch.amp.GradScaler):
    """torch's scaler on the meta device, where no gradient has a value that could be infinite."""

    def _maybe_opt_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        step_without_values(optimizer)


class ProfileScaler:
    """Scales losses and steps an optimizer.

    Args:
        device: Of the step: `meta`, `cpu` or `cuda`.
    """

    def __init__(self, device: str):
        self._is_meta = device == "meta"
        # GradScaler's device is where scaling is switched off if there is no GPU. It takes the
        # device of its tensors from the first loss.
        cls, flag = (_ShapesScaler, "cpu") if self._is_meta else (torch.amp.GradScaler, device)
        self._scaler = cls(flag, init_scale=1.0)
        # Its two tensors, the scale and a count of updates, are made with the first loss. Made
        # here, they are counted among buffers and not among what a step makes.
        self._scaler.scale(torch.zeros((), device=device))

    def scale(self, loss: Tensor) -> Tensor:  # ()
        """The loss times the scale."""
        return self._scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, and step.

        Raises:
            Unsupported: A gradient is not finite, so the optimizer has not stepped.
        """
        self._scaler.step(optimizer)
        self._scaler.update()
        if not self._is_meta and self._scaler.get_scale() < 1:
            raise Unsupported(
                "precision fp16: a gradient of the random weights is not finite, so the update is "
                "skipped and cannot be measured"
            )
