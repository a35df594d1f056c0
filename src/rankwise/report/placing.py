"""Labels beside what they name, without overlap. Deterministic: no random starts."""

import itertools
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

RADII = (7, 11, 17, 24, 32, 42, 54)  # points between a dot and its label
ANGLES = tuple(2 * math.pi * i / 16 for i in range(16))
SWEEPS = 3


def spread(wanted: list[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions at least `gap` apart that stay in order and move least (pool adjacent violators).

    They lie between `low` and `high`, or reach beyond `high` where there is no room for all.
    """
    order = np.argsort(wanted, kind="stable")
    pools: list[list[float]] = []  # mean, count
    for i, value in enumerate(np.asarray(wanted, dtype=float)[order]):
        pools.append([value - i * gap, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (one, n), (other, m) = pools.pop(-2), pools.pop()
            pools.append([(one * n + other * m) / (n + m), n + m])
    level = np.repeat([mean for mean, _ in pools], [int(count) for _, count in pools])
    found = np.empty(len(wanted))
    level = np.maximum(np.minimum(level, high - gap * (len(wanted) - 1)), low)
    found[order] = level + gap * np.arange(len(wanted))
    return found


def place(
    axes: Axes, marks: list[tuple[float, float, str, object]], avoid: list[tuple[float, float]]
) -> None:
    """Label marks, each (x, y, text, colour) in display pixels, near their dots, inside the axes and off the points `avoid`.

    A label that had to move away has a thin line to its dot. Call it when the layout is final.
    """
    scale = axes.figure.dpi / 72
    dots = [(x, y) for x, y, _, _ in marks]
    labels = [_annotation(axes, *mark) for mark in marks]
    obstacles = np.array([*dots, *avoid]).reshape(-1, 2)
    chosen: list[Bbox | None] = [None] * len(marks)
    for _, i in itertools.product(
        range(SWEEPS), sorted(range(len(marks)), key=lambda k: (-dots[k][1], dots[k][0]))
    ):
        size = Text.get_window_extent(labels[i])  # an annotation's own adds its line
        options = [
            _option(dots[i], size, radius * scale, angle) for radius in RADII for angle in ANGLES
        ]
        rivals = dots[:i] + dots[i + 1 :]
        others = [one for k, one in enumerate(chosen) if one and k != i]
        chosen[i] = min(
            options,
            key=lambda one: _cost(one, dots[i], rivals, others, obstacles, axes.bbox, scale),
        )
    for label, box, (x, y) in zip(labels, chosen, dots, strict=True):
        label.set_position(((box.x0 - x) / scale, (box.y0 - y) / scale))
        label.arrow_patch.set_visible(_reach(box, (x, y)) > 8 * scale)


def _annotation(axes: Axes, x: float, y: float, text: str, colour: object) -> Annotation:
    arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    at = axes.transData.inverted().transform((x, y))
    where = {"textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    label = axes.annotate(text, at, (0, 0), color=colour, arrowprops=arrow, **where)
    label.set_in_layout(False)
    return label


def _option(dot: tuple[float, float], size: Bbox, radius: float, angle: float) -> Bbox:
    """The label's box whose nearest point lies `radius` from the dot in the direction `angle`."""
    x, y = dot[0] + radius * math.cos(angle), dot[1] + radius * math.sin(angle)
    left = x - size.width * (1 - math.cos(angle)) / 2
    bottom = y - size.height * (1 - math.sin(angle)) / 2
    return Bbox.from_bounds(left, bottom, size.width, size.height)


def _nearest(box: Bbox, dot: tuple[float, float]) -> tuple[float, float]:
    return min(max(dot[0], box.x0), box.x1), min(max(dot[1], box.y0), box.y1)


def _reach(box: Bbox, dot: tuple[float, float]) -> float:
    return math.dist(_nearest(box, dot), dot)


def _cost(
    box: Bbox,
    dot: tuple,
    rivals: list[tuple],
    others: list[Bbox],
    dots: np.ndarray,
    inside: Bbox,
    scale: float,
) -> float:
    """Points to the dot, and much more for a label (or its line) on a label, on a dot, outside the axes or near a rival."""
    around = box.padded(4 * scale)
    hits = (dots > around.min).all(axis=1) & (dots < around.max).all(axis=1)
    outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    left = 2 * (box.x0 <= dot[0])
    line = Path([dot, _nearest(box, dot)])
    crossed = sum(line.intersects_bbox(other) for other in others)
    unclear = any(_reach(box, other) < 2 * _reach(box, dot) for other in rivals)
    return (
        _reach(box, dot) / scale
        + left
        + 25 * unclear
        + 300 * outside
        + 60 * hits.sum()
        + 200 * box.padded(1.5 * scale).count_overlaps(others)
        + 50 * crossed
    )


def name_ends(figure: Figure, panels: list[Axes], ends: list[list[tuple]]) -> None:
    """Each curve's name right of its panel at the height (y, name, colour) of its end, moved apart where they would overlap."""
    texts = [
        [axes.annotate(text, (1, y), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", color=colour,
                       va="center", annotation_clip=False) for y, text, colour in lines]
        for axes, lines in zip(panels, ends, strict=True)
    ]  # fmt: skip
    figure.draw_without_rendering()
    for axes, lines, found in zip(panels, ends, texts, strict=True):
        points = 72 / figure.dpi
        wanted = [axes.transData.transform((1, y))[1] * points for y, _, _ in lines]
        positions = spread(wanted, 9.5, axes.bbox.y0 * points + 3, axes.bbox.y1 * points - 4)
        for text, old, new in zip(found, wanted, positions, strict=True):
            text.set_position((8, new - old))
            arrow = {
                "arrowstyle": "-",
                "color": text.get_color(),
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 0,
            }
            where = {
                "xycoords": axes.get_yaxis_transform(),
                "textcoords": "offset points",
                "annotation_clip": False,
            }
            axes.annotate("", (1, text.xy[1]), (7, new - old), arrowprops=arrow, **where)
