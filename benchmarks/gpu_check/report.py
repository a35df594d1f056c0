"""The report of a check: a JSON file, and a Markdown page that follows from it.

Both are replaced atomically after every row.
"""

import json
import os
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu_check import machine
from benchmarks.gpu_check.plan import Part
from benchmarks.gpu_check.runner import Ending

WAITING, RUNNING = "not run", "running"
WITHIN_PERCENT = (2.0, 5.0)  # errors that a summary counts
SMALL, LARGE = 1e-3, 1e6  # numbers outside of them are written with an exponent or with commas


class Report:
    """A report that grows.

    Args:
        folder: Made if it is not there.
        facts: From `machine.run`.
        stood_in: Packages that are missing and were stood in for.
        parts: All that there are, in their order.

    Attributes:
        markdown: The page's file.
    """

    def __init__(self, folder: Path, facts: dict, stood_in: list[str], parts: Iterable[Part]):
        folder.mkdir(parents=True, exist_ok=True)
        self.json = folder / f"{machine.slug(facts)}.json"
        self.markdown = self.json.with_suffix(".md")
        self.content = {
            "machine": facts,
            "stood_in_for": stood_in,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "parts": {
                part.name: {"title": part.title, "status": WAITING, "rows": []} for part in parts
            },
        }
        self._write()

    def begin(self, part: Part, seconds: float) -> None:
        """Note that a part runs, and for how long it may."""
        self._of(part).update(status=RUNNING, budget_s=round(seconds, 1))
        self._write()

    def add(self, part: Part, row: dict) -> None:
        """Add a row to a part."""
        self._of(part)["rows"].append(row)
        self._write()

    def finish(self, part: Part, ending: Ending, seconds: float, processor_s: float) -> None:
        """Note how a part has ended, after how long and with how much processor time."""
        self._of(part).update(
            status=ending.status, took_s=round(seconds, 1), processor_s=round(processor_s, 1)
        )
        if ending.reason:
            self._of(part)["reason"] = ending.reason
        self._write()

    def skip(self, part: Part, reason: str) -> None:
        """Note why a part is not run."""
        self._of(part)["reason"] = reason
        self._write()

    def end(self, seconds: float) -> None:
        """Note how long everything took."""
        self.content["took_s"] = round(seconds, 1)
        self._write()

    def line(self, row: dict) -> str:
        """A row in one line of text."""
        return ", ".join(
            f"{name} {_text(value)}" for name, value in row.items() if _is_shown(value)
        )

    def _of(self, part: Part) -> dict:
        return self.content["parts"][part.name]

    def _write(self) -> None:
        _replace(self.json, json.dumps(self.content, indent=1) + "\n")
        _replace(self.markdown, page(self.content))


def _replace(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def page(content: dict) -> str:
    """The Markdown page of a report."""
    facts = content["machine"]
    kind = "Rehearsal on a CPU: no measurement of a GPU" if facts["rehearsal"] else "GPU check"
    lines = [f"# {kind}", "", machine.described(facts), ""]
    took = f", {content['took_s']:.0f} s" if "took_s" in content else ", not finished"
    lines += [f"Started {content['started']}{took}; commit {facts['commit'] or 'unknown'}."]
    if content["stood_in_for"]:
        names = ", ".join(content["stood_in_for"])
        lines += [f"Not installed, and done without: {names} (entries were taken unchecked)."]
    for name, part in content["parts"].items():
        lines += ["", f"## {name}: {part['title']}", "", _status(part), *_table(part["rows"])]
    return "\n".join(lines) + "\n"


def _status(part: dict) -> str:
    took = f" in {part['took_s']:.0f} s" if "took_s" in part else ""
    reason = f": {part['reason']}" if "reason" in part else ""
    return f"{part['status'].capitalize()}{took}{reason}. {summary(part['rows'])}".strip()


def summary(rows: list[dict]) -> str:
    """How many rows there are, how many failed, and how large the errors of the others are."""
    if not rows:
        return ""
    failed = sum("reason" in row for row in rows)
    text = f"{len(rows)} rows, {failed} with a reason instead of numbers." if failed else ""
    for column in ("error_percent", "reserved_error_percent"):
        errors = [abs(row[column]) for row in rows if column in row]
        if errors:
            within = ", ".join(
                f"{sum(error <= most for error in errors)} within {most:g} %"
                for most in WITHIN_PERCENT
            )
            text += (
                f" {column}: median of absolute values {statistics.median(errors):.2f} of "
                f"{len(errors)}; {within}."
            )
    return text.strip()


def _table(rows: list[dict]) -> list[str]:
    columns = list(
        dict.fromkeys(name for row in rows for name, value in row.items() if _is_shown(value))
    )
    if not columns:
        return []
    lines = ["", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for row in rows:
        cells = (_text(row.get(name, "")).replace("|", "\\|") for name in columns)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _is_shown(value: object) -> bool:
    """Whether a value fits into a table; nested ones are in the JSON file only."""
    return not isinstance(value, dict | list)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value and not SMALL <= abs(value) < LARGE:
        return f"{value:.4g}"
    return f"{value:.4f}".rstrip("0").rstrip(".")
