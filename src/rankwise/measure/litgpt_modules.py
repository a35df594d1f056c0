"""A Llama decoder as litgpt builds it, for predictions of runs by litgpt.

The values are those of transformers' modules, but other tensors are kept for backward:

- One matrix makes queries, keys and values, and attention reads parts of its output. Where each
  head has keys and values of its own, the values are such a part, so all of the output is kept
  (three tensors of the width in place of one).
- Where several heads share keys and values (grouped queries), these are copied for each head before
  attention, which keeps the copies.
- Rotated queries are put together (`torch.cat`) with heads before tokens. The fused kernels give
  their output the layout of the queries, so it is copied for the output matrix, whose 4-bit layer
  may hold the copy.
- LoRA of query, key and value has one dropout, and one product with all A. If one of the three is
  left out, the update is spread over a tensor of the width of all three (`index_copy`, which keeps
  what it spreads).
- A quantized base has a head in 4 bits, too.

Sources: litgpt at 5895df1, litgpt/model.py (`CausalSelfAttention`) and litgpt/lora.py
(`LoRAQKVLinear`, after `MergedLinear` of Hu et al.'s loralib); lightning_fabric 2.1 to 2.4,
plugins/precision/bitsandbytes.py, which replaces every linear layer.

This module is imported by name, where a profile asks for it.
"""

import itertools

import bitsandbytes as bnb
import torch
from peft import PeftType
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb

from rankwise.core.errors import Unsupported

NAME = "modules litgpt"
PARTS = ("q_proj", "k_proj", "v_proj")
QUANTIZED = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)


def use(model: nn.Module) -> None:
    """Replace the attention of every layer, and the head of a quantized base, in place.

    Args:
        model: A causal Llama, adapted by a method.

    Raises:
        Unsupported: It is another model, or its attention is adapted by something else than LoRA.
    """
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.peft_type == PeftType.PREFIX_TUNING:
        raise Unsupported(_refusal("prefix tuning"))
    inner = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    if not isinstance(inner, LlamaForCausalLM):
        raise Unsupported(f"{NAME}: got {type(inner).__name__}; allowed: LlamaForCausalLM")
    with torch.device(inner.lm_head.weight.device):
        for layer in inner.model.layers:
            layer.self_attn = _Attention(layer.self_attn)
        base = inner.model.layers[0].self_attn.attn.base
        inner.lm_head = _stored_like(base, inner.lm_head)


class _Attention(nn.Module):
    """Causal attention whose queries, keys and values are parts of one output.

    Args:
        plain: The attention that it replaces; its matrices are taken over.
    """

    def __init__(self, plain: LlamaAttention):
        super().__init__()
        self.attn = _Fused([getattr(plain, name) for name in PARTS])
        self.o_proj = plain.o_proj
        self.width = plain.head_dim
        self.sharing = plain.num_key_value_groups  # heads that share keys and values

    def forward(
        self,
        hidden_states: Tensor,  # (batch, length, hidden)
        position_embeddings: tuple[Tensor, Tensor],
        **_: object,
    ) -> tuple[Tensor, None]:
        heads = self.attn(hidden_states).unflatten(-1, (-1, self.width))
        groups = heads.shape[2] // (self.sharing + 2)
        query, key, value = heads.split([groups * self.sharing, groups, groups], dim=2)
        key, value = self._for_each_head(key), self._for_each_head(value)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        rotated = apply_rotary_pos_emb(query, key, *position_embeddings)
        query, key = (part.contiguous() for part in rotated)  # heads before tokens
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2)), None

    def _for_each_head(self, shared: Tensor) -> Tensor:
        """Keys or values for each head: (batch, length, groups, width) -> (..., heads, width)."""
        if self.sharing == 1:
            return shared
        return shared.unsqueeze(3).expand(-1, -1, -1, self.sharing, -1).flatten(2, 3)


