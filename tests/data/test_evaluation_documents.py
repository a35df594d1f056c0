"""The documents of evaluations, in every form of file."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from rankwise.data.evaluation_documents import read

QUESTION = "Please choose the correct answer to the question: "


def adapters(tmp_path, **row):
    file = tmp_path / "test.json"
    file.write_text(json.dumps([row]))
    return file


def document(tmp_path, **row):
    (found,) = read(adapters(tmp_path, **row), "llm_adapters", "test")
    return {key: value for key, value in found.items() if key not in ("instruction", "answer")}


@pytest.mark.parametrize(
    ("instruction", "answer", "expected"),
    [
        (
            "Please answer the following question with true or false, question: is it so?\n\n"
            "Answer format: true/false",
            "false",
            {"question": "is it so", "choices": ["true", "false"], "gold": 1},
        ),
        (
            f"{QUESTION}Why? Two.\n\nAnswer1: a b Answer2: c Answer3: d\n\n"
            "Answer format: answer1/answer2/answer3",
            "answer3",
            {"question": "Why? Two.", "choices": ["a b", "c", "d"], "gold": 2},
        ),
        (
            "Please choose the correct solution to the question: How?\n\nSolution1: one\n\n"
            "Solution2: two\n\nAnswer format: solution1/solution2",
            "solution1",
            {"question": "How?", "choices": ["one", "two"], "gold": 0},
        ),
        (
            "Please choose the correct answer to fill in the blank to complete the given sentence: "
            "A met B so _ left early.\n\nOption1: A Option2: B Answer format: option1/option2",
            "option2",
            {
                "question": "A met B so _ left early.",
                "choices": ["A", "B"],
                "gold": 1,
                "contexts": ["A met B so A", "A met B so B"],
                "ending": "left early.",
            },
        ),
        ("Say hello.", "hello", {"question": "Say hello."}),
    ],
)
def test_an_instruction_of_llm_adapters(tmp_path, instruction, answer, expected):
    assert document(tmp_path, instruction=instruction, answer=answer) == expected


def test_gsm8k_and_hellaswag(tmp_path):
    lines = tmp_path / "test.jsonl"
    lines.write_text(
        json.dumps({"question": "q\u2028?", "answer": "so\n#### 4"}, ensure_ascii=False) + "\n"
    )
    assert read(lines, "gsm8k", "test") == [{"question": "q\u2028?", "answer": "so\n#### 4"}]
    file = tmp_path / "h.json"
    row = {"question": "it", "choices": {"A": "x", "B": "y"}, "answer": "B"}
    file.write_text(json.dumps({"dev": [row, row], "test": [row]}))
    assert read(file, "hellaswag_letters", "test") == [
        {"question": "it", "choices": ["x", "y"], "gold": 1}
    ]
    assert len(read(file, "hellaswag_letters", "few_shot")) == 2


def test_mmlu(tmp_path):
    file = tmp_path / "mmlu.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data/test/law_test.csv", '"what, now",1,2,3,4,C\n')
        archive.writestr("data/test/art_test.csv", "who,1,2,3,4,A\n")
        archive.writestr("data/dev/art_dev.csv", "why,1,2,3,4,D\n")
        archive.writestr("data/val/art_val.csv", "never,1,2,3,4,D\n")
    assert read(file, "mmlu", "test") == [
        {"part": "art", "question": "who", "choices": ["1", "2", "3", "4"], "gold": 0},
        {"part": "law", "question": "what, now", "choices": ["1", "2", "3", "4"], "gold": 2},
    ]
    assert [(row["part"], row["gold"]) for row in read(file, "mmlu", "few_shot")] == [("art", 3)]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ("[]", "llm_adapters", "got no document for test, allowed: at least one"),
        ("{}", "llm_adapters", "not of the form llm_adapters"),
        ('[{"instruction": "a"}]', "llm_adapters", "no key 'answer'"),
        ('[{"instruction": "a", "answer": " "}]', "llm_adapters", "row 1: got .* not empty"),
        (
            json.dumps([{"instruction": f"{QUESTION}q\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer2", "answer": "answer3"}]),
            "llm_adapters",
            "row 1: got 'answer3', allowed: one of answer1, answer2",
        ),
        (
            json.dumps([{"instruction": f"{QUESTION}q\n\nAnswer1: a\n\nAnswer format: answer1/answer2", "answer": "answer1"}]),
            "llm_adapters",
            "row 1: got .*, allowed: a text with answer1, answer2, each once",
        ),
        ('{"question": "q", "answer": "4"}', "gsm8k", "row 1: got '4', allowed: .*####"),
        ("not a zip", "mmlu", "not of the form mmlu"),
        ('{"test": []}', "hellaswag_letters", "got no document"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(tmp_path, content, form, message):
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(file, form, "test")
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value).split("got")[0]


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "form", "count", "choices"),
    [
        ("commonsense/boolq/test.json", "llm_adapters", 3270, {2}),
        ("commonsense/piqa/test.json", "llm_adapters", 1838, {2}),
        ("commonsense/social_i_qa/test.json", "llm_adapters", 1954, {3}),
        ("commonsense/winogrande/test.json", "llm_adapters", 1267, {2}),
        ("commonsense/ARC-Easy/test.json", "llm_adapters", 2376, {3, 4, 5}),
        ("commonsense/ARC-Challenge/test.json", "llm_adapters", 1172, {3, 4, 5}),
        ("commonsense/openbookqa/test.json", "llm_adapters", 500, {4}),
        ("commonsense/hellaswag_subset/hellaswag.json", "hellaswag_letters", 1000, {4}),
        ("mmlu/mmlu.zip", "mmlu", 14042, {4}),
    ],
)
def test_every_real_document_has_its_choices(path, form, count, choices):
    documents = read(Path(os.environ["RANKWISE_DATA"]) / path, form, "test")
    assert len(documents) == count
    assert {len(document["choices"]) for document in documents} == choices
    assert all(all(document["choices"]) for document in documents)
