"""How long a run trains, and what it has accumulated so far.

`TrainingState` is everything that the loop accumulates, so it is what a checkpoint stores of the
loop. `Sums` is its part since the last evaluation.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rankwise.training.distribution import own, trained_values
from rankwise.training.divergence import check_finite
from rankwise.training.updates import Made


class UpdatePlan(NamedTuple):
    """How many optimizer updates a run makes, and when it evaluates.

    Args:
        per_epoch: Updates in one epoch.
        total: Updates in the whole run.
        evaluate_every: Updates from one evaluation to the next.
    """

    per_epoch: int
    total: int
    evaluate_every: int

    @classmethod
    def from_schedule(cls, schedule: dict, micro_batches: int) -> "UpdatePlan":
        """The plan of a resolved schedule whose epoch has `micro_batches` batches.

        A schedule gives either `updates` or `epochs`. Without `evaluate_every_updates`, a run
        evaluates once an epoch.
        """
        per_epoch = math.ceil(micro_batches / schedule["accumulation_steps"])
        total = schedule["updates"] or per_epoch * schedule["epochs"]
        evaluate_every = schedule["evaluate_every_updates"] or min(per_epoch, total)
        return cls(per_epoch, total, evaluate_every)

    def evaluates_after(self, update: int) -> bool:
        """Whether the model is evaluated after this update (0: before the first)."""
        return update % self.evaluate_every == 0 or update == self.total


@dataclass
class Sums:
    """Sums since the last evaluation. Skipped updates are only counted.

    Loss and norm stay tensors on the device: reading them at every update would make the CPU wait
    for the GPU.

    Attributes:
        loss: Over all predictions, in nats; with several processes, of this process's part.
        predictions: Over all processes.
        gradient_norm: Over the updates, before clipping.
        updates: How many were made.
        skipped: How many were skipped; None where no loss is scaled.
    """

    loss: Tensor | float = 0.0
    predictions: int = 0
    gradient_norm: Tensor | float = 0.0
    updates: int = 0
    skipped: int | None = None

    def add(self, made: Made) -> None:
        """Add what one update saw."""
        if made.skipped is not None:
            self.skipped = (self.skipped or 0) + made.skipped
        if made.skipped:
            return
        self.loss = self.loss + made.loss
        self.predictions += made.predictions
        self.gradient_norm = self.gradient_norm + made.gradient_norm
        self.updates += 1

    def means(self, update: int) -> dict[str, float]:
        """Mean loss over predictions and mean gradient norm over updates, if there were any.

        Also how many updates were skipped, where a loss is scaled.

        Args:
            update: The last update in the sums, for the error message.

        Raises:
            Diverged: One of them is not finite, though each loss and each gradient was.
        """
        means = {}
        if self.predictions:
            means["train_loss_nats"] = float(self.loss) / self.predictions
        if self.updates:
            means["gradient_norm"] = float(self.gradient_norm) / self.updates
        if self.skipped is not None:
            means["skipped_updates"] = self.skipped
        check_finite(means, "training", update)
        return means

    def as_numbers(self) -> dict[str, float]:
        """The fields as Python numbers; `Sums(**numbers)` has the same sums."""
        return {
            "loss": float(self.loss),
            "predictions": self.predictions,
            "gradient_norm": float(self.gradient_norm),
            "updates": self.updates,
            "skipped": self.skipped,
        }


@dataclass
class TrainingState:
    """What a run has accumulated since it began, over all its interruptions.

    Attributes:
        counts: `updates`, `samples` and `tokens` so far, over all processes; where a loss is
            scaled also `skipped_updates`, which are among the updates.
        learning_rate: Of the last update.
        history: One row per evaluation.
        sums: Since the last evaluation.
        best_loss: The lowest loss on the selection split, in nats.
        best_parameters: The trainable parameters at `best_loss`, on the CPU.
        earlier_seconds: Run time before the last interruption.
        evaluation_seconds: Time spent in finished evaluations of the selection split.
        earlier_peak_bytes: Peak of allocated GPU memory before the last interruption.
    """

    counts: dict[str, int] = field(
        default_factory=lambda: {"updates": 0, "samples": 0, "tokens": 0}
    )
    learning_rate: float = 0.0
    history: list[dict] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)
    best_loss: float = math.inf
    best_parameters: dict[str, Tensor] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    earlier_peak_bytes: int = 0

    @property
    def updates(self) -> int:
        """Updates so far, skipped ones included."""
        return self.counts["updates"]

    @property
    def steps(self) -> int:
        """Steps of the optimizer so far."""
        return self.updates - self.counts.get("skipped_updates", 0)

    def add(self, made: Made, learning_rate: float) -> None:
        """Count one update with this learning rate."""
        self.learning_rate = learning_rate
        self.counts["updates"] += 1
        self.counts["samples"] += made.samples
        self.counts["tokens"] += made.tokens
        if made.skipped is not None:
            skipped = self.counts.get("skipped_updates", 0)
            self.counts["skipped_updates"] = skipped + made.skipped
        self.sums.add(made)

    def losses(self) -> dict[str, float]:
        """The current losses, for the log, in nats: of training, and of the selection slice.

        The former is the mean since the last evaluation, over this process's predictions.
        """
        losses = {}
        if self.sums.predictions:
            losses["train_loss_nats"] = float(self.sums.loss) / self.sums.predictions
        if self.history:
            losses["selection_loss_nats"] = self.history[-1]["selection_loss_nats"]
        return losses

    def keep_if_best(self, model: nn.Module, loss: float) -> None:
        """Copy the model's trainable parameters to the CPU if `loss` is the lowest so far.

        Of a sharded model, each process copies what it holds.
        """
        if not loss < self.best_loss:
            return
        self.best_loss = loss
        self.best_parameters = trained_values(model)

    @torch.no_grad()
    def restore_best(self, model: nn.Module) -> None:
        """Give the model its best parameters back. It keeps its last ones if none were kept."""
        for name, param in model.named_parameters():
            if name in self.best_parameters and own(param) is not param:
                own(param).copy_(self.best_parameters[name])
            elif name in self.best_parameters:
                # Assigned, not copied into: a method may have changed the parameter's shape since.
                param.data = self.best_parameters[name].to(param.device)

    def as_saved(self, seconds: float, peak_bytes: int) -> dict:
        """The state as a checkpoint stores it.

        Args:
            seconds: Run time until now, over all interruptions.
            peak_bytes: Peak of allocated GPU memory until now, over all interruptions.
        """
        return {
            "counts": self.counts,
            "learning_rate": self.learning_rate,
            "history": self.history,
            "sums": self.sums.as_numbers(),
            "best_loss": self.best_loss,
            "best_parameters": self.best_parameters,
            "earlier_seconds": seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "earlier_peak_bytes": peak_bytes,
        }

    @classmethod
    def from_saved(cls, saved: dict) -> "TrainingState":
        """The state that `as_saved` stored."""
        return cls(**{**saved, "sums": Sums(**saved["sums"])})
