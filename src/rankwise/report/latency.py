"""Figure: latency of the forward pass against batch size, medians with quartiles, un-merged and merged.

Both axes are logarithmic: a straight rise of slope one is a device that is full. With one batch size the lengths take its
place, and with one length too there is no curve to draw: dots by method.
"""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rankwise.report import placing, style

DIRECT = 6  # curves that a panel still shows well, each of them perhaps merged too
WIDTH, ROW, AROUND = 4.6, 0.17, 0.66  # inches: figure of dots, one row, a panel's title and axis
SIZE, LENGTH = "batch_size", "sequence_length_tokens"
LATENCY = ["forward_latency_q1_s", "forward_latency_s", "forward_latency_q3_s"]
DAGGER = "\N{DAGGER}"
TIMES = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))


class Part(NamedTuple):
    """One panel of curves: its title, its rows, and the column along its axis."""

    title: str
    rows: pd.DataFrame
    along: str


@style.styled
def draw(tables: dict[str, pd.DataFrame], labels: dict[str, str]) -> Figure:
    """Panels by model and dataset, from `tables["forward"]`.

    Raises:
        ValueError: the table is empty.
    """
    found = style.groups(tables["forward"], labels)
    if not found:
        raise ValueError("latency: no forward pass: no cell of profile has the measurement forward")
    along = {key: _along(rows) for key, rows in found.items()}
    if not any(along.values()):
        return _dots(found, labels)
    parts = [
        part
        for key, rows in found.items()
        for part in _parts(key, rows, along[key] or SIZE, labels)
    ]
    figure, panels = style.panels(
        [(part.title,) for part in parts], 4.6 if len(parts) == 1 else 3.5, 2.6, columns=2
    )
    ends = [_curves(axes, part, labels) for axes, part in zip(panels, parts, strict=True)]
    _legend(
        figure,
        tables["forward"],
        [Line2D([], [], color="black", ls=dash, lw=1.2) for dash in ("-", "--")],
    )
    placing.name_ends(figure, panels, ends)
    return figure


def time_unit(seconds: float) -> tuple[float, str]:
    """The largest unit of time that is no longer than `seconds`: its seconds and its name."""
    return next((both for both in TIMES if seconds >= both[0]), TIMES[-1])


def tainted(rows: pd.DataFrame) -> pd.Series:
    """Whether something disturbed the measurement of each row."""
    return rows["taint"].fillna("") != "" if "taint" in rows else pd.Series(False, rows.index)


def mark(rows: pd.DataFrame) -> str:
    """The dagger, if any of the rows is tainted."""
    return DAGGER if tainted(rows).any() else ""


def daggers(rows: pd.DataFrame) -> list[str]:
    """What the legend says of tainted rows: a line a reason."""
    reasons = rows.loc[tainted(rows), "taint"].str.split("; ").explode() if "taint" in rows else []
    return [f"{DAGGER} {reason}" for reason in dict.fromkeys(reasons)]