class _Fused(nn.Module):
    """One linear layer of the outputs of several, with LoRA of some of them.

    Args:
        layers: Linear layers that read the same, dense or in 4 bits, or LoRA's layers around them.

    Raises:
        Unsupported: A layer is adapted by something else than LoRA.
    """

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        adapted = [layer for layer in layers if isinstance(layer, BaseTunerLayer)]
        for layer in adapted:
            if not isinstance(layer, LoraLayer) or isinstance(layer, AdaLoraLayer):
                raise Unsupported(_refusal(type(layer).__module__))
            if any(layer.use_dora.values()):
                raise Unsupported(_refusal("DoRA"))
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        for base in bases:
            if type(base) is not nn.Linear and not isinstance(base, QUANTIZED):
                raise Unsupported(_refusal(type(base).__module__))
        self.base = _one_layer(bases)
        self.A = self.B = None
        if adapted:
            self._take_lora(layers, [base.out_features for base in bases])

    def _take_lora(self, layers: list[nn.Module], sizes: list[int]) -> None:
        adapted = [layer for layer in layers if isinstance(layer, LoraLayer)]
        (name,) = adapted[0].active_adapters
        self.dropout, self.scaling = adapted[0].lora_dropout[name], adapted[0].scaling[name]
        downs = [layer.lora_A[name].weight for layer in adapted]
        ups = [layer.lora_B[name].weight for layer in adapted]
        self.ranks, self.rows = [len(down) for down in downs], [len(up) for up in ups]
        self.A, self.B = _one_parameter(downs), _one_parameter(ups)  # (ranks, n), (rows, r)
        # Where the updates of the adapted layers belong in the output of all.
        ranges = [
            torch.arange(end - size, end)
            for layer, size, end in zip(layers, sizes, itertools.accumulate(sizes), strict=True)
            if isinstance(layer, LoraLayer)
        ]
        self.register_buffer("index", torch.cat(ranges), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        out = self.base(x)
        if self.A is None:
            return out
        low = functional.linear(self.dropout(x.to(self.A.dtype)), self.A)
        pairs = zip(low.split(self.ranks, -1), self.B.split(self.rows), strict=True)
        update = torch.cat([functional.linear(part, up) for part, up in pairs], -1)
        if len(self.index) < out.shape[-1]:
            zeros = update.new_zeros(out.shape)
            update = zeros.index_copy(-1, self.index, update)
        return out + (update * self.scaling).to(out.dtype)


def _refusal(got: str) -> str:
    return f"{NAME}: got attention that {got} adapts; allowed: LoRA, or no adapter"


def _one_parameter(parts: list[nn.Parameter]) -> nn.Parameter:
    """The rows of several parameters in one, which trains if they do."""
    rows = torch.cat([part.detach() for part in parts])
    return nn.Parameter(rows, requires_grad=parts[0].requires_grad)


def _one_layer(layers: list[nn.Module]) -> nn.Module:
    """One linear layer with the rows of several, stored as they are."""
    first = layers[0]
    rows = torch.cat(
        [layer.weight.detach() if _is_dense(layer) else layer.dense_weight() for layer in layers]
    )
    fused = nn.Linear(first.in_features, len(rows), bias=False, device="meta")
    fused.weight = nn.Parameter(rows, requires_grad=first.weight.requires_grad)
    if first.bias is not None:
        bias = torch.cat([layer.bias.detach() for layer in layers])
        fused.bias = nn.Parameter(bias, requires_grad=first.bias.requires_grad)
    return _stored_like(first, fused)


def _is_dense(layer: nn.Module) -> bool:
    return layer.weight.is_floating_point()


def _stored_like(example: nn.Module, layer: nn.Module) -> nn.Module:
    """The dense `layer` stored as `example` is: in 4 bits, or as it was.

    Raises:
        Unsupported: The example is in 8 bits.
    """
    if _is_dense(example) or not _is_dense(layer):
        return layer
    state = getattr(example.weight, "quant_state", None)
    if state is None:
        raise Unsupported(f"{NAME}: got weights int8; allowed: fp32, bf16, nf4 or nf4_double")
    return type(example)(layer, state.nested, example.compute_dtype)
