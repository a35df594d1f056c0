"""A small dataset in TSV files and a small model in a folder, as a user has them."""

import functools
import os
from pathlib import Path

from helpers.stored import store_result
from rankwise.core.provenance import file_sha256
from rankwise.data.datasets import prepare_dataset
from rankwise.models import build
from rankwise.study.plan import Plan
from rankwise.training.pretrain import word_tokenizer

WORDS = [f"word{number}" for number in range(20)]
DATASET = {
    "task": "classification",
    "files": {"folder": "${MY_DATA}", "format": "tsv"},
    "splits": {"train": {"path": "train.tsv"}, "validation": {"path": "dev.tsv"}},
    "report_split": "validation",
    "text": "text",
    "label": "label",
    "classes": ["no", "yes"],
    "max_length_tokens": 16,
    "selection_rows": 8,
}
GRID = {"models": ["mine"], "datasets": ["mine"], "methods": ["head_only"], "seeds": [0]}
STUDY = {
    "name": "mine",
    "question": "What is read?",
    "device": "cpu",
    "schedule": {"updates": 2, "batch_size": 4, "eval_batch_size": 8},
    "train": [GRID],
}


def rows(count: int, offset: int) -> list[dict]:
    """Rows that differ between splits of another offset, with both classes."""
    texts = [f"{WORDS[i % 20]} {WORDS[(i * 7 + offset) % 20]}" for i in range(count)]
    return [{"text": text, "label": i % 2} for i, text in enumerate(texts)]


def write_tsv(file: Path, given: list[dict]) -> None:
    lines = [f"{row['text']}\t{row['label']}\n" for row in given]
    file.write_text("text\tlabel\n" + "".join(lines))


def write_dataset(folder: Path) -> None:
    """The files of `DATASET`."""
    folder.mkdir(parents=True)
    write_tsv(folder / "train.tsv", rows(40, 1))
    write_tsv(folder / "dev.tsv", rows(16, 3))


def flip_labels(file: Path) -> None:
    """Give a TSV file other labels; size and modification time stay as they are."""
    times = file.stat()
    text = file.read_text().replace("\t0\n", "\t2\n").replace("\t1\n", "\t0\n")
    file.write_text(text.replace("\t2\n", "\t1\n"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


def write_model(folder: Path, shapes: dict) -> dict:
    """A model with random weights and a tokenizer for `WORDS`.

    Args:
        folder: Made here.
        shapes: A model's entry.

    Returns:
        The entry of the model.
    """
    build.from_shapes(shapes, "masked_language_modelling", 0, "cpu").save_pretrained(folder)
    word_tokenizer(WORDS).save_pretrained(folder)
    kept = {key: value for key, value in shapes.items() if key != "weights"}
    sha256 = file_sha256(folder / "model.safetensors")
    return {**kept, "weights": {"files": "${MY_MODEL}", "sha256": sha256}}


def prepare(plan: Plan, root: Path) -> Path:
    """Prepare the dataset `mine` of a plan as its job does; the folder."""
    request = plan.input_request("dataset", "mine")
    return store_result(root, request, functools.partial(prepare_dataset, request)).parent
