"""A tokenizer that prompts and answers cannot use is one sentence before any job."""

import json
from pathlib import Path

import pytest

from rankwise.checks import model_entries

PLAIN = {"prompt": "p", "answer": "a"}
END = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}


def problems(folder: Path, settings: dict | None, **dataset: object) -> list[str]:
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    entry = {"weights": {"files": str(folder)}}
    return model_entries.answer_problems("mine", entry, {"data": {**PLAIN, **dataset}})


def test_a_tokenizer_with_an_end_is_enough_for_plain_prompts(tmp_path):
    assert problems(tmp_path, END) == []
    assert problems(tmp_path, {"tokenizer_class": "GPT2Tokenizer"}) == []  # has its own
    assert problems(tmp_path / "nowhere", None) == []


def test_a_tokenizer_without_an_end_is_one_sentence(tmp_path):
    (found,) = problems(tmp_path, {**END, "eos_token": None})
    assert found == (
        f"config/models.yaml: mine: {tmp_path}/tokenizer_config.json: got no eos_token, allowed: "
        "the token that ends each answer of data; name one there"
    )
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    assert problems(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast"}) == []


@pytest.mark.parametrize("how", ["key", "file"])
def test_chat_needs_a_template(tmp_path, how):
    (found,) = problems(tmp_path, END, chat=True)
    assert found.startswith(
        f"config/datasets.yaml: data.chat: got True, but {tmp_path} has no chat"
    )
    if how == "file":
        (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    template = {"chat_template": "{{ messages }}"} if how == "key" else {}
    assert problems(tmp_path, {**END, **template}, chat=True) == []


def test_datasets_without_answers_ask_for_nothing(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    entry = {"weights": {"files": str(tmp_path)}}
    assert model_entries.answer_problems("mine", entry, {"data": {"text": "t"}}) == []
