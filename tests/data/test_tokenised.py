"""Encoded examples are those of `encode`, made once, and never half made."""

import importlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from helpers.file_inputs import WORDS
from rankwise.core import files, result
from rankwise.core.provenance import file_sha256
from rankwise.data import arrow, tokenised
from rankwise.data.encoders import Encoder
from rankwise.data.tokenised import Examples, Split
from rankwise.models.tasks import classification
from rankwise.training.pretrain import word_tokenizer

# The ids of `word_tokenizer`: four special tokens, then the words in alphabetical order.
SEPARATOR, FIRST = 2, 3  # the mask stands for the class token
IDS = {word: 4 + position for position, word in enumerate(sorted(WORDS))}
LENGTH = 5
ROWS = [
    {"text": " ".join(WORDS[(row + word) % 20] for word in range(row % 7 + 1)), "label": row % 2}
    for row in range(57)
]


def ids(row: dict) -> list[int]:
    return [IDS[word] for word in row["text"].split()]


def blocks() -> list[dict]:
    """All texts as one stream, in pieces of LENGTH; the rest is dropped."""
    stream = [token for row in ROWS for token in ids(row)]
    return [
        {"input_ids": stream[start : start + LENGTH]}
        for start in range(0, len(stream), LENGTH)
        if start + LENGTH <= len(stream)
    ]


