"""A table as CSV and Parquet for machines, Markdown and LaTeX (booktabs) for papers."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from rankwise.core import result

GROUP = ["model", "dataset"]
TEXTS = (
    "request_digest",
    "environment_digest",
    "reason",
    "note",
    "taint",
    "warning",
    "tied",
    "undecided",
    "best",
)
# Column -> the columns of its interval, which stand behind it.
INTERVALS = {
    "accuracy_percent": ("accuracy_low_percent", "accuracy_high_percent"),
    "perplexity": ("perplexity_low", "perplexity_high"),
}
MARKS = {
    "tied": "\N{DAGGER}",
    "undecided": "\N{DOUBLE DAGGER}",
}  # how a row's `best` is shown, beside bold for the best
# Columns of a table with `best` that stand in its marks or under it.
UNSEEN = frozenset(
    {
        "best",
        "warning",
        "effective_batch_size",
        "updates",
        "samples",
        "tokens",
        "device",
        "device_name",
    }
)
HEADINGS = {
    "accuracy_percent": "accuracy (%)",
    "trainable_parameters": "trainable parameters",
    "optimizer_state_mib": "optimizer state (MiB)",
    "peak_mib": "peak (MiB)",
    "measured_peak_mib": "measured peak (MiB)",
    "step_time_s": "step (s)",
    "update_time_s": "update (s)",
}
NAMES = frozenset(
    {"rank", "rank_a", "rank_b", "seed"}
)  # whole numbers that name something: no thousands separators
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
LATEX |= {
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # in its first encoding these are other letters
LATEX |= {
    "\N{DAGGER}": r"$^{\dagger}$",
    "\N{DOUBLE DAGGER}": r"$^{\ddagger}$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}


def write(frame: pd.DataFrame, stem: Path, notes: Sequence[str] = ()) -> None:
    """Write `stem`.csv, .md, .tex and .parquet, each whole or not at all; the notes stand under the ones for people."""
    texts = (
        (".csv", frame.to_csv(index=False)),
        (".md", markdown(frame, notes)),
        (".tex", latex(frame, notes)),
    )
    for suffix, text in texts:
        result.write_text(stem.with_name(stem.name + suffix), text)
    write_parquet(frame, stem.with_name(stem.name + ".parquet"))


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with its types, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    frame.to_parquet(part, index=False, compression="zstd")
    part.replace(path)


def read(path: Path) -> pd.DataFrame:
    """A table as it was written; a text stays one even if its digits look like a number, or no row has any."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))


def notes_of(path: Path) -> list[str]:
    """The notes under a table, as its Markdown has them."""
    lines = (
        path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
        if path.with_suffix(".md").is_file()
        else []
    )
    return [line for line in lines if line and not line.startswith("|")]


def formatted(
    frame: pd.DataFrame, bold: Callable[[str], str], escape: Callable[[str], str]
) -> pd.DataFrame:
    """Every value as text under its heading, with its interval; where a column `best` says so it is bold or marked."""
    best = frame.get("best", pd.Series("", frame.index)).fillna("")
    columns = {}
    for name in _shown(frame):
        texts = [_text(name, value) for value in frame[name]]
        if name in INTERVALS:
            ends = [frame.get(end, pd.Series(float("nan"), frame.index)) for end in INTERVALS[name]]
            texts = [_with_interval(*one) for one in zip(texts, *ends, best, strict=True)]
        strong = [
            name in INTERVALS and mark == "best" and text
            for mark, text in zip(best, texts, strict=True)
        ]
        texts = [
            bold(escape(text)) if b else escape(text) for text, b in zip(texts, strong, strict=True)
        ]
        columns[escape(HEADINGS.get(name, name))] = texts
    return pd.DataFrame(columns, dtype=object)


def _shown(frame: pd.DataFrame) -> list[str]:
    ends = {end for both in INTERVALS.values() for end in both}
    return [
        name
        for name in frame.columns
        if name not in ends and not ("best" in frame and name in UNSEEN)
    ]


def _with_interval(text: str, low: float, high: float, best: str) -> str:
    interval = "" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{text}{interval}{MARKS.get(best, '')}" if text else ""


def _text(name: str, value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, str) or pd.api.types.is_bool(value):
        return str(value)
    if name.endswith("_percent") or name.startswith("perplexity"):
        return f"{value:.2f}"
    if name in NAMES:
        return "" if name.startswith("rank") and not value else f"{value:.0f}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}" if name.endswith(("_mib", "_s")) else f"{value:.6g}"


def numeric(frame: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers: they are set flush right."""
    return [pd.api.types.is_numeric_dtype(frame[name]) for name in _shown(frame)]


def markdown(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A pipe table, and under it a paragraph a note."""
    table = formatted(
        frame, "**{}**".format, lambda text: text.replace("|", r"\|").replace("\n", " ")
    )
    rule = ["---:" if right else "---" for right in numeric(frame)]
    lines = [table.columns, rule, *table.itertuples(index=False)]
    return "".join(
        [*(f"| {' | '.join(line)} |\n" for line in lines), *(f"\n{note}\n" for note in notes)]
    )


def latex(frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    r"""A tabular with the rules of booktabs, one \midrule between models and datasets; under it a line a note."""
    table = formatted(frame, r"\textbf{{{}}}".format, _latex)
    rows = [" & ".join(line) + r" \\" for line in table.itertuples(index=False, name=None)]
    if {*GROUP} <= {*frame.columns}:
        keys = list(zip(*(frame[name] for name in GROUP), strict=True))
        rows = [
            f"\\midrule\n{row}" if i and keys[i] != keys[i - 1] else row
            for i, row in enumerate(rows)
        ]
    columns = "".join("r" if right else "l" for right in numeric(frame))
    head = ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    foot = [rf"\par\smallskip\noindent{{\footnotesize {_latex(note)}\par}}" for note in notes]
    tail = [r"\bottomrule", r"\end{tabular}", *foot, ""]
    return "\n".join([*head, " & ".join(table.columns) + r" \\", r"\midrule", *rows, *tail])


def _latex(text: str) -> str:
    """The text as LaTeX shows it: two hyphens are no dash, and what follows a row's end is no option of it."""
    escaped = "".join(LATEX.get(c, c) for c in text).replace("--", "-{}-")
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped
