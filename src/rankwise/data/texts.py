"""The text of a row: one column, several joined by spaces, or a prompt; and its target."""

from pathlib import Path

from rankwise.core import tasks
from rankwise.data import answers, instructions
from rankwise.data.record import Record, problem, shown, text_columns
from rankwise.data.text_cells import required, text_cell

RUNNING_TEXT = "language_modelling"


def text(record: Record, dataset: dict, path: Path) -> str | None:
    """The text of a row.

    Args:
        record: A row of the file.
        dataset: A dataset entry. `missing_text: drop` leaves out rows without a text.
        path: The file, for messages.

    Returns:
        The text as it is written. None if the row, or one of the text's columns, has none, and the
        entry drops such rows.

    Raises:
        ValueError: A column is not in the row, has no text and the entry does not drop it, or has
            a value that is no text.
    """
    if _has_tags(dataset):
        return " ".join(answers.words(record, dataset, path))
    if instructions.has_answers(dataset):
        prompt = instructions.prompt(record, dataset, path)
        if isinstance(prompt, str):
            return prompt
        return _missing(record, prompt.column, dataset, path)
    names = text_columns(dataset)
    # The blank lines of running text are part of it.
    blank_is_text = dataset.get("task") == RUNNING_TEXT and len(names) == 1
    parts = [text_cell(record, name, path, blank_is_text) for name in names]
    missing = [name for name, part in zip(names, parts, strict=True) if part is None]
    if not missing:
        return " ".join(parts)
    return _missing(record, missing[0], dataset, path)


def _missing(record: Record, column: str, dataset: dict, path: Path) -> None:
    """Leave out a row without a text, where the entry says so.

    Raises:
        ValueError: The entry does not.
    """
    if dataset.get("missing_text") == "drop":
        return
    value = record.cells[column]
    what = (
        f"column {column!r} is {'null' if value is None else shown(value)}, allowed: a text; "
        "correct the row, or leave such rows out with `missing_text: drop`"
    )
    raise problem(path, record.where, what)


def target(record: Record, dataset: dict, path: Path) -> str:
    """The text that a model is to write of a row, its label.

    Raises:
        ValueError: The row has no such column, or no text in it.
    """
    if instructions.has_answers(dataset):
        return instructions.answer(record, dataset, path)
    return required(record, dataset["label"], path)


def _has_tags(dataset: dict) -> bool:
    """Whether the text is a list of words, each with a tag."""
    return "task" in dataset and tasks.facts(dataset["task"]).labels == tasks.TAGS
