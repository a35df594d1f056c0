"""Place labels beside what they name, without overlap.

The placement is deterministic: there are no random starts.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

RADII = (7, 11, 17, 24, 32, 42, 54, 70, 90)  # points between a dot and its label
ANGLES = tuple(2 * math.pi * i / 16 for i in range(16))
SWEEPS = 3
LINE_HEIGHT = 9.5  # points between the names of two curves
Point = tuple[float, float]


class CurveEnd(NamedTuple):
    """The end of a curve at the right edge of its panel: height in data units, name, colour."""

    y: float
    name: str
    colour: object


class Mark(NamedTuple):
    """A dot to label: its place in display pixels, the text and its colour."""

    x: float
    y: float
    text: str
    colour: object


# Names at the ends of curves -------------------------------------------------------------------


def spread(wanted: list[float], gap: float, low: float, high: float) -> np.ndarray:
    """Move positions apart until any two are at least `gap` apart; they keep their order.

    The sum of squared moves is least. This is isotonic regression on the positions less their
    multiples of `gap`, solved by pooling adjacent violators (Ayer et al. 1955).

    Returns:
        (n,) positions between `low` and `high`, or beyond `high` if there is no room for all.
    """
    order = np.argsort(wanted, kind="stable")
    pools: list[tuple[float, int]] = []  # mean, count
    for place, value in enumerate(np.asarray(wanted, dtype=float)[order]):
        pools.append((value - place * gap, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (mean, count), (next_mean, next_count) = pools.pop(-2), pools.pop()
            total = count + next_count
            pools.append(((mean * count + next_mean * next_count) / total, total))
    level = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    level = np.maximum(np.minimum(level, high - gap * (len(wanted) - 1)), low)
    positions = np.empty(len(wanted))
    positions[order] = level + gap * np.arange(len(wanted))
    return positions


def panel_height(names: int, least: float) -> float:
    """Inches of a panel in which so many names have room at the ends of curves, or `least`.

    A title, an axis and a few notes take about 1.2 inches of it.
    """
    return max(least, names * LINE_HEIGHT / 72 + 1.2)


def name_ends(figure: Figure, panels: list[Axes], ends: list[list[CurveEnd]]) -> None:
    """Write each curve's name right of its panel, at the height of its end.

    Names that would overlap are moved apart; a thin line leads from each end to its name.
    """
    texts = []
    for axes, panel_ends in zip(panels, ends, strict=True):
        texts.append([_end_text(axes, end) for end in panel_ends])
    # The layout, and with it the height of each end in pixels, is known only once it is drawn.
    figure.draw_without_rendering()
    for axes, panel_ends, panel_texts in zip(panels, ends, texts, strict=True):
        _spread_ends(axes, panel_ends, panel_texts, 72 / figure.dpi)


def _end_text(axes: Axes, end: CurveEnd) -> Annotation:
    return axes.annotate(
        end.name,
        (1, end.y),
        (8, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        color=end.colour,
        va="center",
        annotation_clip=False,
    )


def _spread_ends(
    axes: Axes, ends: list[CurveEnd], texts: list[Annotation], points_per_pixel: float
) -> None:
    wanted = [axes.transData.transform((1, end.y))[1] * points_per_pixel for end in ends]
    low, high = axes.bbox.y0 * points_per_pixel + 3, axes.bbox.y1 * points_per_pixel - 4
    positions = spread(wanted, LINE_HEIGHT, low, high)
    for text, before, after in zip(texts, wanted, positions, strict=True):
        text.set_position((8, after - before))
        arrow = {
            "arrowstyle": "-",
            "color": text.get_color(),
            "linewidth": 0.5,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate(
            "",
            (1, text.xy[1]),
            (7, after - before),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            arrowprops=arrow,
            annotation_clip=False,
        )


# Labels beside dots ----------------------------------------------------------------------------


def place_labels(axes: Axes, marks: list[Mark], avoid: list[Point]) -> None:
    """Label marks near their dots, inside the axes and away from other dots and labels.

    A label that had to move away gets a thin line to its dot. Call it when the layout is final.

    Each sweep visits the marks from the top down and moves each label to its cheapest place,
    given where the other labels are.

    Args:
        axes: the panel.
        marks: what to label.
        avoid: further points, in display pixels, that no label should cover.
    """
    pixels_per_point = axes.figure.dpi / 72
    dots = [(mark.x, mark.y) for mark in marks]
    labels = [_annotation(axes, mark) for mark in marks]
    obstacles = np.array([*dots, *avoid]).reshape(-1, 2)
    boxes: list[Bbox | None] = [None] * len(marks)
    from_the_top = sorted(range(len(marks)), key=lambda i: (-dots[i][1], dots[i][0]))
    for _, i in itertools.product(range(SWEEPS), from_the_top):
        boxes[i] = _cheapest(axes, i, labels, dots, boxes, obstacles, pixels_per_point)
    for label, box, dot in zip(labels, boxes, dots, strict=True):
        offset = (box.x0 - dot[0]) / pixels_per_point, (box.y0 - dot[1]) / pixels_per_point
        label.set_position(offset)
        label.arrow_patch.set_visible(_distance(box, dot) > 8 * pixels_per_point)


def _annotation(axes: Axes, mark: Mark) -> Annotation:
    line = {
        "arrowstyle": "-",
        "color": mark.colour,
        "linewidth": 0.5,
        "shrinkA": 0,
        "shrinkB": 2,
    }
    label = axes.annotate(
        mark.text,
        axes.transData.inverted().transform((mark.x, mark.y)),
        (0, 0),
        color=mark.colour,
        arrowprops=line,
        textcoords="offset points",
        va="bottom",
        annotation_clip=False,
    )
    label.set_in_layout(False)  # a label must not change the layout that its place depends on
    return label


def _cheapest(
    axes: Axes,
    i: int,
    labels: list[Annotation],
    dots: list[Point],
    boxes: list[Bbox | None],
    obstacles: np.ndarray,  # (n, 2) pixels
    pixels_per_point: float,
) -> Bbox:
    """The box of label `i` that costs least, given the boxes of the other labels."""
    size = Text.get_window_extent(labels[i])  # Annotation's own method would include the line
    other_dots = dots[:i] + dots[i + 1 :]
    other_boxes = [box for k, box in enumerate(boxes) if box and k != i]

    def cost(box: Bbox) -> float:
        return _cost(box, dots[i], other_dots, other_boxes, obstacles, axes.bbox, pixels_per_point)

    options = []
    for radius, angle in itertools.product(RADII, ANGLES):
        options.append(_box_at(dots[i], size, radius * pixels_per_point, angle))
    return min(options, key=cost)


def _box_at(dot: Point, size: Bbox, radius: float, angle: float) -> Bbox:
    """The label's box whose nearest point is `radius` away from the dot in direction `angle`."""
    x, y = dot[0] + radius * math.cos(angle), dot[1] + radius * math.sin(angle)
    left = x - size.width * (1 - math.cos(angle)) / 2
    bottom = y - size.height * (1 - math.sin(angle)) / 2
    return Bbox.from_bounds(left, bottom, size.width, size.height)


