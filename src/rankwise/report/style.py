"""The common look of all figures: methods, names, units, panel grids and files.

The files of a figure have the same bytes each time that it is drawn from the same tables.
"""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from rankwise.core.files import durable_write
from rankwise.report.palettes import DASHES, MARKERS, METHODS, SIZES, VARIANT_MARKERS

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#4D4D4D",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",  # an SVG looks the same on a computer without the font
    "svg.hashsalt": "rankwise",  # without it, the ids in an SVG are random
    "pdf.fonttype": 42,  # TrueType: the text of a PDF can be searched and copied
    "hatch.linewidth": 0.5,
}
styled = matplotlib.rc_context(RC)  # a decorator for every `draw`
BYTE_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
MINUS = "\N{MINUS SIGN}"
MAX_PANELS = 12  # a figure with more panels of curves shows each method at its highest rank
HIGHEST_RANK = "each method at its highest rank; all curves are in the table"
ONE_SEED = "one seed: no interval"
COLUMN_WIDTH = 3.4  # inches: the width of a panel, and of a column of a paper
MAX_HEIGHT = 12.0  # inches: a higher figure gets another column of panels
MAX_ACROSS = 2  # columns of panels
TITLE_LETTERS = 36  # letters that fit above a panel of that width
Marker = str | tuple[int, int, int]
MAX_NAMED = 3  # a note names at most so many curves; of more curves it gives the number
MIN_CONTRAST = 4.5  # of text on white: WCAG 2.2, success criterion 1.4.3


# Colours and line styles -----------------------------------------------------------------------


def look(method: str, labels: dict[str, str]) -> tuple[str, Marker]:
    """Colour and marker of a method or variant.

    A method's follow from its place among all configured methods, so that a method looks the same
    in every figure of every study. A variant (`lora@fast`) has its method's colour and a marker
    that no method has; variants of methods with one colour have different markers.
    """
    turn, place = divmod(_methods(labels).index(base(method)), len(METHODS))
    if method == base(method):
        return METHODS[place], MARKERS[turn % len(MARKERS)]
    number = _variants_in_colour(place, labels).index(method)
    return METHODS[place], VARIANT_MARKERS[number % len(VARIANT_MARKERS)]


def dash(method: str, labels: dict[str, str]) -> object:
    """Line style of a method or variant: the next one each time that the colours are used up.

    A variant has another one than its method. For figures in which the line style does not stand
    for the rank.
    """
    turn = _methods(labels).index(base(method)) // len(METHODS)
    variants = [name for name in labels if name != base(name) == base(method)]
    number = 1 + variants.index(method) if method in variants else 0
    return DASHES[(turn + number) % len(DASHES)]


def base(method: str) -> str:
    """The method that a variant is made of: `lora` for `lora@fast` and for `lora`."""
    return method.partition("@")[0]


def _methods(labels: dict[str, str]) -> list[str]:
    """The methods in the order of their entries, without variants."""
    return list(dict.fromkeys(map(base, filter(None, labels))))


def _variants_in_colour(place: int, labels: dict[str, str]) -> list[str]:
    """The variants of all methods that have the colour at this place."""
    methods = set(_methods(labels)[place :: len(METHODS)])
    return [name for name in labels if base(name) in methods and name != base(name)]


def svg_path(marker: Marker) -> str:
    """A marker's outline as the path of an SVG, in a square from -1 to 1 with y pointing down."""
    path = MarkerStyle(marker).get_path().transformed(MarkerStyle(marker).get_transform())
    outline = path.to_polygons()[0]
    corners = (100 * outline * (1, -1) / abs(outline).max()).round().astype(int)
    return "M" + "L".join(f"{x / 100:g},{y / 100:g}" for x, y in corners[:-1]) + "Z"


def rank_dashes(ranks: Iterable[int]) -> dict[int, object]:
    """Line style of each rank: the higher the rank, the fuller the line. Rank 0 has a full line."""
    descending = sorted(set(ranks) - {0}, reverse=True)
    dashes: dict[int, object] = {0: "-"}
    for place, rank in enumerate(descending):
        dashes[rank] = DASHES[place % len(DASHES)]
    return dashes


def line_styles(curves: pd.DataFrame, labels: dict[str, str]) -> dict[tuple[str, int], object]:
    """Line style of each curve, by method and rank.

    It stands for the rank where there are several ranks, and otherwise for the method.
    """
    by_rank = rank_dashes(curves["rank"])
    pairs = curves[["method", "rank"]].drop_duplicates().itertuples(index=False)
    if len(set(by_rank) - {0}) > 1:
        return {(method, rank): by_rank[rank] for method, rank in pairs}
    return {(method, rank): dash(method, labels) for method, rank in pairs}


