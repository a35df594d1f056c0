"""Prompt, prefix and p-tuning: padding, labels, and how a prompt starts."""

import pytest
import torch
from torch import nn

from helpers.peft_cases import PROMPTS, batch, logits, prepare
from helpers.profiling import ledger_request
from rankwise.measure.memory.ledger import ledger


def prompted_models() -> list[tuple[str, str, str]]:
    """Every (model, task, prompt method) that is supported."""
    cases = []
    for case in PROMPTS:
        if case != "prefix_tuning":
            cases.append(("tiny", "classification", case))
        cases.append(("minilm", "classification", case))
        for name in ("stories260k", "gpt2"):
            cases.append((name, "classification", case))
            cases.append((name, "language_modelling", case))
    return cases


@pytest.mark.parametrize(("name", "task", "case"), prompted_models())
def test_padding_does_not_change_the_logits(name: str, task: str, case: str) -> None:
    """Row 2 of the batch has 6 tokens. Alone and without padding it has the same logits."""
    adapted = prepare(case, name, task)[1]
    inputs = batch(task)
    padded = logits(adapted, task)
    with torch.no_grad():
        unpadded = adapted(
            input_ids=inputs["input_ids"][2:3, :6], attention_mask=inputs["attention_mask"][2:3, :6]
        ).logits
    assert padded.shape[:-1] == inputs["labels"].shape
    row = padded[2:3] if task == "classification" else padded[2:3, :6]
    torch.testing.assert_close(row, unpadded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", PROMPTS)
def test_the_loss_of_a_prompted_language_model_is_over_the_same_labels(case: str) -> None:
    adapted = prepare(case, "stories260k", "language_modelling")[1]
    inputs = batch("language_modelling")
    with torch.no_grad():
        output = adapted(**inputs)
    predictions = output.logits[:, :-1].flatten(0, 1)
    next_tokens = inputs["labels"][:, 1:].flatten()
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(predictions, next_tokens))


def test_a_sampled_prompt_consists_of_embeddings_of_the_vocabulary() -> None:
    adapted = prepare("prompt_tuning", "tiny", "classification")[1]
    prompt = adapted.prompt_encoder["default"].embedding.weight
    words = adapted.word_embeddings.weight
    assert all((words == row).all(1).any() for row in prompt)


def test_prefix_tuning_refuses_activation_checkpointing() -> None:
    """peft refuses it, too, but only if it is on before the model is prompted."""
    result = ledger(
        ledger_request("stories260k", "prefix_tuning", dataset="wikitext2", checkpointing=True)
    )
    assert result["status"] == "unsupported"
    assert "prefix tuning and activation checkpointing exclude each other" in result["reason"]
