"""What every figure shares: colours, names, units, panels, and files whose bytes are the same each time.

Colours: Okabe and Ito, Color Universal Design, 2008, without the yellow, which white paper swallows.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

COLOURS = ("#7F7F7F", "#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
MARKERS = "osD^vPX<>ph*"  # the next one each time that the colours are used up
DASHES = (
    "-",
    (0, (6, 1.2)),
    (0, (3, 1.2)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1, 2.5)),
)  # fuller to thinner lines
GUIDE = "#D9D9D9"
FRONT = "#CFCFCF"
RC = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "axes.edgecolor": "#4D4D4D", "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "figure.constrained_layout.use": True,
    "svg.fonttype": "path", "svg.hashsalt": "rankwise", "pdf.fonttype": 42, "hatch.linewidth": 0.5,
}  # fmt: skip
styled = matplotlib.rc_context(RC)  # decorates a `draw`
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
MINUS = "\N{MINUS SIGN}"
ONE_SEED = "one seed: no interval"
COLUMN = 3.4  # inches: the width of a panel, and of a paper's column
TITLE = 36  # letters that fit above such a panel
NAMED = 3  # curves that a note names; of more it gives the number


def look(method: str, labels: dict[str, str]) -> tuple[str, str]:
    """Colour and marker of a method: its place among all methods decides, so a figure never recolours one."""
    turn, place = divmod(list(labels).index(method), len(COLOURS))
    return COLOURS[place], MARKERS[turn % len(MARKERS)]


def dash(method: str, labels: dict[str, str]) -> object:
    """Line style of a method where its rank needs none: another each time that the colours are used up."""
    return DASHES[list(labels).index(method) // len(COLOURS) % len(DASHES)]


def ink(colour: str) -> tuple[float, float, float]:
    """The colour, darkened until text in it has a contrast of 4.5 on white."""
    rgb = to_rgb(colour)
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = tuple(part * 0.95 for part in rgb)
    return rgb


def _luminance(rgb: tuple[float, float, float]) -> float:
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rank_name(rank: int) -> str:
    """`r=8`, or nothing at rank 0, which is no rank."""
    return f"r={rank:.0f}" if rank else ""


def name(method: str, rank: int, labels: dict[str, str]) -> str:
    """A curve's name, as in `LoRA (q, k, v) r=8`."""
    return f"{labels[method]} {rank_name(rank)}".strip()


def ordered(frame: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Rows by method, in the order of `labels`, then by rank; otherwise as they were."""
    place = frame["method"].map({method: i for i, method in enumerate(labels)})
    return (
        frame.assign(place=place)
        .sort_values(["place", "rank"], kind="stable")
        .drop(columns="place")
    )


def groups(frame: pd.DataFrame, labels: dict[str, str]) -> dict[tuple[str, str], pd.DataFrame]:
    """Rows of each panel, ordered; the panels, (model, dataset), in the order of first appearance."""
    return {
        key: ordered(rows, labels) for key, rows in frame.groupby(["model", "dataset"], sort=False)
    }


def cells(frame: pd.DataFrame) -> str:
    """The rows' cells for a message, each once: `tiny/sst2/lora/r2, ...`."""
    found = (
        f"{row.model}/{row.dataset}/{row.method}/r{row.rank:.0f}" for row in frame.itertuples()
    )
    return ", ".join(dict.fromkeys(found))


def failed(runs: pd.DataFrame, labels: dict[str, str]) -> list[str]:
    """A line for each curve of which runs are missing, and why: `LoRA r=8: diverged, seed 0, 2`."""
    bad = runs[runs["status"] != "ok"] if "status" in runs else runs.iloc[:0]
    seeds = bad.groupby(["method", "rank", "status"], sort=False)["seed"].agg(
        lambda seed: ", ".join(f"{s:.0f}" for s in seed)
    )
    return [
        f"{name(m, rank, labels)}: {why.replace('_', ' ')}, seed {some}"
        for (m, rank, why), some in seeds.items()
    ]


def one_seed(names: list[str], curves: int) -> list[str]:
    """A line on those of `curves` curves that have one seed, called `names`, and so no interval; none if all have more."""
    if not names or len(names) == curves:
        return [ONE_SEED] * bool(names)
    return [
        f"{', '.join(names) if len(names) <= NAMED else f'{len(names)} of {curves} curves'}, {ONE_SEED}"
    ]


def unit(size_bytes: float) -> tuple[int, str]:
    """The largest binary unit that is no larger than `size_bytes`: its bytes and its name."""
    return next(both for both in UNITS if size_bytes >= both[0] or both[0] == 1)


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def panels(
    keys: Iterable[tuple[str, str]], width: float, height: float, columns: int
) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel of width x height inches a key, at most `columns` side by side."""
    keys = list(keys)
    across = min(columns, len(keys))
    down = -(-len(keys) // across)
    figure = canvas(width * across, height * down)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, key in zip(grid, keys, strict=False):
        entitle(axes, *key)
    for axes in grid[len(keys) :]:
        axes.remove()
    return figure, figure.axes


def entitle(axes: Axes, *parts: str) -> None:
    """Title a panel of a column's width with the parts that are not empty, the last on a line of its own if it must be."""
    *others, last = [part for part in parts if part]
    together = " / ".join([*others, last])
    axes.set_title(
        together if len(together) <= TITLE or not others else " / ".join(others) + f" /\n{last}"
    )


def canvas(width: float, height: float) -> Figure:
    """An empty figure, width x height inches, that can measure its texts."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, request_digests: list[str]) -> None:
    """Write PNG (200 dots an inch), SVG and PDF at `path`, each whole or not at all, with the ids of all runs in each."""
    runs = " ".join(sorted(set(map(str, request_digests))))
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(figure, path.with_suffix(".png"), {"Software": None, "Runs": runs})
    _write(
        figure,
        path.with_suffix(".svg"),
        {"Creator": None, "Date": None, "Description": f"runs: {runs}"},
    )
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    _write(
        figure, path.with_suffix(".pdf"), {**undated, "Subject": f"runs: {runs}", "Keywords": runs}
    )


@styled
def _write(figure: Figure, path: Path, metadata: dict) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(part, format=path.suffix[1:], dpi=200, metadata=metadata)
    part.replace(path)
