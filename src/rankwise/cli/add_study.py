"""The command `rankwise add study`: a commented study of four methods that plans as it is."""

# ruff: noqa: PLC0415 - `--help` should not wait for what plans

import argparse
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankwise.checks import model_entries
from rankwise.cli.study_template import METHODS, STAND_INS, NewStudy, study_text
from rankwise.core import entry_files, paths
from rankwise.core.config import LIBRARY, ConfigError, library, pick
from rankwise.core.yaml_files import load

if TYPE_CHECKING:
    from rankwise.study.plan import Plan

NAME = "a name of letters, digits, _, - and . inside, at most 64 characters"
# Files in config/ that are no studies, and the paper study's.
TAKEN = (*LIBRARY, "config")


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
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="METHOD",
        help=f"entries of config/methods.yaml (default: {' '.join(METHODS)})",
    )
    command.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        metavar="SEED",
        help="random seeds, one run for each (default: 0 1 2)",
    )
    command.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where it trains (default: cpu)"
    )
    command.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> tuple[str, int]:
    project = Path.cwd()
    file = _new_file(given.name, project)
    model, dataset = _named(given, project)
    study = NewStudy(given.name, model, dataset, given.device, given.methods, given.seeds)
    text = planned_text(study, project)
    entry_files.write_whole(project / file, text)
    return "\n".join([f"{file}: {model} on {dataset}", *_plan_lines(file, project)]), 0


def planned_text(study: NewStudy, project: Path) -> str:
    """The text of a study that plans; a method that the model cannot do is left out, with why.

    Args:
        study: What the user says of it.
        project: The folder that the user works in.

    Raises:
        ConfigError: The model, the dataset or both together cannot be planned, or no method can.
        ValueError: The model's files lack something, such as a tokenizer, or differ from its entry.
    """
    refused: dict[str, str] = {}
    try:
        plan = _plan(study, project)
    except ConfigError as error:
        plan, first_error = None, error
        for method in study.methods:
            try:
                plan = _plan(replace(study, methods=[method]), project)
            except ConfigError as why:
                refused[method] = str(why)
        if plan is None:
            raise first_error from None
    (cell, *_) = plan.cells("train")
    task = plan.library["datasets"][cell.dataset]["task"]
    for wrong in model_entries.problems(cell.model, plan.library["models"][cell.model], [task]):
        raise ValueError(wrong)
    rows = plan.library["datasets"][cell.dataset].get("train_samples")
    used = [name for name in study.methods if name not in refused]
    used += _stand_ins(study, refused, project)
    written = replace(study, methods=used, train_rows=rows, refused=refused)
    _plan(written, project)
    return study_text(written)


def _stand_ins(study: NewStudy, refused: dict[str, str], project: Path) -> list[str]:
    """Methods that the model can do in place of refused ones."""
    found = []
    for name in refused:
        other = STAND_INS.get(name)
        if other and other not in study.methods:
            with suppress(ConfigError):
                _plan(replace(study, methods=[other]), project)
                found.append(other)
    return found


def _plan(study: NewStudy, project: Path) -> "Plan":
    from rankwise.study.plan import Plan

    return Plan(load(study_text(study)), project, f"config/{study.name}.yaml")


def _new_file(name: str, project: Path) -> str:
    """The file of a new study, relative to the project."""
    rule = load((paths.SCHEMAS / "shared.schema.yaml").read_text(encoding="utf-8"))["name"]
    if not re.match(rule["pattern"], name) or name in TAKEN:
        allowed = f"{NAME}, not {', '.join(TAKEN)}"
        raise ValueError(f"--name: got {name!r}, allowed: {allowed}")
    file = f"config/{name}.yaml"
    if (project / file).exists():
        raise ValueError(
            f"{file}: got a file that is there already, allowed: a new name (--name NAME); no "
            "study is written over"
        )
    return file


def _named(given: argparse.Namespace, project: Path) -> tuple[str, str]:
    """The model and the dataset from the command line, or the last entries."""
    entries = library(project)
    for method in given.methods:  # a misspelt one is no method that the model cannot do
        pick(entries["methods"], method, "rankwise add study", "--methods")
    with_weights = [name for name, entry in entries["models"].items() if "weights" in entry]
    model = given.model or with_weights[-1]
    return model, given.dataset or list(entries["datasets"])[-1]


def _plan_lines(file: str, project: Path) -> list[str]:
    """The summary of `rankwise plan` for the study, and the command that runs it."""
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