def _nearest(box: Bbox, dot: Point) -> Point:
    return min(max(dot[0], box.x0), box.x1), min(max(dot[1], box.y0), box.y1)


def _distance(box: Bbox, dot: Point) -> float:
    return math.dist(_nearest(box, dot), dot)


def _cost(
    box: Bbox,
    dot: Point,
    other_dots: list[Point],
    other_boxes: list[Bbox],
    obstacles: np.ndarray,  # (n, 2) pixels
    panel: Bbox,
    pixels_per_point: float,
) -> float:
    """Cost of a place: points to the dot, and a large addition for each conflict.

    The weights order the conflicts: outside the panel is worst, then on a label, on a dot, a line
    through a label, nearer to another dot. Right of the dot is preferred a little.
    """
    padded = box.padded(4 * pixels_per_point)
    covers = (obstacles > padded.min).all(axis=1) & (obstacles < padded.max).all(axis=1)
    is_outside = box.x0 < panel.x0 or box.x1 > panel.x1 or box.y0 < panel.y0 or box.y1 > panel.y1
    line = Path([dot, _nearest(box, dot)])
    crossed = sum(line.intersects_bbox(other) for other in other_boxes)
    distance = _distance(box, dot)
    is_unclear = any(_distance(box, other) < 2 * distance for other in other_dots)
    overlaps = box.padded(1.5 * pixels_per_point).count_overlaps(other_boxes)
    return (
        distance / pixels_per_point
        + 2 * (box.x0 <= dot[0])
        + 25 * is_unclear
        + 1200 * is_outside
        + 60 * covers.sum()
        + 1000 * overlaps
        + 50 * crossed
    )
