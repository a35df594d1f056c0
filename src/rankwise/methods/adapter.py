"""Bottleneck adapters: f(h) = s (W_u act(W_d h + b_d) + b_u), with W_d (k, d) and W_u (d, k).

Legend: x is the input of the feed-forward block, h its output (after dropout where it is added to
x), LN the pretrained norm after that addition, y the layer's output.

houlsby (Houlsby et al. 2019, arXiv 1902.00751, figure 2): h + f(h) after the attention output and
after the feed-forward output, each before the block's residual addition. half_houlsby: the second
of these two alone.

pfeiffer (Pfeiffer et al. 2020, arXiv 2005.00247; AdapterHub's configuration `seq_bn`, formerly
`pfeiffer`, with original_ln_before, original_ln_after and residual_before_ln): the adapter reads
the sum after its norm, and the norm runs once more over the sum with f added:

    y = LN(x + h + f(LN(x + h)))        BERT, RoBERTa, DistilBERT (post-norm)
    y = x + h + f(x + h)                Llama, GPT-2, ModernBERT, ... (pre-norm)

A pre-norm layer has no norm after its addition. AdapterHub passes none for these models, so the two
LN drop out of the same equation, and f reads the residual stream. (`Adapter.pre_forward`, `forward`
and `post_forward` in adapters/methods/modeling.py, commit 88f18eb.) Of GPT-NeoX, x + h is the sum
of the residual stream and of both blocks, which run side by side.

parallel (He et al. 2021, arXiv 2110.04366, table 1): h + f(x); there s = 4. In a pre-norm layer our
x is the normed input, which the block's matrices read; AdapterHub's is the residual stream before
the norm.

`rank` is k. The code is our own, from the formulas: peft has no such adapter, and AdapterHub's
library does not run with transformers 5. Where we differ from the authors: W_u and both biases
start at zero, so that the start is exact (the authors' W_u is small noise), and W_d is
Kaiming-uniform; the norms stay frozen (Houlsby trains them); the f of all placements but pfeiffer
sits on the output matrix, before the block's dropout. Nothing merges, because act is not linear.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankwise.methods.parts.base import Method, train_only
from rankwise.methods.parts.peft_base import modules_of

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
# Roles of the matrices that a placement hooks. Pfeiffer's hooks the end of a layer instead.
PLACES = {"houlsby": ("output", "down"), "half_houlsby": ("down",), "parallel": ("up", "down")}
FUSED = {"up": "gate_up"}  # the role of a matrix that holds another
# The norm after the feed-forward block's addition, by family. A layer of a pre-norm model ends with
# that addition; "" is the layer itself.
LAYER_ENDS = {
    "bert": "output.LayerNorm",
    "distilbert": "output_layer_norm",
    "gemma2": "",
    "gpt2": "",
    "gpt_neox": "",
    "llama": "",
    "mistral": "",
    "modernbert": "",
    "phi3": "",
    "qwen2": "",
    "roberta": "output.LayerNorm",
}


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


def _add_inside_norm(norm: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    # Calling `forward` runs the norm without this hook.
    return norm.forward(args[0] + norm.adapter(output))


@dataclass(frozen=True)
class Adapter(Method):
    """Adds adapters; `rank` is the bottleneck's width k, the authors' d / 16 to d / 2."""

    QUANTIZED = True
    MERGES = False
    MODEL = "h * (2 if placement == 'houlsby' else 1) * (2 * d * r + r + d)"

    rank: int
    placement: Literal["houlsby", "half_houlsby", "pfeiffer", "parallel"] = "houlsby"
    activation: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    scale: float = 1.0

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Hook an adapter to the modules of the placement; adapters and a new head train."""
        train_only(model, tuple(names["new_head"]))
        width = names["hidden_size"]
        if self.placement == "pfeiffer":
            self._adapt_layer_ends(model, width)
            return model
        modules_by_role = {role: _modules(model, role, names) for role in PLACES[self.placement]}
        if self.placement == "parallel":
            for up, down in zip(modules_by_role["up"], modules_by_role["down"], strict=True):
                up.adapter = self._attach(down, width, _add_adapter)
                up.register_forward_pre_hook(_keep_input)
        else:
            for modules in modules_by_role.values():
                for module in modules:
                    self._attach(module, width, _add_adapter)
        return model

    def _adapt_layer_ends(self, model: nn.Module, width: int) -> None:
        end = LAYER_ENDS[model.config.model_type]
        layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        for layer in layers:
            hook = _add_inside_norm if end else _add_adapter
            self._attach(layer.get_submodule(end), width, hook)

    def _attach(self, module: nn.Module, width: int, hook: Callable) -> Bottleneck:
        """Put an adapter on the output of `module`."""
        device = next(module.parameters()).device
        module.adapter = Bottleneck(width, self.rank, self.activation, self.scale, device)
        module.register_forward_hook(hook)
        return module.adapter

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse a model where the placement's modules are unknown."""
        if self.placement == "pfeiffer":
            family = model.config.model_type
            if family in LAYER_ENDS:
                return None
            known = ", ".join(LAYER_ENDS)
            return f"placement pfeiffer knows the layers of {known}, not of {family}"
        absent = [role for role in PLACES[self.placement] if not _modules(model, role, names)]
        return f"the model's entry names no module for {' and '.join(absent)}" if absent else None

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Return None, because the activation is not linear."""
        return None


def _modules(model: nn.Module, role: str, names: dict) -> list[nn.Module]:
    """The modules of a role, or else of the fused matrix that holds it."""
    found = modules_of(model, (role,), names)
    if not found and role in FUSED:
        found = modules_of(model, (FUSED[role],), names)
    return list(found.values())
