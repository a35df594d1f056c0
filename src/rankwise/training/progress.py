"""How far a training is, and what it has summed up since it was last evaluated."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Diverged(ArithmeticError):
    """The loss or the gradient is no longer finite."""


@dataclass
class Progress:
    """Sums since the last evaluation, kept on the device so that nothing waits for it."""

    loss: torch.Tensor | float = 0.0
    norm: torch.Tensor | float = 0.0
    batches: int = 0
    updates: int = 0

    def means(self, update: int) -> dict[str, float]:
        """Mean loss a micro-batch and gradient norm an update.

        Raises:
            Diverged: one of them is not finite.
        """
        loss, norm = (
            float(self.loss) / max(self.batches, 1),
            float(self.norm) / max(self.updates, 1),
        )
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Diverged(f"loss {loss}, gradient norm {norm} by update {update}")
        return {"train_loss_nats": loss, "gradient_norm": norm}

    def numbers(self) -> dict[str, float]:
        """Its fields, off the device: `Progress(**numbers)` goes on with the same sums."""
        return {
            "loss": float(self.loss),
            "norm": float(self.norm),
            "batches": self.batches,
            "updates": self.updates,
        }


class Course(NamedTuple):
    """Updates: of an epoch, in all, and from one evaluation to the next."""

    per_epoch: int
    total: int
    every: int

    @classmethod
    def of(cls, schedule: dict, micro_batches: int) -> "Course":
        """That of a schedule, with so many micro-batches an epoch."""
        per_epoch = math.ceil(micro_batches / schedule["accumulation_steps"])
        total = schedule["updates"] or per_epoch * schedule["epochs"]
        return cls(per_epoch, total, schedule["evaluate_every_updates"] or min(per_epoch, total))

    def evaluates(self, update: int) -> bool:
        """Whether the model is evaluated after this update."""
        return update % self.every == 0 or update == self.total


def check_finite(metrics: dict[str, float], where: str) -> None:
    """Refuse metrics that are no numbers.

    Raises:
        Diverged: says where, and all of them.
    """
    if not all(math.isfinite(value) for value in metrics.values()):
        raise Diverged(
            f"{where}: {', '.join(f'{name} {value}' for name, value in metrics.items())}"
        )
