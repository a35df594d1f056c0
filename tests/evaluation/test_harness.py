"""Scores of lm-evaluation-harness are ours on the same likelihoods, on files and on pinned datasets."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import byte_decoders
from helpers.repository import ROOT
from rankwise.core.config import library
from rankwise.core.provenance import file_sha256
from rankwise.study import evaluations

pytestmark = pytest.mark.slow  # importing the harness takes seconds

QUESTION = "Please choose the correct answer to the question: "
ROWS = [
    ("Which?", ["one thing", "b", "a much longer answer"], 2),
    ("Who is it?", ["Ann", "Bob and Cy"], 0),
    ("Two words", ["yes", "no", "maybe", "so"], 1),
    ("", ["x y", "zz"], 1),
]


@pytest.fixture(scope="module")
def harness():
    from rankwise.evaluation import harness

    return harness


@pytest.fixture(scope="module")
def decoder():
    return byte_decoders.model(positions=512)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_decoders.tokenizer()


def instruction(question, choices, name="Answer"):
    listed = " ".join(f"{name}{place}: {text}" for place, text in enumerate(choices, start=1))
    names = "/".join(f"{name.lower()}{place}" for place in range(1, len(choices) + 1))
    return f"{QUESTION}{question}\n\n{listed}\n\nAnswer format: {names}"


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"instruction": instruction(question, choices), "answer": f"answer{gold + 1}"}
        for question, choices, gold in ROWS
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    (tmp_path / "train.json").write_text(json.dumps(rows[1:3]))
    return tmp_path


def request_of(folder, task, form="llm_adapters", test="test.json", few_shot="train.json", **entry):
    files = {"folder": str(folder), "form": form}
    for use, path in (("test", test), ("few_shot", few_shot)):
        files[use] = {"path": path, "sha256": file_sha256(folder / path)}
    entry = {"few_shot": 0, "batch_size": 3, "files": files, **entry}
    config = evaluations.task_config(task, task)
    return {"cell": {"evaluation": task}, "evaluation": {**entry, "task_config": config}}


def test_likelihoods_and_accuracies_are_those_of_an_independent_computation(
    harness, folder, decoder, tokenizer
):
    scored = harness.score(request_of(folder, "arc"), decoder, tokenizer)
    right, normalised = [], []
    for (question, choices, gold), found in zip(
        ROWS, scored.details["log_likelihoods_nats"], strict=True
    ):
        context = tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
        expected = [
            byte_decoders.log_likelihood(decoder, context, tokenizer(f" {choice}")["input_ids"])
            for choice in choices
        ]
        assert found == pytest.approx(expected, abs=1e-4)
        right.append(float(max(range(len(choices)), key=expected.__getitem__) == gold))
        per_letter = [value / len(choice) for value, choice in zip(expected, choices, strict=True)]
        normalised.append(float(max(range(len(choices)), key=per_letter.__getitem__) == gold))
    assert scored.scores == {
        "accuracy_fraction": right,
        "accuracy_norm_fraction": normalised,
    }
    assert scored.truncated == 0
    assert len(set(scored.documents)) == len(ROWS)


def test_examples_stand_in_the_prompt(harness, folder, decoder, tokenizer):
    """Both examples of the file, in the order that the harness draws, in front of each question."""
    request = request_of(folder, "arc")
    request["evaluation"]["few_shot"] = 2
    scored = harness.score(request, decoder, tokenizer)
    question, choices, _ = ROWS[0]
    shots = [
        f"Question: {asked}\nAnswer: {answers[gold]}\n\n" for asked, answers, gold in ROWS[1:3]
    ]
    found = scored.details["log_likelihoods_nats"][0]
    by_order = []
    for ordered in (shots, shots[::-1]):
        text = "".join(ordered) + f"Question: {question}\nAnswer:"
        context = tokenizer(text)["input_ids"]
        by_order.append(
            [
                byte_decoders.log_likelihood(decoder, context, tokenizer(f" {choice}")["input_ids"])
                for choice in choices
            ]
        )
    assert any(found == pytest.approx(expected, abs=1e-4) for expected in by_order)


def test_a_limit_takes_the_first_examples(harness, folder, decoder, tokenizer):
    request = request_of(folder, "openbookqa", limit=2)
    whole = harness.score(request_of(folder, "openbookqa"), decoder, tokenizer)
    first = harness.score(request, decoder, tokenizer)
    assert first.documents == whole.documents[:2]
    for metric, scores in first.scores.items():
        assert scores == whole.scores[metric][:2]


def test_a_blank_is_scored_by_what_stands_behind_it(harness, tmp_path, decoder, tokenizer):
    head = "Please choose the correct answer to fill in the blank to complete the given sentence: "
    text = f"{head}A met B so _ left early.\n\nOption1: A Option2: B Answer format: option1/option2"
    rows = [{"instruction": text, "answer": "option2"}]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    request = request_of(tmp_path, "winogrande", few_shot="test.json")
    scored = harness.score(request, decoder, tokenizer)
    ending = tokenizer(" left early.")["input_ids"]
    expected = [
        byte_decoders.log_likelihood(decoder, tokenizer(f"A met B so {name}")["input_ids"], ending)
        for name in "AB"
    ]
    assert scored.details["log_likelihoods_nats"] == [pytest.approx(expected, abs=1e-4)]
    assert scored.scores == {"accuracy_fraction": [float(expected[1] > expected[0])]}


def test_a_prompt_that_is_cut_is_counted(harness, folder, tokenizer):
    """A token is a byte, and the last one of an answer needs no position."""
    small = byte_decoders.model(positions=28)
    scored = harness.score(request_of(folder, "arc"), small, tokenizer)
    lengths = []
    for question, choices, _ in ROWS:
        longest = max(len(f" {choice}") for choice in choices)
        lengths.append(len(f"Question: {question}\nAnswer:") + longest - 1)
    assert scored.truncated == sum(length > 28 for length in lengths)
    assert 0 < scored.truncated < len(ROWS)


def test_more_examples_than_there_are(harness, folder, decoder, tokenizer):
    request = request_of(folder, "arc")
    request["evaluation"]["few_shot"] = 3
    with pytest.raises(ValueError, match=r"arc.few_shot: got 3, allowed: at most 2, .*train.json"):
        harness.score(request, decoder, tokenizer)


ROW = {
    "question": "Which?", "question_stem": "Which?", "goal": "Which?", "passage": "It.",
    "context": "It.", "sentence": "A met B so _ left.", "option1": "A", "option2": "B",
    "sol1": "a", "sol2": "b c", "answerA": "a", "answerB": "b", "answerC": "c",
    "choices": {"text": ["a", "b c"], "label": ["A", "B"]}, "answerKey": "B", "answer": "1",
    "label": 1, "ctx_a": "it", "ctx_b": "is", "activity_label": "So", "endings": ["a", "b"],
}  # fmt: skip
OTHER_ROWS = {
    "lighteval/siqa": {**ROW, "label": "1"},
    "openai/gsm8k": {"question": "q", "answer": "#### 1"},
    "cais/mmlu": {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1},
}
HUB = {name: entry for name, entry in library(ROOT)["evaluations"].items() if "hub" in entry}


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What would be loaded from the hub, which does not answer here; a table of one row is given."""
    import datasets

    calls = []

    def load(path, name=None, **settings):
        calls.append((path, name, settings))
        split = datasets.Dataset.from_list([OTHER_ROWS.get(path, ROW)])
        names = ("train", "validation", "test", "dev")
        return datasets.DatasetDict(dict.fromkeys(names, split))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


