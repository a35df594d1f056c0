"""The command `rankwise add dataset`: a datasets entry, proposed from the files themselves."""

# ruff: noqa: PLC0415 - `--help` should not wait for what reads files

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.core import entry_files, tasks
from rankwise.core.config import library

if TYPE_CHECKING:
    from rankwise.data.propose import Proposal

FORMATS = ["csv", "tsv", "json", "jsonl", "parquet", "text", "tar"]
SHOWN_CLASSES = 12
SHOWN_CHARACTERS = 90  # of the text of an example


def add_command(actions: argparse._SubParsersAction) -> None:
    """Add `dataset` to the actions of `rankwise add`."""
    command = actions.add_parser(
        "dataset", help="propose an entry of config/datasets.yaml from a file or folder"
    )
    command.add_argument(
        "source",
        metavar="FILE|FOLDER",
        help="one file, of which a share is held out to report on; or a folder with files named "
        "train and test or validation (dev); quote a path with ${VARIABLES} to keep them",
    )
    command.add_argument("--name", help="the entry's name (default: made of the file's name)")
    add_choices(command)
    command.add_argument(
        "--print", dest="print_only", action="store_true", help="write nothing, print the entry"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_run)


def add_choices(command: argparse.ArgumentParser) -> None:
    """Add the options that decide what a file leaves open."""
    command.add_argument(
        "--text",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="the text's column; several are joined by a space",
    )
    command.add_argument("--label", metavar="COLUMN", help="the label's column")
    command.add_argument("--task", choices=tasks.names(), help="what to train on the data")
    command.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME", help="names of a table without a header"
    )
    command.add_argument(
        "--quotes", choices=["yes", "no"], help="whether quotes hold a table's cells together"
    )
    command.add_argument("--format", choices=FORMATS, help="where the file's name does not say it")
    command.add_argument(
        "--max-length", type=int, metavar="TOKENS", help="where longer texts are cut"
    )
    command.add_argument(
        "--drop-missing", action="store_true", help="leave out rows without a text, and count them"
    )


def proposed(given: argparse.Namespace, project: Path) -> "Proposal":
    """The proposal for what was typed.

    Args:
        given: With the options of `add_choices`, `source` and `name`.
        project: The folder that the user works in.

    Raises:
        ValueError: No entry can be proposed; one sentence.
    """
    from rankwise.data.propose import Choices, propose

    choices = Choices(
        name=given.name,
        text=given.text,
        label=given.label,
        task=given.task,
        columns=given.columns,
        quotes=None if given.quotes is None else given.quotes == "yes",
        file_format=given.format,
        drop_missing=given.drop_missing,
        max_length=given.max_length,
    )
    return propose(given.source, choices, project)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    project = Path()  # so that messages name files as they were typed
    proposal = proposed(given, project)
    if not given.print_only:
        entry_files.check_new(project, "datasets", proposal.name, library(Path.cwd()))
        file = entry_files.append(project, "datasets", proposal.name, proposal.entry)
    if given.json:
        return json.dumps({**vars(proposal)}, indent=1), 0
    entry = entry_files.text(proposal.name, proposal.entry).rstrip()
    if given.print_only:
        return "\n".join([*_comments(proposal), entry]), 0
    done = f"{file} has it; next: rankwise add study --dataset {proposal.name}"
    return "\n".join([*described(proposal), "", entry, "", done]), 0


def _comments(proposal: "Proposal") -> list[str]:
    """The description as comments of YAML, so that what is printed can be saved as it is."""
    return [f"# {line}".rstrip() for line in described(proposal)]


def described(proposal: "Proposal") -> list[str]:
    """The facts found in the files, for a terminal.

    Args:
        proposal: The proposed entry, and what it was made from.
    """
    entry = proposal.entry
    counts = ", ".join(f"{split} {number:,}" for split, number in proposal.rows.items())
    columns = ", ".join(proposal.columns)
    meaning = _meaning(entry)
    lines = [
        f"{proposal.name}: {entry['files']['format']}, rows: {counts}",
        f"  columns: {columns}",
        f"  {meaning}; task: {entry['task']}",
    ]
    if proposal.classes:
        shown = list(proposal.classes.items())[:SHOWN_CLASSES]
        classes = ", ".join(f"{name} {number:,}" for name, number in shown)
        more = len(proposal.classes) - len(shown)
        lines.append(f"  classes in order: {classes}{f' and {more} more' if more else ''}")
    lines += [f"  {note}" for note in proposal.notes]
    lines.append("  the first rows, as they will be read:")
    for example in proposal.examples:
        label = example.get("class", example.get("label"))
        shown_label = "" if label is None else f"{_short(label)}: "
        lines.append(f"    {example['row']}: {shown_label}{_short(example['text'])!r}")
    return lines


def _meaning(entry: dict) -> str:
    """The use of each column, in words."""
    if "messages" in entry:
        return f"messages: {entry['messages']}, the last of which is the answer"
    if "prompt" in entry:
        return f"prompt: {entry['prompt']!r}; answer: {entry['answer']!r}"
    text = entry["text"] if isinstance(entry["text"], str) else " + ".join(entry["text"])
    return f"text: {text}; label: {entry['label']}" if "label" in entry else f"text: {text}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
