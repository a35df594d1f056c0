"""The base of LoRA and its variants: a trained product of two factors beside a frozen matrix.

W' x = W x + (alpha / r) B A x, with W (m, n) frozen, A (r, n) and B (m, r) trained (Hu et al. 2021,
arXiv 2106.09685, eq. 3); by peft. A starts Kaiming-uniform and B at zero, so that nothing changes
at the start.
"""

from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rankwise.methods.parts.effective_rank import effective_rank
from rankwise.methods.parts.peft_base import PeftMethod


@dataclass(frozen=True)
class LoraBase(PeftMethod):
    """A method with LoRA's factors; a variant inherits these options and adds its own.

    Attributes:
        rank: r.
        targets: roles of the adapted matrices (query, key, value, ...); each model's entry maps
            them to the names of its modules.
        alpha: the numerator of LoRA's factor alpha / r.
        dropout: the share of inputs of A that are dropped in training.
    """

    TRAINABLE = "r * (m + n)"

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0

    def config(self, names: dict) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)

    def observe(self, model: nn.Module) -> dict[str, float]:
        return product_rank(model)


def factor_pairs(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """LoRA's A, whose weight is (r, n), and B, whose weight is (m, r), of every adapted layer."""
    pairs = []
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            pairs += [(layer.lora_A[name], layer.lora_B[name]) for name in layer.lora_A]
    return pairs


def scaled_pairs(model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
    """(A, B, s) of every adapted matrix, W' = W + s B A: parameters (r, n) and (m, r), a factor."""
    pairs = []
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, a in layer.lora_A.items():
                pairs.append((a.weight, layer.lora_B[name].weight, layer.scaling[name]))
    return pairs


@torch.no_grad()
def product_rank(model: nn.Module) -> dict[str, float]:
    """The effective rank of B A, averaged over the adapted layers; nothing if there are none."""
    ranks = [effective_rank(b.weight, a.weight) for a, b in factor_pairs(model)]
    return {"product_effective_rank": sum(ranks) / len(ranks)} if ranks else {}