@pytest.mark.parametrize("name", HUB)
def test_a_task_of_the_harness_reads_the_pinned_revision(harness, asked, name):
    entry = {"few_shot": 0, **HUB[name]}
    tasks = harness._own_tasks(name, entry)
    assert len(tasks) == (57 if name == "mmlu" else 1)
    assert {path for path, _, _ in asked} == {entry["hub"]["repo"]}
    pinned = {"revision": entry["hub"]["revision"]}
    assert [settings for _, _, settings in asked] == [pinned] * len(tasks)
    assert {task.config.num_fewshot for task in tasks} == {5 if name in ("mmlu", "gsm8k") else 0}


def test_a_task_of_the_harness_is_scored(harness, asked, decoder, tokenizer):
    hub = {"repo": "allenai/openbookqa", "revision": "3" * 40}
    entry = {"task": "openbookqa", "hub": hub, "few_shot": 0, "batch_size": 2}
    request = {"cell": {"evaluation": "mine"}, "evaluation": entry}
    scored = harness.score(request, decoder, tokenizer)
    expected = [
        byte_decoders.log_likelihood(
            decoder, tokenizer("Which?")["input_ids"], tokenizer(f" {choice}")["input_ids"]
        )
        for choice in ("a", "b c")
    ]
    assert scored.details["log_likelihoods_nats"] == [pytest.approx(expected, abs=1e-4)]
    hub["repo"] = "other/data"
    with pytest.raises(ValueError, match=r"hub.repo: got other/data, allowed: allenai/openbookqa"):
        harness.score(request, decoder, tokenizer)
    entry["task"] = "arc"  # a folder of the harness that has no task of this name
    with pytest.raises(ValueError, match=r"mine.task: got arc, allowed: a task of lm-eval"):
        harness.score(request, decoder, tokenizer)


REAL = [
    ("arc", "llm_adapters", "commonsense/ARC-Challenge/test.json", "commonsense/ARC-Challenge/train.json", 0, 3),
    ("boolq", "llm_adapters", "commonsense/boolq/test.json", "commonsense/boolq/train.json", 1, 3),
    ("openbookqa", "llm_adapters", "commonsense/openbookqa/test.json", "commonsense/openbookqa/train.json", 0, 3),
    ("gsm8k", "gsm8k", "gsm8k/test.jsonl", "gsm8k/train.jsonl", 1, 1),
    ("mmlu", "mmlu", "mmlu/mmlu.zip", "mmlu/mmlu.zip", 5, 1),
]  # fmt: skip


@pytest.mark.data
@pytest.mark.skipif("RANKWISE_STORIES260K" not in os.environ, reason="needs RANKWISE_STORIES260K")
@pytest.mark.parametrize(("task", "form", "test", "few_shot", "shots", "limit"), REAL)
def test_real_files_end_to_end(harness, task, form, test, few_shot, shots, limit):
    """A real decoder on real questions; a second evaluation gives the same bytes."""
    folder = os.environ["RANKWISE_STORIES260K"]
    decoder = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = Path(os.environ["RANKWISE_DATA"])
    request = request_of(data, task, form=form, test=test, few_shot=few_shot, limit=limit)
    request["evaluation"]["few_shot"] = shots
    scored = harness.score(request, decoder, tokenizer)
    examples = 57 * limit if task == "mmlu" else limit
    assert len(scored.documents) == examples
    for scores in scored.scores.values():
        assert len(scores) == examples
        assert set(scores) <= {0.0, 1.0}
    if task == "mmlu":
        assert len(set(scored.details["part"])) == 57
        assert scored.truncated  # five examples are longer than 512 tokens of this vocabulary
        return
    again = harness.score(request, decoder, tokenizer)
    assert (
        hashlib.sha256(repr(again).encode()).digest()
        == hashlib.sha256(repr(scored).encode()).digest()
    )
