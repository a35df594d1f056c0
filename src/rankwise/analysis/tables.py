"""Write a table as CSV and Parquet for programs, and as Markdown and LaTeX for papers."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rankwise.core import result
from rankwise.core.keys import GROUP

# Columns that are text even where all values look like numbers, or all are empty: CSV does not
# tell.
TEXTS = (
    "request_digest", "environment_digest", "reason", "note", "taint", "flags", "warning", "tied",
    "undecided", "best",
)  # fmt: skip
# Column -> the columns of its interval, which people see behind it in brackets.
INTERVALS = {
    "accuracy_percent": ("accuracy_low_percent", "accuracy_high_percent"),
    "perplexity": ("perplexity_low", "perplexity_high"),
}
INTERVAL_ENDS = frozenset(end for ends in INTERVALS.values() for end in ends)
# Value of a column `best` -> how people see it; the best itself is bold.
MARKS = {"tied": "\N{DAGGER}", "undecided": "\N{DOUBLE DAGGER}"}
# Columns of a table with `best` that people see in its marks or in the notes under it.
UNSEEN = frozenset({
    "best", "flags", "warning", "effective_batch_size", "updates", "samples", "tokens", "device",
    "device_name",
})  # fmt: skip
HEADINGS = {
    "accuracy_percent": "accuracy (%)",
    "trainable_parameters": "trainable parameters",
    "adapter_mib": "adapter (MiB)",
    "optimizer_state_mib": "optimizer state (MiB)",
    "peak_mib": "peak (MiB)",
    "measured_peak_mib": "measured peak (MiB)",
    "step_time_s": "step (s)",
    "update_time_s": "update (s)",
}
# Whole numbers that name something, so they get no thousands separators.
NAMES = frozenset({"rank", "rank_a", "rank_b", "seed"})
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    # In LaTeX's first font encoding these three characters print as other ones.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{DAGGER}": r"$^{\dagger}$",
    "\N{DOUBLE DAGGER}": r"$^{\ddagger}$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}


# Files --------------------------------------------------------------------------------------------


def write(frame: pd.DataFrame, stem: Path, notes: Sequence[str] = ()) -> None:
    """Write `stem`.csv, .md, .tex and .parquet, each whole or not at all.

    Args:
        frame: The table.
        stem: Path of the files without an ending.
        notes: Paragraphs under the table, in the Markdown and the LaTeX.
    """
    csv = frame.to_csv(index=False)
    result.write_text(stem.with_name(f"{stem.name}.csv"), csv)
    result.write_text(stem.with_name(f"{stem.name}.md"), markdown(frame, notes))
    result.write_text(stem.with_name(f"{stem.name}.tex"), latex(frame, notes))
    write_parquet(frame, stem.with_name(f"{stem.name}.parquet"))


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with its column types, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    frame.to_parquet(part, index=False, compression="zstd")
    part.replace(path)


def read(path: Path) -> pd.DataFrame:
    """Read a table's CSV as it was written: the columns of TEXTS stay text."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))


def notes_of(path: Path) -> list[str]:
    """The notes under a table, from the Markdown beside the file at `path`."""
    page = path.with_suffix(".md")
    if not page.is_file():
        return []
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("|")]


# For people ---------------------------------------------------------------------------------------


def formatted(
    frame: pd.DataFrame, bold: Callable[[str], str], escape: Callable[[str], str]
) -> pd.DataFrame:
    """Every value as text under its heading.

    Args:
        frame: The table. Where it has a column `best`, the best metrics are bold and others get the
            marks of MARKS.
        bold: Makes a text bold in the target format.
        escape: Makes a text safe in the target format.

    Returns:
        The columns that people see; a metric's interval stands behind it in brackets.
    """
    best = frame.get("best", pd.Series("", frame.index)).fillna("")
    columns = {}
    for name in _seen(frame):
        texts = [_text(name, value) for value in frame[name]]
        if name in INTERVALS:
            texts = _metric_texts(frame, name, texts, best)
            is_bold = [
                mark == "best" and text != "" for mark, text in zip(best, texts, strict=True)
            ]
        else:
            is_bold = [False] * len(texts)
        escaped = [escape(text) for text in texts]
        shown = [
            bold(text) if strong else text for text, strong in zip(escaped, is_bold, strict=True)
        ]
        columns[escape(HEADINGS.get(name, name))] = shown
    return pd.DataFrame(columns, dtype=object)


