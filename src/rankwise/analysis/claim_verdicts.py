"""Published numbers beside ours, with a verdict that is computed from the tables.

The verdicts:

    reproduced       ours differs from the published number by the tolerance at most, or the
                     published number lies in our 95 % interval, widened by the tolerance
    not reproduced   neither
    not comparable   with the reason
    not yet run      with what is missing
    a run's status   such as "diverged", where every one of our runs failed

A claim on runs is decided by their mean over random seeds, which is the estimate that tables and
figures show: geometric for a perplexity or a squared error. Its interval is that of the table of
estimates, where the study has it. A corrected reading of a claim is judged beside the published
one, which keeps its own verdict.
"""

import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rankwise.analysis import tables
from rankwise.analysis.partial_notes import notes
from rankwise.analysis.seed_means import mean_over_seeds
from rankwise.core.keys import CURVE
from rankwise.study.claims import expand

HELD, FAILED, MISSING = "reproduced", "not reproduced", "not yet run"
NOT_COMPARABLE = "not comparable"
# Settings that may differ from the claim's by this share. A study that selects on a held-out slice
# of train has fewer rows to train on than the publication had.
NEAR = {"updates": 0.05, "samples": 0.05, "tokens": 0.05}
# How a claim compares our number a with another one of ours, b.
COMPARE = {
    "ratio": lambda a, b: a / b,
    "saving": lambda a, b: 1 - a / b,
    "difference": lambda a, b: a - b,
}
ROUNDING_ULPS = 4  # differences of so many units in the last place are rounding

Frames = dict[str, pd.DataFrame]  # tables by name


