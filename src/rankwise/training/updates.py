"""One optimizer update: the gradient of a window of micro-batches, clipping, and the step.

The gradient is that of the mean loss over all predictions of the window: examples of a
classification, predicted tokens of a language model. It therefore does not depend on how the window
is split into micro-batches and over processes: a micro-batch weighs as much as it predicts, and the
last window of an epoch, which may be smaller, is averaged over what it has.

Every process reads every micro-batch and trains on its own part of the rows, so all of them know
the weights without talking to each other. Gradients are averaged over the processes
(distribution.py); the factor of a loss makes up for that.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from rankwise.training.batches import tokens_of
from rankwise.training.distribution import Distributed, clip_
from rankwise.training.divergence import Watch


class Made(NamedTuple):
    """What one update saw, over all processes unless it says otherwise.

    Args:
        loss: Sum over this process's predictions, in nats; a scalar on the device.
        gradient_norm: Before clipping; a scalar on the device.
        predictions: Predictions in the window.
        samples: Examples in the window.
        tokens: Tokens in the window, without padding.
        skipped: Whether the optimizer did not step, because a gradient of the scaled loss was not
            finite; None where no loss is scaled.
    """

    loss: Tensor
    gradient_norm: Tensor
    predictions: int
    samples: int
    tokens: int
    skipped: bool | None = None


class Updater:
    """Makes updates of one model with one optimizer.

    Args:
        accelerator: It has prepared the optimizer.
        distributed: The model. Called with a batch, it returns the mean loss over the batch's
            predictions.
        optimizer: As accelerate has prepared it.
        predictions: The task's function that counts a batch's predictions.
        max_gradient_norm: The norm to which gradients are clipped; None for no clipping.
        watch: Looks at every loss and gradient.
        scaling: Of the loss in fp16 (loss_scaling.Scaling); None otherwise.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        distributed: Distributed,
        optimizer: torch.optim.Optimizer,
        predictions: Callable[[dict], int],
        max_gradient_norm: float | None,
        watch: Watch,
        scaling: Any = None,
    ):
        self.accelerator = accelerator
        self.distributed = distributed
        self.optimizer = optimizer
        self.predictions = predictions
        self.max_gradient_norm = max_gradient_norm
        self.watch = watch
        self.scaling = scaling

    def make(self, window: list[dict], update: int) -> Made:
        """Make one update.

        Args:
            window: Its micro-batches, on the CPU, with the rows of all processes.
            update: Its number, from 1.
        """
        predictions = sum(self.predictions(batch) for batch in window)
        skipped = None
        if getattr(self.optimizer.optimizer, "FORWARD_ONLY", False):
            loss, norm = self._step_forward_only(window, predictions, update)
        else:
            loss = self._backward(window, predictions)
            if self.scaling is None:
                norm = self._clip(self.watch.see_gradients(update))
                self.optimizer.step()
            else:
                norm, skipped = self._step_scaled(update)
            self.optimizer.zero_grad()
        return Made(
            loss,
            norm,
            predictions,
            samples=sum(len(batch["input_ids"]) for batch in window),
            tokens=sum(tokens_of(batch) for batch in window),
            skipped=skipped,
        )

    def _step_scaled(self, update: int) -> tuple[Tensor, bool]:
        """Step with the gradients of a scaled loss, unless one of them is not finite.

        Args:
            update: The number of the update.

        Returns:
            The norm of the gradients, without the scale and before clipping, and whether the update
            was skipped.

        Raises:
            Diverged: They are not finite under the least scale either.
        """
        self.scaling.unscale()
        norms = self.watch.norms()
        norm = self._clip(self.watch.joint(norms))
        skipped = self.scaling.step()
        if not skipped or self.scaling.is_exhausted():
            self.watch.remember(norms, update)
        if skipped and self.scaling.is_exhausted():
            self.watch.check()
        return norm, skipped

    def _step_forward_only(
        self, window: list[dict], predictions: int, update: int
    ) -> tuple[Tensor, Tensor]:
        """Step an optimizer that asks for losses instead of gradients (MeZO).

        Every loss is that of the whole window, over all processes, with dropout off: two losses
        must differ by the weights alone.

        Args:
            window: As in `make`.
            predictions: In the window, over all processes.
            update: The number of the update.

        Returns:
            The sum of the losses over this process's predictions, which is the mean of the sums
            that were asked for, and the norm of the estimated gradient.
        """
        own_sums: list[Tensor] = []
        means: list[Tensor] = []

        def mean_loss() -> Tensor:
            own_sums.append(self._own_loss(window))
            total = own_sums[-1]
            if self.accelerator.num_processes > 1:
                total = self.accelerator.reduce(total)
            # A window may predict nothing; its loss is then 0.
            means.append(total / max(predictions, 1))
            return means[-1]

        model = self.distributed.model
        was_training = model.training
        model.eval()
        self.optimizer.step(mean_loss)
        model.train(was_training)
        self.watch.see_loss(torch.stack(means).mean())
        self.watch.see_gradients(update)
        own_sum = torch.stack(own_sums).mean()
        return own_sum, self.optimizer.optimizer.gradient_norm()

    def _own_loss(self, window: list[dict]) -> Tensor:  # ()
        """The sum of the losses over this process's predictions, without gradients."""
        total = torch.zeros((), device=self.accelerator.device)
        for batch in window:
            own = self._own_part(batch)
            weight = self.predictions(own) if len(own["input_ids"]) else 0
            if weight:
                total = total + self.distributed.model(**self._on_device(own)).loss * weight
        return total

    def _backward(self, window: list[dict], predictions: int) -> Tensor:  # ()
        """Accumulate the window's gradient.

        Args:
            window: As in `make`.
            predictions: In the window, over all processes.

        Returns:
            The sum of the losses over this process's predictions.
        """
        processes = self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        # Micro-batches that predict nothing come last: an optimizer that finds its basis in the
        # first gradient of a window must not find it in zeros.
        ordered = sorted(window, key=lambda batch: not self.predictions(batch))
        for number, batch in enumerate(ordered, 1):
            own = self._own_part(batch)
            weight = self.predictions(own) if len(own["input_ids"]) else 0
            # Gradients are sent between the processes once, after the last micro-batch.
            is_last = number == len(window)
            with self.distributed.collecting(is_last):
                if not weight:
                    self._backward_zero(batch)
                    continue
                loss = self.distributed.called(**self._on_device(own)).loss
                total = total + loss.detach() * weight
                self.watch.see_loss(total / predictions)
                factor = weight * processes / predictions
                # A factor of 1 is left out, so a window of one micro-batch costs nothing more.
                self.accelerator.backward(loss if factor == 1 else loss * factor)
        self.distributed.end_backward()
        return total

    def _backward_zero(self, batch: dict[str, Tensor]) -> None:
        """Add a gradient of zeros, for a part of a micro-batch that predicts nothing.

        The loss would be 0 / 0. But the model has to be called, because the other processes wait
        for this one's gradients, and optimizers expect a gradient. The labels are among the inputs,
        since an encoder-decoder makes those of its decoder from them.
        """
        first = {name: rows[:1] for name, rows in batch.items()}
        output = self.distributed.called(**self._on_device(first))
        # Without logits, the loss is in chunks, and 0 where nothing is predicted.
        zero = output.loss if output.logits is None else (output.logits * 0).sum()
        self.accelerator.backward(zero)

    def _own_part(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The rows of this process; none where there are fewer rows than processes."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        rows = len(batch["input_ids"])
        own = slice(process * rows // processes, (process + 1) * rows // processes)
        return {name: values[own] for name, values in batch.items()}

    def _on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values.to(self.accelerator.device) for name, values in batch.items()}

    def _clip(self, norm: Tensor) -> Tensor:  # ()
        """Clip the gradients to the limit.

        An optimizer with `release` takes each gradient during backward and frees it, so only the
        optimizer can clip. With `RELEASE = "fused"` it has already applied the gradients, and
        clipping is too late; the plan allows no limit there.

        Args:
            norm: The norm of the gradients that exist now.

        Returns:
            The norm before clipping; of the projections, where the optimizer gathers these.
        """
        optimizer = self.optimizer.optimizer
        limit = self.max_gradient_norm
        if getattr(optimizer, "released", False):
            if optimizer.RELEASE == "gathered":
                return optimizer.clip_grad_norm_(limit or math.inf)
            return optimizer.gradient_norm()
        if limit:
            clip_(self.watch.params, limit, norm)
        return norm
