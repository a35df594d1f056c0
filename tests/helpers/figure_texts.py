"""The texts of a figure, and texts that overlap."""

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> str:
    """All visible texts, one in a line."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap by more than a point, and texts beyond the figure's edges."""
    figure.draw_without_rendering()
    hidden = _hidden_ticks(figure)
    boxes = []
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible() and text not in hidden:
            boxes.append((text.get_text(), Text.get_window_extent(text)))
    point = figure.dpi / 72
    pairs = []
    for (name, box), (other_name, other_box) in itertools.combinations(boxes, 2):
        if name != other_name and box.padded(-point).overlaps(other_box.padded(-point)):
            pairs.append((name, other_name))
    edges = figure.bbox.padded(2 * point)
    for name, box in boxes:
        if box.x0 < edges.x0 or box.x1 > edges.x1 or box.y0 < edges.y0:
            pairs.append((name, "edge"))
    return pairs


def _hidden_ticks(figure: Figure) -> set[Text]:
    """Labels of ticks beyond the limits of their axis: matplotlib keeps them and draws none."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    return hidden