def _metric_texts(frame: pd.DataFrame, name: str, texts: list[str], best: pd.Series) -> list[str]:
    """The texts of a metric's column with their intervals and marks: `91.20 [90.10, 92.30]†`."""
    unknown = pd.Series(float("nan"), frame.index)
    low, high = (frame.get(end, unknown) for end in INTERVALS[name])
    rows = zip(texts, low, high, best, strict=True)
    return [_with_interval(*row) for row in rows]


def _with_interval(text: str, low: float, high: float, best: str) -> str:
    if not text:
        return ""
    interval = "" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{text}{interval}{MARKS.get(best, '')}"


def _seen(frame: pd.DataFrame) -> list[str]:
    """The columns that people see, in their order."""
    unseen = INTERVAL_ENDS | UNSEEN if "best" in frame else INTERVAL_ENDS
    return [name for name in frame.columns if name not in unseen]


def _text(name: str, value: object) -> str:
    """One value as people see it; its column's name says how many digits it has."""
    if pd.isna(value):
        return ""
    if isinstance(value, str) or pd.api.types.is_bool(value):
        return str(value)
    if name.endswith("_percent") or name.startswith("perplexity"):
        return f"{value:.2f}"
    if name in NAMES:
        is_no_rank = name.startswith("rank") and not value
        return "" if is_no_rank else f"{value:.0f}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}" if name.endswith(("_mib", "_s")) else f"{value:.6g}"


def numeric(frame: pd.DataFrame) -> list[bool]:
    """Which of the columns that people see hold numbers: they are set flush right."""
    return [pd.api.types.is_numeric_dtype(frame[name]) for name in _seen(frame)]


# Markdown and LaTeX -------------------------------------------------------------------------------


def markdown(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A pipe table, with each note as a paragraph under it."""
    table = formatted(frame, "**{}**".format, _markdown_text)
    rule = ["---:" if is_number else "---" for is_number in numeric(frame)]
    rows = [table.columns, rule, *table.itertuples(index=False)]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    paragraphs = [f"\n{note}\n" for note in notes]
    return "".join([*lines, *paragraphs])


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def latex(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    r"""A booktabs tabular with a \midrule between groups, and each note as a line under it."""
    table = formatted(frame, r"\textbf{{{}}}".format, _latex_text)
    rows = [" & ".join(row) + r" \\" for row in table.itertuples(index=False, name=None)]
    for number in _starts_of_groups(frame):
        rows[number] = f"\\midrule\n{rows[number]}"
    alignment = "".join("r" if is_number else "l" for is_number in numeric(frame))
    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(table.columns) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    under = [rf"\par\smallskip\noindent{{\footnotesize {_latex_text(note)}\par}}" for note in notes]
    return "\n".join([*lines, *under, ""])


def _starts_of_groups(frame: pd.DataFrame) -> list[int]:
    """Rows whose model or dataset is another than in the row before."""
    if not set(GROUP) <= set(frame.columns):
        return []
    keys = list(zip(*(frame[name] for name in GROUP), strict=True))
    return [number for number in range(1, len(keys)) if keys[number] != keys[number - 1]]


def _latex_text(text: str) -> str:
    r"""The text as LaTeX shows it unchanged.

    Two hyphens would print as a dash. A `[` or `*` at the start of a row would be read as an option
    of the `\\` before it.
    """
    escaped = "".join(LATEX.get(character, character) for character in text)
    escaped = escaped.replace("--", "-{}-")
    if escaped.startswith(("[", "*")):
        return f"{{{escaped[0]}}}{escaped[1:]}"
    return escaped
