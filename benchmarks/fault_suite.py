"""What signals, damaged files and full disks do to a small study. Writes faults.json and faults.md.

    python benchmarks/fault_suite.py && python benchmarks/publish.py

Runs what `tests/faults/` runs, with the same seeds. Moments depend on the machine's speed.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from faults import clone, damage, small_disks, strikes  # noqa: E402

FILE = ROOT / "benchmarks/faults.json"
PAGE = FILE.with_suffix(".md")
SILENT = ("crashed", "other")  # answers of a job that are neither right nor said


# Measured -----------------------------------------------------------------------------------------


def signals(folder: Path, kills: int, stops: int) -> dict:
    """Strike the study with signals.

    Returns:
        `rows`: for each signal and target, counts; `studies`: counts over all studies that ended.
    """
    root = clone.make_clone(folder / "clone")
    drawn = strikes.planned(kills, stops, random.Random(strikes.SEED))
    report = strikes.strike_all(root, strikes.run_undisturbed(root), drawn)
    rows = {}
    for one in report.strikes:
        rows.setdefault(f"{one.kind} {one.target}", Counter()).update(
            strikes=1,
            finished=one.finished,
            orphans=len(one.orphans),
            computed_again=len(one.computed_again),
            started_again=len(one.started_again),
        )
    return {
        "rows": {name: dict(row) for name, row in rows.items()},
        "studies": {
            "ended": len(report.ended),
            "failed": len(report.failures),
            "processes_left": len(report.left),
            "unequal_files": sum(len(one.unequal) for one in report.ended),
            "files_left": sum(len(one.left) for one in report.ended),
        },
    }


def damaged_files(folder: Path, truncations: int, flips: int) -> dict:
    """Damage files of the finished study, and let Snakemake heal it.

    Returns:
        `rows`: as `answers` gives them; `healed`: for each kind, the runs of Snakemake that it took
        until all files were the undisturbed ones.
    """
    root, undisturbed = damage.finished_clone(folder / "clone")
    rows = answers(root, truncations, flips)
    healed = {}
    for kind in (damage.FLIP, damage.TRUNCATION):
        found = damage.heal(root, undisturbed, kind, random.Random(damage.SEED))
        healed[kind] = {"runs": found.runs, "unequal_files": len(found.unequal)}
    return {"rows": rows, "healed": healed}


def answers(root: Path, truncations: int, flips: int) -> dict[str, dict[str, int]]:
    """Damage one file after the other; for each kind and target, how often a job answered how."""
    planned = damage.planned(truncations, flips)
    rows = {}
    for one in damage.damage_all(root, planned, random.Random(damage.SEED)):
        rows.setdefault(f"{one.kind} {one.target}", Counter())[one.answer] += 1
    return {name: dict(row) for name, row in rows.items()}


def disks(folder: Path) -> list[dict]:
    """Write to disks that are full or read-only; one row for each place and state."""
    tried = small_disks.try_all(clone.make_clone(folder / "clone"))
    return [
        {
            **asdict(one),
            "sentences": len(one.sentences),
            "lost": len(one.lost),
            "unequal": len(one.unequal),
            "left": len(one.left),
        }
        for one in tried
    ]


# Shown --------------------------------------------------------------------------------------------


def page(measured: dict) -> str:
    """A table for each part that was measured, as Markdown."""
    tables = {"signals": _signals_table, "damaged_files": _damage_table, "disks": _disks_table}
    return "\n".join(table(measured[part]) for part, table in tables.items() if part in measured)


def _signals_table(measured: dict) -> str:
    heads = (
        "signal",
        "sent to",
        "strikes",
        "processes left after 10 s",
        "finished results",
        "of these computed again",
    )
    keys = ("strikes", "orphans", "finished", "computed_again")
    rows = [
        [*name.split(" "), *(row.get(key, 0) for key in keys)]
        for name, row in measured["rows"].items()
    ]
    studies = measured["studies"]
    note = (
        f"Studies that ended after these strikes: {studies['ended']}. Files that differ from the "
        f"undisturbed run's: {studies['unequal_files']}. Parts left: {studies['files_left']}. "
        f"Runs of Snakemake that failed by themselves: {studies['failed']}. Processes left at the "
        f"end: {studies['processes_left']}.\n"
    )
    return f"{_table(heads, sorted(rows), texts=2)}\n{note}"


def _damage_table(measured: dict) -> str:
    heads = ("damage", "file", "cases", "refused", "began anew", "equal answer", "neither")
    rows = []
    for name, row in measured["rows"].items():
        counts = [row.get(key, 0) for key in ("refused", "began anew", "equal")]
        silent = sum(row.get(key, 0) for key in SILENT)
        rows.append([*name.split(" "), sum(row.values()), *counts, silent])
    notes = []
    for kind, row in measured.get("healed", {}).items():
        notes.append(
            f"A {kind} in one file of each kind at once: runs of Snakemake until it was healed: "
            f"{row['runs'] or 'never'}; files that differ then: {row['unequal_files']}."
        )
    return f"{_table(heads, sorted(rows), texts=2)}\n" + " ".join(notes) + "\n"


def _disks_table(measured: list[dict]) -> str:
    heads = (
        "disk", "at", "the run ended well", "lines that say why", "finished results lost",
        "files that differ with room", "parts left",
    )  # fmt: skip
    keys = ("state", "place", "ended_well", "sentences", "lost", "unequal", "left")
    rows = [
        ["yes" if row[k] is True else "no" if row[k] is False else row[k] for k in keys]
        for row in measured
    ]
    return _table(heads, rows, texts=3)


def _table(heads: tuple[str, ...], rows: list[list], texts: int) -> str:
    """A Markdown table whose first columns are texts."""
    rules = ["---"] * texts + ["---:"] * (len(heads) - texts)
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in [heads, rules, *rows])


# The command --------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=strikes.KILLS)
    parser.add_argument("--stops", type=int, default=strikes.STOPS)
    parser.add_argument("--truncations", type=int, default=damage.TRUNCATIONS)
    parser.add_argument("--flips", type=int, default=damage.FLIPS)
    parser.add_argument(
        "--only", choices=("signals", "damaged_files", "disks"), help="measure one part anew"
    )
    given = parser.parse_args()
    parts: dict[str, Callable[[Path], object]] = {
        "signals": lambda folder: signals(folder, given.kills, given.stops),
        "damaged_files": lambda folder: damaged_files(folder, given.truncations, given.flips),
        "disks": disks,
    }
    measured = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    for name in [given.only] if given.only else parts:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = parts[name](Path(folder))
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        FILE.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        PAGE.write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