# Task -> the examples of ROWS, by hand.
EXPECTED = {
    "classification": [
        {
            "input_ids": [FIRST, *ids(row)[: LENGTH - 2], SEPARATOR],
            "labels": row["label"],
        }
        for row in ROWS
    ],
    "masked_language_modelling": [{"input_ids": ids(row)[:LENGTH], "labels": 0} for row in ROWS],
    "language_modelling": blocks(),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that tests run in. Files have record batches of 10 rows."""
    monkeypatch.chdir(tmp_path)
    for module in (arrow, tokenised):
        monkeypatch.setattr(module, "BATCH_ROWS", 10)
    return tmp_path


def split(rows: list[dict] = ROWS, name: str = "train") -> Split:
    folder = Path("results/inputs/datasets/mine")
    return Split(name, folder / f"{name}.arrow", arrow.write_split(folder, name, rows)["sha256"])


def encoder(task: str = "classification", **changes: object) -> Encoder:
    module = importlib.import_module(f"rankwise.models.tasks.{task}")
    settings = {"max_length_tokens": LENGTH}
    return Encoder(module, word_tokenizer(WORDS), settings)._replace(**changes)


def cached() -> list[Path]:
    return [file for file in tokenised.TOKENISED.iterdir() if not file.name.startswith(".")]


@pytest.mark.parametrize("task", EXPECTED)
def test_examples_are_those_of_encode(task: str) -> None:
    """At first, from the cache, and by `encode` itself."""
    for _ in range(2):
        found = tokenised.examples(split(), encoder(task))
        assert list(found) == EXPECTED[task]
        assert len(found) == len(EXPECTED[task])
    module = encoder(task)
    assert (
        module.task.encode(ROWS, module.tokenizer, {"max_length_tokens": LENGTH})
        == (EXPECTED[task])
    )
    assert len(cached()) == 1


def test_examples_are_read_like_a_list() -> None:
    found, expected = tokenised.examples(split(), encoder()), EXPECTED["classification"]
    for index in (0, 9, 10, 56, -1, -57):
        assert found[index] == expected[index]
    for part in (slice(4), slice(8, 12), slice(None, None, -1), slice(60, 70)):
        assert found[part] == expected[part]
    for index in (57, -58):
        with pytest.raises(IndexError):
            found[index]


def test_tokens_are_counted_over_all_batches() -> None:
    """As each job does before it trains: how much of its texts the tokenizer does not know."""
    found = tokenised.examples(split(), encoder())
    texts = [ids(row)[: LENGTH - 2] for row in ROWS]
    tokens = [token for text in texts for token in text]
    token = IDS[WORDS[0]]
    assert found.count(token, apart_from=(FIRST, SEPARATOR)) == (tokens.count(token), len(tokens))
    assert found.count(SEPARATOR) == (len(ROWS), len(tokens) + 2 * len(ROWS))


@pytest.mark.parametrize("task", EXPECTED)
def test_no_rows_are_no_examples(task: str) -> None:
    assert list(tokenised.examples(split([]), encoder(task))) == []


def test_a_text_shorter_than_a_block_is_no_example() -> None:
    assert list(tokenised.examples(split(ROWS[:2]), encoder("language_modelling"))) == []


def test_splits_of_the_same_rows_share_their_examples(capfd: pytest.CaptureFixture) -> None:
    for name in ("train", "selection"):
        tokenised.examples(split(name=name), encoder())
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("tokenised train: 57 rows in ")
    assert lines[1] == "tokenised selection: 57 rows, from the cache"
    assert len(cached()) == 1


@pytest.mark.parametrize("change", ["rows", "label", "tokenizer", "length", "task", "code"])
def test_whatever_decides_the_examples_names_them(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised.examples(split(), encoder())
    rows, task, changes = ROWS, "classification", {}
    if change == "rows":
        rows = ROWS[:-1]
    elif change == "label":
        rows = [{**ROWS[0], "label": 1}, *ROWS[1:]]
    elif change == "tokenizer":
        changes["tokenizer"] = word_tokenizer([*WORDS, "aword"])
    elif change == "length":
        changes["settings"] = {"max_length_tokens": 4}
    elif change == "task":
        task = "masked_language_modelling"
    else:
        monkeypatch.setattr(tokenised.provenance, "code_digest", lambda path: f"new {path}")
    tokenised.examples(split(rows), encoder(task, **changes))
    assert len(cached()) == 2


def test_what_a_call_has_set_in_a_tokenizer_does_not_name_examples() -> None:
    used = word_tokenizer(WORDS)
    used(["word1 word2"], truncation=True, max_length=3, padding="max_length")
    tokenised.examples(split(), encoder())
    assert (
        list(tokenised.examples(split(), encoder(tokenizer=used))) == (EXPECTED["classification"])
    )
    assert len(cached()) == 1


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "examples.arrow").write_bytes(b"torn"),
    lambda folder: (folder / "examples.arrow").unlink(),
    lambda folder: (folder / "tokenised.json").write_text("{"),
    lambda folder: (folder / "tokenised.json").write_text("{}"),
    lambda folder: (folder / "tokenised.json").unlink(),
])  # fmt: skip
def test_a_damaged_folder_is_made_again(damage, capfd: pytest.CaptureFixture) -> None:
    tokenised.examples(split(), encoder())
    (folder,) = cached()
    damage(folder)
    capfd.readouterr()
    assert list(tokenised.examples(split(), encoder())) == EXPECTED["classification"]
    said = capfd.readouterr().err
    assert "tokenised train: 57 rows in" in said
    if (damage.__code__.co_consts[1:2]) == ("examples.arrow",):
        assert "examples.arrow: sha256 is" in said
    description = json.loads((folder / "tokenised.json").read_text())
    assert description["sha256"] == file_sha256(folder / "examples.arrow")
    assert (description["rows"], description["examples"]) == (57, 57)


def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="full disk"):
        patch.setattr(
            classification, "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("full disk"))
        )
        tokenised.examples(split(), encoder())
    assert cached() == []
    assert list(tokenised.examples(split(), encoder())) == EXPECTED["classification"]


def fork(work) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def test_a_killed_job_blocks_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is killed while it holds the lock and has written a part."""
    started, rows = tmp_path / "started", split()

    def hang(*_: object) -> list[dict]:
        started.touch()
        time.sleep(600)
        return []

    def build() -> None:
        monkeypatch.setattr(classification, "encode", hang)
        tokenised.examples(rows, encoder())

    child = fork(build)
    while not started.exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    leftovers = list(tokenised.TOKENISED.glob(".part-*"))
    assert len(leftovers) == 1
    assert list(tokenised.examples(rows, encoder())) == EXPECTED["classification"]
    assert files.sweep(tokenised.TOKENISED) == leftovers


def test_jobs_at_once_build_one_folder(
    capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, rows = classification.encode, split()

    def slowly(*arguments: object) -> list[dict]:
        time.sleep(0.5)
        return encode(*arguments)

    def job() -> None:
        found = list(tokenised.examples(rows, encoder()))
        result.write_json(tmp_path / f"{os.getpid()}.json", found)

    monkeypatch.setattr(classification, "encode", slowly)
    children = [fork(job) for _ in range(4)]
    for child in children:
        os.waitpid(child, 0)
    for child in children:
        assert result.read_json(tmp_path / f"{child}.json") == EXPECTED["classification"]
    said = capfd.readouterr().err
    assert said.count("from the cache") == 3
    assert said.count("rows in") == 1


def test_examples_stay_readable_when_the_folder_is_deleted() -> None:
    """A job that trains keeps the file that it has mapped."""
    found: Examples = tokenised.examples(split(), encoder())
    (folder,) = cached()
    for file in folder.iterdir():
        file.unlink()
    assert list(found) == EXPECTED["classification"]
