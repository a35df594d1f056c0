"""SparseLoRA: LoRA whose frozen matrices compute, in training, only the channels that matter to the batch.

Source: Khaki et al. 2025, arXiv 2506.16500; authors' code z-lab/sparselora, f0e5c7d. A saver of compute, not of memory: the
LoRA branch (Hu et al. 2021, arXiv 2106.09685; by peft), its gradients and its optimizer state are dense, and so is the model in
evaluation and once merged.

What is cut: query, key, value, gate and up by output channels, output and down by input channels, in all layers but the first
`dense_first` and the last `dense_last`, whether LoRA adapts them or not. Chosen rows or columns are gathered and multiplied, so
the FLOPs of these matrices fall to (1 - s), forward and in the gradient of the input. A channel that is left out is zero,
its bias with it; LoRA's B A x is added to that. The gathered weights are held for backward: (1 - s) of the cut matrices.
Which channels: W is estimated once by its SVD of rank r = `estimator_rank`, and then W x + b for 2 N r (m + n) FLOPs. There is
one choice a batch and block, by norms over the sparse tokens X of all its sequences, padding included: gate, up and down by
||act(X W_gate') * (X W_up')||, or by ||act(X W_up' + b)|| where there is no gate; value and output by ||X W_v' + b||; query and
key by the product of their norms. Under grouped-query attention the partners of key channel (h, c) are the channels
(h g + i, c), i < g, of the query heads that share it; their norm is joint, and they are cut together.
When: after step `start_step`; until then all is dense (the paper: for the first 5 to 10 % of the steps).
Which tokens: with `output_tokens: dense` those with a label (not -100) are computed in full, as in the paper. A classifier's
tokens have no labels of their own, so all are sparse. A text whose every token is a label has no sparse tokens: it needs
`output_tokens: sparse`, or the method is LoRA. A profile from shapes has no labels: there, all tokens are sparse.

Where we differ from the authors' code: gradients are exact, those of what forward computed; there, the base path of sparse
tokens gives none to its input (here `gradients: none_through_base`, under which LoRA on query, key and value learns only if it
is on output too). Feed-forward scores do not average the tokens first. The pairing of key and query channels is that of the
models' own layout; there it is k g + i for key channel k. All sparse layers have one sparsity, where the authors have a table
for each model. It needs no kernels of its own, so it runs anywhere, for BERT, DistilBERT and Llama.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig
from torch import Tensor, nn

from rankwise.methods.parts.peft_base import IGNORED, PeftMethod, product_rank
from rankwise.methods.parts.sparse_channels import (
    Attention,
    ChannelLinear,
    FeedForward,
    Mode,
    linear_columns,
    linear_rows,
)

# Names inside one layer of the model, by family. Query, and gate or up, are the first of their block to be called.
LAYOUTS = {
    "bert": {
        "attention": (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ),
        "feed_forward": {"up": "intermediate.dense", "down": "output.dense"},
        "activation": "intermediate.intermediate_act_fn",
    },
    "distilbert": {
        "attention": ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        "feed_forward": {"up": "ffn.lin1", "down": "ffn.lin2"},
        "activation": "ffn.activation",
    },
    "llama": {
        "attention": (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
        ),
        "feed_forward": {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
        "activation": "mlp.act_fn",
    },
}
BY_COLUMNS = ("output", "down")


@dataclass(frozen=True)
class ContextualSparseLora(PeftMethod):
    """Options; `targets` are the roles that LoRA adapts (query, key, value, ...), not those that are cut."""

    TRAINABLE = "r * (m + n)"

    rank: int
    targets: tuple[str, ...]
    alpha: float = 8.0
    dropout: float = 0.0
    ffn_sparsity: float = 0.9
    attention_sparsity: float = 0.5
    start_step: int = 100
    estimator_rank: int = 8
    dense_first: int = 1
    dense_last: int = 1
    output_tokens: Literal["dense", "sparse"] = "dense"
    gradients: Literal["exact", "none_through_base"] = "exact"

    def __post_init__(self) -> None:
        for name in ("ffn_sparsity", "attention_sparsity"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, allowed: 0 or more, below 1")

    def config(self, names: dict) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        mode = Mode(active=self.start_step == 0, exact_gradients=self.gradients == "exact")
        layout, heads = LAYOUTS[model.config.model_type], model.config.num_attention_heads
        blocks = [
            block
            for layer in self._sparse_layers(model)
            for block in self._blocks(layer, layout, heads, mode)
        ]
        adapted = super().prepare(model, names)
        for block in blocks:  # after LoRA's own draws, which are then those of plain LoRA
            for linear in block.estimated:
                linear.fit(self.estimator_rank)
        if self.output_tokens == "dense":
            adapted.register_forward_pre_hook(_LabelledTokens(mode), with_kwargs=True)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        if model.config.model_type not in LAYOUTS:
            return f"contextual sparsity knows the layers of {', '.join(LAYOUTS)}, not of {model.config.model_type}"
        if not len(self._sparse_layers(model)):
            return f"dense_first {self.dense_first} and dense_last {self.dense_last} leave no layer to be sparse"
        return super().unsupported(model, names)

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        self.resume(model, step)

    def resume(self, model: nn.Module, step: int) -> None:
        if step >= self.start_step:
            self.settle(model)

    def observe(self, model: nn.Module) -> dict[str, float]:
        return product_rank(model)

    def settle(self, model: nn.Module) -> None:
        for _, linear in _channel_linears(model):
            linear.mode.active = True

    def merge(self, model: nn.Module) -> nn.Module | None:
        merged = super().merge(model)
        for name, linear in _channel_linears(merged):
            merged.set_submodule(name, linear.plain())
        return merged

    def _sparse_layers(self, model: nn.Module) -> nn.ModuleList:
        layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        return layers[self.dense_first : len(layers) - self.dense_last]

    def _blocks(
        self, layer: nn.Module, layout: dict, heads: int, mode: Mode
    ) -> list[Attention | FeedForward]:
        """Put channel linears in place in one layer of the model; a block of sparsity 0 stays as it is."""
        blocks = []
        if self.attention_sparsity:
            roles = dict(zip(("query", "key", "value", "output"), layout["attention"], strict=True))
            blocks.append(
                Attention(
                    **_replace(layer, roles, mode), heads=heads, sparsity=self.attention_sparsity
                )
            )
        if self.ffn_sparsity:
            parts = {"gate": None, **_replace(layer, layout["feed_forward"], mode)}
            activation = layer.get_submodule(layout["activation"])
            blocks.append(FeedForward(**parts, activation=activation, sparsity=self.ffn_sparsity))
        return blocks


def _replace(layer: nn.Module, roles: dict[str, str], mode: Mode) -> dict[str, ChannelLinear]:
    parts = {}
    for role, name in roles.items():
        cut = linear_columns if role in BY_COLUMNS else linear_rows
        parts[role] = ChannelLinear(layer.get_submodule(name), mode, cut)
        layer.set_submodule(name, parts[role])
    return parts


def _channel_linears(model: nn.Module) -> list[tuple[str, ChannelLinear]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, ChannelLinear)
    ]


@dataclass
class _LabelledTokens:
    """Before each call: which tokens have a label of their own."""

    mode: Mode

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        labels: Tensor | None = kwargs.get("labels")
        self.mode.context = self.mode.outputs = None
        if self.mode.active and model.training and labels is not None and labels.ndim == 2:
            labelled = labels.flatten() != IGNORED
            self.mode.context, self.mode.outputs = (
                (~labelled).nonzero().squeeze(1),
                labelled.nonzero().squeeze(1),
            )
