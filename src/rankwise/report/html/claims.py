"""The table of published numbers that the study decides: the claim, our number and the verdict.

A row opens to further details. The file has all claims; the page counts the others in one line.
"""

from html import escape

import pandas as pd

from rankwise.report import style
from rankwise.report.html.sheets import Cell, Column, Sheet, filter_keys
from rankwise.report.html.units import reading

DETAILS = ("definition", "reason", "note", "needs", "source", "command")
FAILED = ("out of memory", "diverged", "unsupported")
UNDECIDED = ("not comparable", "not yet run")
ROW_ORDER = ("not reproduced", "reproduced", *FAILED, *UNDECIDED)
# Unit of a claim -> the ending of our columns in that unit.
COLUMN_ENDINGS = {"B": "_bytes", "FLOPs": "_flops", "fraction": "_fraction"}
COLUMNS = [
    Column("verdict", "verdict", "", False, True),
    Column("claim", "claim", "", False, True),
    Column("published", "published", "", True, True),
    Column("ours", "ours", "", True, True),
    Column("difference", "difference", "%", True, True),
    Column("system", "system", "", False, True),
]


def sheet(claims: pd.DataFrame, labels: dict[str, str], link: str) -> Sheet | None:
    """One row for each claim that the study decides; None if it decides none."""
    shown = decided(claims)
    if not len(shown):
        return None
    rows = [_row(row, labels) for row in shown.to_dict("records")]
    facet = (0, list(_counts(shown).items()))
    hidden = len(claims) - len(shown)
    caption = others_text(claims)
    keys = filter_keys(shown)
    return Sheet("claims", "Published numbers", caption, COLUMNS, rows, facet, link, hidden, keys)


def decided(claims: pd.DataFrame) -> pd.DataFrame:
    """The claims that the study's results decide, in the order of ROW_ORDER."""
    rows = claims[~claims["verdict"].isin(UNDECIDED)]
    places = {verdict: place for place, verdict in enumerate(ROW_ORDER)}
    place = rows["verdict"].map(places).fillna(len(ROW_ORDER))
    return rows.assign(place=place).sort_values("place", kind="stable").drop(columns="place")


def others_text(claims: pd.DataFrame) -> str:
    """How many claims the study cannot decide, and where they are; empty if there are none."""
    others = claims[claims["verdict"].isin(UNDECIDED)]
    if not len(others):
        return ""
    which = "all of them" if len(others) == len(claims) else f"the other {len(others)}"
    return f"only claims.csv shows {which}: {counts_text(others)}"


def counts_text(claims: pd.DataFrame) -> str:
    """`10 reproduced, 2 not reproduced`."""
    return ", ".join(f"{count} {verdict}" for verdict, count in _counts(claims).items())


def _counts(claims: pd.DataFrame) -> dict[str, int]:
    """Verdict -> how many claims have it, in the order of the rows."""
    counts = claims["verdict"].value_counts(sort=False)
    return {str(verdict): int(count) for verdict, count in counts.items()}


def _row(row: dict, labels: dict[str, str]) -> list[Cell]:
    claim = {key: value for key, value in row.items() if not pd.isna(value)}
    return [
        _verdict(str(claim["verdict"])),
        Cell(_details(claim, labels), escape(str(claim.get("title", claim["claim"])))),
        _published(claim),
        _number(claim, claim.get("ours")),
        _difference(claim.get("ours"), claim.get("corrected", claim["published"])),
        Cell(escape(str(claim["system"]))),
    ]


def _verdict(verdict: str) -> Cell:
    classes = {"reproduced": "reproduced", "not reproduced": "not-reproduced"}
    css_class = classes.get(verdict, "failed" if verdict in FAILED else "open")
    return Cell(f'<span class="verdict {css_class}">{escape(verdict)}</span>')


def _details(claim: dict, labels: dict[str, str]) -> str:
    """The title and the setting of a claim, which open to the details."""
    name = escape(str(claim["claim"]))
    title = escape(str(claim.get("title", claim["claim"])))
    setting = escape(_setting(claim, labels)) or name
    facts = [("name", f"<code>{name}</code>")]
    facts += [(key, escape(str(claim[key]))) for key in DETAILS if claim.get(key)]
    if "low" in claim and "high" in claim:
        low, high = _value_text(claim, claim["low"]), _value_text(claim, claim["high"])
        facts.append(("interval", f"{low} to {high}"))
    if claim.get("tolerance"):
        facts.append(("tolerance", _value_text(claim, claim["tolerance"])))
    items = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts)
    summary = f"<summary>{title}<br><small>{setting}</small></summary>"
    return f'<details class="claim">{summary}<dl>{items}</dl></details>'


def _setting(claim: dict, labels: dict[str, str]) -> str:
    """Model, dataset and curve of a claim, as far as it names them."""
    method = labels.get(claim.get("method"), claim.get("method"))
    curve = [part for part in (method, style.rank_name(claim.get("rank") or 0)) if part]
    parts = (claim.get("model"), claim.get("dataset"), " ".join(curve))
    return ", ".join(part for part in parts if part)


def _published(claim: dict) -> Cell:
    """The published number, followed by its corrected reading if it has one."""
    published = _number(claim, claim["published"])
    if "corrected" not in claim:
        return published
    corrected = _value_text(claim, claim["corrected"])
    if corrected == published.html:
        return published
    return published._replace(html=f"<s>{published.html}</s> {corrected}")


def _number(claim: dict, value: float | None) -> Cell:
    if value is None:
        return Cell("", "-1")
    exact = f"{value:,.10g} {claim.get('unit', '')}".strip()
    return Cell(_value_text(claim, value), f"{value:.10g}", exact)


def _value_text(claim: dict, value: float) -> str:
    """A number with its unit; bytes, FLOPs and fractions are in a unit that fits."""
    value, unit = float(value), str(claim.get("unit", "")).replace("parameters", "")
    if unit in COLUMN_ENDINGS:
        as_column = reading(COLUMN_ENDINGS[unit], pd.Series([value]))
        unit, text = as_column.unit, as_column.text(value)
    else:
        text = f"{value:,.6g}"
    return f"{text} <small>{escape(unit)}</small>"


def _difference(ours: float | None, target: float) -> Cell:
    if ours is None or not target:
        return Cell("", "-1e9")
    percent = 100 * (ours - target) / abs(target)
    if percent == 0:
        text = "0"
    elif abs(percent) < 100:
        text = f"{percent:+.2g}"
    else:
        text = f"{percent:+,.0f}"
    return Cell(text.replace("-", style.MINUS), f"{percent:.6g}")