def ordered_colours(values: list[float]) -> dict[float, str]:
    """A colour for each of several ordered values, from dark to light."""
    scale = colormaps[SIZES]
    shares = [0.85 * place / max(len(values) - 1, 1) for place in range(len(values))]
    return {value: to_hex(scale(share)) for value, share in zip(values, shares, strict=True)}


def ink(colour: str) -> tuple[float, float, float]:
    """The colour, darkened until text in it is readable on white."""
    rgb = to_rgb(colour)
    while 1.05 / (_luminance(rgb) + 0.05) < MIN_CONTRAST:
        rgb = tuple(part * 0.95 for part in rgb)
    return rgb


def _luminance(rgb: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2.2 defines it."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# Names and numbers -----------------------------------------------------------------------------


def rank_name(rank: int) -> str:
    """`r=8`, or an empty text for rank 0, which stands for a method without a rank."""
    return f"r={rank:.0f}" if rank else ""


def curve_name(method: str, rank: int, labels: dict[str, str]) -> str:
    """Name of a curve (a method at a rank), such as `LoRA (q, k, v) r=8`."""
    return f"{labels[method]} {rank_name(rank)}".strip()


def cell_names(frame: pd.DataFrame) -> str:
    """The cells of the rows for a message, each once: `tiny/sst2/lora/r2, ...`."""
    names = (
        f"{row.model}/{row.dataset}/{row.method}/r{row.rank:.0f}" for row in frame.itertuples()
    )
    return ", ".join(dict.fromkeys(names))


def status_text(status: str) -> str:
    """A status in words: `out of memory`."""
    return status.replace("_", " ")


def failed_counts(status: pd.Series) -> str:
    """The failed runs of a curve in words: `diverged`, `1 of 3 diverged`, or nothing."""
    failed = status[status != "ok"]
    texts = []
    for name, count in failed.value_counts(sort=False).items():
        share = f"{count} of {len(status)} " if count < len(status) else ""
        texts.append(f"{share}{status_text(name)}")
    return ", ".join(texts)


def failure_notes(runs: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """One line for each curve and status of failed runs: `LoRA r=8: diverged, seed 0, 2`."""
    if "status" not in runs:
        return []
    failed = runs[runs["status"] != "ok"]
    notes = []
    for (method, rank, status), rows in failed.groupby(["method", "rank", "status"], sort=False):
        seeds = ", ".join(f"{seed:.0f}" for seed in rows["seed"])
        name = curve_name(method, rank, labels)
        notes.append(f"{name}: {status_text(status)}, seed {seeds}")
    return notes


def one_seed_notes(names: list[str], curve_count: int) -> list[str]:
    """A line that says which curves have one seed and so no interval.

    Args:
        names: the curves that have one seed.
        curve_count: the number of all curves in the panel.

    Returns:
        No line if every curve has several seeds; otherwise one.
    """
    if not names:
        return []
    if len(names) == curve_count:
        return [ONE_SEED]
    few = len(names) <= MAX_NAMED
    which = ", ".join(names) if few else f"{len(names)} of {curve_count} curves"
    return [f"{which}, {ONE_SEED}"]


def byte_unit(size_bytes: float) -> tuple[int, str]:
    """The largest binary unit that is not larger than `size_bytes`: its bytes and its name."""
    return largest_unit(size_bytes, BYTE_UNITS)


def largest_unit(amount: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest of `units` (from large to small) that is not larger than `amount`.

    It is the smallest unit if all of them are larger.
    """
    for size, name in units:
        if amount >= size:
            return size, name
    return units[-1]


def number(value: float) -> str:
    """A value with three significant digits, never in powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


# Rows ------------------------------------------------------------------------------------------


def ordered(frame: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Sort rows by method, in the order of `labels`, then by rank; ties keep their order."""
    places = {method: place for place, method in enumerate(labels)}
    with_place = frame.assign(place=frame["method"].map(places))
    return with_place.sort_values(["place", "rank"], kind="stable").drop(columns="place")


def at_highest_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each method's highest rank in its model and dataset."""
    ranks = rows.groupby(["model", "dataset", "method"], sort=False)["rank"]
    return rows[rows["rank"] == ranks.transform("max")]


def by_panel(frame: pd.DataFrame, labels: dict[str, str]) -> dict[tuple[str, str], pd.DataFrame]:
    """Rows of each (model, dataset), ordered; the keys are in the order of first appearance."""
    groups = frame.groupby(["model", "dataset"], sort=False)
    return {key: ordered(rows, labels) for key, rows in groups}


# Figures ---------------------------------------------------------------------------------------


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure of width x height inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)  # with a canvas, the figure can measure its texts
    return figure


def panel_grid(
    keys: Iterable[tuple[str, ...]], width: float, height: float, columns: int
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel for each key.

    Args:
        keys: the parts of each panel's title.
        width: the width of a panel in inches.
        height: the height of a panel in inches.
        columns: at most so many panels stand side by side.
    """
    keys = list(keys)
    across = min(columns, len(keys))
    down = -(-len(keys) // across)
    figure = empty_figure(width * across, height * down)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, key in zip(grid, keys, strict=False):
        set_panel_title(axes, *key)
    for axes in grid[len(keys) :]:
        axes.remove()
    return figure, figure.axes


def stacked(
    heights: list[float], width: float, height: float, most: float = MAX_HEIGHT
) -> tuple[Figure, list[Axes]]:
    """A figure with panels of different heights, in as many columns as keep it from being too high.

    Args:
        heights: the heights of the panels, relative to one another.
        width: the width of a column in inches.
        height: the height of the figure in inches if it has one column.
        most: the height in inches above which it gets another column, up to MAX_ACROSS.
    """
    across = 1
    while height / across > most and across < min(MAX_ACROSS, len(heights)):
        across += 1
    rows = [heights[i : i + across] for i in range(0, len(heights), across)]
    row_heights = [max(row) for row in rows]
    figure = empty_figure(across * width, height * sum(row_heights) / sum(heights))
    grid = figure.subplots(len(rows), across, squeeze=False, height_ratios=row_heights)
    panels = list(grid.flat)
    for axes in panels[len(heights) :]:
        axes.remove()
    return figure, panels[: len(heights)]


def set_panel_title(axes: Axes, *parts: str) -> None:
    """Title a panel of a column's width with the parts that are not empty.

    The last part goes to a second line if the title would be too long.
    """
    *others, last = [part for part in parts if part]
    title = " / ".join([*others, last])
    if len(title) > TITLE_LETTERS and others:
        title = " / ".join(others) + f" /\n{last}"
    axes.set_title(title)


def legend_notes(notes: list[str]) -> dict:
    """Arguments of a legend that has these lines above its entries."""
    if not notes:
        return {}
    return {"title": "\n".join(notes), "title_fontsize": 8, "alignment": "left"}


def rows_axis(axes: Axes, names: list[str], pad: float) -> None:
    """One named row for each method and rank, from the top down, without tick marks or grid lines.

    Args:
        axes: the panel.
        names: the label of each row.
        pad: points between a label and the panel.
    """
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=pad)
    axes.grid(axis="y", visible=False)


def text_right_of_panel(axes: Axes, row: float, text: str, end: float) -> None:
    """Write text at a row; it ends `end` points right of the panel."""
    axes.annotate(
        text,
        (1, row),
        (end, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        annotation_clip=False,
    )


# Files -----------------------------------------------------------------------------------------


def run_digests(tables: Iterable[pd.DataFrame]) -> list[str]:
    """Digests of all runs in the tables, each once, sorted."""
    digests = set()
    for table in tables:
        if "request_digest" in table:
            digests.update(table["request_digest"])
    return sorted(digests)


def save(figure: Figure, path: Path, request_digests: list[str]) -> None:
    """Write PNG (200 dots per inch), SVG and PDF at `path`, each file whole or not at all.

    The metadata of each file name the runs that it was drawn from. They leave out the date and the
    version of matplotlib, so that the bytes depend on the figure alone.
    """
    runs = " ".join(sorted(set(map(str, request_digests))))
    png = {"Software": None, "Runs": runs}
    svg = {"Creator": None, "Date": None, "Description": f"runs: {runs}"}
    pdf = {"Creator": None, "Producer": None, "CreationDate": None}
    pdf |= {"Subject": f"runs: {runs}", "Keywords": runs}
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(figure, path.with_suffix(".png"), png)
    _write(figure, path.with_suffix(".svg"), svg)
    _write(figure, path.with_suffix(".pdf"), pdf)


@styled
def _write(figure: Figure, path: Path, metadata: dict) -> None:
    with durable_write(path) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=200, metadata=metadata)
