"""Load the prepared inputs that a job's request names, or raise an error.

Every file is compared with the SHA-256 that was recorded when it was prepared. An input with a
damaged or missing file is set aside, so that the next run of snakemake prepares it anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from transformers import PreTrainedTokenizerBase

from rankwise.core import content, result, sound, store, tasks
from rankwise.core.input_files import SPLIT_ENDING, recorded_files
from rankwise.data.arrow import read_rows
from rankwise.data.encoded import check, check_known
from rankwise.data.encoders import encoder
from rankwise.data.tokenised import Examples, Split, examples

NOT_PREDICTED = -100  # the label of tokens without a loss, as in transformers


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
        cut: How many prompts and answers of each split were too long, see `_cut`; empty for a task
            that does not count them.
    """

    task: ModuleType
    tokenizer: PreTrainedTokenizerBase
    collate: Callable[[list[dict]], dict]
    train: Sequence[dict]
    selection: Sequence[dict]
    report: Sequence[dict]
    cut: list[dict] = field(default_factory=list)


def model_folder(request: dict) -> Path:
    """The folder with the prepared model of a training request.

    Raises:
        FileNotFoundError: The model is not prepared, or one of its files is gone.
        ValueError: It was prepared for another request, or a file was changed or added since.
    """
    folder, recorded = _prepared("model", request["cell"]["model"], request["inputs"]["model"])
    for name in recorded:
        _check_file(folder, "model", name, recorded)
    for file in sorted(folder.iterdir()):
        # transformers would read it: adapters, other weights, another tokenizer.
        if file.name not in {*recorded, "model.json"} and not file.name.startswith("."):
            raise ValueError(
                f"{file}: not a file of the prepared model, allowed: {', '.join(recorded)}; "
                "move it elsewhere"
            )
    return folder


def read_split(request: dict, name: str, split: str) -> list[dict]:
    """The rows of a prepared split.

    Args:
        request: Gives the digest of the prepared data.
        name: The dataset's name.
        split: The split's name.

    Raises:
        FileNotFoundError: The dataset is not prepared, or the split's file is gone.
        ValueError: It was prepared for another request, or the file was changed since.
    """
    return read_rows(_split(request, name, split).file)


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
        FileNotFoundError: The dataset is not prepared, or a split's file is gone.
        ValueError: It was prepared for another request, a file was changed since, a split gives
            nothing to train or report on, or the tokenizer does not know its texts.
    """
    dataset = request["dataset"]
    name = name or request["cell"]["dataset"]
    task = tasks.load(dataset["task"])
    added_by_column = _added(dataset, tokenizer)
    unknown = _unknown_token(tokenizer)

    def encoded(split: str) -> Examples:
        encoding = encoder(task, tokenizer, dataset, scores=split != "train")
        found = examples(_split(request, name, split), encoding)
        for column, added in added_by_column.items():
            check(found, split, dataset, name, added, column)
            if unknown is not None:
                counts = found.count(unknown, added, column)
                check_known(*counts, split, dataset, name, column)
        return found

    # A trial reports on the selection slice.
    splits = {split: encoded(split) for split in ("train", "selection", dataset["report_split"])}
    return Data(
        task=task,
        tokenizer=tokenizer,
        collate=task.Collate(tokenizer, seed),
        train=splits["train"],
        selection=splits["selection"],
        report=splits[dataset["report_split"]],
        cut=[row for split, found in splits.items() for row in _cut(split, found)],
    )


def _added(dataset: dict, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Column of token ids -> the ids that an empty text has, too."""
    labels = tasks.facts(dataset["task"]).labels
    added = {"input_ids": tokenizer("")["input_ids"]}
    if labels == tasks.TEXT:
        added["labels"] = tokenizer(text_target="")["input_ids"]
    if labels == tasks.ANSWER:
        added["labels"] = [NOT_PREDICTED, tokenizer.eos_token_id]
    return added


def _cut(split: str, found: Examples) -> list[dict]:
    """A row with how many prompts and answers of a split were cut to `max_length_tokens`."""
    prompts, answers = found.total("cut_prompts"), found.total("cut_answers")
    if prompts is None:
        return []
    return [{"split": split, "cut_prompt_rows": prompts, "cut_answer_rows": answers}]


def _unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for what a tokenizer does not know, or None if it knows everything.

    GPT-2's tokenizer knows every byte. It names its end-of-text token as the unknown one.
    """
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    unknown = tokenizer.unk_token_id
    return None if unknown in others else unknown


def data_facts(request: dict, name: str | None = None) -> dict[str, list[dict]]:
    """The counts made when the dataset of a training request was prepared, see `facts.count`.

    Args:
        request: Gives the digest of the prepared data.
        name: The dataset's name; that of the request's cell if None. A pre-training has no cell.

    Raises:
        FileNotFoundError: The dataset is not prepared.
        ValueError: It was prepared for another request.
    """
    name = name or request["cell"]["dataset"]
    folder, _ = _prepared("dataset", name, request["inputs"]["dataset"])
    return result.read(folder / "dataset.json")["data"]


def _split(request: dict, name: str, split: str) -> Split:
    """A prepared split, after a check of its file."""
    folder, recorded = _prepared("dataset", name, request["inputs"]["dataset"])
    file = _check_file(folder, "dataset", f"{split}{SPLIT_ENDING}", recorded)
    return Split(split, file, recorded[file.name])


def _prepared(kind: str, name: str, expected: str) -> tuple[Path, dict[str, str]]:
    """A prepared dataset or model (`kind`), if it was made for the request with digest `expected`.

    Returns:
        Its folder, and the recorded SHA-256 of each file in it.
    """
    place = store.input_place(kind, name, expected)
    file = store.Store().find(place)
    if file is None:
        raise FileNotFoundError(f"{place}: not in the store; run snakemake again")
    return file.parent, recorded_files(store.check_answers(file, expected))


def _check_file(folder: Path, kind: str, name: str, recorded: dict[str, str]) -> Path:
    """A file of a prepared input, if it is the one that was recorded when it was made."""
    file, record = folder / name, folder / f"{kind}.json"
    if name not in recorded or not file.is_file():
        remedy = sound.remedy(record, store.Store())
        raise FileNotFoundError(f"{file}: not there, or not named by {record.name}; {remedy}")
    difference = content.difference(file, recorded[name])
    if difference:
        remedy = sound.remedy(record, store.Store())
        raise ValueError(f"{file}: {difference}, which {record.name} recorded; {remedy}")
    return file
