"""Bottleneck adapters: f(h) = s (W_u act(W_d h + b_d) + b_u), with W_d (k, d) and W_u (d, k).

houlsby (Houlsby et al. 2019, arXiv 1902.00751, figure 2): h + f(h) after the attention output and
after the feed-forward output, each before the block's residual addition. pfeiffer (Pfeiffer et al.
2020, arXiv 2005.00247): h + f(h) after the feed-forward output only. parallel (He et al. 2021,
arXiv 2110.04366, table 1): feed-forward output + f(x), with x the input of the feed-forward block;
there s = 4.

`rank` is k. The code is our own, from the formulas: peft has no such adapter, and AdapterHub's
library does not run with transformers 5. Where we differ from the authors: W_u and both biases
start at zero, so that the start is exact (the authors' W_u is small noise), and W_d is
Kaiming-uniform; the norms stay frozen (Houlsby trains them); f sits on the output matrix, before
the block's dropout. Nothing merges, because act is not linear.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankwise.methods.parts.base import Method, train_only
from rankwise.methods.parts.peft_base import modules_of

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
# Roles of the matrices that each placement hooks.
PLACES = {"houlsby": ("output", "down"), "pfeiffer": ("down",), "parallel": ("up", "down")}


class Bottleneck(nn.Module):
    """The function f; a parallel one also keeps the input that it waits for.

    Args:
        width: d.
        rank: k.
        activation: act, a key of ACTIVATIONS.
        scale: s.
        device: of the parameters.
    """

    def __init__(self, width: int, rank: int, activation: str, scale: float, device: torch.device):
        super().__init__()
        self.reduce = nn.Linear(width, rank, device=device)
        self.expand = nn.Linear(rank, width, device=device)
        self.activation, self.scale, self.input = ACTIVATIONS[activation](), scale, None
        for start in (self.reduce.bias, self.expand.weight, self.expand.bias):
            nn.init.zeros_(start)

    def forward(self, hidden: Tensor) -> Tensor:  # (..., d) -> (..., d)
        # Adapters compute in fp32, whatever the base is stored as.
        inner = self.activation(self.reduce(hidden.to(self.reduce.weight.dtype)))
        return self.scale * self.expand(inner).to(hidden.dtype)


def _keep_input(module: nn.Module, args: tuple[Tensor]) -> None:
    module.adapter.input = args[0]


def _add_adapter(module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
    kept, module.adapter.input = module.adapter.input, None
    return output + module.adapter(output if kept is None else kept)


@dataclass(frozen=True)
class Adapter(Method):
    """Adds adapters; `rank` is the bottleneck's width k, the authors' d / 16 to d / 2."""

    QUANTIZED = True
    MODEL = "h * (2 if placement == 'houlsby' else 1) * (2 * d * r + r + d)"

    rank: int
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    activation: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    scale: float = 1.0

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Hook an adapter to the matrices of `PLACES`; adapters and a new head train."""
        train_only(model, tuple(names["new_head"]))
        modules_by_role = {
            role: list(modules_of(model, (role,), names).values())
            for role in PLACES[self.placement]
        }
        width = names["hidden_size"]
        if self.placement == "parallel":
            for up, down in zip(modules_by_role["up"], modules_by_role["down"], strict=True):
                up.adapter = self._attach(down, width)
                up.register_forward_pre_hook(_keep_input)
        else:
            for modules in modules_by_role.values():
                for module in modules:
                    self._attach(module, width)
        return model

    def _attach(self, module: nn.Module, width: int) -> Bottleneck:
        """Put an adapter on the output of `module`."""
        device = module.weight.device
        module.adapter = Bottleneck(width, self.rank, self.activation, self.scale, device)
        module.register_forward_hook(_add_adapter)
        return module.adapter

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse a model whose entry names no module for a place of the adapters."""
        absent = [role for role in PLACES[self.placement] if not modules_of(model, (role,), names)]
        return f"the model's entry names no module for {' and '.join(absent)}" if absent else None

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Return None, because the activation is not linear."""
        return None
