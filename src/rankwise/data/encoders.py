"""How the rows of a split become examples, for training and for scoring."""

from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

# Functions that a task may have beside `encode`: examples to train on, and examples to score.
BATCHES, SCORED_BATCHES = "encode_batches", "encode_scored_batches"
# Keys of an entry that decide what the examples are.
SETTINGS = ("max_length_tokens", "stride_tokens", "chat", "messages", "packing")


class Encoder(NamedTuple):
    """How rows become examples.

    Attributes:
        task: A module of `rankwise.models.tasks`.
        tokenizer: A fast one.
        settings: What `encode` gets of a dataset's entry: only what the examples' digest has, too.
        scores: Whether the examples are scored. Some tasks train on others: blocks of a stream, or
            packs.
    """

    task: ModuleType
    tokenizer: PreTrainedTokenizerBase
    settings: dict
    scores: bool = False

    @property
    def of_batches(self) -> str | None:
        """The task's function whose examples may span rows; None if they are single rows."""
        names = [BATCHES]
        if self.scores:
            names.insert(0, SCORED_BATCHES)
        return next((name for name in names if hasattr(self.task, name)), None)

    def encode(self, batches: Iterator[list[dict]]) -> Iterator[list[dict]]:
        """The examples of rows that come in batches, for a task whose examples may span rows."""
        function = getattr(self.task, self.of_batches)
        return function(batches, self.tokenizer, self.settings)

    def encode_rows(self, rows: list[dict]) -> list[dict]:
        """The examples of some rows, for a task whose examples are single rows."""
        return self.task.encode(rows, self.tokenizer, self.settings)


def encoder(
    task: ModuleType, tokenizer: PreTrainedTokenizerBase, dataset: dict, scores: bool = False
) -> Encoder:
    """The encoder of a dataset.

    Args:
        task: A module of `rankwise.models.tasks`.
        tokenizer: A fast one.
        dataset: Its entry.
        scores: Whether the examples are scored, and not trained on.
    """
    settings = {key: dataset[key] for key in SETTINGS if key in dataset}
    return Encoder(task, tokenizer, settings, scores)
