"""SHiRA: W' = W + S, with r (m + n) trained entries of S at random places; by peft.

Source: Bhardwaj et al. 2024, arXiv 2406.13175; of the paper's masks this is SHiRA-Rand. As many
numbers train as in LoRA of rank r, but the update has high rank. S starts at zero.

The places are drawn here, from torch's global generator or from `seed`, for every matrix anew:
peft's own places are the same in every matrix of one shape and, without a seed, in every run. peft
adds S to a copy of W in each forward, which takes workspace of mn numbers, and the dense gradient
of W in backward.
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
    """`count` different places in a matrix; None stands for torch's global generator.

    Args:
        weight: the matrix; only its shape matters.
        count: how many places, at most m n.
        generator: source of the places, on the CPU.
    """
    order = torch.randperm(weight.numel(), generator=generator, device="cpu")
    places = order[:count].sort().values
    columns = weight.shape[1]
    return torch.stack([places // columns, places % columns]).int()


@dataclass(frozen=True)
class Shira(PeftMethod):
    """Trains the entries of S; with a `seed` every run has the same places, with None its own."""

    TRAINABLE = "r * (m + n)"
    LINEAR_ONLY = True

    rank: int
    targets: tuple[str, ...]
    seed: int | None = None

    def config(self, names: dict) -> ShiraConfig:
        config = ShiraConfig(r=self.rank)
        config.mask_fn = None  # `prepare` sets the places
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt by peft, then draw the places of the trained entries."""
        generator = None if self.seed is None else torch.Generator("cpu").manual_seed(self.seed)
        adapted = super().prepare(model, names)
        for layer in adapted.modules():
            if hasattr(layer, "shira_indices"):
                _set_places(layer, generator)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Also refuse targets with fewer entries than r (m + n)."""
        if reason := super().unsupported(model, names):
            return reason
        for name, module in modules_of(model, self.targets, names).items():
            m, n = module.weight.shape
            count = self.rank * (m + n)
            if count > m * n:
                return f"{name} is {m} x {n}: fewer than the r (m + n) = {count} entries to train"
        return None


def _set_places(layer: nn.Module, generator: torch.Generator | None) -> None:
    weight, values = layer.base_layer.weight, layer.shira_weight["default"]
    if weight.is_meta:
        # Sparse tensors have no backward on the meta device; this has S's shape and reaches
        # `values`.
        layer.get_delta_weight = lambda _: values.sum() * torch.zeros_like(weight)
    else:
        places = random_places(weight, values.numel(), generator)
        layer.shira_indices["default"] = places.to(weight.device)
