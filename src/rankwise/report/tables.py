"""A table as CSV for machines, Markdown and LaTeX (booktabs) for papers; and the paper's summary of runs."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from rankwise import result

GROUP = ["model", "dataset"]
CURVE = [*GROUP, "method", "rank"]
BEST = {"accuracy_percent": "max", "perplexity": "min"}  # columns whose best value in a group is bold
HEADINGS = {
    "accuracy_percent": "accuracy (%)",
    "accuracy_sd_percent": "sd (%)",
    "perplexity_sd": "sd",
    "trainable_parameters": "trainable parameters",
    "optimizer_state_mib": "optimizer state (MiB)",
}
NAMES = frozenset({"rank", "seed"})  # whole numbers that name something: no thousands separators
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def write(frame: pd.DataFrame, stem: Path) -> None:
    """Write `stem`.csv, .md, .tex and .parquet, each whole or not at all."""
    for suffix, text in ((".csv", frame.to_csv(index=False)), (".md", markdown(frame)), (".tex", latex(frame))):
        result.write_text(stem.with_name(stem.name + suffix), text)
    write_parquet(frame, stem.with_name(stem.name + ".parquet"))


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with its types, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    frame.to_parquet(part, index=False, compression="zstd")
    part.replace(path)


def read(path: Path) -> pd.DataFrame:
    """A table as it was written; a digest stays text even if its digits look like a number."""
    return pd.read_csv(path, dtype={"request_digest": str})


def summary(runs: pd.DataFrame, memory: pd.DataFrame | None, labels: dict[str, str] | None = None) -> pd.DataFrame:
    """One row a model, dataset, method (by its label, in the order of `labels`) and rank; `n` counts the seeds that ended well.

    Mean and sample standard deviation over those seeds: accuracy in %, perplexity. Optimizer state in MiB.
    """
    found = runs.groupby(CURVE, sort=False)
    table = found.agg(n=("status", lambda status: (status == "ok").sum()))
    for source, name, deviation, factor in (
        ("accuracy_fraction", "accuracy_percent", "accuracy_sd_percent", 100),
        ("perplexity", "perplexity", "perplexity_sd", 1),
    ):
        if source in runs:
            table[name], table[deviation] = found[source].mean() * factor, found[source].std(ddof=1) * factor
    if "trainable_parameters" in runs:
        table["trainable_parameters"] = found["trainable_parameters"].first().astype("Int64")
    if memory is not None:
        table["optimizer_state_mib"] = memory.set_index(CURVE)["optimizer_state_bytes"].reindex(table.index) / 2**20
    table["status"] = found[[name for name in ("status", "reason") if name in runs]].apply(_statuses)
    return _labelled(table.reset_index(), labels or {})


def _statuses(tried: pd.DataFrame) -> str:
    """`ok`, or what befell the others and why: `unsupported (1 of 3): the model has no biases`."""
    bad = tried[tried["status"] != "ok"].fillna({"reason": ""})
    counts = bad.value_counts(sort=False)
    words = [(status.replace("_", " "), *reason, number) for (status, *reason), number in counts.items()]
    return (
        ", ".join(f"{word[0]} ({word[-1]} of {len(tried)}){': ' * any(word[1:-1])}{''.join(word[1:-1])}" for word in words)
        or "ok"
    )


def _labelled(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    group = table.groupby(GROUP, sort=False).ngroup()
    method = table["method"].map({name: i for i, name in enumerate(labels)})
    order = table.assign(group=group, place=method).sort_values(["group", "place", "rank"], kind="stable").index
    return table.loc[order].assign(method=table["method"].map(lambda name: labels.get(name, name))).reset_index(drop=True)


def formatted(frame: pd.DataFrame, bold: Callable[[str], str], escape: Callable[[str], str]) -> pd.DataFrame:
    """Every value as text under its heading; the best of each group of model and dataset is bold, so are its equals.

    A row whose status is not ok is never the best: the mean of the seeds that survived flatters it.
    """
    columns = {}
    for name in frame.columns:
        texts = [escape(_text(name, value)) for value in frame[name]]
        best = _best(frame, name)
        columns[escape(HEADINGS.get(name, name))] = [bold(t) if b else t for t, b in zip(texts, best, strict=True)]
    return pd.DataFrame(columns, dtype=object)


def _best(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in BEST or not {*GROUP} <= {*frame.columns}:
        return pd.Series(False, frame.index)
    sound = frame["status"] == "ok" if "status" in frame else True
    shown = frame[name].astype(float).round(2).where(sound)
    return shown == shown.groupby([frame[key] for key in GROUP]).transform(BEST[name])


def _text(name: str, value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, str | bool):
        return str(value)
    if name.endswith("_percent") or name.startswith("perplexity"):
        return f"{value:.2f}"
    if name in NAMES:
        return "" if name == "rank" and not value else f"{value:.0f}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}" if name.endswith("_mib") else f"{value:.6g}"


def numeric(frame: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers: they are set flush right."""
    return [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]


def markdown(frame: pd.DataFrame) -> str:
    """A pipe table."""
    table = formatted(frame, "**{}**".format, lambda text: text.replace("|", r"\|").replace("\n", " "))
    rule = ["---:" if right else "---" for right in numeric(frame)]
    lines = [table.columns, rule, *table.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(frame: pd.DataFrame) -> str:
    r"""A tabular with the rules of booktabs, one \midrule between models and datasets."""
    table = formatted(frame, r"\textbf{{{}}}".format, lambda text: "".join(LATEX.get(c, c) for c in text))
    rows = [" & ".join(line) + r" \\" for line in table.itertuples(index=False, name=None)]
    if {*GROUP} <= {*frame.columns}:
        keys = list(zip(*(frame[name] for name in GROUP), strict=True))
        rows = [f"\\midrule\n{row}" if i and keys[i] != keys[i - 1] else row for i, row in enumerate(rows)]
    columns = "".join("r" if right else "l" for right in numeric(frame))
    head = ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*head, " & ".join(table.columns) + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""])
