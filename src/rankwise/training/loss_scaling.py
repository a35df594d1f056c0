"""Loss scaling for training in fp16: small gradients must not become 0, and large ones are skipped.

fp16 has no number between 0 and 6e-8, so a backward pass would lose small gradients. The loss is
multiplied by a scale, and the gradients are divided by it before anything reads them: the norm,
clipping, and optimizers that project gradients. If one is not finite, the update is skipped and the
scale is halved. After 2,000 updates in a row it is doubled. The scale begins at 65,536, so the
first updates of a training are often skipped.

A skipped update counts as an update of the schedule, but the learning rate and the method's own
step number wait for the next one that is made, as in accelerate and the Hugging Face Trainer.

Source: Micikevicius et al. 2018, Mixed Precision Training, arXiv 1710.03740, section 3.2;
torch/amp/grad_scaler.py, whose defaults are used.

This module is imported by name, where a schedule has `precision: fp16`.
"""

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

# Below this scale a training ends as diverged: fairseq's default of --min-loss-scale.
LEAST_SCALE = 1e-4


def on_every_device(accelerator: Accelerator) -> None:
    """Let a CPU compute in fp16 and scale losses, as accelerate lets a GPU.

    On a CPU, accelerate takes fp16 for fp32 and says nothing.

    Args:
        accelerator: With the mixed precision fp16; it has prepared no model yet.
    """
    if accelerator.device.type == "cpu":
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu")


class Scaling:
    """How the updates of one training are scaled.

    Args:
        accelerator: Multiplies losses by the scale in its `backward`.
        optimizer: As accelerate has prepared it.
    """

    def __init__(self, accelerator: Accelerator, optimizer: AcceleratedOptimizer):
        self._scaler = accelerator.scaler
        self._optimizer = optimizer

    def unscale(self) -> None:
        """Divide the gradients by the scale, in place."""
        self._scaler.unscale_(self._optimizer.optimizer)

    def step(self) -> bool:
        """Step the optimizer, or skip the update if a gradient is not finite; adapt the scale.

        Returns:
            Whether the update was skipped.
        """
        # A smaller scale tells. accelerate does not know of a skip inside a fused kernel.
        before = self._scaler.get_scale()
        self._optimizer.step()
        return self._scaler.get_scale() < before

    def is_exhausted(self) -> bool:
        """Whether the scale is so small that scaling is not what makes gradients overflow."""
        return self._scaler.get_scale() < LEAST_SCALE

    @property
    def scale(self) -> float:
        """By what losses are multiplied now."""
        return self._scaler.get_scale()

    def state(self) -> dict:
        """The scale, and how many updates it has been the same for, for a checkpoint."""
        return self._scaler.state_dict()

    def restore(self, state: dict) -> None:
        """Go on as at a checkpoint."""
        self._scaler.load_state_dict(state)
