"""Prompts and answers are made of a row's columns as the entry says, or the row is refused."""

import json
import os
from pathlib import Path

import pytest
import yaml

from rankwise.core.config import ConfigError
from rankwise.data import datasets, sources
from rankwise.study.plan import Plan

TASK = "instruction_tuning"
SUM = {"prompt": "12+7=", "answer": "19"}
CHAT = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2+2"},
    {"role": "assistant", "content": "4"},
]
STUDY = {
    "name": "mine", "question": "?", "device": "cpu", "schedule": {"updates": 1},
    "train": [{"models": ["stories260k"], "datasets": ["mine"], "methods": ["full"], "seeds": [0]}],
}  # fmt: skip


def plan(folder: Path, rows: list[dict], **entry: object) -> Plan:
    """A study on a JSON Lines file that one entry of four lines describes."""
    (folder / "config").mkdir(exist_ok=True)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {
        "task": TASK,
        "files": {"folder": str(folder), "format": "jsonl"},
        "splits": {"train": {"path": "mine.jsonl"}},
    }
    (folder / "config/datasets.yaml").write_text(yaml.safe_dump({"mine": {**short, **entry}}))
    return Plan({**STUDY, "train": [{**STUDY["train"][0]}]}, folder)


def train_rows(folder: Path, rows: list[dict], **entry: object) -> list[dict]:
    return datasets.rows(plan(folder, rows, **entry).dataset_entry("mine"), "train")


def test_an_entry_of_four_lines_holds_a_tenth_out(tmp_path):
    rows = [{"prompt": f"{number}+0=", "answer": str(number)} for number in range(100)]
    entry = plan(tmp_path, rows).dataset_entry("mine")
    assert entry["splits"]["test"] == {**entry["splits"]["train"], "share": 0.1}
    assert (entry["report_split"], entry["max_length_tokens"]) == ("test", 512)
    by_split, problems = datasets.divide(datasets.read(entry).rows, entry)
    assert problems == []
    assert {name: len(found) for name, found in by_split.items()} == {
        "train": 81, "selection": 9, "test": 10,
    }  # fmt: skip
    texts = [row["text"] for found in by_split.values() for row in found]
    assert sorted(texts) == sorted(row["prompt"] for row in rows)


def test_templates_are_filled_from_columns(tmp_path):
    rows = [{"q": "2 {x}?", "hint": "x", "a": "4"}]
    entry = {"prompt": "Q: {q} {{{hint}}}\nA:", "answer": "it is {a}"}
    assert train_rows(tmp_path, rows, **entry) == [
        {"text": "Q: 2 {x}? {x}\nA:", "label": "it is 4"}
    ]


@pytest.mark.parametrize("blank", ["", None, " "])
def test_a_row_without_an_input_has_the_second_template(tmp_path, blank):
    rows = [
        {"instruction": "Add.", "input": "1 1", "output": "2"},
        {"instruction": "Hi", "input": blank, "output": "Hello"},
    ]
    entry = {
        "prompt": "{instruction}\n{input}:", "prompt_without_input": "{instruction}:",
        "answer": "output",
    }  # fmt: skip
    assert train_rows(tmp_path, rows, **entry) == [
        {"text": "Add.\n1 1:", "label": "2"},
        {"text": "Hi:", "label": "Hello"},
    ]


def test_messages_are_a_prompt_and_the_last_answer(tmp_path):
    (row,) = train_rows(tmp_path, [{"messages": CHAT}], messages="messages")
    assert row["label"] == "4"
    assert row["text"] == (
        "system:\nAdd.\n\nuser:\n1+1\n\nassistant:\n2\n\nuser:\n2+2\n\nassistant:\n"
    )
    (row,) = train_rows(tmp_path, [{"messages": CHAT}], messages="messages", chat=True)
    assert (json.loads(row["text"]), row["label"]) == (CHAT[:-1], "4")


