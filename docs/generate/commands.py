"""The pages of the command line, from its --help, and of environment variables, from a table."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

HEAD = """# Command line

Generated from `rankwise --help`. Run it in a clone, or in a folder with a `config/` of your own.
Snakemake's targets and options are in [Getting started](../getting-started.md#targets).

"""
VARIABLES_HEAD = """# Environment variables

Generated from `rankwise.core.settings`, the one module that reads them. The demo needs none, and
none is part of a request: setting one reruns nothing. Paths in entries may name variables of your
own, such as `${RANKWISE_DATA}` for a folder of data.

"""


def page(root: Path) -> str:
    """The help of `rankwise` and of each of its commands."""
    top = help_text(root)
    parts = [HEAD, f"```text\n{top}```\n"]
    for name in command_names(top):
        help_of_command = help_text(root, name)
        parts.append(_section(f"## rankwise {name}", help_of_command))
        for action in _actions(help_of_command):
            parts.append(_section(f"### rankwise {name} {action}", help_text(root, name, action)))
    return "".join(parts)


def _section(heading: str, text: str) -> str:
    return f"\n{heading}\n\n```text\n{text}```\n"


def _actions(help_of_command: str) -> list[str]:
    """The commands of a command: argparse lists them on a line of their own."""
    found = re.search(r"^  \{([\w,-]+)\}$", help_of_command, re.MULTILINE)
    return found[1].split(",") if found else []


def command_names(help_of_all: str) -> list[str]:
    """The commands in argparse's usage line: {methods,fits,...}."""
    return re.search(r"\{([\w,-]+)\}", help_of_all)[1].split(",")


def help_text(root: Path, *command: str) -> str:
    """What --help prints, 90 columns wide."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "90"}
    arguments = [sys.executable, "-m", "rankwise.cli.main", *command, "--help"]
    done = subprocess.run(
        arguments, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def environment_page(root: Path) -> str:
    """A table of every environment variable."""
    sys.path.insert(0, str(root / "src"))
    settings = importlib.import_module("rankwise.core.settings")
    lines = ["| variable | default | meaning |\n", "| --- | --- | --- |\n"]
    for name, variable in settings.VARIABLES.items():
        default = f"`{variable.default}`" if variable.default else ""
        lines.append(f"| `{name}` | {default} | {variable.meaning} |\n")
    return VARIABLES_HEAD + "".join(lines)
