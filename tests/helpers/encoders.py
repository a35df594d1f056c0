"""DistilBERT and BERT as classifiers, in plain linear algebra, with places where a test puts something of its own.

Vaswani et al. 2017 and Devlin et al. 2019: post-norm layers, exact GELU, without dropout.
"""

import math

import torch
from torch import Tensor, nn

NAMES = {
    "distilbert": {
        "embeddings": "distilbert.embeddings",
        "layers": "distilbert.transformer.layer",
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "output": "attention.out_lin",
        "attention norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "end norm": "output_layer_norm",
    },
    "bert": {
        "embeddings": "bert.embeddings",
        "layers": "bert.encoder.layer",
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "attention norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "end norm": "output.LayerNorm",
    },
}


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


class Encoder:
    """The classifier with the parameters of `model`; a subclass overrides the places.

    Args:
        model: transformers' model, for its weights and sizes.
        weights: values that replace parameters of the model, by name.
    """

    def __init__(self, model: nn.Module, weights: dict[str, Tensor] | None = None):
        self.family, config = model.config.model_type, model.config
        self.names = NAMES[self.family]
        self.weights = {name: value.detach() for name, value in model.named_parameters()}
        self.weights |= weights or {}
        self.heads, self.count = config.num_attention_heads, config.num_hidden_layers
        self.eps = 1e-12

    # Places -------------------------------------------------------------------------------------------------------------

    def linear(self, layer: int, role: str, x: Tensor) -> Tensor:
        """The product of a layer's matrix with `role`."""
        return self.product(f"{self.names['layers']}.{layer}.{self.names[role]}", x)

    def keys_and_values(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What attention sees, (batch, tokens, width)."""
        return key, value

    def after_attention(self, layer: int, h: Tensor) -> Tensor:
        """The attention block's output, before it is added to its input."""
        return h

    def after_feed_forward(self, layer: int, x: Tensor, h: Tensor) -> Tensor:
        """The feed-forward block's output for the input x, before it is added to x."""
        return h

    def end(self, layer: int, total: Tensor) -> Tensor:
        """The layer's output, from the sum of the feed-forward block's input and output."""
        return self.norm(layer, "end norm", total)

    # The model ----------------------------------------------------------------------------------------------------------

    def product(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].mT + self.weights[f"{name}.bias"]

    def norm(self, layer: int | None, name: str, x: Tensor) -> Tensor:
        path = name if layer is None else f"{self.names['layers']}.{layer}.{self.names[name]}"
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return scaled * self.weights[f"{path}.weight"] + self.weights[f"{path}.bias"]

    def words(self, ids: Tensor) -> Tensor:
        return self.weights[f"{self.names['embeddings']}.word_embeddings.weight"][ids]

    def embed(self, words: Tensor) -> Tensor:
        """Add positions (and BERT's first token type), and normalise."""
        prefix = self.names["embeddings"]
        whole = words + self.weights[f"{prefix}.position_embeddings.weight"][: words.shape[1]]
        if self.family == "bert":
            whole = whole + self.weights[f"{prefix}.token_type_embeddings.weight"][0]
        return self.norm(None, f"{prefix}.LayerNorm", whole)

    def layer(self, i: int, x: Tensor, mask: Tensor) -> Tensor:
        query = self.split(self.linear(i, "query", x))
        key, value = self.keys_and_values(i, self.linear(i, "key", x), self.linear(i, "value", x))
        scores = query @ self.split(key).mT / math.sqrt(query.shape[-1])
        seen = torch.cat([mask.new_ones(len(mask), key.shape[1] - mask.shape[1]), mask], 1)
        shares = scores.masked_fill(seen[:, None, None, :] == 0, -math.inf).softmax(-1)
        joined = (shares @ self.split(value)).transpose(1, 2).flatten(2)
        h = self.after_attention(i, self.linear(i, "output", joined))
        x = self.norm(i, "attention norm", x + h)
        h = self.linear(i, "down", gelu(self.linear(i, "up", x)))
        return self.end(i, x + self.after_feed_forward(i, x, h))

    def split(
        self, x: Tensor
    ) -> Tensor:  # (batch, tokens, width) -> (batch, heads, tokens, width / heads)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def logits(self, words: Tensor, mask: Tensor) -> Tensor:
        """The classes' logits.

        Args:
            words: embeddings of words, before positions are added.
            mask: 1 where a token counts.
        """
        x = self.embed(words)
        for i in range(self.count):
            x = self.layer(i, x, mask)
        return self.classify(x[:, 0])

    def classify(self, first: Tensor) -> Tensor:
        if self.family == "bert":
            return self.product("classifier", self.product("bert.pooler.dense", first).tanh())
        return self.product("classifier", self.product("pre_classifier", first).relu())
