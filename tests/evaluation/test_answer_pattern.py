"""The scoring of LLM-Adapters: what a pattern matches in a generated text."""

import hashlib
import json

import pytest

from helpers import byte_decoders
from rankwise.evaluation import answer_pattern

CHOICE = {"pattern": "answer1|answer2|answer3", "take": "first", "number": False}
NUMBER = {"pattern": r"-?\d+\.?\d*", "take": "last", "number": True}


@pytest.mark.parametrize(
    ("text", "entry", "expected"),
    [
        ("the correct answer is answer2, not answer1", CHOICE, "answer2"),
        ("answer4 or Answer1", CHOICE, None),
        ("", CHOICE, None),
        ("so 3 + 4 = 7", NUMBER, "7"),
        ("it is 1,234.", NUMBER, "1234."),
        ("minus -5 it is", NUMBER, "-5"),
        ("none", NUMBER, None),
    ],
)
def test_the_answer_of_a_text(text, entry, expected):
    assert answer_pattern.found(text, entry) == expected


@pytest.mark.parametrize(
    ("answer", "label", "entry", "expected"),
    [
        ("answer2", "answer2", CHOICE, True),
        ("answer2", "answer1", CHOICE, False),
        (None, "answer1", CHOICE, False),
        ("1234.", "1,234", NUMBER, True),
        ("7.0009", "7", NUMBER, True),
        ("7.01", "7", NUMBER, False),
        ("-5", "5", NUMBER, False),
    ],
)
def test_an_answer_is_right(answer, label, entry, expected):
    assert answer_pattern.is_right(answer, label, entry) is expected


@pytest.fixture
def request_of(tmp_path):
    def make(rows, **entry):
        file = tmp_path / "test.json"
        file.write_text(json.dumps(rows))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        test = {"path": file.name, "sha256": sha256}
        files = {"folder": str(tmp_path), "form": "llm_adapters", "test": test}
        return {
            "evaluation": {
                **CHOICE, "files": files, "max_new_tokens": 6, "batch_size": 2, "beams": 1, **entry
            }
        }  # fmt: skip

    return make


def test_the_prompt_is_that_of_llm_adapters(request_of):
    """The label of the first row is what the model writes behind the published prompt."""
    decoder, tokenizer = byte_decoders.model(), byte_decoders.tokenizer()
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSay it.\n\n### Response:\n"
    )
    written = byte_decoders.greedy(decoder, tokenizer(prompt)["input_ids"], 6)
    text = tokenizer.decode(written)
    rows = [
        {"instruction": "Say it.", "answer": text.strip()},
        {"instruction": "Say it.", "answer": "other"},
        {"instruction": "Not scored.", "answer": "other"},
    ]
    request = request_of(rows, pattern="(?s).+", limit=2)
    scored = answer_pattern.score(request, decoder, tokenizer)
    assert scored.scores == {"accuracy_fraction": [1.0, 0.0]}
    assert scored.details["generated"] == [text, text]
    assert scored.details["wanted"] == [text.strip(), "other"]
    assert scored.truncated == 0


def test_a_file_that_has_changed_is_refused(request_of, tmp_path):
    request = request_of([{"instruction": "Say it.", "answer": "a"}])
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(ValueError, match=r"test.json: .*plan it again"):
        answer_pattern.score(request, byte_decoders.model(), byte_decoders.tokenizer())
