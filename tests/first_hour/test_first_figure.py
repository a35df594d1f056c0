"""From a fresh clone to the first figure of one's own data on one's own model, as the docs say it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.doc_blocks import FENCE
from helpers.repository import CLEAN, ROOT

HEADING = "## Your own model and data\n"
MAX_LINES, COMMANDS = 12, 2
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven"]
WORDS = ["the", "film", "was", "with", "good", "fine", "bad", "poor", ",", *NUMBERS]
ROWS = 60  # of the CSV, half of them of each class
FIGURE_START = b"\x89PNG\r\n"


def typed() -> list[str]:
    """The lines of the section's first block."""
    page = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8")
    section = page.split(HEADING)[1].split("\n## ")[0]
    return FENCE.search(section)[2].splitlines()


def write_data(file: Path) -> None:
    """A CSV as a person has it: an id, a text with a separator in quotes, a label in words."""
    file.parent.mkdir(parents=True)
    lines = ["id,review,opinion"]
    for number in range(ROWS):
        mood, label = [("good, fine", "liked"), ("bad, poor", "disliked")][number % 2]
        numbers = f"{NUMBERS[number % 7]} {NUMBERS[number // 7 % 7]}"
        lines.append(f'{number},"the film was {mood} with {numbers}",{label}')
    file.write_text("\n".join(lines) + "\n")


def write_model(folder: Path) -> None:
    """A tiny BERT with random weights, and its tokenizer, as `save_pretrained` writes them."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from rankwise.training.pretrain import word_tokenizer

    tokenizer = word_tokenizer(WORDS)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone beside which nothing is installed: it uses this test's environment."""
    folder = tmp_path_factory.mktemp("first_hour") / "rankwise"
    command = ["git", "-c", "safe.directory=*", "clone", "-q", str(ROOT), str(folder)]
    subprocess.run(command, check=True, env=CLEAN)
    (folder / ".venv").symlink_to(sys.prefix)
    write_data(folder / "data/reviews.csv")
    write_model(folder / "models/my_bert")
    return folder


def test_the_docs_show_two_commands_in_at_most_twelve_lines() -> None:
    lines = typed()
    assert len(lines) <= MAX_LINES
    assert sum(line.startswith(".venv/bin/") for line in lines) == COMMANDS


@pytest.mark.slow
def test_the_commands_lead_to_the_figure(clone: Path) -> None:
    script = "set -e\n" + "\n".join(typed())
    environment = {**CLEAN, "PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert re.search(r"config/mine.yaml: \d+ jobs would run: .*\b6 train\b", said)
    figure = clone / "results/mine/figures/accuracy_memory.png"
    assert figure.read_bytes().startswith(FIGURE_START)
    runs = sorted((clone / "results/mine/runs/my_bert/reviews").rglob("train.json"))
    results = [json.loads(run.read_text()) for run in runs]
    assert [result["status"] for result in results] == ["ok"] * 6  # full and lora, three seeds each
    # 60 rows: 12 are reported on, 5 of the other 48 are the selection slice, 43 are trained on.
    (prepared,) = (clone / "results/mine/inputs/datasets/reviews").rglob("dataset.json")
    rows = json.loads(prepared.read_text())["data"]["splits"]
    assert {row["split"]: row["rows"] for row in rows} == {"train": 43, "selection": 5, "test": 12}
