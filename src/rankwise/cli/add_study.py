"""The command `rankwise add study`: a commented study of four methods that plans as it is."""

# ruff: noqa: PLC0415 - `--help` should not wait for what plans

import argparse
import re
from pathlib import Path

from rankwise.cli.study_template import METHODS, study_text
from rankwise.core import entry_files
from rankwise.core.config import ConfigError, library
from rankwise.core.yaml_files import load

NAME = re.compile(r"[a-z0-9_]+")
# Files in config/ that are no studies.
TAKEN = ("methods", "models", "datasets", "claims", "config")
REFERENCE = METHODS[0]  # what it cannot plan, no method can


def add_command(actions: argparse._SubParsersAction) -> None:
    """Add `study` to the actions of `rankwise add`."""
    command = actions.add_parser(
        "study", help="write a commented study, config/NAME.yaml, and say what it costs"
    )
    command.add_argument(
        "--model",
        help="an entry, a folder, or a hub id with its revision (default: the last entry with "
        "weights in config/models.yaml)",
    )
    command.add_argument(
        "--dataset",
        help="an entry, or a file or folder (default: the last entry in config/datasets.yaml)",
    )
    command.add_argument("--name", default="mine", help="the study's name (default: mine)")
    command.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where it trains (default: cpu)"
    )
    command.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    project = Path.cwd()
    file = _new_file(given.name, project)
    model, dataset = _named(given, project)
    text = planned_text(given.name, model, dataset, given.device, project)
    entry_files.write_whole(project / file, text)
    return "\n".join([f"{file}: {model} on {dataset}", *_plan_lines(file, project)]), 0


def planned_text(name: str, model: str, dataset: str, device: str, project: Path) -> str:
    """The text of a study that plans; a method that the model cannot do is left out, with why.

    Args:
        name: The study's name.
        model: An entry, a folder or a hub id.
        dataset: An entry, or a file or folder of data.
        device: `cpu` or `cuda`.
        project: The folder that the user works in.

    Raises:
        ConfigError: The model, the dataset or both together cannot be planned.
    """
    from rankwise.study.plan import Plan

    file = f"config/{name}.yaml"
    refused: dict[str, str] = {}
    train_rows = None
    for method in METHODS:
        others = {other: "?" for other in METHODS if other != method}
        text = study_text(name, model, dataset, device=device, refused=others)
        try:
            plan = Plan(load(text), project, file)
        except ConfigError as error:
            if method == REFERENCE:
                raise
            refused[method] = str(error)
            continue
        if method == REFERENCE:
            (cell, *_) = plan.cells("train")
            train_rows = plan.library["datasets"][cell.dataset].get("train_samples")
    text = study_text(name, model, dataset, device=device, train_rows=train_rows, refused=refused)
    Plan(load(text), project, file)
    return text


def _new_file(name: str, project: Path) -> str:
    """The file of a new study, relative to the project."""
    if not NAME.fullmatch(name) or name in TAKEN:
        allowed = f"a name of lower-case letters, digits and _, not {', '.join(TAKEN)}"
        raise ValueError(f"--name: got {name!r}, allowed: {allowed}")
    file = f"config/{name}.yaml"
    if (project / file).exists():
        raise ValueError(
            f"{file}: got a file that is there already, allowed: a new name (--name NAME); no "
            "study is written over"
        )
    return file


def _named(given: argparse.Namespace, project: Path) -> tuple[str, str]:
    """The model and the dataset: those that are typed, or the last entries."""
    entries = library(project)
    with_weights = [name for name, entry in entries["models"].items() if "weights" in entry]
    model = given.model or with_weights[-1]
    return model, given.dataset or list(entries["datasets"])[-1]


def _plan_lines(file: str, project: Path) -> list[str]:
    """What `rankwise plan` says of the study, and the command that runs it."""
    from rankwise.audit import rerun_plan
    from rankwise.cli import plan_text

    run = f"run it: snakemake --configfile {file}"
    try:
        found = rerun_plan.plan(project, file)
    except ValueError as error:  # Snakemake says why it cannot plan in this folder
        return [f"it cannot be planned here: {error} (rankwise init makes a folder for it)", run]
    counted, *_ = plan_text.text(found).splitlines()
    cost = next((line for line in plan_text.text(found).splitlines() if "cost:" in line), "")
    return [counted, *filter(None, [cost]), run]
