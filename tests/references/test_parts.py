"""Methods that train parts of the model as they are, or none, or all: plain AdamW on these and no others."""

import pytest
import torch
from torch import nn

from helpers.lockstep import (
    DECAY,
    EPS,
    RATE,
    AdamW,
    by_weights,
    check_gradients,
    check_training,
    pair,
    plain_name,
)
from references.registry import entries

ADAMW = {"weight_decay": DECAY, "eps": EPS}
HEAD = {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("name", entries("test_parts.py::test_the_parts_that_train_are_the_papers"))
def test_the_parts_that_train_are_the_papers(name: str) -> None:
    """Everything; the biases (Ben Zaken et al. 2021, section 3) and the new head; the head alone."""
    found = pair(name, optimizer=ADAMW)
    everything = {name for name, _ in found.plain.named_parameters()}
    expected = {
        "full": everything,
        "bitfit": {name for name in everything if name.endswith(".bias")} | HEAD,
        "head_only": HEAD,
    }
    assert {plain_name(parameter) for parameter in found.theirs} == expected[name]
    answer = by_weights(
        found, lambda theirs: {plain_name(key): value for key, value in theirs.items()}
    )
    check_gradients(found, answer)
    check_training(found, answer, AdamW())


def test_the_frozen_model_is_the_base() -> None:
    found = pair("frozen")
    assert found.theirs == {}
    with torch.no_grad():
        assert torch.equal(found.ours(**found.batch).logits, found.plain(**found.batch).logits)


def test_in_bf16_steps_are_torchs() -> None:
    """Weights and moments in bf16, without an fp32 copy. The loss of the rounded model is that of its weights."""
    found = pair("full_bf16", optimizer=ADAMW, double=False)
    trained = {name for name, p in found.trainable().items() if p.dtype == torch.bfloat16}
    assert {name for name in found.trainable() if plain_name(name) in HEAD} == HEAD
    assert trained == set(found.trainable()) - HEAD
    for name, param in found.plain.named_parameters():
        assert torch.equal(found.trainable()[name].float(), param), name
    theirs = {name: nn.Parameter(p.detach().clone()) for name, p in found.trainable().items()}
    expected = torch.optim.AdamW(theirs.values(), lr=RATE, weight_decay=DECAY, eps=EPS)
    optimizer = found.optimizer()
    for _ in range(4):
        optimizer.zero_grad()
        found.ours(**found.batch).loss.backward()
        for name, param in found.trainable().items():
            theirs[name].grad = param.grad.clone()
        optimizer.step()
        expected.step()
        assert all(torch.equal(p, theirs[name]) for name, p in found.trainable().items())
    assert not torch.equal(theirs["classifier.weight"], found.plain.classifier.weight)
