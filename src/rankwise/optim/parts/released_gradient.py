"""The tensor in `param.grad` from a gradient's release until the step; it has no memory.

Whatever asks for the gradients between backward and step (torch's `clip_grad_norm_`, which
accelerate and the Hugging Face Trainer call, a GradScaler, another optimizer) finds it there. It
answers for the released gradient where it can, and else refuses with a sentence. An empty
`param.grad` would make all of them do nothing, without a word.
"""

import math
import weakref

import torch
from torch import Tensor

from rankwise.optim.parts.processes import process_count

aten = torch.ops.aten


class ReleasedGradient(Tensor):
    """A gradient that was used inside backward and then freed.

    Args:
        param: the parameter that the gradient is of.
        optimizer: the one that has used or gathered the gradient.
        norm: () of a gradient that was applied already; its norm is all that is left.
        projection: of a gradient that is gathered for the step; clipping scales it in place.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(
        cls,
        param: Tensor,
        optimizer: torch.optim.Optimizer,
        norm: Tensor | None = None,
        projection: Tensor | None = None,
    ):
        return torch.Tensor._make_wrapper_subclass(
            cls, param.shape, dtype=param.dtype, device=param.device
        )

    def __init__(
        self,
        param: Tensor,
        optimizer: torch.optim.Optimizer,
        norm: Tensor | None = None,
        projection: Tensor | None = None,
    ):
        self.owner = type(optimizer).__name__
        self.optimizer = weakref.ref(optimizer)  # a gradient must not keep it alive
        self.norm_of_applied = norm
        self.projection = projection
        # The gradient that autograd has added in a later backward, until a hook takes it.
        self.added: Tensor | None = None

    def __repr__(self) -> str:
        return f"ReleasedGradient(shape={tuple(self.shape)}, owner={self.owner})"

    @classmethod
    def __torch_dispatch__(
        cls, func: object, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Answer an operation of torch, or refuse it."""
        grad = args[0] if args else None
        if isinstance(grad, cls):
            if func is aten.add_.Tensor and not isinstance(args[1], cls):
                return grad._add(args[1])
            if func is aten.linalg_vector_norm.default and args[1:2] in ((), (2,)):
                return grad._norm()
            if func is aten.mul_.Tensor:
                return grad._scale(args[1])
            if func is aten.zero_.default:
                return grad._zero()
        raise RuntimeError(_refusal(func, (*args, *(kwargs or {}).values())))

    def _add(self, grad: Tensor) -> Tensor:
        """Take the gradient of a later micro-batch from autograd."""
        self.refuse_deleted()
        if self.projection is None:
            raise RuntimeError(
                "released gradient: got a second backward before optimizer.step(), allowed: one, "
                f"because {self.owner} with release applies each gradient inside backward"
            )
        self.added = grad
        return self

    def refuse_deleted(self) -> None:
        """Raise a RuntimeError if the optimizer is deleted: nobody would use what it gathered."""
        if self.optimizer() is None:
            raise RuntimeError(
                f"released gradient: got one of a deleted {self.owner}, allowed: None; set the "
                "gradients to None by the model's zero_grad()"
            )

    def _norm(self) -> Tensor:
        if self.projection is None:
            return self.norm_of_applied
        self._refuse_processes()
        return torch.linalg.vector_norm(self.projection)

    def _scale(self, factor: Tensor | float) -> Tensor:
        """Scale what was released: what clipping does. One that was applied takes a factor of 1."""
        if self.projection is not None:
            self._refuse_processes()
            self.projection.mul_(factor)
        # Clipping multiplies by 1 below its limit, and by NaN if a gradient was not finite.
        elif float(factor) != 1 and not math.isnan(factor):
            raise RuntimeError(
                f"clip_grad_norm_: got {self.owner} with release, which has applied the gradients "
                "in backward, allowed: a limit that no gradient exceeds, such as infinity; build "
                "the optimizer with release=False, or turn clipping off (in the Trainer: "
                "max_grad_norm=0)"
            )
        return self

    def _zero(self) -> Tensor:
        """Drop what is gathered; an applied gradient is as good as dropped."""
        if self.projection is not None:
            self.projection.zero_()
        return self

    def _refuse_processes(self) -> None:
        """Raise a RuntimeError if this is one of several processes, which has a share only."""
        if process_count() > 1:
            raise RuntimeError(
                f"clip_grad_norm_: got projections that {self.owner} has gathered in "
                f"{process_count()} processes, allowed: optimizer.clip_grad_norm_, which takes "
                "their mean over the processes first"
            )


def _refusal(func: object, args: tuple) -> str:
    """The sentence about an operation that a released gradient has no answer to."""
    owner = next(grad.owner for grad in _flat(args) if isinstance(grad, ReleasedGradient))
    if func is aten._amp_foreach_non_finite_check_and_unscale_.default:
        return (
            f"GradScaler: got {owner} with release, allowed: release=False, because released "
            "gradients are used in backward, before the scaler divides them; bfloat16 needs no "
            "scaler"
        )
    name = func.overloadpacket.__name__
    return (
        f"released gradient: got the operation {name}, allowed: clip_grad_norm_, because {owner} "
        "with release has used and freed this gradient inside backward; to use it elsewhere, in "
        "another optimizer too, build the optimizer with release=False or call its unrelease()"
    )


def _flat(args: tuple) -> list:
    """The arguments of an operation, with those in lists."""
    flat = []
    for argument in args:
        flat += argument if isinstance(argument, list | tuple) else [argument]
    return flat


def is_released(grad: Tensor | None) -> bool:
    """Whether a `param.grad` stands in for a gradient that is used already or gathered."""
    return isinstance(grad, ReleasedGradient)
