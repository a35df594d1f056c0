"""The command `rankwise`.

    methods   every method on one model: what it trains, how it is stored, how it steps, counts
    fits      the largest micro-batch that memory of a given size holds
    trace     the runs behind a figure, a table, a cell of one, a claim or the page
    plan      the jobs that would run now, why, and their cost
    status    the jobs that are done, running, waiting or failed, and the time left
    add       an entry of the configuration, derived from what it describes
    init      a repository of one's own that uses the workflow
    report    tables, figures and the page from the results that are there
    collect   results of other clones, added to this project's store
    verify    whether results, tables, figures and checkpoints are as they were written
    store     what the store has: list, verify, size, remove
    clean     files of a study that it no longer plans, removed
    export    the weights that a run has kept, in a folder, with a model card
    test      whether an entry of a method keeps the promises of every entry
    doctor    what this machine can run, what a study needs, what is missing

It works in a clone, in a repository that uses the workflow as a module, and anywhere else with the
entries that come with the package. Each command imports what it needs when it runs, because torch
takes seconds and `--help` should not.
"""

# ruff: noqa: PLC0415

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from rankwise.cli import add, export, fits, init, store_commands, test_command
from rankwise.cli.text import aligned
from rankwise.core.config import first_dataset, library, named_model

METHOD_COLUMNS = [
    "entry",
    "trains",
    "stored",
    "steps",
    "rank",
    "trainable_parameters",
    "optimizer_state_bytes",
    "source",
]
MAX_SECONDS = 86_400  # between two looks of `status --watch`


def main(arguments: list[str] | None = None) -> int:
    """Run one command and print what it says.

    Args:
        arguments: The words behind `rankwise`; those of this process if not given.

    Returns:
        The exit status: 0, or 1 if something is wrong; the sentence that says what is on stderr.
    """
    given = parser().parse_args(arguments)
    try:
        text, status = given.run(given)
        print(text, flush=True)
    except ValueError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the documentation's page of commands is made of it."""
    whole = argparse.ArgumentParser(
        prog="rankwise", description="Compare efficient fine-tuning methods."
    )
    whole.add_argument("--version", action="version", version=_version())
    commands = whole.add_subparsers(dest="command", required=True)
    _add_methods(commands)
    fits.add_command(commands)
    _add_trace(commands)
    _add_plan(commands)
    _add_status(commands)
    _add_report(commands)
    add.add_command(commands)
    init.add_command(commands)
    store_commands.add_commands(commands)
    export.add_command(commands)
    _add_doctor(commands)
    test_command.add_commands(commands)
    return whole


def _version() -> str:
    """The version of the package; inside of the container the package is not installed."""
    try:
        return f"rankwise {metadata.version('rankwise')}"
    except metadata.PackageNotFoundError:
        return "rankwise (not installed: running from a clone)"


def _add_study(command: argparse.ArgumentParser, default: str = "config/config.yaml") -> None:
    command.add_argument(
        "--study",
        metavar="FILE",
        help=f"a study's file, such as config/demo.yaml (default: {default})",
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


# methods ------------------------------------------------------------------------------------------


def _add_methods(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "methods", help="list every method: what it trains, how it is stored, how it steps, counts"
    )
    command.add_argument(
        "--model",
        default="distilbert",
        help="a name in config/models.yaml (default: distilbert)",
    )
    command.add_argument(
        "--dataset",
        help="a name in config/datasets.yaml, for its task (default: the model's first)",
    )
    command.add_argument(
        "--rank", type=int, default=8, help="the rank where an entry leaves it open (default: 8)"
    )
    command.add_argument(
        "--page", action="store_true", help="print docs/methods.md instead of the table"
    )
    command.set_defaults(run=_methods)


def _methods(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.cli.methods_page import catalogue, page, table

    if given.rank < 1:
        raise ValueError(f"--rank: got {given.rank}, allowed: an integer, 1 or more")
    entries = library(Path.cwd())
    model = named_model(given.model, entries["models"])
    dataset = given.dataset or first_dataset(entries, model)
    arguments = (Path.cwd(), model, dataset, given.rank)
    if given.page:
        return page(*arguments).rstrip(), 0
    return aligned(table(catalogue(*arguments), METHOD_COLUMNS)), 0


# trace, plan, status, doctor ----------------------------------------------------------------------


def _add_trace(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "trace", help="find the runs behind a figure, a table, a cell of one, a claim or the page"
    )
    command.add_argument(
        "target",
        metavar="TARGET",
        help="FILE, FILE:LINE, FILE:COLUMN=VALUE,...[:COLUMN] or results/claims.csv:CLAIM",
    )
    _add_study(command, "the study whose results are there")
    command.set_defaults(run=_trace)


def _trace(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.trace import trace
    from rankwise.cli.trace_text import text

    answer = trace(given.target, Path.cwd(), given.study)
    return (_json(answer) if given.json else text(answer)), 0


def _add_plan(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "plan", help="list the jobs that would run now, why, and their cost in time and memory"
    )
    _add_study(command)
    command.set_defaults(run=_plan)


def _plan(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.rerun_plan import plan
    from rankwise.cli.plan_text import text

    answer = plan(Path.cwd(), given.study)
    return (_json(answer) if given.json else text(answer)), 0


def _add_report(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "report",
        help="make tables, figures and the page of a study from its results, and train nothing",
    )
    command.add_argument(
        "--partial",
        action="store_true",
        help="also if results are absent: the report names and counts them",
    )
    _add_study(command)
    command.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit import partial_report
    from rankwise.cli.failures_text import text
    from rankwise.study.plan import read_plan

    plan, planned = partial_report.find(read_plan(Path.cwd(), given.study))
    count = len(plan.absent["cells"])
    if count and not given.partial:
        raise ValueError(
            f"{plan.file}: {count} of {planned} results are absent, allowed: all; run snakemake, "
            "or name them in the report: rankwise report --partial"
        )
    report = partial_report.build(plan, planned)
    answer = _json(report._asdict()) if given.json else text(report)
    return answer, int(bool(report.failed))


def _add_status(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "status",
        help="say which jobs are done, running, waiting or failed, and the time left; also while "
        "Snakemake runs",
    )
    command.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=5.0,
        metavar="SECONDS",
        help="look again every so many seconds (default: 5), until nothing is left to run",
    )
    _add_study(command)
    command.set_defaults(run=_status)


def _seconds(text: str) -> float:
    """A time in seconds above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed: a number of seconds above 0, at most {MAX_SECONDS}"
        )
    return seconds


def _status(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.status import StudyStatus
    from rankwise.cli import status_text

    status = StudyStatus(Path.cwd(), given.study)
    if given.watch is None:
        answer = status.now()
        return (_json(answer) if given.json else status_text.text(answer)), 0
    status_text.watch(status, given.watch, status_text.line if given.json else status_text.text)
    return "", 0


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what this machine can run, what a study needs, what is missing; exits with 1 if "
        "the study cannot run",
    )
    _add_study(command)
    command.set_defaults(run=_doctor)


def _doctor(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.checks import doctor
    from rankwise.cli import doctor_text

    answer = doctor.examine(Path.cwd(), given.study)
    text = _json(answer) if given.json else doctor_text.text(answer)
    return text, int(answer["runs"] is None)


# Text ---------------------------------------------------------------------------------------------


def _json(value: object) -> str:
    return json.dumps(value, indent=1)


if __name__ == "__main__":
    sys.exit(main())
