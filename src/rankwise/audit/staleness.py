"""Whether a figure or table was made of the results that lie there now: the run ids in it against theirs.

Figures name their runs in metadata (`report/style.py`), tables in the column request_digest. Standard library only.
"""

import csv
import html
import re
import struct
from pathlib import Path

from rankwise.audit import lineage
from rankwise.core import provenance, result
from rankwise.study.plan import RESULTS, Plan

PNG = b"\x89PNG\r\n\x1a\n"


def notes(plan: Plan, file: str, root: Path) -> list[str]:
    """A sentence for each table behind `file`, and for the file itself, that is not there or not made of what lies there."""
    tables = {} if lineage.is_result(file) else lineage.tables(plan, file)
    found = []
    for name, measurement in tables.items():
        ids, there = (
            table_ids(root / f"{RESULTS}/tables/{name}.csv"),
            stored_ids(plan, measurement, root),
        )
        if ids is not None and ids != there:
            found.append(
                f"{RESULTS}/tables/{name}.csv is stale: {len(ids - there)} of its {len(ids)} runs are none that "
                f"{plan.file} has there, and {len(there - ids)} that it has are not in it"
            )
    return [*found, *_target(plan, file, root)]


def _target(plan: Plan, file: str, root: Path) -> list[str]:
    path = root / file
    if not path.is_file():
        return [f"{file} is not there yet"]
    if path.suffix not in READERS:
        return []
    named = READERS[path.suffix](path.read_bytes())
    ids = [
        table_ids(root / f"{RESULTS}/tables/{name}.csv") for name in lineage.drawn_from(plan, file)
    ]
    if named is None:
        return [f"{file} names no runs: nothing says which it was made of"]
    stale = set(named.split()) != set().union(*filter(None, ids))
    return [f"{file} is stale: it was made of other runs than the tables that lie there"] * stale


def table_ids(path: Path) -> set[str] | None:
    """The run ids in a table; None if it is not there or has none."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        found = {row.get("request_digest") for row in csv.DictReader(stream)}
    return None if None in found or not found else found


def stored_ids(plan: Plan, measurement: str, root: Path) -> set[str]:
    """The run ids of the study's results that lie there, by the requests that they carry."""
    paths = (root / plan.path(measurement, cell) for cell in plan.cells(measurement))
    return {provenance.digest(result.read(path)["request"]) for path in paths if path.is_file()}


def png_runs(data: bytes) -> str | None:
    """What a PNG's text chunk `Runs` says."""
    place = len(PNG)
    while data[:place].startswith(PNG) and place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + size]
        if kind == b"tEXt" and body.startswith(b"Runs\0"):
            return body.split(b"\0", 1)[1].decode("latin-1") or None
        place += size + 12
    return None


def _described(pattern: bytes) -> object:
    def runs(data: bytes) -> str | None:
        found = re.search(pattern, data)
        return html.unescape(found[1].decode()) or None if found else None

    return runs


READERS = {
    ".png": png_runs,
    ".svg": _described(rb"<dc:description>runs: ([^<]*)</dc:description>"),
    ".pdf": _described(rb"\(runs: ([^)]*)\)"),
}
