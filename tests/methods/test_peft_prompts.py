"""Prompt, prefix and p-tuning: padding, labels, and what a prompt is made of."""

import pytest
import torch
from torch import nn

from helpers.peft_cases import PROMPTS, batch, logits, prepare

PROMPTED = [
    *(("tiny", "classification", case) for case in PROMPTS if case != "prefix_tuning"),
    *(("minilm", "classification", case) for case in PROMPTS),
    *(
        (name, task, case)
        for name in ("stories260k", "gpt2")
        for task in ("classification", "language_modelling")
        for case in PROMPTS
    ),
]


@pytest.mark.parametrize(("name", "task", "case"), PROMPTED)
def test_padding_changes_no_answer(name: str, task: str, case: str) -> None:
    adapted = prepare(case, name, task)[1]
    whole, given = logits(adapted, task), batch(task)
    with torch.no_grad():
        alone = adapted(
            input_ids=given["input_ids"][2:3, :6], attention_mask=given["attention_mask"][2:3, :6]
        ).logits
    assert whole.shape[:-1] == given["labels"].shape
    torch.testing.assert_close(
        whole[2:3] if task == "classification" else whole[2:3, :6], alone, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("case", PROMPTS)
def test_the_loss_of_a_prompted_language_model_is_over_the_same_labels(case: str) -> None:
    adapted, given = (
        prepare(case, "stories260k", "language_modelling")[1],
        batch("language_modelling"),
    )
    with torch.no_grad():
        out = adapted(**given)
    wanted = nn.functional.cross_entropy(
        out.logits[:, :-1].flatten(0, 1), given["labels"][:, 1:].flatten()
    )
    torch.testing.assert_close(out.loss, wanted)


def test_a_sampled_prompt_is_made_of_the_vocabularys_embeddings() -> None:
    adapted = prepare("prompt_tuning", "tiny", "classification")[1]
    prompt, words = (
        adapted.prompt_encoder["default"].embedding.weight,
        adapted.word_embeddings.weight,
    )
    assert all((words == row).all(1).any() for row in prompt)
