"""The fenced blocks of README and docs/: what a reader would copy."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.repository import ROOT

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:snakemake|rankwise|make) [^`\n]+)`")


class Block(NamedTuple):
    """One fenced block: the page that shows it, its language (empty for shell commands), its text."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every page that a person wrote, and docs/methods.md."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
    docs = [path for path in (ROOT / "docs").rglob("*.md") if "examples" not in path.parts]
    return [*top, *sorted(docs)]


def blocks(language: str) -> list[Block]:
    """The fenced blocks of one language, page by page."""
    return [
        Block(path.relative_to(ROOT).as_posix(), language, match[2])
        for path in pages()
        for match in FENCE.finditer(path.read_text(encoding="utf-8"))
        if match[1] == language
    ]


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every command shown, in a block or in a sentence, without variables before it."""
    for block in blocks(""):
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                if words := _words(command):
                    yield block.page, words
    for path in pages():
        prose = FENCE.sub("", path.read_text(encoding="utf-8"))
        for match in INLINE.finditer(prose):
            yield path.relative_to(ROOT).as_posix(), _words(match[1])


def _words(command: str) -> list[str]:
    words = shlex.split(command.split(" #", maxsplit=1)[0].strip())
    while words and re.match(r"[A-Z][A-Z_0-9]*=", words[0]):
        words.pop(0)
    return words
