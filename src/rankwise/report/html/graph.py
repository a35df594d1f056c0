"""The study's rules as a picture.

Each box is a rule with its number of jobs. A line leads from a rule to each rule that reads its
output.
"""

import html
import itertools

from rankwise.core.words import counted

BOX_WIDTH, BOX_HEIGHT = 132, 42
ROW, COLUMN = 58, 176  # distances of rows and of columns
AROUND = 6
Edge = tuple[str, str]  # a rule, and a rule that reads its output
Point = tuple[float, float]


def picture(jobs: dict[str, int], edges: list[Edge]) -> str:
    """An inline SVG of rules and edges; its colours are set by the page."""
    columns, steps = lanes(reduced(edges), layers(list(jobs), edges))
    heights = _heights(columns, steps)
    corners = {}
    for name, column in columns.items():
        corners[name] = (AROUND + column * COLUMN, AROUND + heights[name] * ROW)
    width = max(columns.values()) * COLUMN + BOX_WIDTH + 2 * AROUND
    height = max(heights.values()) * ROW + BOX_HEIGHT + 2 * AROUND
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    parts = [f'<svg {size} role="img" aria-labelledby="graph-title">']
    title = "The rules that build this page and their jobs; the table below says the same"
    parts.append(f'<title id="graph-title">{title}</title>')
    for start, end in steps:
        parts.append(_line(corners[start], corners[end], end in jobs))
    for rule, count in jobs.items():
        parts.append(_box(rule, count, corners[rule]))
    return "".join([*parts, "</svg>"])


# Layout ----------------------------------------------------------------------------------------


def layers(rules: list[str], edges: list[Edge]) -> dict[str, int]:
    """The column of each rule, from 0: right before the first rule that reads its output."""
    distances: dict[str, int] = {}  # the longest way to a rule that nothing reads

    def distance(rule: str) -> int:
        if rule not in distances:
            readers = [reader for source, reader in edges if source == rule]
            distances[rule] = 1 + max(map(distance, readers), default=-1)
        return distances[rule]

    last = max(distance(rule) for rule in rules)
    return {rule: last - distance(rule) for rule in rules}


def reduced(edges: list[Edge]) -> list[Edge]:
    """The edges that no longer way replaces (the transitive reduction)."""
    reached_from: dict[str, set[str]] = {}

    def reach(rule: str) -> set[str]:
        if rule not in reached_from:
            reached: set[str] = set()
            for source, reader in edges:
                if source == rule:
                    reached |= {reader} | reach(reader)
            reached_from[rule] = reached
        return reached_from[rule]

    def has_longer_way(edge: Edge) -> bool:
        source, reader = edge
        others = (middle for start, middle in edges if start == source)
        return any(reader in reach(middle) for middle in others)

    return [edge for edge in edges if not has_longer_way(edge)]


def lanes(edges: list[Edge], columns: dict[str, int]) -> tuple[dict[str, int], list[Edge]]:
    """Add a lane to every column that a line passes, so that it crosses no box.

    Returns:
        The columns of rules and lanes (a lane is called `*rule*column`), and the edges, which lead
        through the lanes. Lines from one rule share its lanes.
    """
    columns = dict(columns)
    steps: dict[Edge, None] = {}
    for source, reader in edges:
        way = [source]
        for column in range(columns[source] + 1, columns[reader]):
            lane = f"*{source}*{column}"
            columns[lane] = column
            way.append(lane)
        way.append(reader)
        steps |= dict.fromkeys(itertools.pairwise(way))
    return columns, list(steps)


def _heights(columns: dict[str, int], steps: list[Edge]) -> dict[str, float]:
    """The row of each box and lane.

    Each column is centred. It is ordered by the mean row of what its members read, which keeps
    crossings few (the barycentre method of Sugiyama, Tagawa and Toda 1981); ties by name.
    """
    members: dict[int, list[str]] = {}
    for name, column in columns.items():
        members.setdefault(column, []).append(name)
    tallest = max(map(len, members.values()))
    heights: dict[str, float] = {}

    def order(name: str) -> tuple:
        rows = [heights[source] for source, reader in steps if reader == name]
        mean = sum(rows) / len(rows) if rows else tallest / 2
        return mean, name.startswith("*"), name

    for column in sorted(members):
        names = sorted(members[column], key=order)
        top = (tallest - len(names)) / 2
        heights |= {name: top + place for place, name in enumerate(names)}
    return heights


# Drawing ---------------------------------------------------------------------------------------


def _line(start: Point, end: Point, ends_at_box: bool) -> str:
    """A line from a box or lane to the next; a lane is crossed at its whole width."""
    x, y = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
    to_x, to_y = end[0], end[1] + BOX_HEIGHT / 2
    middle = (x + to_x) / 2
    curve = f"M{x:g},{y:g}C{middle:g},{y:g} {middle:g},{to_y:g} {to_x:g},{to_y:g}"
    through = "" if ends_at_box else f"h{BOX_WIDTH}"
    return f'<path class="edge" d="{curve}{through}"/>'


def _box(rule: str, count: int, corner: Point) -> str:
    x, y = corner
    middle = x + BOX_WIDTH / 2
    jobs = counted(count, "job")
    size = f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
    return (
        f'<rect class="box" x="{x:g}" y="{y:g}" {size} rx="6"/>'
        f'<text class="rule" x="{middle:g}" y="{y + 18:g}">{html.escape(rule)}</text>'
        f'<text class="jobs" x="{middle:g}" y="{y + 33:g}">{jobs}</text>'
    )
