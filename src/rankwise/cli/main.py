"""From shapes alone. `rankwise methods`: what every method trains and keeps on a model; `rankwise fits`: what memory holds.

From files: `rankwise trace`: the runs behind a figure, a table, a cell of one, a claim or the report; `rankwise plan`: what
Snakemake would run now, why, and what it will cost; `rankwise collect`: results of other clones brought into this one. From
all of it and this machine: `rankwise doctor`.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from rankwise.core.config import first_dataset, library

COLUMNS = [
    "entry",
    "trains",
    "stored",
    "steps",
    "rank",
    "trainable_parameters",
    "optimizer_state_bytes",
    "source",
]
GIB = {"": 1, "gib": 1, "gb": 1e9 / 2**30, "mib": 1 / 2**10, "tib": 2**10}


def main(arguments: list[str] | None = None) -> int:
    """The command `rankwise`; run it in a clone, whose config/ it reads."""
    given = _parser().parse_args(arguments)
    try:
        if not Path("config/methods.yaml").is_file():
            raise ValueError(
                f"no config/methods.yaml in {Path.cwd()}: run this in a clone of Rankwise"
            )
        commands = {
            "methods": _methods,
            "fits": _fits,
            "trace": _trace,
            "plan": _plan,
            "collect": _collect,
            "doctor": _doctor,
        }
        found = commands[given.command](given)
        text, code = found if isinstance(found, tuple) else (found, 0)
        print(text, flush=True)
    except ValueError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankwise", description="Compares efficient fine-tuning methods."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    methods = commands.add_parser(
        "methods", help="list every method: what trains, how it is stored, how it steps, counts"
    )
    fits = commands.add_parser(
        "fits", help="the largest micro-batch that memory of a size holds, by method"
    )
    for command in (methods, fits):
        command.add_argument(
            "--model",
            default="distilbert",
            type=lambda text: text.replace("-", "_"),
            help="a name in config/models.yaml (default: distilbert)",
        )
        command.add_argument(
            "--dataset",
            help="a name in config/datasets.yaml, for its task (default: the model's first)",
        )
        command.add_argument(
            "--rank", type=int, default=8, help="where an entry leaves it open (default: 8)"
        )
    methods.add_argument(
        "--page", action="store_true", help="print docs/methods.md instead of the table"
    )
    fits.add_argument(
        "--memory", required=True, nargs="+", type=_gib, help="sizes, as in 24GiB or 80GiB"
    )
    fits.add_argument(
        "--methods",
        nargs="+",
        default=["full", "lora", "qlora", "galore", "vlorp"],
        help="names in config/methods.yaml",
    )
    fits.add_argument(
        "--length", nargs="+", type=int, help="sequence lengths in tokens (default: the dataset's)"
    )
    fits.add_argument(
        "--weights",
        choices=["fp32", "bf16"],
        help="how a dense base is stored (default: as the entries say)",
    )
    fits.add_argument(
        "--device",
        choices=["cuda", "cpu"],
        default="cuda",
        help="whose kernels and allocator (default: cuda)",
    )
    fits.add_argument(
        "--checkpointing", action="store_true", help="compute activations again in backward"
    )
    _add_trace(commands)
    _add_plan(commands)
    _add_collect(commands)
    doctor = commands.add_parser(
        "doctor",
        help="what this machine can run, what a study needs, what is missing; 1 if it cannot run",
    )
    doctor.add_argument("--study", help="as in config/demo.yaml (default: config/config.yaml)")
    doctor.add_argument("--json", action="store_true", help="for programs")
    return parser


def _add_trace(commands: argparse._SubParsersAction) -> None:
    trace = commands.add_parser(
        "trace", help="the runs behind a figure, a table, a cell of one, a claim or the report"
    )
    trace.add_argument(
        "target", help="FILE, FILE:LINE, FILE:COLUMN=VALUE,...[:COLUMN] or results/claims.csv:CLAIM"
    )
    trace.add_argument(
        "--study", help="as in config/demo.yaml (default: the one whose results lie there)"
    )
    trace.add_argument("--json", action="store_true", help="for programs")


def _add_plan(commands: argparse._SubParsersAction) -> None:
    plan = commands.add_parser(
        "plan", help="which jobs would run now, why, and their cost in hours and memory"
    )
    plan.add_argument("--study", help="as in config/demo.yaml (default: config/config.yaml)")
    plan.add_argument("--json", action="store_true", help="for programs")


def _add_collect(commands: argparse._SubParsersAction) -> None:
    collect = commands.add_parser(
        "collect", help="bring the study's results in other clones into this one"
    )
    collect.add_argument(
        "folders", nargs="+", metavar="DIR", help="another clone, or its results/ folder"
    )
    collect.add_argument("--study", help="as in config/demo.yaml (default: config/config.yaml)")
    collect.add_argument(
        "--prefer", metavar="DIR", help="whose result to take where two differ; . is this clone"
    )
    collect.add_argument(
        "--dry-run", action="store_true", help="copy nothing, say what would be copied"
    )
    collect.add_argument("--json", action="store_true", help="for programs")


def _gib(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text.lower())
    if not found or found[2] not in GIB:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, allowed: a size such as 24GiB, 24GB, 512MiB"
        )
    return float(found[1]) * GIB[found[2]]


def _fits(given: argparse.Namespace) -> str:
    from rankwise.measure.memory.fits import table  # noqa: PLC0415 - torch takes seconds, --help should not
    from rankwise.study.plan import Plan  # noqa: PLC0415

    entries = library(Path.cwd())
    dataset = given.dataset or first_dataset(entries, given.model)
    dense = [
        name
        for name in given.methods
        if entries["methods"].get(name, {}).get("weights") in ("fp32", "bf16")
    ]
    grid = {
        "models": [given.model],
        "datasets": [dataset],
        "methods": given.methods,
        "ranks": [given.rank],
        "measurements": ["fits"],
    }
    grid |= {
        "memory_gib": given.memory,
        "device": given.device,
        "checkpointing": given.checkpointing,
    }
    grid |= (
        {"override": {name: {"weights": given.weights} for name in dense}} if given.weights else {}
    )
    grid |= {"lengths_tokens": given.length} if given.length else {}
    plan = Plan(
        {"name": "fits", "question": "?", "device": "cpu", "profile": [grid]},
        Path.cwd(),
        "rankwise fits",
    )
    requests = [plan.request("fits", cell) for cell in plan.cells("fits")]
    return _aligned(table(requests, lambda name: print(f"{name} ...", file=sys.stderr, flush=True)))


def _trace(given: argparse.Namespace) -> str:
    from rankwise.audit.trace import trace  # noqa: PLC0415 - --help should not wait for the plan
    from rankwise.cli.trace_text import text  # noqa: PLC0415

    found = trace(given.target, Path.cwd(), given.study)
    return json.dumps(found, indent=1) if given.json else text(found)


def _plan(given: argparse.Namespace) -> str:
    from rankwise.audit import rerun_plan  # noqa: PLC0415 - --help should not wait for the plan
    from rankwise.cli.plan_text import text  # noqa: PLC0415

    found = rerun_plan.plan(Path.cwd(), given.study)
    return json.dumps(found, indent=1) if given.json else text(found)


def _collect(given: argparse.Namespace) -> str:
    from rankwise.audit.merge_clones import collect  # noqa: PLC0415 - --help should not wait for the plan
    from rankwise.cli.collect_text import text  # noqa: PLC0415

    found = collect(given.folders, Path.cwd(), given.study, given.prefer, given.dry_run)
    return json.dumps(found, indent=1) if given.json else text(found)


def _doctor(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.checks import doctor  # noqa: PLC0415 - --help should not wait for the plan
    from rankwise.cli import doctor_text  # noqa: PLC0415 - --help should not wait for the plan

    found = doctor.examine(Path.cwd(), given.study)
    return json.dumps(found, indent=1) if given.json else doctor_text.text(found), int(
        found["runs"] is None
    )


def _methods(given: argparse.Namespace) -> str:
    from rankwise.cli.methods_page import catalogue, page, table  # noqa: PLC0415 - torch takes seconds, --help should not

    arguments = (Path.cwd(), given.model, given.dataset or "sst2", given.rank)
    return (
        page(*arguments).rstrip() if given.page else _aligned(table(catalogue(*arguments), COLUMNS))
    )


def _aligned(markdown: str) -> str:
    """A Markdown table with its columns lined up for a terminal."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.splitlines()
    ]
    right = [cell.endswith(":") for cell in rows[1]]
    del rows[1]
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(right))]
    lines = (
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=False)]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
