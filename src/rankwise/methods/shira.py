"""SHiRA: W' = W + S, S with r (m + n) trained entries at random places (Bhardwaj et al. 2024, arXiv 2406.13175); by peft.

As many numbers train as in LoRA of rank r, but the update has high rank. Of the paper's masks this is SHiRA-Rand. S starts
at zero.

The places are drawn here, from torch's global generator or from `seed`, anew for every matrix: peft's own are the same in every
matrix of one shape and, without a seed, in every run. peft adds S to a copy of W in each forward, which takes workspace of mn
numbers and the dense gradient of W in backward.
"""

from dataclasses import dataclass

import torch
from peft import ShiraConfig
from torch import Tensor, nn

from rankwise.methods.parts.peft_base import PeftMethod, modules_of


def random_places(
    weight: Tensor,  # (m, n)
    count: int,
    generator: torch.Generator | None,
) -> Tensor:  # (2, count): rows and columns, in row-major order
    """`count` different places in a matrix."""
    places = torch.randperm(weight.numel(), generator=generator, device="cpu")[:count].sort().values
    return torch.stack([places // weight.shape[1], places % weight.shape[1]]).int()


@dataclass(frozen=True)
class Shira(PeftMethod):
    """Options; `seed` fixes the places for every run, None draws them with the run's."""

    TRAINABLE = "r * (m + n)"
    LINEAR_ONLY = True

    rank: int
    targets: tuple[str, ...]
    seed: int | None = None

    def config(self, names: dict) -> ShiraConfig:
        config = ShiraConfig(r=self.rank)
        config.mask_fn = None  # the places come with prepare
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        generator = None if self.seed is None else torch.Generator("cpu").manual_seed(self.seed)
        adapted = super().prepare(model, names)
        for layer in (module for module in adapted.modules() if hasattr(module, "shira_indices")):
            weight, values = layer.base_layer.weight, layer.shira_weight["default"]
            if weight.is_meta:  # no places, and sparse tensors have no backward there
                layer.get_delta_weight = lambda _, values=values, weight=weight: (
                    values.sum() * torch.zeros_like(weight)
                )
            else:
                layer.shira_indices["default"] = random_places(
                    weight, values.numel(), generator
                ).to(weight.device)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        if reason := super().unsupported(model, names):
            return reason
        for name, module in modules_of(model, self.targets, names).items():
            m, n = module.weight.shape
            if self.rank * (m + n) > m * n:
                return f"{name} is {m} x {n}: fewer than the r (m + n) = {self.rank * (m + n)} entries to train"
        return None
