r"""results/numbers.json and numbers.tex: the numbers of a study by name, for use in a text.

They hold every number of the summary, and how many claims have each verdict. A name is
`model/dataset/method/rN/column` or `claims/verdict`; if results of the study are absent, also
`absent/measurement/status`. In LaTeX, after \input{numbers}:

    \rankwise{tiny/generated_reviews/lora/r8/accuracy_percent}

A number with a 95 % interval has its ends under the name followed by `/low` and `/high`. An unknown
name is an error in LaTeX.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rankwise.analysis import tables
from rankwise.analysis.variant_costs import with_variants
from rankwise.core import result
from rankwise.core.keys import CURVE
from rankwise.core.units import of_column, unit
from rankwise.study import partial

VERDICTS = ("reproduced", "not reproduced", "not comparable", "not yet run")
COUNT_UNITS = {"n": "runs", "claims": "claims"}  # units of columns that count
PREAMBLE = r"""% Made by Rankwise; numbers.json also has units and runs. Use: \rankwise{NAME}
\makeatletter
\newcommand{\rankwise}[1]{\ifcsname rankwise@#1\endcsname\csname rankwise@#1\endcsname
  \else\PackageError{rankwise}{No number is called \detokenize{#1}}%
    {numbers.json lists all names.}\fi}
\newcommand{\rankwise@number}[2]{\expandafter\def\csname rankwise@#1\endcsname{#2}}
"""


def numbers(request: dict, output: Path) -> None:
    """Write numbers.json at `output` and numbers.tex beside it.

    The tables of the request are read from the folder of `output`.
    """
    frames = {Path(name).stem: tables.read(output.parent / name) for name in request["tables"]}
    summary, claims = frames.pop("summary"), frames.pop("claims", None)
    frames = {name: with_variants(frame, frames["runs"]) for name, frame in frames.items()}
    by_name = of_summary(summary, frames, dict(request["labels"])) | of_claims(claims)
    by_name |= of_absent(request.get("absent", {"cells": []}))
    result.write_json(output, by_name)
    result.write_text(output.with_suffix(".tex"), latex(by_name))


# By name ---------------------------------------------------------------------------------------


def of_summary(
    summary: pd.DataFrame, frames: dict[str, pd.DataFrame], labels: dict[str, str]
) -> dict[str, dict]:
    """Every number of the summary, by name.

    Args:
        summary: the table, whose methods are labels.
        frames: the tables of results that the summary is made from.
        labels: the label of each method.

    Returns:
        Name -> value, text, unit, low and high (None without an interval) and the digests of the
        runs that it is made from.
    """
    method_of_label = {label: method for method, label in labels.items()}
    columns = _number_columns(summary)
    by_name = {}
    for row in summary.to_dict("records"):
        row["method"] = method_of_label.get(row["method"], row["method"])
        cell = {name: row[name] for name in CURVE}
        prefix = f"{cell['model']}/{cell['dataset']}/{cell['method']}/r{cell['rank']:.0f}"
        for column in columns:
            if pd.notna(row[column]):
                low, high = _interval(row, column)
                runs = _runs(frames, cell, column)
                by_name[f"{prefix}/{column}"] = _entry(row[column], column, low, high, runs)
    return by_name


def _number_columns(summary: pd.DataFrame) -> list[str]:
    """Columns of numbers; the ends of intervals are left out, for they belong to their middle."""
    left_out = set(CURVE)
    for ends in tables.intervals().values():
        left_out.update(ends)
    columns = [name for name in summary.columns if name not in left_out]
    return [name for name in columns if pd.api.types.is_numeric_dtype(summary[name])]


def _interval(row: dict, column: str) -> tuple[float | None, float | None]:
    """The ends of a number's interval, None where it has none."""
    low_name, high_name = tables.intervals().get(column, (None, None))
    low, high = row.get(low_name), row.get(high_name)
    return (None if pd.isna(low) else low), (None if pd.isna(high) else high)


def _runs(frames: dict[str, pd.DataFrame], cell: dict, column: str) -> list[str]:
    """Digests of the runs behind a number: the runs that ended well, in the table of its column."""
    columns_by_table = {}
    for name, frame in frames.items():
        if "request_digest" in frame:
            columns_by_table[name] = list(frame.columns)
    table = frames[of_column(column, columns_by_table)]
    key = {**cell, "status": "ok"}
    is_own = (table[list(key)] == list(key.values())).all(axis="columns")
    return sorted(set(table.loc[is_own, "request_digest"]))


def of_claims(claims: pd.DataFrame | None) -> dict[str, dict]:
    """How many claims there are, and how many have each verdict, by name."""
    if claims is None:
        return {}
    counts = dict.fromkeys(VERDICTS, 0)
    counts |= claims["verdict"].value_counts().to_dict()
    counts["total"] = len(claims)
    by_name = {}
    for verdict, count in counts.items():
        name = f"claims/{verdict.replace(' ', '_')}"
        by_name[name] = _entry(count, "claims", None, None, [])
    return by_name


def of_absent(absent: dict) -> dict[str, dict]:
    """How many results of each measurement are absent, by status, such as `absent/train/failed`.

    Args:
        absent: As `study/partial.py` describes it.
    """
    by_name = {}
    for measurement, counts in partial.counted(absent).items():
        for status, count in counts.items():
            name = f"absent/{measurement}/{status.replace(' ', '_')}"
            by_name[name] = _entry(count, "n", None, None, [])
    return by_name


def _entry(
    value: float, column: str, low: float | None, high: float | None, runs: list[str]
) -> dict:
    is_whole = float(value).is_integer() and unit(column) != "%"
    return {
        "value": int(value) if is_whole else float(value),
        "text": text(value, column),
        "unit": COUNT_UNITS.get(column) or unit(column),
        "low": low,
        "high": high,
        "runs": runs,
    }


def text(value: float, column: str) -> str:
    """A number as a text shows it.

    A percentage or a perplexity has two decimals; any other number is whole or has four
    significant digits.
    """
    if unit(column) == "%" or column.startswith("perplexity"):
        return f"{value:.2f}"
    if float(value).is_integer() or abs(value) >= 1e4:
        return f"{value:,.0f}"
    return f"{value:.4g}"


# LaTeX -----------------------------------------------------------------------------------------


def latex(by_name: dict[str, dict]) -> str:
    r"""The macro `\rankwise`, which looks a number up by its name, and the numbers."""
    return f"{PREAMBLE}{''.join(_macros(by_name))}\\makeatother\n"


def _macros(by_name: dict[str, dict]) -> Iterator[str]:
    """One line for each number and for each end of an interval."""
    for name, entry in sorted(by_name.items()):
        yield _macro(name, entry["text"])
        column = name.rpartition("/")[2]
        for end in ("low", "high"):
            if entry[end] is not None:
                yield _macro(f"{name}/{end}", text(entry[end], column))


def _macro(name: str, shown: str) -> str:
    return f"\\rankwise@number{{{name}}}{{{_math(shown)}}}\n"


def _math(shown: str) -> str:
    """The text of a number, with a minus sign or a power of ten as mathematics."""
    mantissa, has_power, exponent = shown.partition("e")
    if not has_power:
        return shown.replace("-", r"\ensuremath{-}")
    return rf"\ensuremath{{{mantissa}\times10^{{{int(exponent)}}}}}"
