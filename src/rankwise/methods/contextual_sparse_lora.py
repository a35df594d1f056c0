"""SparseLoRA: LoRA beside frozen matrices that, in training, compute only some of their channels.

Source: Khaki et al. 2025, arXiv 2506.16500; authors' code z-lab/sparselora, f0e5c7d. It saves
compute, not memory: the LoRA branch (Hu et al. 2021, arXiv 2106.09685; by peft), its gradients and
its optimizer state are dense. So is the model in evaluation and once it is merged.

What is cut: query, key, value, gate and up by output channels, output and down by input channels.
This holds in all layers but the first `dense_first` and the last `dense_last`, whether LoRA adapts
the matrices or not. Chosen rows or columns are gathered and multiplied, so the FLOPs of these
matrices fall to (1 - s), forward and in the gradient of the input. A channel that is left out is
zero, its bias with it; LoRA's B A x is added to that. The gathered weights are held for backward:
(1 - s) of the cut matrices.

Which channels: W is estimated once by its SVD of rank r = `estimator_rank`, and then W x + b for 2
N r (m + n) FLOPs. Each block chooses once a batch, by norms over the sparse tokens X of all
sequences, padding included. Gate, up and down: by ||act(X W_gate') * (X W_up')||, or ||act(X W_up'
+ b)|| without a gate. Value and output: by ||X W_v' + b||. Query and key: by the product of their
norms. Under grouped-query attention the partners of key channel (h, c) are the channels (h g + i,
c), i < g, of the query heads that share it; their norm is joint, and they are cut together.

When: after step `start_step`; until then everything is dense (the paper: for the first 5 to 10 % of
the steps).

Which tokens: with `output_tokens: dense`, tokens with a label (not -100) are computed in full, as
in the paper. A classifier's tokens have no labels of their own, so all are sparse. A text whose
every token is a label has no sparse tokens: it needs `output_tokens: sparse`, or the method is
LoRA. A profile from shapes has no labels, so all its tokens are sparse.

Where we differ from the authors' code: gradients are exact, those of what forward computed. There,
the base path of sparse tokens gives no gradient to its input (here `gradients: none_through_base`,
under which LoRA on query, key and value learns only if it is on output too). Feed-forward scores do
not average the tokens first. Key and query channels are paired as the models lay them out; there,
key channel k has the query channels k g + i. All sparse layers have one sparsity, where the authors
have a table for each model. No kernels of its own are needed, so it runs anywhere, for BERT,
DistilBERT and Llama.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rankwise.methods.parts.lora_base import LoraBase
from rankwise.methods.parts.peft_base import IGNORED
from rankwise.methods.parts.sparse_channels import (
    Attention,
    ChannelLinear,
    FeedForward,
    Mode,
    linear_columns,
    linear_rows,
)

BERT = {
    "attention": {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
    },
    "feed_forward": {"up": "intermediate.dense", "down": "output.dense"},
    "activation": "intermediate.intermediate_act_fn",
}
DISTILBERT = {
    "attention": {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "output": "attention.out_lin",
    },
    "feed_forward": {"up": "ffn.lin1", "down": "ffn.lin2"},
    "activation": "ffn.activation",
}
LLAMA = {
    "attention": {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
    },
    "feed_forward": {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
    "activation": "mlp.act_fn",
}
# Module names inside one layer of the model, by family. In each block the first of the estimated
# matrices (query; gate, or up without a gate) must be the first that the model calls, because it
# chooses the channels.
LAYOUTS = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "gemma2": LLAMA,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "roberta": BERT,
}
BY_COLUMNS = ("output", "down")  # roles that are cut by input channels


@dataclass(frozen=True)
class ContextualSparseLora(LoraBase):
    """Trains A and B beside sparse matrices; `targets` are adapted by LoRA, whether cut or not."""

    ffn_sparsity: float = 0.9
    attention_sparsity: float = 0.5
    start_step: int = 100
    estimator_rank: int = 8
    dense_first: int = 1
    dense_last: int = 1
    output_tokens: Literal["dense", "sparse"] = "dense"
    gradients: Literal["exact", "none_through_base"] = "exact"

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Put channel linears into the layers, add LoRA, and estimate the weights by SVD."""
        mode = Mode(active=self.start_step == 0, exact_gradients=self.gradients == "exact")
        blocks = []
        for layer in self._sparse_layers(model):
            blocks += self._make_sparse(layer, model.config, mode)
        adapted = super().prepare(model, names)
        # The SVD draws random numbers. It comes after LoRA's own draws, which then are those of
        # plain LoRA.
        for block in blocks:
            for linear in block.estimated:
                linear.fit(self.estimator_rank)
        if self.output_tokens == "dense":
            adapted.register_forward_pre_hook(_FindLabelledTokens(mode), with_kwargs=True)
        return adapted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse model families of unknown layout, and options under which no layer is sparse."""
        family = model.config.model_type
        if family not in LAYOUTS:
            return f"contextual sparsity knows the layers of {', '.join(LAYOUTS)}, not of {family}"
        if not len(self._sparse_layers(model)):
            dense = f"dense_first {self.dense_first} and dense_last {self.dense_last}"
            return f"{dense} leave no layer to be sparse"
        return super().unsupported(model, names)

    def after_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Turn sparsity on from `start_step` on."""
        self.resume(model, step)

    def resume(self, model: nn.Module, step: int) -> None:
        """Turn sparsity on if `step` has reached `start_step`."""
        if step >= self.start_step:
            self.settle(model)

    def settle(self, model: nn.Module) -> None:
        """Turn sparsity on."""
        for _, linear in _channel_linears(model):
            linear.mode.active = True

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Merge LoRA, and put ordinary linear layers back."""
        merged = super().merge(model)
        for name, linear in _channel_linears(merged):
            merged.set_submodule(name, linear.plain())
        return merged

    def _sparse_layers(self, model: nn.Module) -> nn.ModuleList:
        layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        return layers[self.dense_first : len(layers) - self.dense_last]

    def _make_sparse(
        self, layer: nn.Module, config: object, mode: Mode
    ) -> list[Attention | FeedForward]:
        """Put channel linears into one layer of the model; a block of sparsity 0 stays as it is."""
        layout, blocks = LAYOUTS[config.model_type], []
        if self.attention_sparsity:
            linears = _replace(layer, layout["attention"], mode)
            heads = config.num_attention_heads
            blocks.append(Attention(**linears, heads=heads, sparsity=self.attention_sparsity))
        if self.ffn_sparsity:
            linears = {"gate": None, **_replace(layer, layout["feed_forward"], mode)}
            activation = layer.get_submodule(layout["activation"])
            blocks.append(FeedForward(**linears, activation=activation, sparsity=self.ffn_sparsity))
        return blocks


def _replace(
    layer: nn.Module, name_by_role: dict[str, str], mode: Mode
) -> dict[str, ChannelLinear]:
    """Replace the linear layers with these roles; returns the new ones by role."""
    linears = {}
    for role, name in name_by_role.items():
        cut = linear_columns if role in BY_COLUMNS else linear_rows
        linears[role] = ChannelLinear(layer.get_submodule(name), mode, cut)
        layer.set_submodule(name, linears[role])
    return linears


def _channel_linears(model: nn.Module) -> list[tuple[str, ChannelLinear]]:
    modules = model.named_modules()
    return [(name, module) for name, module in modules if isinstance(module, ChannelLinear)]


@dataclass
class _FindLabelledTokens:
    """Before each call of the model: find out which tokens have a label of their own."""

    mode: Mode

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        labels: Tensor | None = kwargs.get("labels")
        self.mode.context = self.mode.outputs = None
        # A classifier's labels are (batch), one a text; those of tokens are (batch, tokens).
        has_token_labels = labels is not None and labels.ndim == 2
        if self.mode.active and model.training and has_token_labels:
            is_labelled = labels.flatten() != IGNORED
            self.mode.context = (~is_labelled).nonzero().squeeze(1)
            self.mode.outputs = is_labelled.nonzero().squeeze(1)
