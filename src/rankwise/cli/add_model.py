"""The command `rankwise add model`: a models entry, derived from the model itself."""

# ruff: noqa: PLC0415 - torch takes seconds to import, and `--help` should not

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.core import entry_files
from rankwise.core.config import library

if TYPE_CHECKING:
    from rankwise.models.derive import Derived

OWN_ROLE = "--role ROLE=NAME gives one a role (NAME: the end of the module's name)"


def add_command(actions: argparse._SubParsersAction) -> None:
    """Add `model` to the actions of `rankwise add`."""
    command = actions.add_parser(
        "model", help="derive an entry of config/models.yaml from a model's folder or hub id"
    )
    command.add_argument(
        "source",
        metavar="PATH|HUB_ID",
        help="a folder in Hugging Face's layout, or a repository on the hub (owner/name); quote "
        "a path with ${VARIABLES} to keep them in the entry",
    )
    command.add_argument(
        "--name", help="the entry's name (default: made of the folder's or repository's name)"
    )
    command.add_argument(
        "--revision", help="branch, tag or commit on the hub (default: main); stored as a commit"
    )
    command.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="a role that the structure does not tell, such as query=attn.wq; may be repeated",
    )
    command.add_argument(
        "--positions",
        type=_tokens,
        metavar="N",
        help="the longest input in tokens, where no file says it",
    )
    command.add_argument(
        "--shapes",
        action="store_true",
        help="take config.json alone, for an entry that can be profiled, not trained",
    )
    command.add_argument(
        "--print", dest="print_only", action="store_true", help="write nothing, print the entry"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_run)


def _tokens(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed: an integer of at least 1")
    return int(text)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    project = Path.cwd()
    derived = _derived(given, project)
    file = None
    if not given.print_only:
        entry_files.check_new(project, "models", derived.name, library(project))
        file = entry_files.append(project, "models", derived.name, derived.entry)
    if given.json:
        return json.dumps(_as_json(derived), indent=1), 0
    entry = entry_files.text(derived.name, derived.entry).rstrip()
    if file is None:
        comments = [f"# {line}".rstrip() for line in described(derived)]
        return "\n".join([*comments, entry]), 0
    done = f"{file} has it; next: rankwise add study --model {derived.name}"
    return "\n".join([entry, "", *described(derived), "", done]), 0


def _derived(given: argparse.Namespace, project: Path) -> "Derived":
    from rankwise.models.derive import Choices, derive
    from rankwise.models.derive_modules import chosen_roles

    roles = chosen_roles(given.role)
    choices = Choices(given.name, given.revision, roles, given.positions, given.shapes)
    try:
        return derive(given.source, choices, project)
    except FileNotFoundError as error:  # a variable in the path is not set
        raise ValueError(str(error)) from None


def _as_json(derived: "Derived") -> dict:
    values = dataclasses.asdict(derived)
    values["roles"] = {role: matrices._asdict() for role, matrices in derived.roles.items()}
    values["others"] = [matrices._asdict() for matrices in derived.others]
    return values


def described(derived: "Derived") -> list[str]:
    """The facts found in a model, for a terminal: its size, its matrices by role, notes.

    Args:
        derived: The entry, and what it was derived from.
    """
    rows = [("role", "module", "shape", "how many")]
    for role, matrices in derived.roles.items():
        rows.append((role, *_cells(matrices)))
    for matrices in derived.others:
        rows.append(("-", *_cells(matrices)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{derived.name}: {derived.parameters:,} parameters without a head"]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    if derived.others:
        lines.append(f"  - has no role; {OWN_ROLE}")
    return [*lines, *(f"  {note}" for note in derived.notes)]


def _cells(matrices: tuple[str, list[int], int]) -> tuple[str, str, str]:
    module, (rows, columns), count = matrices
    return module, f"{rows} x {columns}", str(count)
