"""Load prepared inputs for a job: exactly those that the job's request names, or an error."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from transformers import PreTrainedTokenizerBase

from rankwise.core import provenance, result
from rankwise.core.paths import INPUTS
from rankwise.data import encoded


@dataclass(frozen=True)
class Data:
    """The encoded examples of one dataset.

    Attributes:
        task: The module of `models/tasks` that encodes and scores the examples.
        tokenizer: That of the model.
        collate: Turns a list of examples into a batch of tensors.
        train: Examples to train on.
        selection: Examples held out of `train`, to select a state and settings on.
        report: Examples of the reported split.
    """

    task: ModuleType
    tokenizer: PreTrainedTokenizerBase
    collate: Callable[[list[dict]], dict]
    train: list[dict]
    selection: list[dict]
    report: list[dict]


def model_folder(request: dict) -> Path:
    """The folder with the prepared model of a training request.

    Raises:
        FileNotFoundError: The model is not prepared.
        ValueError: It was prepared for another request.
    """
    return _prepared_folder("model", request["cell"]["model"], request["inputs"]["model"])


def load_data(
    request: dict, tokenizer: PreTrainedTokenizerBase, seed: int, name: str | None = None
) -> Data:
    """Load and encode the dataset of a training request.

    Args:
        request: Gives the dataset entry, and the digest of the prepared data.
        tokenizer: That of the model.
        seed: The random seed of a collate function that draws (masked language modelling).
        name: The dataset's name; that of the request's cell if None. A pre-training has no cell.

    Raises:
        FileNotFoundError: The dataset is not prepared.
        ValueError: It was prepared for another request, or gives nothing to train or report on.
    """
    dataset = request["dataset"]
    name = name or request["cell"]["dataset"]
    folder = _prepared_folder("dataset", name, request["inputs"]["dataset"])
    task = importlib.import_module(f"rankwise.models.tasks.{dataset['task']}")

    def encode(split: str) -> list[dict]:
        examples = task.encode(read_rows(folder / f"{split}.jsonl"), tokenizer, dataset)
        encoded.check(examples, split, dataset, name)
        return examples

    return Data(
        task=task,
        tokenizer=tokenizer,
        collate=task.Collate(tokenizer, seed),
        train=encode("train"),
        selection=encode("selection"),
        report=encode(dataset["report_split"]),
    )


def data_facts(request: dict) -> dict[str, list[dict]]:
    """What was counted when the dataset of a training request was prepared, see `facts.count`.

    Raises:
        FileNotFoundError: The dataset is not prepared.
        ValueError: It was prepared for another request.
    """
    digest = request["inputs"]["dataset"]
    folder = _prepared_folder("dataset", request["cell"]["dataset"], digest)
    return result.read(folder / "dataset.json")["data"]


def read_rows(path: Path) -> list[dict]:
    """The rows of a prepared split."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _prepared_folder(kind: str, name: str, expected: str) -> Path:
    """The folder of a prepared dataset or model (`kind`), if it was made for request `expected`."""
    folder = INPUTS / f"{kind}s" / name
    file = folder / f"{kind}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not there; build it with: snakemake {file}")
    prepared = json.loads(file.read_text(encoding="utf-8"))
    digest = provenance.digest(prepared["request"])
    if digest != expected:
        raise ValueError(
            f"{file}: prepared for request {digest}, this job was planned with {expected}; "
            "run snakemake again"
        )
    return folder
