"""The catalogue of methods, a page a method, from docs/methods.md.

`rankwise methods --page` writes docs/methods.md as one long page, so that it can be read where the
repository is. The site has a page for each of its sections instead.
"""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = "methods"


class Section(NamedTuple):
    """A heading of docs/methods.md and the text below it."""

    group: str  # the second-level heading: What trains, How it steps, ...
    title: str  # the third-level heading, or empty
    text: str


def sections(root: Path) -> list[Section]:
    """docs/methods.md in its order; the text before the first heading has no group."""
    source = (root / "docs/methods.md").read_text(encoding="utf-8")
    found, group, title, lines = [], "", "", []
    for line in source.splitlines():
        if line.startswith(("## ", "### ")):
            found.append(Section(group, title, "\n".join(lines).strip()))
            lines = []
            if line.startswith("## "):
                group, title = line.removeprefix("## "), ""
            else:
                title = line.removeprefix("### ")
        else:
            lines.append(line)
    found.append(Section(group, title, "\n".join(lines).strip()))
    return found


def pages(root: Path) -> dict[str, str]:
    """methods/index.md with the catalogue, and one page for each module that has a section."""
    found = sections(root)
    titles = {section.title for section in found if section.title}
    index = []
    result = {}
    for section in found:
        if section.title:
            head = f"# {section.title}\n\n{section.group}. [All methods](index.md)\n\n"
            text = f"{head}{section.text}\n"
            result[f"{FOLDER}/{section.title}.md"] = _linked(text, titles)
        elif section.group:
            index.append(f"## {section.group}\n\n{section.text}\n")
            index.append(_list(section.group, found))
        else:
            index.append(section.text + "\n")
    result[f"{FOLDER}/index.md"] = _linked("\n".join(index), titles)
    return result


def _list(group: str, found: list[Section]) -> str:
    """Links to the pages of one group, each with the first sentence of its text."""
    lines = [
        f"- [{section.title}]({section.title}.md): {_first_sentence(section.text)}"
        for section in found
        if section.group == group and section.title
    ]
    return "\n".join(lines) + "\n"


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]


def _linked(text: str, titles: set[str]) -> str:
    """Links to a heading of the long page become links to the page of that heading."""
    return re.sub(
        r"\]\(#([\w-]+)\)",
        lambda match: f"]({match[1]}.md)" if match[1] in titles else match[0],
        text,
    )


def navigation(root: Path) -> list:
    """The methods' part of the site's navigation."""
    items: list = [{"All methods": f"{FOLDER}/index.md"}]
    groups: dict[str, list] = {}
    for section in sections(root):
        if section.title:
            groups.setdefault(section.group, []).append(
                {section.title: f"{FOLDER}/{section.title}.md"}
            )
    return items + [{group: listed} for group, listed in groups.items()]
