"""`rankwise test method NAME`: whether an entry keeps the promises of every entry."""

# ruff: noqa: PLC0415 - torch is imported when the command runs

import argparse
import json
from dataclasses import asdict
from pathlib import Path

MODEL = "tiny"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "test", help="check that an entry of a method keeps the promises of every entry"
    )
    kinds = command.add_subparsers(dest="kind", required=True)
    method = kinds.add_parser(
        "method",
        help="train an entry of config/methods.yaml, its method and its optimizer, for a few "
        "updates on a small model; exits with 1 if it breaks a promise or cannot train the model",
    )
    method.add_argument("name", metavar="NAME", help="an entry of config/methods.yaml")
    method.add_argument(
        "--model",
        default=MODEL,
        help=f"a small model in config/models.yaml, whose weights are random (default: {MODEL})",
    )
    method.add_argument("--json", action="store_true", help="print JSON, for programs")
    method.set_defaults(run=_test_method)


def _test_method(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.core.errors import Unsupported
    from rankwise.measure.conformance.verdicts import BROKEN, verdicts

    answer: dict = {"entry": given.name, "model": given.model}
    try:
        found = verdicts(given.name, given.model, Path.cwd())
    except Unsupported as reason:
        answer |= {"status": "unsupported", "reason": str(reason)}
        text = f"{given.name} on {given.model}: unsupported: {reason}"
        return (json.dumps(answer, indent=1) if given.json else text), 1
    is_broken = any(one.verdict == BROKEN for one in found)
    answer |= {"status": "broken" if is_broken else "ok"}
    answer["promises"] = [asdict(one) for one in found]
    lines = [f"{given.name} on {given.model}:"]
    for one in found:
        detail = f": {one.detail}" if one.detail else ""
        lines.append(f"  {one.promise}: {one.verdict}{detail}")
    text = "\n".join(lines)
    return (json.dumps(answer, indent=1) if given.json else text), int(is_broken)
