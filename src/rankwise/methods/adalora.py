"""AdaLoRA: W' = W + (alpha / r0) P diag(lambda) Q, whose rank moves to where it matters; by peft.

Source: Zhang et al. 2023, arXiv 2303.10512. P (m, r0), lambda (r0) and Q (r0, n) train, with r0 =
`start_ratio` times the rank; lambda starts at zero. The loss has the term `orthogonality` R, which
keeps P and Q near orthogonal (eq. 4). R is the mean over all factors of the norm of P'P - I or of
QQ' - I, not squared, as in the authors' code. The loss that is reported does not contain it.

The importance of a number w with gradient g is I U, with I a running mean of |w g| and U one of
||w g| - I|, by beta1 and beta2 (eq. 8-10). A triplet counts that of its lambda plus the means of
its column of P and of its row of Q (eq. 7). Every `every_steps` steps from `begin_step` to
`final_step`, the triplets beyond the budget lose their lambda. The budget falls from r0 to the rank
times the number of matrices, by a cubic curve (eq. 11). From `final_step` on the choice is fixed.

A run that ends before `final_step` ends with more triplets than the rank says; the history's
`product_effective_rank` shows it. Weights and gradients are those after the step and its clipping,
as in the authors' code. peft's own loop keeps the running means outside of the state that a
checkpoint saves, and its model adds R in a forward pass that a wrapped classifier does not call.
"""

from dataclasses import dataclass

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import AdaLoraLayer
from torch import Tensor, nn

from rankwise.methods.parts.effective_rank import effective_rank
from rankwise.methods.parts.peft_base import PeftMethod

FACTORS = ("lora_A", "lora_E", "lora_B")  # peft's names of Q (r0, n), lambda (r0, 1) and P (m, r0)


@dataclass(frozen=True)
class AdaLora(PeftMethod):
    """Trains P, lambda and Q; `rank` is the mean rank that is left in the end."""

    QUANTIZED = True
    TRAINABLE = "round(start_ratio * r) * (m + n + 1)"

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0
    start_ratio: float = 1.5
    begin_step: int = 100
    final_step: int = 500
    every_steps: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5

    def config(self, names: dict) -> AdaLoraConfig:
        return AdaLoraConfig(
            init_r=self.start_rank(),
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            total_step=self.final_step + 1,  # peft demands one; its own allocation is not used
        )

    def start_rank(self) -> int:
        """Triplets of a matrix before any is taken away."""
        return round(self.start_ratio * self.rank)

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt by peft, add R to the loss's gradient, and keep the running means."""
        adapted = super().prepare(model, names)
        layers = adapted_layers(adapted)
        for layer in layers:
            layer.ranknum["default"].requires_grad_(False)  # peft lets r0 train on a bf16 base
        adapted.allocation = Allocation(layers)

        def add_regularizer(_model: nn.Module, _inputs: tuple, output: object) -> None:
            if torch.is_grad_enabled() and getattr(output, "loss", None) is not None:
                penalty = self.orthogonality * mean_distance_from_orthogonal(layers)
                output.loss = output.loss + (penalty - penalty.detach())

        adapted.register_forward_hook(add_regularizer)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse a schedule that cannot be."""
        if not 0 <= self.begin_step < self.final_step:
            return f"begin_step {self.begin_step} is not before final_step {self.final_step}"
        if self.start_ratio < 1:
            return f"start_ratio {self.start_ratio} is below 1, so nothing could be taken away"
        return super().unsupported(model, names)

    @torch.no_grad()
    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Update the importance of every number, and take away what is beyond the budget."""
        allocation = next(part for part in model.modules() if isinstance(part, Allocation))
        if step < self.final_step:
            allocation.update_means(self.beta1, self.beta2)
        allocation.gradients.clear()
        is_due = self.begin_step < step and step % self.every_steps == 0
        if step == self.final_step or (step < self.final_step and is_due):
            allocation.choose(self.budget(step))
        if step >= self.final_step or is_due:
            allocation.mask()

    def budget(self, step: int) -> float:
        """Triplets a matrix that may stay after a step (eq. 11).

        Args:
            step: number of the step, from 1.
        """
        begin, final = self.begin_step, self.final_step
        remaining = min(1.0, max(0.0, 1 - (step - begin) / (final - begin)))
        return self.rank + (self.start_rank() - self.rank) * remaining**3

    def observe(self, model: nn.Module) -> dict[str, float]:
        """The effective rank of P diag(lambda) Q, averaged over the matrices."""
        ranks = []
        for layer in adapted_layers(model):
            q, values, p = (getattr(layer, name)["default"] for name in FACTORS)
            ranks.append(effective_rank(p.detach() * values.detach().mT, q.detach()))
        return {"product_effective_rank": sum(ranks) / len(ranks)} if ranks else {}


