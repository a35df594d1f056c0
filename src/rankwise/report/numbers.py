r"""results/numbers.json and numbers.tex: every number of the summary, and how many claims came to which verdict, by name.

A name is `model/dataset/method/rN/column`, or `claims/verdict`. In LaTeX, after \input{numbers}:
    \rankwise{tiny/generated_reviews/lora/r8/accuracy_percent}
with `/low` or `/high` after it for the ends of its 95 % interval, where it has one. An unknown name is an error of LaTeX.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rankwise.analysis import tables
from rankwise.core import result
from rankwise.core.units import of_column, unit

CURVE = ["model", "dataset", "method", "rank"]
VERDICTS = ("reproduced", "not reproduced", "not comparable", "not yet run")
COUNTED = {"n": "runs", "claims": "claims"}
TEX = r"""% Made by Rankwise; numbers.json has the same with unit and runs. Use: \rankwise{NAME}
\makeatletter
\newcommand{\rankwise}[1]{\ifcsname rankwise@#1\endcsname\csname rankwise@#1\endcsname
  \else\PackageError{rankwise}{No number is called \detokenize{#1}}{numbers.json lists all names.}\fi}
\newcommand{\rankwise@number}[2]{\expandafter\def\csname rankwise@#1\endcsname{#2}}
"""


def numbers(request: dict, output: Path) -> None:
    """Write numbers.json at `output` and numbers.tex beside it, from the tables below the same folder."""
    files = [Path(name).relative_to("results") for name in request["tables"]]
    frames = {file.stem: tables.read(output.parent / file) for file in files}
    found = {
        **of_summary(frames.pop("summary"), frames, dict(request["labels"])),
        **of_claims(frames.get("claims")),
    }
    result.write_json(output, found)
    result.write_text(output.with_suffix(".tex"), latex(found))


def of_summary(
    summary: pd.DataFrame, frames: dict[str, pd.DataFrame], labels: dict[str, str]
) -> dict[str, dict]:
    """Name -> value, text, unit, low and high (None without an interval) and the ids of the runs behind it.

    `frames` are the tables of results that the summary is made from, `labels` the methods' by name.
    """
    methods = {label: method for method, label in labels.items()}
    rows = summary.assign(method=summary["method"].map(lambda name: methods.get(name, name)))
    found = {}
    for row in rows.to_dict("records"):
        key = {name: row[name] for name in CURVE}
        for column in _measured(rows):
            if pd.notna(row[column]):
                ends = [
                    None if pd.isna(end := row.get(name)) else end
                    for name in tables.INTERVALS.get(column, (None, None))
                ]
                name = (
                    f"{key['model']}/{key['dataset']}/{key['method']}/r{key['rank']:.0f}/{column}"
                )
                found[name] = _number(row[column], column, *ends, _runs(frames, key, column))
    return found


def _measured(frame: pd.DataFrame) -> list[str]:
    """Columns of numbers, less the ends of intervals, which go with their middle."""
    others = {*CURVE, *(end for ends in tables.INTERVALS.values() for end in ends)}
    return [
        name
        for name in frame.columns
        if name not in others and pd.api.types.is_numeric_dtype(frame[name])
    ]


def _at(frame: pd.DataFrame, key: dict) -> pd.DataFrame:
    return frame[(frame[list(key)] == list(key.values())).all(axis="columns")]


def _runs(frames: dict[str, pd.DataFrame], key: dict, column: str) -> list[str]:
    """Ids of the runs that a number is made of: those that ended well, in the table that has its quantity."""
    sources = {
        name: list(frame.columns) for name, frame in frames.items() if "request_digest" in frame
    }
    rows = _at(frames[of_column(column, sources)], {**key, "status": "ok"})
    return sorted(set(rows["request_digest"]))


def _number(
    value: float, column: str, low: float | None, high: float | None, runs: list[str]
) -> dict:
    value = int(value) if float(value).is_integer() and unit(column) != "%" else float(value)
    return {
        "value": value,
        "text": text(value, column),
        "unit": COUNTED.get(column) or unit(column),
        "low": low,
        "high": high,
        "runs": runs,
    }


def text(value: float, column: str) -> str:
    """A number as a text shows it: two decimals of a per cent or a perplexity, else a whole number or four digits."""
    if unit(column) == "%" or column.startswith("perplexity"):
        return f"{value:.2f}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e4 else f"{value:.4g}"


def of_claims(claims: pd.DataFrame | None) -> dict[str, dict]:
    """How many claims there are, and of each verdict."""
    if claims is None:
        return {}
    counts = {
        **dict.fromkeys(VERDICTS, 0),
        **claims["verdict"].value_counts().to_dict(),
        "total": len(claims),
    }
    return {
        f"claims/{verdict.replace(' ', '_')}": _number(count, "claims", None, None, [])
        for verdict, count in counts.items()
    }


def latex(found: dict[str, dict]) -> str:
    """A macro that looks a number up by name, and the numbers."""
    return f"{TEX}{''.join(_macros(found))}\\makeatother\n"


def _macros(found: dict[str, dict]) -> Iterator[str]:
    for name, one in sorted(found.items()):
        column = name.rpartition("/")[2]
        ends = {
            f"{name}/{end}": text(one[end], column)
            for end in ("low", "high")
            if one[end] is not None
        }
        for key, shown in {name: one["text"], **ends}.items():
            yield f"\\rankwise@number{{{key}}}{{{_tex(shown)}}}\n"


def _tex(shown: str) -> str:
    """A minus and a power of ten as mathematics."""
    mantissa, power, exponent = shown.partition("e")
    if not power:
        return shown.replace("-", r"\ensuremath{-}")
    return rf"\ensuremath{{{mantissa}\times10^{{{int(exponent)}}}}}"
