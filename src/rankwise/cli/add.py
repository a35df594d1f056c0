"""The command `rankwise add`: new entries for the configuration, derived from what they describe.

Each thing to add has its own module with `add_command(actions)`.
"""

import argparse

from rankwise.cli import add_dataset, add_model, add_study


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `rankwise add` to the command line."""
    command = commands.add_parser("add", help="add an entry to the configuration, derived for you")
    actions = command.add_subparsers(dest="action", required=True)
    add_model.add_command(actions)
    add_dataset.add_command(actions)
    add_study.add_command(actions)
