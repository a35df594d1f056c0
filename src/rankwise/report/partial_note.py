"""The note on a figure of a study some of whose results are absent."""

import textwrap

from matplotlib.figure import Figure

from rankwise.study import partial

FONT_POINTS = 6.5
LINE_INCHES = 1.25 * FONT_POINTS / 72
MARGIN_INCHES = 0.06
LETTERS_PER_INCH = 19  # of DejaVu Sans at this size, with room to spare
INK = "#A33A00"  # has contrast 6.6 with white


def add(figure: Figure, request: dict) -> None:
    """Write what is absent above the panels, if something is. The panels keep their size.

    The note stands above, since legends and shared labels already stand below.

    Args:
        figure: A figure with constrained layout.
        request: Of the figure; it has `absent` if results are absent.
    """
    if "absent" not in request:
        return
    width, height = figure.get_size_inches()
    lines = []
    for sentence in partial.sentences(request["absent"]):
        lines += textwrap.wrap(sentence, round(width * LETTERS_PER_INCH))
    added = len(lines) * LINE_INCHES + 2 * MARGIN_INCHES
    total = height + added
    reserved = _lower_title(figure, height / total, total)
    figure.set_size_inches(width, total)
    figure.get_layout_engine().set(rect=(0, 0, 1, (height - reserved) / total))
    figure.text(
        MARGIN_INCHES / width,
        1 - MARGIN_INCHES / total,
        "\n".join(lines),
        fontsize=FONT_POINTS,
        color=INK,
        va="top",
        linespacing=1.25,
    ).set_in_layout(False)


def _lower_title(figure: Figure, top: float, total: float) -> float:
    """Move the title of a figure, which stands at its upper edge, to a lower one.

    The layout makes room for a title that it places itself only.

    Args:
        figure: The figure; it may have no title.
        top: The edge, as a share of the figure's new height.
        total: The figure's new height in inches.

    Returns:
        The height in inches that the title needs.
    """
    for text in figure.texts:
        if text.get_text() == figure.get_suptitle() != "":
            pad = figure.get_layout_engine().get()["h_pad"]
            needed = text.get_window_extent().height / figure.dpi + 2 * pad
            figure.suptitle(
                text.get_text(),
                x=text.get_position()[0],
                y=top - pad / total,
                ha=text.get_ha(),
                fontsize=text.get_fontsize(),
                fontweight=text.get_fontweight(),
            )
            return needed
    return 0
