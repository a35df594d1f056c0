"""The study's rules as a picture: a box a rule with its number of jobs, a line where one reads what another makes."""

import html
import itertools

BOX, ROW, COLUMN = (132, 42), 58, 176  # a box's width and height; distances of rows and columns
AROUND = 6


def layers(rules: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Each rule's column, the first 0: right before the first of what reads it."""
    readers = {rule: [other for one, other in edges if one == rule] for rule in rules}
    found: dict[str, int] = {}

    def ahead(rule: str) -> int:
        if rule not in found:
            found[rule] = 1 + max((ahead(one) for one in readers[rule]), default=-1)
        return found[rule]

    last = max(ahead(rule) for rule in rules)
    return {rule: last - found[rule] for rule in rules}


def reduced(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges without those that a longer way also makes."""
    after: dict[str, set[str]] = {}

    def reach(rule: str) -> set[str]:
        if rule not in after:
            after[rule] = set().union(
                *({other} | reach(other) for one, other in edges if one == rule)
            )
        return after[rule]

    return [
        (one, other)
        for one, other in edges
        if not any(other in reach(middle) for start, middle in edges if start == one)
    ]


def lanes(
    edges: list[tuple[str, str]], columns: dict[str, int]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Columns and edges with a lane (`*rule*2`) in every column that a line passes, so that it crosses no box."""
    columns, steps = dict(columns), {}
    for one, other in edges:
        passed = [f"*{one}*{column}" for column in range(columns[one] + 1, columns[other])]
        columns |= {name: int(name.rpartition("*")[2]) for name in passed}
        way = [one, *passed, other]
        steps |= dict.fromkeys(itertools.pairwise(way))
    return columns, list(steps)


def picture(jobs: dict[str, int], edges: list[tuple[str, str]]) -> str:
    """An inline SVG; its colours are the page's."""
    columns, steps = lanes(reduced(edges), layers(list(jobs), edges))
    heights = _heights(columns, steps)
    places = {
        name: (AROUND + columns[name] * COLUMN, AROUND + heights[name] * ROW) for name in columns
    }
    width = max(columns.values()) * COLUMN + BOX[0] + 2 * AROUND
    height = max(heights.values()) * ROW + BOX[1] + 2 * AROUND
    lines = [_line(places[one], places[other], other.startswith("*")) for one, other in steps]
    boxes = [_box(rule, count, places[rule]) for rule, count in jobs.items()]
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    head = f'<svg {size} role="img" aria-labelledby="graph-title">'
    title = '<title id="graph-title">The rules that build this page and their jobs; the table below says the same</title>'
    return "".join([head, title, *lines, *boxes, "</svg>"])


def _heights(columns: dict[str, int], steps: list[tuple[str, str]]) -> dict[str, float]:
    """Each box's and lane's row: a column is centred, and ordered as what it reads, or else by name."""
    tallest = max(list(columns.values()).count(column) for column in columns.values())
    found: dict[str, float] = {}
    for column in sorted(set(columns.values())):
        before = {
            name: [found[one] for one, other in steps if other == name]
            for name in columns
            if columns[name] == column
        }
        mean = {
            name: sum(rows) / len(rows) if rows else tallest / 2 for name, rows in before.items()
        }
        order = sorted(before, key=lambda name: (mean[name], name.startswith("*"), name))
        found |= {name: place + (tallest - len(order)) / 2 for place, name in enumerate(order)}
    return found


def _line(start: tuple[float, float], end: tuple[float, float], passes: bool) -> str:
    """From a box or lane to the next; a lane is passed at its whole width."""
    x, y, to_x, to_y = start[0] + BOX[0], start[1] + BOX[1] / 2, end[0], end[1] + BOX[1] / 2
    middle = (x + to_x) / 2
    through = f"h{BOX[0]}" if passes else ""
    return f'<path class="edge" d="M{x:g},{y:g}C{middle:g},{y:g} {middle:g},{to_y:g} {to_x:g},{to_y:g}{through}"/>'


def _box(rule: str, count: int, place: tuple[float, float]) -> str:
    x, y = place
    middle, jobs = x + BOX[0] / 2, f"{count:,} job{'s' * (count != 1)}"
    return (
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
        f'<text class="rule" x="{middle:g}" y="{y + 18:g}">{html.escape(rule)}</text>'
        f'<text class="jobs" x="{middle:g}" y="{y + 33:g}">{jobs}</text>'
    )