class Ours(NamedTuple):
    """Our number with its interval, in the claim's unit; nan where there is none.

    `status` then says why: a verdict, or what became of our runs.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    status: str = "ok"
    reason: str = ""

    def per(self, divisor: float) -> "Ours":
        """The number in another unit."""
        return self._replace(
            value=self.value / divisor, low=self.low / divisor, high=self.high / divisor
        )


class Question(NamedTuple):
    """The number of ours that a claim asks for."""

    name: str  # of the claim, for messages
    entry: dict  # of the registry
    cell: dict  # model, dataset, method, rank
    columns: list[str]  # whose sum is the number


def claims(request: dict, output: Path) -> None:
    """Write the table of verdicts.

    Args:
        request: `families` of the registry as pairs of a name and an entry; `tables` names those
            that the study has, which lie in the folder `tables` beside the output.
        output: Path of the table.
    """
    folder = output.parent / "tables"
    frames = {name: tables.read(folder / f"{name}.csv") for name in request["tables"]}
    judged = judge(expand(dict(request["families"])), frames)
    tables.write(judged, output.with_suffix(""), notes(request, frames.get("runs")))


def judge(entries: dict[str, dict], frames: Frames) -> pd.DataFrame:
    """One row for each claim.

    Args:
        entries: Claims by name, from `rankwise.study.claims.expand`.
        frames: Tables by name.

    Raises:
        ValueError: Several rows of a table would decide a claim, and they are not one for each
            random seed.
    """
    rows = [_row(name, entry, frames) for name, entry in entries.items()]
    return pd.DataFrame(rows).astype({"rank": "Int64"})


def holds_as_corrected(frame: pd.DataFrame) -> pd.Series:
    """Which claims of a table that `judge` made are reproduced in their corrected reading."""
    is_corrected = frame["corrected"].notna()
    return is_corrected & frame["reason"].fillna("").str.endswith(f": {HELD}")


def _row(name: str, entry: dict, frames: Frames) -> dict:
    cell = entry.get("cell", {})
    columns = entry.get("column", [])
    ours = Ours(status=MISSING)
    if "table" in entry:
        ours = _ours(Question(name, entry, cell, columns), frames)
    verdict, reason = _verdict(name, entry, ours, frames)
    return {
        "claim": name,
        "system": entry["system"],
        "title": entry["title"],
        "definition": entry["definition"],
        **{key: cell.get(key) for key in CURVE},
        "column": " + ".join(columns),
        "published": entry["published"],
        "corrected": _corrected(entry),
        "ours": ours.value,
        "low": ours.low,
        "high": ours.high,
        "tolerance": entry["tolerance"],
        "unit": entry["unit"],
        "verdict": verdict,
        "reason": reason,
        "needs": entry["needs"],
        "command": entry["command"],
        "source": entry["source"],
        "note": entry["note"],
    }


def _corrected(entry: dict) -> float | None:
    """The number that a claim's corrected reading asks for.

    It is another number for the same cell, or the published one for another cell.
    """
    if "corrected" in entry:
        return entry["corrected"]
    return entry["published"] if "corrected_cell" in entry else None


# Verdicts -----------------------------------------------------------------------------------------


def _verdict(name: str, entry: dict, ours: Ours, frames: Frames) -> tuple[str, str]:
    """The verdict on a claim and its reason."""
    if "not_comparable" in entry:
        reading = f"corrected reading: {entry['reading']}" if "reading" in entry else ""
        return NOT_COMPARABLE, _joined(entry["not_comparable"], reading)
    if "lacks" in entry:
        return MISSING, f"lacks {entry['lacks']}"
    if ours.status != "ok":
        return ours.status, ours.reason
    verdict, reason = _compare(entry["published"], ours, entry["tolerance"])
    reading = _corrected_reading(name, entry, frames) if "reading" in entry else ""
    return verdict, _joined(reason, ours.reason, reading)


def _corrected_reading(name: str, entry: dict, frames: Frames) -> str:
    """The corrected reading of a claim, and whether it holds."""
    cell = {**entry["cell"], **entry.get("corrected_cell", {})}
    ours = _ours(Question(name, entry, cell, entry["column"]), frames)
    verdict, reason = ours.status, ours.reason
    if ours.status == "ok":
        verdict, reason = _compare(_corrected(entry), ours, entry["tolerance"])
    # `holds_as_corrected` recognises a reading that holds by its end, so nothing may follow HELD.
    outcome = HELD if verdict == HELD else _joined(verdict, reason)
    return f"corrected reading: {entry['reading']}; {_number(_corrected(entry))}: {outcome}"


def _compare(published: float, ours: Ours, tolerance: float) -> tuple[str, str]:
    """The verdict on one number, and how far ours is from it."""
    rounding = ROUNDING_ULPS * math.ulp(published)
    slack = tolerance + rounding
    difference = ours.value - published
    off = f"off by {_number(difference)}{_percent(difference, published)}"
    if abs(difference) <= rounding:
        return HELD, ""
    if abs(difference) <= slack:
        return HELD, f"{off}, within tolerance"
    if ours.low - slack <= published <= ours.high + slack:
        return HELD, f"{off}, within our interval"
    return FAILED, off


def _percent(difference: float, published: float) -> str:
    """A difference as a share of the published number: ` (+1.2 %)`; nothing for a share of 0."""
    if not published:
        return ""
    percent = 100 * difference / abs(published)
    shown = f"{percent:+,.0f}" if abs(percent) >= 100 else f"{percent:+,.2g}"
    return f" ({shown} %)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


# Ours ---------------------------------------------------------------------------------------------


def _ours(question: Question, frames: Frames) -> Ours:
    """Our number in the claim's unit, compared first with another one if the claim says so."""
    entry = question.entry
    ours = _looked_up(question, frames)
    if "against" in entry and ours.status == "ok":
        base = _looked_up(_against(question), frames)
        if base.status != "ok":
            return base
        compared = COMPARE[entry["compare"]](ours.value, base.value)
        # The two numbers' intervals do not give one of their ratio or difference.
        ours = Ours(compared, reason=_joined(ours.reason, base.reason))
    return ours.per(entry["per"])


def _against(question: Question) -> Question:
    """The number of ours that a claim compares the first one with."""
    against = question.entry["against"]
    columns = [against["column"]] if "column" in against else question.columns
    return question._replace(cell={**question.cell, **against.get("cell", {})}, columns=columns)


