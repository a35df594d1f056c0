"""MeZO: a step from two losses, without gradients, and with the memory of inference.

Source: Malladi et al. 2023, arXiv 2305.17333, Algorithm 1 (MeZO-SGD). Weights are perturbed in
place, and the perturbation is drawn again from a seed instead of being kept. Where we differ: decay
is decoupled, and applied to every parameter.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from rankwise.optim.parts.checked import Checked, settings
from rankwise.optim.parts.precision import wide


class MeZO(Checked, torch.optim.Optimizer):
    """SGD along one random direction, whose slope is the difference of two losses.

        z ~ N(0, I), drawn from the seed and the number of the step
        g = (loss(W + perturbation * z) - loss(W - perturbation * z)) / (2 * perturbation)
        W <- (1 - lr * weight_decay) W - lr * g * z

    The closure of `step` returns the loss of the weights as they are. It is called twice, without
    gradients, and must return the same loss for the same weights: evaluate the model in evaluation
    mode, on one batch. Its losses may be those of several processes together; then all processes
    take the same step, because they draw the same z. In bf16 and fp16 weights move by rounding when
    they are perturbed and restored.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate.
        perturbation: how far along z the losses are evaluated; the same for all groups.
        weight_decay: decoupled, per unit of learning rate.
        seed: of the directions; the same for all groups.

    References:
        Malladi et al. 2023, MeZO, arXiv 2305.17333, Algorithm 1.
        Spall 1992 (the two-point estimate, SPSA).

    Example:
        >>> optimizer = MeZO(model.parameters(), lr=1e-3)
        >>> evaluate = lambda: model(inputs).square().mean()
        >>> loss = optimizer.step(evaluate)
    """

    FORWARD_ONLY = True  # planning and the training loop read it: no backward, `step` has a closure
    HALF = True
    GROUP_KEYS = frozenset({"taken"})
    TORCH_OPTIONS = False
    STATE = "0"  # numbers kept per matrix
    VECTOR = "0"  # numbers kept per vector
    DENSE = "0"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-6,
        *,
        perturbation: float = 1e-3,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        self._estimate_norm: Tensor | None = None
        self.check_options(settings(locals()))
        super().__init__(params, {**settings(locals()), "taken": 0})

    @classmethod
    def formula(cls, **options: object) -> str:
        """Return the formula of the numbers kept per matrix: there are none."""
        return cls.STATE

    def add_param_group(self, param_group: dict) -> None:
        """Add a parameter group, as in torch.

        Raises:
            ValueError: the perturbation or the seed differs from the first group's.
        """
        super().add_param_group(param_group)
        first, group = self.param_groups[0], self.param_groups[-1]
        for name in ("perturbation", "seed"):
            if group[name] != first[name]:
                self.param_groups.pop()
                raise ValueError(
                    f"MeZO: param_groups[{len(self.param_groups)}].{name}: got {group[name]!r}, "
                    f"allowed: {first[name]!r}, as in param_groups[0], because all parameters are "
                    "perturbed together"
                )
        group["taken"] = first["taken"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:
        """Take one step from two losses.

        Args:
            closure: returns the loss, a scalar; called twice.

        Returns:
            The mean of the two losses.

        Raises:
            ValueError: no closure.
        """
        if closure is None:
            raise ValueError(
                "closure: got none, allowed: a function that returns the loss, because MeZO "
                "computes no gradient"
            )
        size = self.param_groups[0]["perturbation"]
        self._perturb(size)
        above = closure()
        self._perturb(-2 * size)
        below = closure()
        self._perturb(size)
        slope = (above - below) / (2 * size)
        self._descend(slope)
        for group in self.param_groups:
            group["taken"] += 1
        return (above + below) / 2

    def gradient_norm(self) -> Tensor:  # ()
        """Return the norm of the last step's estimate of the gradient, g z.

        Raises:
            RuntimeError: before the first step.
        """
        if self._estimate_norm is None:
            raise RuntimeError("gradient_norm: no step was taken")
        return self._estimate_norm

    def allocate(self) -> None:
        """Do nothing: there is no state."""

    def gradients_bytes(self) -> int:
        """Return the bytes of gradients: none exist."""
        return 0

    def _perturb(self, size: float) -> None:
        """Add `size` z to the weights."""
        for _, param, direction in self._directions():
            param.add_(direction, alpha=size)

    def _descend(self, slope: Tensor) -> None:
        """Decay the weights, and move them against `slope` z."""
        square = torch.zeros_like(slope)
        for group, param, direction in self._directions():
            square += torch.linalg.vector_norm(wide(direction)).square().to(square.device)
            if group["weight_decay"]:
                param.mul_(1 - group["lr"] * group["weight_decay"])
            # The slope stays on the device: no step waits for its value.
            move = direction.mul_((slope * -group["lr"]).to(direction.dtype))
            param.add_(move)
        self._estimate_norm = slope.abs() * square.sqrt()

    def _directions(self) -> Iterator[tuple[dict, Tensor, Tensor]]:
        """Yield every parameter that trains with its group and its part of z, drawn anew.

        One generator per device draws for one parameter after the other.
        """
        first = self.param_groups[0]
        generators: dict[torch.device, torch.Generator | None] = {}
        for group in self.param_groups:
            for param in group["params"]:
                if not param.requires_grad:
                    continue
                if param.device not in generators:
                    generators[param.device] = _generator(first, param.device)
                direction = torch.randn(
                    param.shape,
                    generator=generators[param.device],
                    dtype=param.dtype,
                    device=param.device,
                )
                yield group, param, direction


def _generator(group: dict, device: torch.device) -> torch.Generator | None:
    """Seed a generator by the optimizer's seed and the step: a resumed run draws the same."""
    if device.type == "meta":
        return None
    return torch.Generator(device).manual_seed(group["seed"] * 1_000_003 + group["taken"])
