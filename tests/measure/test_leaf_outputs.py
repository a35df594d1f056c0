"""Bytes of the outputs of a model's leaf modules, which published system A calls activations."""

import torch
from torch import nn

from helpers.repository import ROOT
from rankwise.measure.memory.leaf_outputs import leaf_outputs, leaf_outputs_bytes
from rankwise.study.plan import Cell, Plan


def test_leaf_outputs_of_a_model_that_looks_into_its_tokens() -> None:
    """GPT-2 searches its tokens for padding; the sizes are counted by hand, in widths of 768."""
    grid = {
        "models": ["gpt2"],
        "datasets": ["wikitext2"],
        "methods": ["full"],
        "ranks": [1],
        "batch_size": 2,
        "measured": False,
        "measurements": ["ledger"],
        "sequence_length_tokens": 16,
    }
    plan = Plan({"name": "t", "question": "?", "device": "cpu", "profile": [grid]}, ROOT)
    request = plan.request("ledger", Cell("gpt2", "wikitext2", "full", 0))
    attention = 1 + 3 + 1 + 1  # norm, the three projections, projection, dropout
    feed_forward = 1 + 4 + 4 + 1 + 1  # norm, projection up, GELU, projection down, dropout
    around = 1 + 1 + 1  # embeddings, their dropout, the last norm
    per_token = 768 * (12 * (attention + feed_forward) + around) + 50257  # logits
    positions = 16 * 768  # embedded once for all samples
    assert leaf_outputs_bytes(request) == 4 * (2 * 16 * per_token + positions)


class TwiceCalled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4, dtype=torch.bfloat16)
        self.outer = nn.Sequential(nn.Linear(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.linear(self.linear(x)).float())


def test_a_twice_called_leaf_counts_twice_and_no_hook_is_left() -> None:
    model = TwiceCalled()
    inputs = {"x": torch.zeros(3, 4, dtype=torch.bfloat16)}
    for _ in range(2):  # a hook that was left would count again
        assert leaf_outputs(model, inputs) == 2 * (3 * 4 * 2) + 3 * 6 * 4
