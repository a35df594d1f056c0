"""Colours, markers and line styles: each colour means one thing in all figures and on the page.

Methods, kinds of memory, phases, verdicts on pairs and verdicts on claims have palettes that share
no colour. Within a palette, colours stay apart for readers with deuteranopia, protanopia or
tritanopia; the tests simulate them. Sources: Okabe and Ito, Color Universal Design, 2008 (methods,
without the yellow, which is too pale on white paper, and with a darker grey); Tol, Colour Schemes,
2021, scheme "muted" (memory).
"""

# Methods, in the order of their entries; the next marker is used when the colours are used up.
METHODS = ("#5C5C5C", "#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
# A tuple is (corners, 1 for a star, degrees).
MARKERS = (*"osD^vPX<>ph*", (5, 1, 180), (5, 0, 180), (8, 1, 0), (7, 0, 0), (3, 1, 180), (12, 1, 0))
# Markers of variants: no method has them.
VARIANT_MARKERS = ("d", (4, 1, 0), (3, 1, 0), (6, 1, 0), "8", "H")
# Line styles from the fullest line to the thinnest: (offset, (points on, off, ...)).
DASHES = (
    "-",
    (0, (6, 1.2)),
    (0, (3, 1.2)),
    (0, (1, 1)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1, 2.5)),
)
# Kinds of memory, by their column.
MEMORY = {
    "weights_bytes": "#332288",
    "quantization_bytes": "#AA4499",
    "buffers_bytes": "#999933",
    "inputs_bytes": "#DDDDDD",
    "gradients_bytes": "#DDCC77",
    "optimizer_state_bytes": "#882255",
    "projection_bytes": "#CC6677",
    "activations_bytes": "#117733",
    "temporary_bytes": "#44AA99",
    "cublas_workspace_bytes": "#661100",
    "rounding_bytes": "#88CCEE",
}
# Phases of an update.
PHASES = {
    "forward": "#BBCC33",
    "backward": "#225555",
    "optimizer": "#AA3377",
    "refresh": "#FFAABB",
}
# Verdicts on a pair of curves that are not told apart.
PAIRS = {"tied": "#3F2A56", "undecided": "#C9B8D9"}
# Verdicts on published numbers.
CLAIMS = {
    "reproduced": "#31688E",
    "corrected": "#D4B94E",
    "not reproduced": "#8C2D04",
    "not comparable": "#B5B5B5",
}
SAMPLE = "#969696"  # a legend's samples of a shape that every method can have
GUIDE = "#D9D9D9"  # separators and reference bands
FRONT = "#CFCFCF"  # Pareto fronts
SIZES = "cividis"  # matplotlib's map for ordered quantities, such as memory sizes
