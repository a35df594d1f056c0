"""Whether a figure or table is outdated: the run ids in it against those of the results.

A run id is the digest of the request that the run answers. Figures name their runs in metadata
(`report/style.py`), tables in the column request_digest. Standard library only.
"""

import csv
import html
import re
import struct
from collections.abc import Callable
from pathlib import Path

from rankwise.audit import lineage
from rankwise.study.plan import Plan

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHUNK_OVERHEAD = 12  # bytes of a PNG chunk beside its data: length, type and checksum


def notes(plan: Plan, file: str, root: Path) -> list[str]:
    """Sentences on what is outdated: each table behind `file`, and the file itself."""
    found = []
    tables = {} if lineage.is_result(plan, file) else lineage.tables(plan, file)
    for name, measurement in tables.items():
        table = plan.output(f"tables/{name}.csv")
        in_table = table_ids(root / table)
        in_results = stored_ids(plan, measurement, root)
        if in_table is not None and in_table != in_results:
            outdated, missing = len(in_table - in_results), len(in_results - in_table)
            found.append(
                f"{table} is stale: {outdated} of its {len(in_table)} runs are no results of "
                f"{plan.file} any more, and {missing} results are not in it"
            )
    return found + _notes_on_file(plan, file, root)


def shown_ids(plan: Plan, file: str, root: Path) -> set[str]:
    """The ids of all runs in the gathered tables behind a file."""
    tables = {} if lineage.is_result(plan, file) else lineage.tables(plan, file)
    ids: set[str] = set()
    for name in tables:
        ids |= table_ids(root / plan.output(f"tables/{name}.csv")) or set()
    return ids


def _notes_on_file(plan: Plan, file: str, root: Path) -> list[str]:
    path = root / file
    if not path.is_file():
        return [f"{file} is not there yet"]
    if path.suffix not in READERS:
        return []
    runs = READERS[path.suffix](path.read_bytes())
    if runs is None:
        return [f"{file} names no runs, so nothing says which it was made from"]
    in_tables: set[str] = set()
    for name in lineage.drawn_from(plan, file):
        in_tables |= table_ids(root / plan.output(f"tables/{name}.csv")) or set()
    if set(runs.split()) == in_tables:
        return []
    return [f"{file} is stale: it was made from other runs than those in its tables"]


def table_ids(path: Path) -> set[str] | None:
    """The run ids in a table; None if the table is missing or has none."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        ids = {row.get("request_digest") for row in csv.DictReader(stream)}
    return None if None in ids or not ids else ids


def stored_ids(plan: Plan, measurement: str, root: Path) -> set[str]:
    """The run ids of the study's results that exist."""
    ids = set()
    for cell in plan.cells(measurement):
        if (root / plan.path(measurement, cell)).is_file():
            ids.add(plan.cell_digest(measurement, cell))
    return ids


# Run ids in a figure's metadata -------------------------------------------------------------------


def png_runs(data: bytes) -> str | None:
    """The text of the PNG's chunk `Runs`: run ids, separated by spaces.

    Chunks of a PNG are a length (4 bytes), a type (4), the data, and a checksum (4); a text chunk's
    data are a name, a zero byte and Latin-1 text (PNG specification, 11.3.4.3).
    """
    if not data.startswith(PNG_SIGNATURE):
        return None
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        if kind == b"tEXt" and body.startswith(b"Runs\0"):
            return body.split(b"\0", 1)[1].decode("latin-1") or None
        position += length + CHUNK_OVERHEAD
    return None


def _pattern_reader(pattern: bytes) -> Callable[[bytes], str | None]:
    """A function that returns the first group of `pattern` in a file's bytes."""

    def runs(data: bytes) -> str | None:
        match = re.search(pattern, data)
        return html.unescape(match[1].decode()) or None if match else None

    return runs


# Ending of a figure's file -> function from its bytes to its run ids.
READERS = {
    ".png": png_runs,
    ".svg": _pattern_reader(rb"<dc:description>runs: ([^<]*)</dc:description>"),
    ".pdf": _pattern_reader(rb"\(runs: ([^)]*)\)"),
}
