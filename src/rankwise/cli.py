"""`rankwise methods`: what every method entry trains and keeps on a model of your choice, from shapes alone."""

import argparse
import sys
from pathlib import Path

COLUMNS = ["entry", "trains", "stored", "steps", "rank", "trainable_parameters", "optimizer_state_bytes", "source"]


def main(arguments: list[str] | None = None) -> int:
    """The command `rankwise`; run it in a clone, whose config/ it reads."""
    parser = argparse.ArgumentParser(prog="rankwise", description="Compares efficient fine-tuning methods.")
    commands = parser.add_subparsers(dest="command", required=True)
    methods = commands.add_parser("methods", help="list every method: what trains, how it is stored, how it steps, counts")
    methods.add_argument("--model", default="distilbert", help="a name in config/models.yaml (default: distilbert)")
    methods.add_argument("--dataset", default="sst2", help="a name in config/datasets.yaml, for its task (default: sst2)")
    methods.add_argument("--rank", type=int, default=8, help="where an entry leaves it open (default: 8)")
    methods.add_argument("--page", action="store_true", help="print docs/methods.md instead of the table")
    given = parser.parse_args(arguments)
    try:
        print(_methods(given))
    except ValueError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        return 1
    return 0


def _methods(given: argparse.Namespace) -> str:
    if not Path("config/methods.yaml").is_file():
        raise ValueError(f"no config/methods.yaml in {Path.cwd()}: run this in a clone of Rankwise")
    from rankwise.catalogue import catalogue, page, table  # noqa: PLC0415 - torch takes seconds, --help should not

    arguments = (Path.cwd(), given.model, given.dataset, given.rank)
    return page(*arguments).rstrip() if given.page else _aligned(table(catalogue(*arguments), COLUMNS))


def _aligned(markdown: str) -> str:
    """A Markdown table with its columns lined up for a terminal."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.splitlines()]
    right = [cell.endswith(":") for cell in rows[1]]
    del rows[1]
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(right))]
    lines = ([c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=False)] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