def failures(rows: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A line a method and rank that could not be measured: why, and from which batch on if not at all sizes."""
    lines = {}
    for row in rows[rows["status"] != "ok"].itertuples():
        size = getattr(row, SIZE, float("nan"))
        where = "" if pd.isna(size) else f" at {size:.0f} x {getattr(row, LENGTH):.0f} tokens"
        words = f"{style.name(row.method, row.rank, labels)}: {row.status.replace('_', ' ')}"
        lines.setdefault(words, where)
    return [words + where for words, where in lines.items()]


def _along(rows: pd.DataFrame) -> str | None:
    return next(
        (column for column in (SIZE, LENGTH) if column in rows and rows[column].nunique() > 1), None
    )


def _merged(rows: pd.DataFrame) -> pd.Series:
    return rows["merged"].eq(True) if "merged" in rows else pd.Series(False, rows.index)


def _parts(
    key: tuple[str, str], rows: pd.DataFrame, along: str, labels: dict[str, str]
) -> list[Part]:
    """The panels of one model and dataset: at its longest length, as many as keep each readable, methods together."""
    other = LENGTH if along == SIZE else SIZE
    shown = rows[rows[other].isna() | (rows[other] == rows[other].max())]
    pages = _pages(shown.groupby("method", sort=False)["rank"].nunique(), labels)
    last = max(pages.values())
    name = " / ".join(key)
    titles = [f"{name}, {page + 1} of {last + 1}" if last else name for page in range(last + 1)]
    return [
        Part(title, shown[shown["method"].map(pages) == page], along)
        for page, title in enumerate(titles)
    ]


def _pages(curves: pd.Series, labels: dict[str, str]) -> dict[str, int]:
    """Which panel each method is on; a new one where the curves are too many, or a colour would come twice."""
    count, page, used, pages = 0, 0, set(), {}
    for method, number in curves.items():
        colour = style.look(method, labels)[0]
        if used and (count + number > DIRECT or colour in used):
            count, page, used = 0, page + 1, set()
        count, used, pages[method] = count + number, used | {colour}, page
    return pages


def _curves(axes: Axes, part: Part, labels: dict[str, str]) -> list[tuple]:
    """Draw a panel; returns each method's last latency, name and colour."""
    rows, along = part.rows, part.along
    sound = rows[rows["status"] == "ok"]
    one, unit = time_unit(sound["forward_latency_s"].median() if len(sound) else 1)
    ranks, ends = sorted(set(sound["rank"]) - {0}), []
    for (method, rank), both in sound.groupby(["method", "rank"], sort=False):
        colour, marker = style.look(method, labels)
        for merged, curve in both.sort_values(along).groupby(_merged(both)):
            low, middle, high = (curve[name] / one for name in LATENCY)
            place = ranks.index(rank) / (len(ranks) - 1) if rank and len(ranks) > 1 else 0.5
            width = 0.8 + 0.8 * place  # the higher the rank, the thicker
            look = {
                "color": colour,
                "marker": marker,
                "ms": 3,
                "lw": width,
                "mfc": "white" if merged else colour,
            }
            axes.errorbar(
                curve[along],
                middle,
                [middle - low, high - middle],
                ls="--" if merged else "-",
                elinewidth=0.7,
                **look,
            )
            if not merged:
                name = style.name(method, rank, labels) + mark(curve)
                ends.append((middle.iloc[-1], name, style.ink(colour)))
    _axes(axes, rows, along, unit)
    axes.set_xlabel("\n".join([axes.get_xlabel(), *failures(rows, labels)]))
    return ends


def _axes(axes: Axes, rows: pd.DataFrame, along: str, unit: str) -> None:
    axes.set(xscale="log", yscale="log", ylabel=f"latency ({unit})")
    values = sorted(rows[along].dropna().unique())
    axes.set_xticks(values, [f"{value:.0f}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
    axes.yaxis.set_major_locator(LogLocator(10, subs=subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    fixed = rows[LENGTH if along == SIZE else SIZE].max()
    axes.set_xlabel(
        f"batch size (of {fixed:.0f} tokens)"
        if along == SIZE
        else f"tokens (batch size {fixed:.0f})"
    )


def _legend(figure: Figure, rows: pd.DataFrame, looks: list[Line2D]) -> None:
    shown = [
        (look, name)
        for look, name in zip(looks, ("un-merged", "merged"), strict=True)
        if _merged(rows).any()
    ]
    add_legend(figure, rows, shown, columns=2)


def add_legend(
    figure: Figure, rows: pd.DataFrame, shown: list[tuple[object, str]], columns: int
) -> None:
    """What the looks mean, below what taints the rows."""
    title = {"title": "\n".join(daggers(rows)), "title_fontsize": 8, "alignment": "left"}
    if shown or title["title"]:
        looks, names = [look for look, _ in shown], [name for _, name in shown]
        figure.legend(
            looks, names, loc="outside lower left", ncols=columns, handletextpad=0.4, **title
        )


def _dots(found: dict[tuple[str, str], pd.DataFrame], labels: dict[str, str]) -> Figure:
    cells = {key: rows.drop_duplicates(["method", "rank"]) for key, rows in found.items()}
    heights = [len(rows) + 0.2 for rows in cells.values()]
    figure = style.canvas(WIDTH, sum(heights) * ROW + len(found) * AROUND + 0.5)
    grid = figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (key, rows) in zip(grid, found.items(), strict=True):
        axes.set_title(" / ".join(key))
        _panel_of_dots(axes, rows, labels)
    dots = [
        Line2D([], [], color="black", marker="o", ms=4.5, ls="", mfc=fill)
        for fill in ("black", "white")
    ]
    _legend(figure, pd.concat(found.values()), dots)
    return figure


def _panel_of_dots(axes: Axes, rows: pd.DataFrame, labels: dict[str, str]) -> None:
    sound = rows["status"] == "ok"
    one, unit = time_unit(rows["forward_latency_s"].median() if sound.any() else 1)
    names = []
    for place, ((method, rank), both) in enumerate(rows.groupby(["method", "rank"], sort=False)):
        colour = style.look(method, labels)[0]
        for row, merged in zip(both.itertuples(), _merged(both), strict=True):
            if row.status != "ok":
                axes.annotate(
                    row.status.replace("_", " "),
                    (0.02, place),
                    xycoords=axes.get_yaxis_transform(),
                    va="center_baseline",
                )
                continue
            low, middle, high = (getattr(row, name) / one for name in LATENCY)
            axes.plot([low, high], [place, place], color=colour, lw=0.9)
            axes.plot(
                middle,
                place,
                "o",
                color=colour,
                mfc="white" if merged else colour,
                ms=4.5,
                zorder=3,
            )
        names.append(style.name(method, rank, labels) + mark(both))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.grid(axis="y", visible=False)
    size = (
        f", batch {rows[SIZE].max():.0f} of {rows[LENGTH].max():.0f} tokens" if sound.any() else ""
    )
    axes.set_xlabel(f"latency ({unit}){size}")
