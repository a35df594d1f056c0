"""When a run has diverged: something is no longer finite. Which update it was, and what it was.

Nothing here makes the CPU wait for the GPU at every update. `Watch` keeps on the device what was
the first to be non-finite, and the loop reads that where it waits anyway: at evaluations, at
checkpoints, and when a step raises an error.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rankwise.optim.parts.waiting import trains
from rankwise.training.distribution import any_is_bad, norms, own


class Diverged(ArithmeticError):
    """The loss, a gradient, a parameter or a metric is no longer finite.

    Args:
        reason: One sentence.
        update: The update after which, or in which, it was seen.
        what: `loss`, `gradient`, `parameter` or `evaluation`.
        parameter: The name of the first parameter that is concerned, if one is.

    Attributes:
        details: `update`, `what` and `parameter`, for the run's result.
    """

    def __init__(self, reason: str, update: int, what: str, parameter: str | None = None):
        super().__init__(reason)
        self.details = {"update": update, "what": what}
        if parameter is not None:
            self.details["parameter"] = parameter


class Watch:
    """The first gradient or loss that was not finite, of all updates so far.

    Args:
        model: Its trainable parameters are watched; names are those of this model.
        released: Whether the optimizer takes gradients inside backward. They are then watched
            there, because none is left afterwards.
    """

    def __init__(self, model: nn.Module, released: bool):
        trainable = [(n, p) for n, p in model.named_parameters() if trains(p)]
        self.names = [name for name, _ in trainable]
        self.params = [param for _, param in trainable]
        device = self.params[0].device
        self._zero = torch.zeros((), device=device)
        # The update, and the index in `names` (or the number of names: the loss); -1: none so far.
        self._update = torch.full((), -1, device=device)
        self._index = torch.full((), -1, device=device)
        self._loss = torch.zeros((), device=device)
        self._window_loss: Tensor | float = math.nan
        self.released = released
        self._released_norms: dict[int, Tensor] = {}
        if released:
            for index, param in enumerate(self.params):
                # Such a hook runs before the optimizer's own, which frees the gradient.
                param.register_hook(self._hook(index))

    def _hook(self, index: int) -> Callable[[Tensor], None]:
        def see(grad: Tensor) -> None:
            norm = torch.linalg.vector_norm(grad)
            earlier = self._released_norms.get(index)  # of an earlier micro-batch of the window
            # The maximum of a number and nan is nan.
            norm = norm if earlier is None else torch.maximum(norm, earlier)
            self._released_norms[index] = norm

        return see

    def see_loss(self, loss: Tensor) -> None:
        """Take the mean loss of the window so far, a scalar, to be named with a gradient."""
        self._window_loss = loss

    def see_gradients(self, update: int) -> Tensor:
        """Compute the gradients' norms, and remember the first that is not finite.

        Called once an update, after `see_loss` and before gradients are clipped.

        Args:
            update: The number of the update, from 1.

        Returns:
            The norm of all gradients that exist, a scalar.
        """
        by_index = self.norms()
        self.remember(by_index, update)
        return self.joint(by_index)

    @torch.no_grad()
    def norms(self) -> dict[int, Tensor]:
        """The norms of the gradients that exist, by index; as torch's clipping computes them."""
        if self.released:
            by_index, self._released_norms = self._released_norms, {}
            return by_index
        indices = [index for index, param in enumerate(self.params) if param.grad is not None]
        grads = [self.params[index].grad for index in indices]
        return dict(zip(indices, norms(grads), strict=True))

    @torch.no_grad()
    def joint(self, by_index: dict[int, Tensor]) -> Tensor:  # ()
        """The norm of all gradients, from those of each."""
        if not by_index:
            return self._zero
        return torch.linalg.vector_norm(torch.stack(list(by_index.values())))

    @torch.no_grad()
    def remember(self, by_index: dict[int, Tensor], update: int) -> None:
        """Remember the first norm or loss that is not finite, if none was before.

        Args:
            by_index: The gradients' norms.
            update: The number of the update.
        """
        every = [by_index.get(index, self._zero) for index in range(len(self.names))]
        loss = torch.as_tensor(self._window_loss, device=self._zero.device)
        is_bad = ~torch.isfinite(torch.stack([*every, loss]))
        is_first = is_bad.any() & (self._index < 0)
        # The first of several largest values: a parameter is named before the loss is.
        index = is_bad.to(torch.uint8).argmax()
        self._index = torch.where(is_first, index, self._index)
        self._update = torch.where(is_first, update, self._update)
        self._loss = torch.where(is_first, loss, self._loss)

    def check(self) -> None:
        """Refuse to go on if a loss or a gradient was not finite.

        Raises:
            Diverged: In some update so far; the reason names the first.
        """
        index = int(self._index)
        if index < 0:
            return
        update, loss = int(self._update), float(self._loss)
        if index == len(self.names):
            raise Diverged(f"update {update}: the loss is {loss}", update, "loss")
        name = self.names[index]
        reason = f"update {update}: the gradient of {name} is not finite (loss {loss:.6g})"
        raise Diverged(reason, update, "gradient", name)

    @torch.no_grad()
    def check_parameters(self, update: int) -> None:
        """Refuse parameters that are not finite.

        Args:
            update: The last update that was made.

        Raises:
            Diverged: A parameter has an infinite value or one that is no number.
        """
        # The largest absolute value: unlike the 2-norm it overflows only where a value does.
        # A process may hold no row of a small parameter.
        held = [own(param.detach()) for param in self.params]
        filled = [part if part.numel() else self._zero for part in held]
        sizes = torch._foreach_norm(filled, math.inf)
        is_bad = any_is_bad(~torch.isfinite(torch.stack(list(sizes))), self.params)
        if is_bad.any():
            name = self.names[int(is_bad.to(torch.uint8).argmax())]
            reason = f"update {update}: the parameter {name} is not finite"
            raise Diverged(reason, update, "parameter", name)

    def check_after_error(self, update: int) -> None:
        """Find out whether an error in an update follows from values that are not finite.

        A decomposition (SVD, eigenvalues) of such values raises an error, on some devices.

        Args:
            update: The number of the update that raised the error.

        Raises:
            Diverged: It does.
        """
        self.check()
        self.check_parameters(update - 1)
        self.see_gradients(update)
        self.check()


def check_finite(metrics: dict[str, float], where: str, update: int) -> None:
    """Refuse metrics that are infinite or not a number.

    Args:
        metrics: Values by name.
        where: What was evaluated, for the error message.
        update: The last update before the evaluation.

    Raises:
        Diverged: One of them is not finite.
    """
    if not all(math.isfinite(value) for value in metrics.values()):
        values = ", ".join(f"{name} {value}" for name, value in metrics.items())
        raise Diverged(f"update {update}: {where}: {values}", update, "evaluation")
