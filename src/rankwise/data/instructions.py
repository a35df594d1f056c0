"""Prompts and answers: from columns, from templates of columns, or from the messages of a chat.

Sources: Taori et al. 2023, Stanford Alpaca (a second template for rows without an input); Hugging
Face's chat format for lists of messages with `role` and `content`.
"""

import json
from pathlib import Path
from typing import NamedTuple

from rankwise.core import templates
from rankwise.data.record import Record, problem, shown
from rankwise.data.text_cells import required, text_cell

ASSISTANT = "assistant"
ROLES = ("system", "user", ASSISTANT)


class Missing(NamedTuple):
    """A column that a prompt needs and that has no text in a row."""

    column: str


def has_answers(dataset: dict) -> bool:
    """Whether the rows of an entry are prompts with answers."""
    return "prompt" in dataset or "messages" in dataset


def prompt(record: Record, dataset: dict, path: Path) -> str | Missing:
    """The prompt of a row.

    Args:
        record: A row of the file.
        dataset: A dataset entry with `prompt` or `messages`. `prompt_without_input` is the template
            of rows in which the columns that `prompt` alone names are blank.
        path: The file, for messages.

    Returns:
        The text. Of messages, all but the answer: as JSON where the tokenizer's chat template makes
        the text of them (`chat: true`), else as `plain` writes them.

    Raises:
        ValueError: A column is not in the row, or has a value that is no text; or a message is
            none.
    """
    if "messages" in dataset:
        earlier = _messages(record, dataset["messages"], path)[:-1]
        return json.dumps(earlier, ensure_ascii=False) if dataset.get("chat") else plain(earlier)
    template = dataset["prompt"]
    cells = {name: text_cell(record, name, path) for name in templates.columns(template)}
    if "prompt_without_input" in dataset:
        shorter = dataset["prompt_without_input"]
        optional = [name for name in cells if name not in templates.columns(shorter)]
        if all(cells[name] is None for name in optional):
            template = shorter
    for name in templates.columns(template):
        if cells[name] is None:
            return Missing(name)
    return templates.fill(template, cells)


def answer(record: Record, dataset: dict, path: Path) -> str:
    """The answer of a row; of messages, the last one.

    Raises:
        ValueError: A column is not in the row, or has no text; or a message is none.
    """
    if "messages" in dataset:
        return _messages(record, dataset["messages"], path)[-1]["content"]
    template = dataset["answer"]
    cells = {name: required(record, name, path) for name in templates.columns(template)}
    return templates.fill(template, cells)


def plain(messages: list[dict[str, str]]) -> str:
    """Messages as a plain prompt: the role of each on a line, then its text; the answer follows.

    Args:
        messages: With `role` and `content`, without the answer.
    """
    turns = [f"{message['role']}:\n{message['content']}\n\n" for message in messages]
    return "".join([*turns, f"{ASSISTANT}:\n"])


def _messages(record: Record, column: str, path: Path) -> list[dict[str, str]]:
    """The messages of a row: role and content of each, the last by the assistant."""
    if column not in record.cells:
        required(record, column, path)  # its sentence names the columns
    messages = record.cells[column]
    allowed = "a list of messages, each with role and content"
    if not isinstance(messages, list) or len(messages) < 2:
        got = f"{len(messages)} messages" if isinstance(messages, list) else shown(messages)
        what = f"column {column!r} is {got}, allowed: {allowed}, at least a question and an answer"
        raise problem(path, record.where, what)
    found = []
    for number, message in enumerate(messages, 1):
        parts = message if isinstance(message, dict) else {}
        role, content = parts.get("role"), parts.get("content")
        if role not in ROLES or not isinstance(content, str):
            allowed_roles = f"a role ({', '.join(ROLES)}) and a text as content"
            what = f"column {column!r}: message {number} is {shown(message)}, allowed: "
            raise problem(path, record.where, what + allowed_roles)
        found.append({"role": role, "content": content})
    if found[-1]["role"] != ASSISTANT or not found[-1]["content"].strip():
        got = shown(messages[-1])
        what = f"column {column!r}: the last message is {got}, allowed: an answer of the assistant"
        raise problem(path, record.where, what)
    return found
