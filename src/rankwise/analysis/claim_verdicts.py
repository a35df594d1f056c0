"""Published numbers, ours, and a verdict that is computed from the tables.

reproduced: ours differs from the published number by the tolerance at most, or the published number lies in our 95 % interval,
widened by the tolerance. Else not reproduced; not comparable, and why; not yet run, and what is missing; or what befell our
run.
A claim on runs is decided by their mean over seeds; its interval is that of `estimates`, where the study has it.
A corrected reading is judged beside the published one, which keeps its verdict.
"""

import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import tables
from rankwise.study.claims import expand

CELL = ("model", "dataset", "method", "rank")
KEPT = ("system", "title", "definition")
NEAR = {
    "updates": 0.05,
    "samples": 0.05,
    "tokens": 0.05,
}  # settings that a held-out slice of train may change by this share
COMPARE = {
    "ratio": lambda a, b: a / b,
    "saving": lambda a, b: 1 - a / b,
    "difference": lambda a, b: a - b,
}
HELD, FAILED, MISSING = "reproduced", "not reproduced", "not yet run"


class Ours(NamedTuple):
    """Our number with its interval, in the claim's unit; nan where there is none, and then what its cell came to."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    status: str = "ok"
    reason: str = ""


def claims(request: dict, output: Path) -> None:
    """Write the verdict on every claim, from those of the tables in the folder beside the output that the study has."""
    frames = {
        name: tables.read(output.parent / "tables" / f"{name}.csv") for name in request["tables"]
    }
    tables.write(judge(expand(dict(request["families"])), frames), output.with_suffix(""))


def judge(entries: dict[str, dict], frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a claim of `rankwise.study.claims.expand`, from tables by name.

    Raises:
        ValueError: several rows of a table that are no seeds of one another would decide a claim.
    """
    return pd.DataFrame([_row(name, entry, frames) for name, entry in entries.items()]).astype(
        {"rank": "Int64"}
    )


def _row(name: str, entry: dict, frames: dict[str, pd.DataFrame]) -> dict:
    ours = (
        _ours(name, entry, entry.get("cell", {}), frames)
        if "table" in entry
        else Ours(status=MISSING)
    )
    verdict, reason = _verdict(name, entry, ours, frames)
    cell = {key: entry.get("cell", {}).get(key) for key in CELL}
    numbers = {"published": entry["published"], "corrected": _corrected(entry), "ours": ours.value}
    interval = {
        "low": ours.low,
        "high": ours.high,
        "tolerance": entry["tolerance"],
        "unit": entry["unit"],
    }
    closing = {key: entry[key] for key in ("needs", "command", "source", "note")}
    column = " + ".join(entry.get("column", []))
    head = {"claim": name, **{key: entry[key] for key in KEPT}, **cell, "column": column}
    return {**head, **numbers, **interval, "verdict": verdict, "reason": reason, **closing}


def _corrected(entry: dict) -> float | None:
    return entry.get("corrected", entry["published"] if "corrected_cell" in entry else None)


def holds_as_corrected(frame: pd.DataFrame) -> pd.Series:
    """Which claims of a table that `judge` made are reproduced in their corrected reading."""
    return frame["corrected"].notna() & frame["reason"].fillna("").str.endswith(f": {HELD}")


# Verdicts -----------------------------------------------------------------------------------------------------------------


def _verdict(
    name: str, entry: dict, ours: Ours, frames: dict[str, pd.DataFrame]
) -> tuple[str, str]:
    reading = f"corrected reading: {entry['reading']}" if "reading" in entry else ""
    if "not_comparable" in entry:
        return "not comparable", _sentence(entry["not_comparable"], reading)
    if "lacks" in entry:
        return MISSING, f"lacks {entry['lacks']}"
    if ours.status != "ok":
        return ours.status, ours.reason
    verdict, reason = _compare(entry["published"], ours, entry)
    if reading:
        cell = {**entry["cell"], **entry.get("corrected_cell", {})}
        other = _ours(name, entry, cell, frames)
        again, off = (
            _compare(_corrected(entry), other, entry)
            if other.status == "ok"
            else (other.status, other.reason)
        )
        reading = f"{reading}; {_text(_corrected(entry))}: {again if again == HELD else _sentence(again, off)}"
    return verdict, _sentence(reason, ours.reason, reading)


def _compare(published: float, ours: Ours, entry: dict) -> tuple[str, str]:
    """The verdict on one number, and how far ours is from it."""
    rounding = 4 * math.ulp(published)
    slack = entry["tolerance"] + rounding
    difference = ours.value - published
    off = f"off by {_text(difference)}{_share(difference, published)}"
    if abs(difference) <= slack:
        return HELD, "" if abs(difference) <= rounding else f"{off}, within tolerance"
    if ours.low - slack <= published <= ours.high + slack:
        return HELD, f"{off}, within our interval"
    return FAILED, off


