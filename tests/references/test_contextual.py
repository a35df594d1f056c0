"""SparseLoRA (Khaki et al. 2025), against an encoder written out with the channels that its rules choose."""

import pytest
import torch
from torch import Tensor

from helpers.encoders import Encoder, gelu
from helpers.lockstep import DECAY, EPS, AdamW, Pair, check_training, classified, pair, plain_name
from references.registry import entries

START = 2  # sparse after this step


class Sparse(Encoder):
    """Layer 0 keeps half of the attention's channels and a tenth of the feed-forward block's; LoRA stays dense.

    With W's whole spectrum the estimates are the exact values. Query and key channels are kept by the product
    of their norms over all tokens of the batch, value channels by their norms, inner ones by those of act(W x).
    """

    def __init__(self, found: Pair, theirs: dict[str, Tensor], *, active: bool):
        self.lora, trained = {}, {}
        for name, value in theirs.items():
            (self.lora if ".lora_" in name else trained)[plain_name(name)] = value
        super().__init__(found.plain, trained)
        self.active, self.kept, self.gamma = active, {}, found.entry["options"]["alpha"] / 4

    def linear(self, layer: int, role: str, x: Tensor) -> Tensor:
        path = f"{self.names['layers']}.{layer}.{self.names[role]}"
        y = self.sparse(role, path, x) if self.active and layer == 0 else self.product(path, x)
        if f"{path}.lora_A.default.weight" in self.lora:
            a, b = (self.lora[f"{path}.lora_{factor}.default.weight"] for factor in "AB")
            y = y + self.gamma * x @ a.mT @ b.mT
        return y

    def sparse(self, role: str, path: str, x: Tensor) -> Tensor:
        if role in ("query", "up"):
            self.choose(role, x.detach())
        kept = self.kept[role]
        if role in ("output", "down"):
            return self.product(path, x * kept)
        return self.product(path, x) * kept

    def choose(self, role: str, x: Tensor) -> None:
        """Which channels of a block are kept, as ones and zeros."""

        def norms(of: str, act=lambda values: values) -> Tensor:
            name = f"{self.names['layers']}.0.{self.names[of]}"
            return act(self.product(name, x)).square().sum((0, 1)).sqrt()

        with torch.no_grad():
            if role == "up":
                inner = norms("up", gelu)
                self.kept["up"] = self.kept["down"] = largest(inner, round(0.1 * len(inner)))
                return
            value, both = norms("value"), norms("query") * norms("key")
            self.kept["query"] = self.kept["key"] = largest(both, len(both) // 2)
            self.kept["value"] = self.kept["output"] = largest(value, len(value) // 2)


def largest(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros_like(scores)
    kept[scores.argsort(descending=True)[:count]] = 1
    return kept


@pytest.mark.parametrize("model", ["tiny", "minilm"])
@pytest.mark.parametrize(
    "name", entries("test_contextual.py::test_it_trains_as_lora_on_the_channels_that_matter")
)
def test_it_trains_as_lora_on_the_channels_that_matter(name: str, model: str) -> None:
    """Dense for two steps, then sparse in training; dense again in evaluation."""
    options = {"start_step": START, "dropout": 0.0, "estimator_rank": 1000}
    found = pair(name, model, options, {"weight_decay": DECAY, "eps": EPS})
    found.ours.train()
    found.randomise()
    state = {"active": False}

    def answer(theirs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = Sparse(found, theirs, active=state["active"])
        words = encoder.words(found.batch["input_ids"])
        return classified(found, encoder.logits(words, found.batch["attention_mask"]))

    check_training(found, answer, AdamW(), after_step=lambda t: state.update(active=t >= START))
    with torch.no_grad():
        sparse, _ = answer(found.theirs)
        torch.testing.assert_close(found.ours(**found.batch).logits, sparse, atol=1e-8, rtol=0)
        state["active"] = False
        dense, _ = answer(found.theirs)
        found.ours.eval()
        torch.testing.assert_close(found.ours(**found.batch).logits, dense, atol=1e-8, rtol=0)
    assert (sparse - dense).abs().max() > 1e-3
