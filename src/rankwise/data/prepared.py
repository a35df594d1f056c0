"""Prepared inputs as a job sees them: the very ones that its request names, or an error."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from transformers import PreTrainedTokenizerBase

from rankwise.core import provenance
from rankwise.core.paths import INPUTS


@dataclass(frozen=True)
class Data:
    """Encoded examples of one dataset: to train on, to select on (held out of train), to report."""

    task: ModuleType
    tokenizer: PreTrainedTokenizerBase
    collate: Callable
    train: list[dict]
    selection: list[dict]
    report: list[dict]


def _prepared(kind: str, name: str, expected: str) -> Path:
    folder = INPUTS / f"{kind}s" / name
    file = folder / f"{kind}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not there; build it with: snakemake {file}")
    found = provenance.digest(json.loads(file.read_text(encoding="utf-8"))["request"])
    if found != expected:
        raise ValueError(
            f"{file}: prepared for request {found}, this job was planned with {expected}; run snakemake again"
        )
    return folder


def model_folder(request: dict) -> Path:
    """The prepared model of a training request."""
    return _prepared("model", request["cell"]["model"], request["inputs"]["model"])


def load_data(
    request: dict, tokenizer: PreTrainedTokenizerBase, seed: int, name: str | None = None
) -> Data:
    """The dataset of a training request (or the one called `name`), encoded for its task."""
    dataset = request["dataset"]
    folder = _prepared("dataset", name or request["cell"]["dataset"], request["inputs"]["dataset"])
    task = importlib.import_module(f"rankwise.models.tasks.{dataset['task']}")

    def encoded(split: str) -> list[dict]:
        return task.encode(read_rows(folder / f"{split}.jsonl"), tokenizer, dataset)

    splits = (encoded("train"), encoded("selection"), encoded(dataset["report_split"]))
    return Data(task, tokenizer, task.Collate(tokenizer, seed), *splits)


def read_rows(path: Path) -> list[dict]:
    """Rows of a prepared split."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