def _share(difference: float, of: float) -> str:
    percent = 100 * difference / abs(of) if of else math.nan
    return (
        f" ({percent:+,.{0 if abs(percent) >= 100 else 2}{'f' if abs(percent) >= 100 else 'g'}} %)"
        if of
        else ""
    )


def _text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _sentence(*parts: str) -> str:
    return "; ".join(filter(None, parts))


# Ours ---------------------------------------------------------------------------------------------------------------------


def _ours(name: str, entry: dict, cell: dict, frames: dict[str, pd.DataFrame]) -> Ours:
    """Our number in the claim's unit, compared with what it is to be compared with first."""
    ours = _found(name, entry, cell, entry["column"], frames)
    if "against" in entry and ours.status == "ok":
        other, column = {**cell, **entry["against"].get("cell", {})}, entry["against"].get("column")
        base = _found(name, entry, other, [column] if column else entry["column"], frames)
        if base.status != "ok":
            return base
        ours = Ours(
            COMPARE[entry["compare"]](ours.value, base.value),
            reason=_sentence(ours.reason, base.reason),
        )
    return ours._replace(
        value=ours.value / entry["per"], low=ours.low / entry["per"], high=ours.high / entry["per"]
    )


def _found(
    name: str, entry: dict, cell: dict, columns: list[str], frames: dict[str, pd.DataFrame]
) -> Ours:
    """The mean of a cell's rows over seeds, in the column's unit; a table, row or number that is not there was not run."""
    frame = frames.get(entry["table"])
    if frame is None or not {*columns} <= {*frame}:
        return Ours(status=MISSING)
    here = _of(frame, cell)
    rows, why = _with_settings(here, entry["settings"])
    if why or rows.empty:
        return Ours(status=MISSING, reason=why)
    if "device" in rows and len(devices := sorted(rows["device"].dropna().unique())) > 1:
        return Ours(
            status="not comparable", reason=f"our runs are of several devices: {', '.join(devices)}"
        )
    status = rows["status"] if "status" in rows else pd.Series("ok", rows.index)
    sound = rows[status == "ok"].dropna(subset=columns)
    failed = status[status != "ok"].str.replace("_", " ")
    if sound.empty:
        return Ours(status=failed.iloc[0] if len(failed) else MISSING)
    _check_one(name, sound)
    lost = (
        f"{len(failed)} of {len(rows)} seeds: {', '.join(failed.unique())}" if len(failed) else ""
    )
    ours = Ours(sound[columns].sum(axis="columns").mean(), reason=lost)
    return (
        _with_interval(ours, cell, columns, len(sound), frames.get("estimates"))
        if "seed" in sound
        else ours
    )


def _of(frame: pd.DataFrame, cell: dict) -> pd.DataFrame:
    return frame[(frame[list(CELL)] == [cell[key] for key in CELL]).all(axis="columns")]


def _with_settings(rows: pd.DataFrame, settings: dict) -> tuple[pd.DataFrame, str]:
    """Rows that have the settings; where all that is there has others, which."""
    for column, value in settings.items():
        has = rows[column] if column in rows else pd.Series(math.nan, rows.index)
        same = (has - value).abs() <= NEAR[column] * value if column in NEAR else has == value
        if len(rows) and not same.any():
            got = ", ".join(sorted({_plain(one) for one in has}))
            return rows[
                same
            ], f"ours has {column} {got}, the claim {'about ' * (column in NEAR)}{_plain(value)}"
        rows = rows[same]
    return rows, ""


def _plain(value: float | str) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)


def _check_one(name: str, rows: pd.DataFrame) -> None:
    if len(rows) > 1 and ("seed" not in rows or rows["seed"].duplicated().any()):
        raise ValueError(
            f"config/claims.yaml: {name}.settings: got {len(rows)} rows, allowed: what leaves one row a seed"
        )


def _with_interval(
    ours: Ours, cell: dict, columns: list[str], seeds: int, estimates: pd.DataFrame | None
) -> Ours:
    """`ours` with the 95 % interval of `estimates`, if that has it and is of as many seeds."""
    note = "one seed: no interval" if seeds == 1 else f"mean of {seeds} seeds"
    if estimates is not None and len(columns) == 1 and seeds > 1:
        here = _of(estimates, cell)
        here = here[(here["metric"] == columns[0]) & (here["seeds"] == seeds)].dropna(
            subset=["low", "high"]
        )
        if len(here):
            ours = ours._replace(low=here["low"].iloc[0], high=here["high"].iloc[0])
    return ours._replace(reason=_sentence(note, ours.reason))
