"""`rankwise export`: the weights that a run has kept, in a folder, with a model card."""

# ruff: noqa: PLC0415 - the command imports what it needs when it runs

import argparse
import json
from pathlib import Path


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "export", help="copy the weights that a run has kept into a folder, with a model card"
    )
    command.add_argument(
        "cell",
        metavar="CELL",
        help="one training run: MODEL/DATASET/METHOD/rRANK/seedSEED, its train.json, or a row of a "
        "table of runs, as `rankwise trace` takes it",
    )
    command.add_argument(
        "--to", required=True, type=Path, metavar="DIR", help="a folder that is empty or not there"
    )
    command.add_argument(
        "--merge", action="store_true", help="write one merged model instead of an adapter"
    )
    command.add_argument(
        "--push",
        metavar="REPO",
        help="also upload the folder to this repository of the hub, owner/name (default: nothing "
        "leaves this machine)",
    )
    command.add_argument(
        "--study",
        metavar="FILE",
        help="a study's file, such as config/demo.yaml (default: the study whose results are "
        "there)",
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_export)


def _export(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.cli import store_text
    from rankwise.library.export import export, push

    written = export(given.cell, given.to, Path.cwd(), given.study, given.merge)
    pushed = push(given.to, given.push) if given.push else None
    if given.json:
        return json.dumps({**written._asdict(), "pushed": pushed}, indent=1), 0
    size = store_text.size(written.bytes)
    lines = [f"{written.folder}: {written.format}, {size}, of run {written.run}"]
    if pushed:
        lines.append(f"pushed: {pushed}")
    return "\n".join(lines), 0
