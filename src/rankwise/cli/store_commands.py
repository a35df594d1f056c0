"""The commands on what was made already: `collect`, `verify`, `store` and `clean`."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

import argparse
import json
from pathlib import Path

from rankwise.core.words import counted

NOT_REMOVED = "nothing was removed"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add these commands to the command line."""
    _add_collect(commands)
    _add_verify(commands)
    _add_store(commands)
    _add_clean(commands)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--study",
        metavar="FILE",
        help="a study's file, such as config/demo.yaml (default: config/config.yaml)",
    )


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask, for scripts")


def _json(value: object) -> str:
    return json.dumps(value, indent=1)


def _agrees(question: str) -> bool:
    """Whether the user answers a question with yes. A closed input is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


# collect ------------------------------------------------------------------------------------------


def _add_collect(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "collect", help="add the results that other clones or stores have to this project's store"
    )
    command.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="another clone, its results/ folder, or a store; `.` adds results of this project "
        "that are not in its store, such as a copy that followed its links",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="copy nothing, and say what would be copied"
    )
    _add_json(command)
    command.set_defaults(run=_collect)


def _collect(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.store_collect import collect
    from rankwise.cli.collect_text import text

    answer = collect(given.folders, Path(), given.dry_run)
    return (_json(answer) if given.json else text(answer)), 0


# verify -----------------------------------------------------------------------------------------


def _add_verify(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "verify",
        help="compare results, tables, figures and checkpoints with their recorded digests; exits "
        "with 1 if one is not as it was written",
    )
    command.add_argument(
        "--heal",
        action="store_true",
        help="set damaged results aside, so that snakemake makes them anew",
    )
    _add_study(command)
    _add_json(command)
    command.set_defaults(run=_verify_all)


def _verify_all(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.verify import verify
    from rankwise.cli.verify_text import text

    answer = verify(Path.cwd(), given.study, given.heal)
    return (_json(answer) if given.json else text(answer)), int(bool(answer["problems"]))


# store --------------------------------------------------------------------------------------------


def _add_store(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "store", help="list, verify, measure and remove results of this project's store"
    )
    actions = command.add_subparsers(dest="action", required=True)
    listed = actions.add_parser(
        "list", help="each result: its place, status, size, and the studies that plan it"
    )
    listed.add_argument(
        "pattern",
        nargs="?",
        metavar="PATTERN",
        help="a place, a folder above it, or a text with *, such as '*/lora/*'",
    )
    _add_json(listed)
    listed.set_defaults(run=_list)
    verified = actions.add_parser(
        "verify", help="compare every file with what is recorded; exits with 1 if one is wrong"
    )
    _add_json(verified)
    verified.set_defaults(run=_verify)
    measured = actions.add_parser("size", help="sizes by kind, and of what no study plans")
    _add_json(measured)
    measured.set_defaults(run=_size)
    _add_remove(actions)


def _add_remove(actions: argparse._SubParsersAction) -> None:
    removed = actions.add_parser("remove", help="remove results, after a question")
    which = removed.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "places",
        nargs="*",
        default=[],
        metavar="PLACE",
        help="as `rankwise store list` shows it, a folder above it, or a text with *",
    )
    which.add_argument(
        "--unplanned", action="store_true", help="all that no study of this project plans"
    )
    _add_yes(removed)
    removed.set_defaults(run=_remove)


def _list(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.store_contents import listing
    from rankwise.cli import store_text

    answer = listing(Path(), given.pattern)
    return (_json(answer) if given.json else store_text.listing(answer)), 0


def _verify(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.store_contents import verify
    from rankwise.cli import store_text

    answer = verify(Path())
    text = _json(answer) if given.json else store_text.verified(answer)
    return text, int(any(store["problems"] for store in answer["stores"]))


def _size(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit.store_contents import sizes
    from rankwise.cli import store_text

    answer = sizes(Path())
    return (_json(answer) if given.json else store_text.sizes(answer)), 0


def _remove(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit import store_remove
    from rankwise.cli import store_text

    root = Path()
    if given.unplanned:
        items = store_remove.unplanned(root)
    else:
        items = store_remove.named(root, given.places)
    if not items:
        return NOT_REMOVED + ": every result is of a study", 0
    print("\n".join(store_text.shortened(item.place for item in items)))
    if given.unplanned and store_remove.is_shared(root):
        print("This store is outside of the project. Studies of other projects were not read.")
    total = store_text.size(sum(item.size_bytes for item in items))
    if not given.yes and not _agrees(f"Remove {len(items):,} folders of the store, {total}?"):
        return NOT_REMOVED, 1
    answer = store_remove.remove(items, root)
    return store_text.removed(answer), int(bool(answer["busy"]))


# clean --------------------------------------------------------------------------------------------


def _add_clean(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "clean", help="remove files of a study that it no longer plans, after a question"
    )
    _add_study(command)
    _add_yes(command)
    command.set_defaults(run=_clean)


def _clean(given: argparse.Namespace) -> tuple[str, int]:
    from rankwise.audit import leftovers
    from rankwise.cli import store_text
    from rankwise.study.plan import read_plan

    plan = read_plan(Path.cwd(), given.study)
    notes = []
    own_files = leftovers.uncollected(plan)
    if own_files:
        notes.append(
            f"{counted(len(own_files), 'result')} that no store has stay, such as "
            f"{own_files[0]}: `rankwise collect .` adds them to the store, then clean again"
        )
    paths = leftovers.leftovers(plan)
    if not paths:
        return "\n".join([f"{plan.file}: no files that it does not plan", *notes]), 0
    print("\n".join(store_text.shortened(paths)))
    files = counted(len(paths), "file")
    if not given.yes and not _agrees(f"Remove {files} that {plan.file} does not plan?"):
        return "\n".join([NOT_REMOVED, *notes]), 1
    leftovers.clean(plan, paths)
    return "\n".join([f"{files} removed", *notes]), 0
