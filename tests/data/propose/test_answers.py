"""`rankwise add dataset` takes files of prompts and answers for what they are."""

import json
from pathlib import Path

import pytest

from rankwise.cli.add_dataset import described
from rankwise.data.propose import Choices, Proposal, propose

NUMBERS = range(60)


def proposal(folder: Path, rows: list[dict], **choices: object) -> Proposal:
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return propose(str(folder / "mine.jsonl"), Choices(**choices), Path())


def turns(number: int) -> list[dict]:
    return [
        {"role": "user", "content": f"{number} and 1?"},
        {"role": "assistant", "content": f"it is {number + 1}"},
    ]


@pytest.mark.parametrize(
    ("rows", "keys", "text"),
    [
        (
            [{"prompt": f"{n} and 1?", "answer": f"{n + 1}"} for n in NUMBERS],
            {"prompt": "prompt", "answer": "answer"},
            "0 and 1?",
        ),
        (
            [{"query": f"{n} and 1?", "response": f"{n + 1}", "type": "x"} for n in NUMBERS],
            {"prompt": "query", "answer": "response"},
            "0 and 1?",
        ),
        (
            [{"question": f"{n} and 1?", "answer": f"#### {n + 1}"} for n in NUMBERS],
            {"prompt": "Question: {question}\nAnswer:\n", "answer": "answer"},
            "Question: 0 and 1?\nAnswer:\n",
        ),
        (
            [{"instruction": f"Add 1 to {n}", "input": "", "output": f"{n + 1}"} for n in NUMBERS],
            {
                "prompt": "{instruction}\n\n{input}\n\n",
                "prompt_without_input": "{instruction}\n\n",
                "answer": "output",
            },
            "Add 1 to 0\n\n",
        ),
        (
            [{"messages": turns(n)} for n in NUMBERS],
            {"messages": "messages"},
            "user:\n0 and 1?\n\nassistant:\n",
        ),
    ],
)
def test_known_columns_are_prompts_and_answers(tmp_path, rows, keys, text):
    found = proposal(tmp_path, rows)
    entry = found.entry
    assert entry["task"] == "instruction_tuning"
    assert {key: entry[key] for key in keys} == keys
    assert not {"text", "label", "classes"} & set(entry)
    assert entry["splits"]["test"]["share"] == 0.1
    assert found.examples[0]["text"] == text
    assert any("instruction_tuning" in line for line in described(found))


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_few_rows_can_be_shared(tmp_path, count):
    found = proposal(tmp_path, [{"messages": turns(n)} for n in range(count)])
    assert found.columns == ["messages (lists or objects)"]
    assert found.entry["train_samples"] == count - 1
    assert found.entry["selection_rows"] == 1


def test_answers_that_could_be_classes_are_a_classification(tmp_path):
    rows = [
        {"prompt": f"is {n} an even number or not", "answer": "no" if n % 2 else "yes"}
        for n in NUMBERS
    ]
    assert proposal(tmp_path, rows).entry["task"] == "classification"
    named = proposal(
        tmp_path, rows, task="instruction_tuning", text=["prompt"], label="answer"
    ).entry
    assert (named["task"], named["prompt"], named["answer"]) == (
        "instruction_tuning", "prompt", "answer",
    )  # fmt: skip


def test_columns_of_other_names_are_asked_for(tmp_path):
    rows = [{"ask": f"what is {n} and 1", "tell": f"it is {n + 1}"} for n in NUMBERS]
    with pytest.raises(ValueError, match="name others: --text COLUMN --label COLUMN"):
        proposal(tmp_path, rows, task="instruction_tuning")
    entry = proposal(tmp_path, rows, task="instruction_tuning", text=["ask"], label="tell").entry
    assert (entry["prompt"], entry["answer"]) == ("ask", "tell")
