"""The command `rankwise add model`: a models entry, derived from the model itself."""

# ruff: noqa: PLC0415 - torch takes seconds to import, and `--help` should not

import argparse
from pathlib import Path


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
        "--print", dest="print_only", action="store_true", help="write nothing, print the entry"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.cli import add_model_text
    from rankwise.models import derive

    answer = derive.add(Path.cwd(), given)
    return add_model_text.text(answer), 0