@pytest.mark.parametrize(
    ("row", "entry", "sentence"),
    [
        ({**SUM, "answer": 19}, {}, "column 'answer' is 19 (int), allowed: a text"),
        ({**SUM, "answer": ""}, {}, "column 'answer' is '', allowed: a text"),
        ({**SUM, "prompt": None}, {}, "column 'prompt' is null, allowed: a text"),
        ({"q": "1", "a": "2"}, {}, "no column 'prompt', allowed: q, a"),
        (SUM, {"messages": "chat"}, "no column 'chat', allowed: prompt, answer"),
        ({"m": CHAT[:1]}, {"messages": "m"}, "is 1 messages, allowed: a list of messages"),
        ({"m": CHAT[:-1]}, {"messages": "m"}, "allowed: an answer of the assistant"),
        (
            {"m": [{"role": "me", "content": "x"}, CHAT[-1]]},
            {"messages": "m"},
            "message 1 is {'role': 'me', 'content': 'x'}, allowed: a role (system, user, assistant)",
        ),
    ],
)
def test_mistakes_of_a_row_are_one_sentence(tmp_path, row, entry, sentence):
    dataset = plan(tmp_path, [row, row], **entry).dataset_entry("mine")
    found = datasets.problems(dataset, "config/datasets.yaml: mine")
    assert found
    assert sentence in found[0]
    assert "mine.jsonl: row 1: " in found[0]


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        ([], ["has no rows, allowed: a file with a row at least"]),
        (
            [{"messages": CHAT, "answer": "4"}],
            [
                "has no column 'prompt', allowed: messages, answer; for rows with messages, write "
                "`messages: messages` into the entry"
            ],
        ),
    ],
)
def test_mistakes_of_a_file_are_said_once_before_the_first_job(tmp_path, rows, sentences):
    lacking = sources.missing("files", "dataset", "mine", plan(tmp_path, rows))
    where = f"config/datasets.yaml: mine.splits.train: {tmp_path}/mine.jsonl "
    assert lacking == [where + sentence for sentence in sentences]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"prompt": "Q: {q"}, "mine.prompt: got 'Q: {q', allowed: braces in pairs"),
        ({"prompt": "Q: {}"}, "mine.prompt: got 'Q: {}', allowed: the name of a column"),
        ({"prompt": "{{q}}"}, "allowed: a text with the name of a column in braces"),
        ({"prompt": "{q} {answer}"}, "a model would read its answer"),
        ({"prompt_without_input": "{x}"}, "allowed: some of the columns of prompt, prompt"),
        (
            {"messages": "m", "answer": "a"},
            "mine.answer: got 'a', allowed: nothing beside messages",
        ),
        ({"text": "prompt"}, "mine.text: got 'prompt', allowed: nothing for instruction_tuning"),
        (
            {"stride_tokens": 4},
            "mine.stride_tokens: got 4, allowed: nothing for instruction_tuning",
        ),
        ({"max_length_tokens": 513}, "max_length_tokens: got 513, allowed: at most 512, the pos"),
    ],
)
def test_mistakes_of_an_entry_are_one_sentence(tmp_path, entry, sentence):
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, [SUM], **entry)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"stride_tokens": 9}, "stride_tokens: got 9, allowed: at most 8, max_length_tokens"),
        ({"packing": True}, "packing: got True, allowed: nothing for language_modelling"),
        ({"prompt": "t"}, "prompt: got 't', allowed: nothing for language_modelling"),
    ],
)
def test_keys_of_another_task_are_refused(tmp_path, entry, sentence):
    splits = {split: {"path": "mine.jsonl"} for split in ("train", "test")}
    text = {
        "task": "language_modelling", "text": "t", "splits": splits, "report_split": "test",
        "max_length_tokens": 8, "selection_rows": 1,
    }  # fmt: skip
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, [{"t": "x"}], **text, **entry)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"models": ["tiny"]}, "allowed: tasks that tiny has a head for"),
        ({"methods": ["prompt_tuning"], "ranks": [2]}, "packing: got True, allowed: false with"),
    ],
)
def test_what_cannot_train_on_packs_is_refused(tmp_path, monkeypatch, grid, sentence):
    cell = STUDY["train"][0]
    monkeypatch.setitem(STUDY, "train", [{**cell, **grid}])
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, [SUM], packing=True, max_length_tokens=64)
    assert sentence in str(error.value)


def test_splits_of_arithmetic_are_disjoint_and_right():
    generated = {
        "kind": "arithmetic",
        "seed": 2,
        "rows": {"train": 100, "validation": 30, "test": 20},
    }
    entry = {
        "task": TASK, "generated": {**generated, "terms_below": 10}, "report_split": "test",
        "prompt": "prompt", "answer": "answer",
    }  # fmt: skip
    seen = set()
    for split, size in generated["rows"].items():
        found = datasets.rows({**entry, "report_split": split}, split)
        assert len(found) == size
        for row in found:
            left, right = row["text"].removesuffix("=").replace("-", "+-").split("+", 1)
            assert int(left) + int(right) == int(row["label"]) >= 0
            seen.add(row["text"])
    assert len(seen) == 150
    generated["rows"]["train"] = 106  # 100 sums and 55 differences
    with pytest.raises(ValueError, match=r"got 156 rows of arithmetic .*allowed: at most 155"):
        datasets.rows({**entry, "generated": {**generated, "terms_below": 10}}, "test")


@pytest.mark.skipif("RANKWISE_DATA" not in os.environ, reason="needs RANKWISE_DATA")
@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        (
            "boolq_files",
            "### Instruction:\nPlease answer the following question with true or false, question: "
            "does ethanol take more energy make that produces?\n\nAnswer format: true/false\n\n"
            "### Response:\n",
            "the correct answer is false",
        ),
        (
            "gsm8k_files",
            "Question: Janet\u2019s ducks lay 16 eggs per day.",
            "#### 18",
        ),
    ],
)
def test_real_rows(name, prompt, answer):
    entry = Plan(
        STUDY | {"train": [{**STUDY["train"][0], "datasets": [name]}]}, Path()
    ).dataset_entry(name)
    first = datasets.rows(entry, "test")[0]
    assert prompt in first["text"]
    assert first["label"].endswith(answer)
