"""Bottleneck adapters, against DistilBERT and BERT written out with the adapter of each paper in its place."""

import pytest
import torch
from torch import Tensor

from helpers.encoders import Encoder, gelu
from helpers.lockstep import (
    DECAY,
    EPS,
    AdamW,
    Pair,
    check_gradients,
    check_training,
    classified,
    pair,
    plain_name,
)
from references.registry import entries

# By entry: the adapter of the attention block, of the feed-forward block, on its input, or at the layer's end; and s.
PLACES = {
    "adapter_houlsby": (("attention", "feed-forward"), gelu, 1.0),
    "adapter_half_houlsby": (("feed-forward",), torch.relu, 1.0),
    "adapter_pfeiffer": (("end",), torch.relu, 1.0),
    "adapter_parallel": (("input",), torch.relu, 4.0),
}


class Adapted(Encoder):
    """f(h) = s (W_u act(W_d h + b_d) + b_u) in its places.

    Houlsby et al. 2019, figure 2: h + f(h) after both blocks. He et al. 2021, table 1: h + f(x). Pfeiffer et al.
    2020 in AdapterHub's configuration seq_bn (original_ln_before, original_ln_after, residual_before_ln):
    LN(x + h + f(LN(x + h))).
    """

    def __init__(self, found: Pair, theirs: dict[str, Tensor]):
        trained = {
            plain_name(name): value for name, value in theirs.items() if ".adapter." not in name
        }
        super().__init__(found.plain, trained)
        self.places, self.act, self.scale = PLACES[found.name]
        self.adapters = {name: value for name, value in theirs.items() if ".adapter." in name}

    def f(self, layer: int, place: str, h: Tensor) -> Tensor | float:
        if place not in self.places:
            return 0.0
        ending = self.names["output"] if place == "attention" else ""
        prefix = f"{self.names['layers']}.{layer}.{ending}"
        parts = {}
        for name, value in self.adapters.items():
            is_attention = f".{self.names['output']}." in name
            if name.startswith(prefix) and is_attention == (place == "attention"):
                parts[name.split(".adapter.")[1]] = value
        assert len(parts) == 4
        down = self.act(h @ parts["reduce.weight"].mT + parts["reduce.bias"])
        return self.scale * (down @ parts["expand.weight"].mT + parts["expand.bias"])

    def after_attention(self, layer: int, h: Tensor) -> Tensor:
        return h + self.f(layer, "attention", h)

    def after_feed_forward(self, layer: int, x: Tensor, h: Tensor) -> Tensor:
        return h + self.f(layer, "feed-forward", h) + self.f(layer, "input", x)

    def end(self, layer: int, total: Tensor) -> Tensor:
        if "end" not in self.places:
            return super().end(layer, total)
        return super().end(layer, total + self.f(layer, "end", super().end(layer, total)))


@pytest.mark.parametrize("model", ["tiny", "minilm"])
@pytest.mark.parametrize(
    "name", entries("test_adapters.py::test_an_adapter_stands_where_its_paper_puts_it")
)
def test_an_adapter_stands_where_its_paper_puts_it(name: str, model: str) -> None:
    found = pair(name, model, optimizer={"weight_decay": DECAY, "eps": EPS})

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = Adapted(found, theirs)
        words = encoder.words(found.batch["input_ids"])
        return classified(found, encoder.logits(words, found.batch["attention_mask"]))

    found.randomise()
    check_gradients(found, answer)
    check_training(found, answer, AdamW())