def _looked_up(question: Question, frames: Frames) -> Ours:
    """The mean of a cell's rows over random seeds, in the column's unit.

    A number that is nowhere, because its table, row or column is missing, was not run.
    """
    frame = frames.get(question.entry["table"])
    if frame is None or not set(question.columns) <= set(frame):
        return Ours(status=MISSING)
    rows, settings = _of_cell(frame, question.cell), question.entry["settings"]
    if question.entry["table"] == "evaluations":
        rows = _with_settings_of_runs(rows, settings, frames.get("runs"))
    rows, reason = _with_settings(rows, settings)
    if reason or rows.empty:
        return Ours(status=MISSING, reason=reason)
    devices = sorted(rows["device"].dropna().unique()) if "device" in rows else []
    if len(devices) > 1:
        reason = f"our runs are of several devices: {', '.join(devices)}"
        return Ours(status=NOT_COMPARABLE, reason=reason)
    status = rows["status"] if "status" in rows else pd.Series("ok", rows.index)
    failed = status[status != "ok"].str.replace("_", " ")
    usable = rows[status == "ok"].dropna(subset=question.columns)
    if usable.empty:
        return Ours(status=failed.iloc[0] if len(failed) else MISSING)
    _check_one_row_a_seed(question.name, usable)
    reason = ""
    if len(failed):
        reason = f"{len(failed)} of {len(rows)} seeds: {', '.join(failed.unique())}"
    numbers = usable[question.columns].sum(axis="columns")
    ours = Ours(mean_over_seeds(numbers, " + ".join(question.columns)), reason=reason)
    if "seed" in usable:
        return _with_interval(ours, question, len(usable), _estimates(question, frames))
    return ours


def _of_cell(frame: pd.DataFrame, cell: dict) -> pd.DataFrame:
    wanted = [cell[key] for key in CURVE]
    return frame[(frame[CURVE] == wanted).all(axis="columns")]


def _with_settings_of_runs(
    rows: pd.DataFrame, settings: dict, runs: pd.DataFrame | None
) -> pd.DataFrame:
    """Evaluations with the settings of the training runs whose weights they evaluate.

    A setting that neither table has stays away, so no row has it.
    """
    wanted = [key for key in settings if key not in rows and runs is not None and key in runs]
    if not wanted:
        return rows
    keys = [*CURVE, "seed"]
    return rows.merge(runs[[*keys, *wanted]], how="left", on=keys, validate="many_to_one")


def _with_settings(rows: pd.DataFrame, settings: dict) -> tuple[pd.DataFrame, str]:
    """The rows that have a claim's settings, or a sentence where no row has one of them."""
    for column, wanted in settings.items():
        values = rows[column] if column in rows else pd.Series(math.nan, rows.index)
        if column in NEAR:
            is_same = (values - wanted).abs() <= NEAR[column] * wanted
        else:
            is_same = values == wanted
        if len(rows) and not is_same.any():
            got = ", ".join(sorted({_setting(value) for value in values}))
            about = "about " if column in NEAR else ""
            reason = f"ours has {column} {got}, the claim {about}{_setting(wanted)}"
            return rows[is_same], reason
        rows = rows[is_same]
    return rows, ""


def _setting(value: float | str) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)


def _check_one_row_a_seed(name: str, rows: pd.DataFrame) -> None:
    if len(rows) > 1 and ("seed" not in rows or rows["seed"].duplicated().any()):
        raise ValueError(
            f"config/claims.yaml: {name}.settings: got {len(rows)} rows, "
            "allowed: settings that leave one row a seed"
        )


def _estimates(question: Question, frames: Frames) -> pd.DataFrame | None:
    """The intervals of the claim's table; `metric` is the column that each belongs to."""
    if question.entry["table"] != "evaluations":
        return frames.get("estimates")
    summary, settings = frames.get("evaluations_summary"), question.entry["settings"]
    if summary is None:
        return None
    for column in ("evaluation", "metric"):
        summary = summary[summary[column] == settings.get(column)]
    return summary.assign(metric=question.columns[0])


def _with_interval(
    ours: Ours, question: Question, seeds: int, estimates: pd.DataFrame | None
) -> Ours:
    """Add the 95 % interval of the table of estimates, if it is of as many seeds."""
    note = "one seed: no interval" if seeds == 1 else f"mean of {seeds} seeds"
    ours = ours._replace(reason=_joined(note, ours.reason))
    if estimates is None or len(question.columns) > 1 or seeds == 1:
        return ours
    rows = _of_cell(estimates, question.cell)
    is_same_number = (rows["metric"] == question.columns[0]) & (rows["seeds"] == seeds)
    rows = rows[is_same_number].dropna(subset=["low", "high"])
    if len(rows):
        ours = ours._replace(low=rows["low"].iloc[0], high=rows["high"].iloc[0])
    return ours
