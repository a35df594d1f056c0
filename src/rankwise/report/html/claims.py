"""The table of published numbers: what was said, what ours is, the verdict; the rest opens inside the row."""

from html import escape

import pandas as pd

from rankwise.report import style
from rankwise.report.html.sheets import Column, Sheet, reading

DETAILS = ("definition", "reason", "note", "needs", "source", "command")
FAILED = ("out of memory", "diverged", "unsupported")
DECIDED = (
    "not reproduced",
    "reproduced",
    *FAILED,
    "not comparable",
    "not yet run",
)  # the order of the rows
READ_AS = {
    "B": "_bytes",
    "FLOPs": "_flops",
    "fraction": "_fraction",
}  # unit -> the columns that it is shown as
COLUMNS = [
    Column("verdict", "verdict", "", False, True),
    Column("claim", "claim", "", False, True),
    Column("published", "published", "", True, True),
    Column("ours", "ours", "", True, True),
    Column("difference", "difference", "%", True, True),
    Column("system", "system", "", False, True),
]


def sheet(frame: pd.DataFrame, labels: dict[str, str], link: str) -> Sheet:
    """One row a claim, the decided ones first."""
    place = (
        frame["verdict"].map({verdict: i for i, verdict in enumerate(DECIDED)}).fillna(len(DECIDED))
    )
    frame = frame.assign(place=place).sort_values("place", kind="stable").drop(columns="place")
    rows = [_row(row, labels) for row in frame.to_dict("records")]
    counts = [
        (str(verdict), int(count))
        for verdict, count in frame["verdict"].value_counts(sort=False).items()
    ]
    return Sheet("claims", "Published numbers", "", COLUMNS, rows, (0, counts), link, 0)


def _row(row: dict, labels: dict[str, str]) -> list[tuple[str, str, str]]:
    said = {key: value for key, value in row.items() if not pd.isna(value)}
    target = said.get("corrected", said["published"])
    return [
        _verdict(str(said["verdict"])),
        (_claim(said, labels), escape(str(said.get("title", said["claim"]))), ""),
        _published(said),
        _number(said, said.get("ours")),
        _difference(said.get("ours"), target),
        (escape(str(said["system"])), "", ""),
    ]


def _claim(said: dict, labels: dict[str, str]) -> str:
    """The title and the setting, which open to the details."""
    facts = "".join(
        f"<dt>{name}</dt><dd>{escape(str(said[name]))}</dd>" for name in DETAILS if said.get(name)
    )
    tolerance = (
        f"<dt>tolerance</dt><dd>{_text(said, said['tolerance'])}</dd>"
        if said.get("tolerance")
        else ""
    )
    if "low" in said and "high" in said:
        facts += (
            f"<dt>interval</dt><dd>{_text(said, said['low'])} to {_text(said, said['high'])}</dd>"
        )
    head, cell = escape(str(said.get("title", said["claim"]))), escape(_cell(said, labels))
    setting = f"<br><small>{cell or escape(str(said['claim']))}</small>"
    name = f"<dt>name</dt><dd><code>{escape(str(said['claim']))}</code></dd>"
    return f'<details class="claim"><summary>{head}{setting}</summary><dl>{name}{facts}{tolerance}</dl></details>'


def _cell(said: dict, labels: dict[str, str]) -> str:
    method = labels.get(said.get("method"), said.get("method"))
    curve = " ".join(filter(None, [method, style.rank_name(said.get("rank") or 0)]))
    return ", ".join(filter(None, [said.get("model"), said.get("dataset"), curve]))


def _published(said: dict) -> tuple[str, str, str]:
    text, order, long = _number(said, said["published"])
    if "corrected" in said and (corrected := _text(said, said["corrected"])) != text:
        text = f"<s>{text}</s> {corrected}"
    return text, order, long


def _number(said: dict, value: float | None) -> tuple[str, str, str]:
    if value is None:
        return "", "-1", ""
    return _text(said, value), f"{value:.10g}", f"{value:,.10g} {said.get('unit', '')}".strip()


def _text(said: dict, value: float) -> str:
    """A number with its unit, the unit one that fits."""
    unit, value = str(said.get("unit", "")).replace("parameters", ""), float(value)
    if unit in READ_AS:
        _, unit, text = reading(READ_AS[unit], pd.Series([value]))
    else:
        text = "{:,.6g}".format
    return f"{text(value)} <small>{escape(unit)}</small>"


def _difference(ours: float | None, target: float) -> tuple[str, str, str]:
    if ours is None or not target:
        return "", "-1e9", ""
    share = 100 * (ours - target) / abs(target)
    text = "0" if share == 0 else f"{share:+.2g}" if abs(share) < 100 else f"{share:+,.0f}"
    return text.replace("-", style.MINUS), f"{share:.6g}", ""


def _verdict(verdict: str) -> tuple[str, str, str]:
    known = {"reproduced": "reproduced", "not reproduced": "not-reproduced"}
    kind = known.get(verdict, "failed" if verdict in FAILED else "open")
    return f'<span class="verdict {kind}">{escape(verdict)}</span>', "", ""
