"""Gradient release: each gradient is used and freed as soon as backward has computed it.

Memory then holds one full gradient at a time instead of all of them (LOMO: Lv et al. 2023, arXiv
2306.09782). An optimizer releases in one of two ways, which its constant `RELEASE` names.

"fused" (AdamW, SGD, Adafactor, Fira, APOLLO, Flora, LDAdam, TopR, LOMO, AdaLomo): each parameter
steps inside backward. Every step is then bitwise the step without release. Two things become
impossible, and a study that asks for one of them is refused while it is planned:

- Gradients cannot be accumulated. A second backward before `step()` raises an error.
- Gradients cannot be clipped by their global norm, because that is known only when all of them have
  been used. `gradient_norm()` returns it afterwards.

"gathered" (ProjectedAdam, ProjFactor): each gradient is projected inside backward, the projection
is added to a small buffer, and `step()` steps. Micro-batches accumulate exactly, because
projections are linear and the basis does not change within a step; a refresh looks at the first
micro-batch only. `clip_grad_norm_` clips the projections. Gradients that are not projected (of
vectors and of groups with `dense`) stay until the step.

From backward to `step()` a `ReleasedGradient` without memory stands in `param.grad`. Through it
torch's, accelerate's and the Hugging Face Trainer's clipping scales gathered projections. With
fused steps they see the true norm, and a limit below it raises an error; in the Trainer set
`max_grad_norm=0` and `gradient_accumulation_steps=1`. A GradScaler, and another optimizer on the
same parameters, raise an error.

`unrelease()` ends the release. An optimizer that is deleted releases nothing any more. A copy or an
unpickled optimizer releases the gradients of its own parameters, if the original did.

With several processes the model is not wrapped in DistributedDataParallel. Fused optimizers average
each gradient over the processes in its hook; gathering ones average the projections before the
step. The first process's bases are used by all. State dicts are taken between steps, when nothing
is gathered, so a checkpoint does not depend on release.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rankwise.optim.parts.checked import Checked
from rankwise.optim.parts.hooks import GradientHooks, refuse_other_hooks
from rankwise.optim.parts.processes import average_
from rankwise.optim.parts.released_gradient import ReleasedGradient, is_released


class Releasing(Checked):
    """Mixin in front of a torch optimizer: `release()` moves its step into backward.

    It also holds the three formulas for the numbers that an optimizer keeps between steps, as
    Python expressions. Their names: m rows, n columns; s the projected side, L the other one; r the
    rank; k the numbers of a vector; and the optimizer's own options.
    """

    RELEASE = "fused"  # or "gathered"; the module's docstring explains both
    STATE = "2 * m * n"  # numbers kept per matrix
    VECTOR = "2 * k"  # numbers kept per vector
    DENSE = "2 * k"  # numbers kept per matrix of k numbers in a group with `dense`
    # Whether the step of each number depends on nothing else of its matrix, so that processes can
    # hold rows of it (FSDP2). Planning reads it in the source, so it is a constant.
    SHARDED = False
    released = False

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix, for the given options.

        Args:
            **options: every option of the optimizer, by name.

        Returns:
            A Python expression in the names that the class lists.
        """
        return cls.STATE

    # Beginning and end ----------------------------------------------------------------------------

    def release(self) -> None:
        """From now on use each gradient inside backward and free it; a second call does nothing."""
        if self.released:
            return
        self.released = True
        self._done: set[int] = set()  # ids of the parameters that have stepped in this backward
        self._norms: list[Tensor] = []
        self._hooks = GradientHooks(self)
        self._hooks.watch(self._params())

    def unrelease(self) -> None:
        """From now on leave gradients to accumulate until `step()`, as without release.

        Raises:
            RuntimeError: gradients were released since the last step.
        """
        if self.released:
            self._refuse_between_steps("unrelease")
            self._hooks.remove()
            self.released = False

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch; it is released too if the optimizer is."""
        super().add_param_group(param_group)
        if self.released:
            self._hooks.watch(self._params())

    def _params(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    # In backward ----------------------------------------------------------------------------------

    @torch.no_grad()
    def receive(self, param: Tensor) -> None:
        """Use one gradient, which is complete, and free it; a hook calls this inside backward.

        Raises:
            RuntimeError: the gradient is sparse, or was released already.
        """
        refuse_other_hooks(self, [param])
        added = param.grad.added if is_released(param.grad) else param.grad
        self.refuse_sparse(added)
        self._on_gradient(param)

    def _on_gradient(self, param: Tensor) -> None:
        """Step one parameter and free its gradient."""
        if id(param) in self._done:  # seen here only if the gradient was set to None in between
            raise RuntimeError(
                "released gradient: got a second backward before optimizer.step(), allowed: one, "
                f"because {type(self).__name__} with release applies each gradient inside backward"
            )
        self._done.add(id(param))
        average_(param.grad)
        norm = _norm(param.grad)
        self._norms.append(norm)
        self._step_of(param)
        param.grad = ReleasedGradient(param, self, norm=norm)

    def _step_of(self, param: Tensor) -> None:
        """Step `param` alone."""
        groups = self.param_groups
        group = next(group for group in groups if any(own is param for own in group["params"]))
        self.param_groups = [{**group, "params": [param]}]
        try:
            self._step_all()
        finally:
            self.param_groups = groups

    # Steps ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step; with release (fused) it was taken in backward, and this marks its end.

        Args:
            closure: recomputes the loss, as in torch; not with a step that is taken in backward.

        Returns:
            The closure's loss, or None.

        Raises:
            ValueError: a closure with release.
            RuntimeError: a gradient is sparse, or another optimizer has released it.
        """
        if self.released and self.RELEASE == "fused" and closure is not None:
            raise ValueError(
                "closure: got one, allowed: none with release, which steps in backward"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_others()
        if self.released:
            self._release_what_is_left()
            self._finish_released()
            self._drop_released()
            self._hooks.watch(self._params())  # parameters that train only since this step
        else:
            for grad in self.gradients():
                self.refuse_sparse(grad)
            self._step_all()
        return loss

    def _refuse_others(self) -> None:
        """Raise a RuntimeError if another optimizer, deleted or not, has released a gradient."""
        refuse_other_hooks(self, list(self._params()))
        for param in self._params():
            if is_released(param.grad):
                param.grad.refuse_deleted()

    def _step_all(self) -> None:
        """Step every parameter that has a gradient: by the step of the torch class behind this one.

        The step hooks that torch has put around it are left out, because those around our own
        `step` have run, or will.
        """
        step = super().step.__func__
        if getattr(step, "hooked", False):
            step = step.__wrapped__
        step(self)

    def _finish_released(self) -> None:
        """End a step whose gradients were released."""
        self._done.clear()
        self._norms.clear()

    def _release_what_is_left(self) -> None:
        """Use gradients that no hook has seen, such as one that was assigned."""
        for param in self._params():
            if param.grad is not None and not is_released(param.grad):
                self.receive(param)

    def _drop_released(self) -> None:
        for param in self._params():
            if is_released(param.grad):
                param.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, as in torch; released ones are set to None in any case."""
        self._drop_released()
        super().zero_grad(set_to_none)

    # Copies and state dicts -----------------------------------------------------------------------

    def __getstate__(self) -> dict:
        """Return what a copy or a pickle keeps: torch's contents, and whether it releases."""
        self._refuse_between_steps("copy")
        return {**super().__getstate__(), "released": self.released}

    def __setstate__(self, state: dict) -> None:
        contents = {name: value for name, value in state.items() if name != "released"}
        super().__setstate__(contents)
        if state.get("released"):
            self.release()

    def state_dict(self) -> dict:
        """Return the state, as in torch.

        Raises:
            RuntimeError: gradients were released since the last step, and a state dict has no place
                for them.
        """
        self._refuse_between_steps("state_dict")
        return super().state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, as in torch.

        Raises:
            RuntimeError: gradients were released since the last step.
        """
        self._refuse_between_steps("load_state_dict")
        super().load_state_dict(state_dict)

    def _refuse_between_steps(self, what: str) -> None:
        """Raise a RuntimeError if gradients were released since the last step."""
        if self.released and any(is_released(param.grad) for param in self._params()):
            raise RuntimeError(
                f"{what}: got gradients released since the last step, allowed: after "
                "optimizer.step() and before the next backward"
            )

    # Gradients ------------------------------------------------------------------------------------

    def gradients_bytes(self) -> int:
        """Return the most bytes of gradients alive at once; with release, one parameter's."""
        sizes = [param.numel() * param.element_size() for param in self._params()]
        return max(sizes, default=0) if self.released else sum(sizes)

    def gradients(self) -> list[Tensor]:
        """Return all gradients that exist now."""
        grads = [param.grad for param in self._params()]
        return [grad for grad in grads if grad is not None and not is_released(grad)]

    def gradient_norm(self) -> Tensor:  # ()
        """Return the norm of all gradients that were released since the last step.

        Raises:
            RuntimeError: no gradient was released since the last step.
        """
        if not self._norms:
            raise RuntimeError("gradient_norm: no gradient was released since the last step")
        return torch.linalg.vector_norm(torch.stack(self._norms))


def _norm(tensor: Tensor) -> Tensor:  # ()
    return torch.linalg.vector_norm(tensor.coalesce().values() if tensor.is_sparse else tensor)


def clip_norm_(tensors: list[Tensor], max_norm: float) -> Tensor:  # ()
    """Scale tensors in place to a joint norm of at most `max_norm`; return the norm before.

    The 1e-6 is that of torch.nn.utils.clip_grad_norm_.

    Args:
        tensors: gradients or projections.
        max_norm: largest allowed Euclidean norm of all entries together.

    Returns:
        The joint norm before scaling; 0 without tensors.
    """
    if not tensors:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack([_norm(tensor) for tensor in tensors]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for tensor in tensors:
        tensor.mul_(scale)
    return norm
