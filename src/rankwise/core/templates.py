"""Texts that are made of the columns of a row: `Question: {question}`.

A template is the name of a column, or a text with the names of columns in braces. Doubled braces
stand for braces. Standard library only, since planning reads templates.
"""

import re
from collections.abc import Mapping

PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def columns(template: str) -> list[str]:
    """The columns that a template names, each once, in their order.

    Args:
        template: Without `problem`.
    """
    if not _is_text(template):
        return [template]
    names = [match[1] for match in PARTS.finditer(template) if match[1] is not None]
    return list(dict.fromkeys(names))


def fill(template: str, cells: Mapping[str, str]) -> str:
    """The text of a row.

    Args:
        template: Without `problem`.
        cells: Column -> text, of every column that the template names.
    """
    if not _is_text(template):
        return cells[template]

    def part(match: re.Match) -> str:
        return match[0][0] if match[1] is None else cells[match[1]]

    return PARTS.sub(part, template)


def problem(template: str) -> str | None:
    """The form that a template must have, if the text has it not; None if it is well formed."""
    if not _is_text(template):
        return None
    for match in PARTS.finditer(template):
        if match[0] in ("{", "}"):
            return "braces in pairs around a column's name; write {{ and }} for braces of the text"
        if match[1] == "":
            return "the name of a column inside of the braces"
    if not columns(template):
        return "a text with the name of a column in braces, such as {question}"
    return None


def _is_text(template: str) -> bool:
    return "{" in template or "}" in template