def adapted_layers(model: nn.Module) -> list[AdaLoraLayer]:
    """The layers with P, lambda and Q, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, AdaLoraLayer)]


def mean_distance_from_orthogonal(layers: list[AdaLoraLayer]) -> Tensor:  # ()
    """The mean of the norms of P'P - I and QQ' - I over all layers."""
    distances = []
    for layer in layers:
        q, p = layer.lora_A["default"], layer.lora_B["default"]
        for product in (q @ q.mT, p.mT @ p):
            identity = torch.eye(len(product), dtype=product.dtype, device=product.device)
            distances.append((product - identity).norm())
    return torch.stack(distances).mean()


class Allocation(nn.Module):
    """The importance of every number, and the triplets that stay, as buffers.

    Buffers are in the model's state, so that a resumed run takes away the same triplets.

    Attributes:
        gradients: by the number of a parameter, the gradient of the last backward.

    Args:
        layers: the adapted layers, which share one budget.
    """

    def __init__(self, layers: list[AdaLoraLayer]):
        super().__init__()
        # In a tuple, because the layers are parts of the model and not of this module.
        self.params = tuple(getattr(layer, name)["default"] for layer in layers for name in FACTORS)
        self.gradients: dict[int, Tensor] = {}
        for number, param in enumerate(self.params):
            self.register_buffer(f"importance_{number}", torch.zeros_like(param))
            self.register_buffer(f"uncertainty_{number}", torch.zeros_like(param))
            param.register_post_accumulate_grad_hook(self._keeper(number))
        for number, values in self._values():
            self.register_buffer(f"stays_{number}", torch.ones_like(values, dtype=torch.bool))

    def _keeper(self, number: int):
        """Keep a gradient past the step, because the loop drops it there. Clipping is in place."""

        def keep(param: Tensor) -> None:
            self.gradients[number] = param.grad

        return keep

    def _values(self) -> list[tuple[int, Tensor]]:
        """The numbers and parameters that are some lambda; they stand between Q and P."""
        return [(number, self.params[number]) for number in range(1, len(self.params), 3)]

    def update_means(self, beta1: float, beta2: float) -> None:
        """Take the last gradients into the running means (eq. 8-9)."""
        for number, gradient in self.gradients.items():
            importance = self.get_buffer(f"importance_{number}")
            uncertainty = self.get_buffer(f"uncertainty_{number}")
            now = (self.params[number] * gradient).abs()
            importance.mul_(beta1).add_(now, alpha=1 - beta1)
            uncertainty.mul_(beta2).add_((now - importance).abs(), alpha=1 - beta2)

    def choose(self, budget: float) -> None:
        """Choose the most important triplets of all layers together.

        Args:
            budget: triplets a matrix.
        """
        scores = [self._score(number) for number, _ in self._values()]
        count = sum(len(score) for score in scores)
        dropped = count - int(budget * len(scores))
        if dropped <= 0:
            return
        threshold = torch.cat(scores).kthvalue(dropped).values
        for (number, _), score in zip(self._values(), scores, strict=True):
            self.get_buffer(f"stays_{number}").copy_((score > threshold).unsqueeze(1))

    def _score(self, number: int) -> Tensor:  # (r0,)
        """The importance of the triplets whose lambda has this number (eq. 7)."""
        row, value, column = (
            self.get_buffer(f"importance_{place}") * self.get_buffer(f"uncertainty_{place}")
            for place in (number - 1, number, number + 1)
        )
        return value.flatten() + row.mean(1) + column.mean(0)

    def mask(self) -> None:
        """Set the lambda of every triplet that does not stay to zero."""
        for number, values in self._values():
            values.masked_fill_(~self.get_buffer(f"stays_{number}"), 0.0)
