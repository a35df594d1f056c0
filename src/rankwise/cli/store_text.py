"""The terminal text of `rankwise store` and `rankwise clean`."""

from collections.abc import Iterable

from rankwise.core.units import GIB, KIB, MIB
from rankwise.core.words import counted

MOST_SHOWN = 20  # places or files that a question lists one by one
NO_STUDY = "no study"


def size(size_bytes: int) -> str:
    """A size with three digits: `3.42 MiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return counted(size_bytes, "byte")


def listing(answer: dict) -> str:
    """A line for each result: place, status, size, studies."""
    lines = []
    for folder in answer["stores"]:
        results = folder["results"]
        total = sum(result["bytes"] for result in results)
        lines.append(f"{_named(folder)}: {counted(len(results), 'result')}, {size(total)}")
        rows = [
            [
                result["place"],
                result["status"],
                size(result["bytes"]),
                ", ".join(result["studies"]) or NO_STUDY,
            ]
            for result in results
        ]
        lines += _aligned(rows)
    return "\n".join([*lines, *_unknown(answer)])


def sizes(answer: dict) -> str:
    """A line for each kind of content, and the total."""
    lines = []
    for folder in answer["stores"]:
        kinds = folder["kinds"]
        rows = [_size_row(kind["kind"], kind) for kind in kinds]
        names = ("count", "bytes", "unplanned_count", "unplanned_bytes")
        total = {name: sum(kind[name] for kind in kinds) for name in names}
        lines += [_named(folder), *_aligned([*rows, _size_row("total", total)])]
    return "\n".join([*lines, *_unknown(answer)])


def _size_row(name: str, counts: dict) -> list[str]:
    unplanned = f"{counts['unplanned_count']:,}, {size(counts['unplanned_bytes'])}"
    return [
        name,
        f"{counts['count']:,}",
        size(counts["bytes"]),
        f"of {NO_STUDY}: {unplanned}" if counts["unplanned_count"] else "",
    ]


def verified(answer: dict) -> str:
    """A line for each store, and one for each thing that is wrong."""
    lines = []
    for store in answer["stores"]:
        problems = store["problems"]
        verdict = counted(len(problems), "problem") if problems else "all as they must be"
        lines.append(f"{store['folder']}: {counted(store['results'], 'result')}, {verdict}")
        lines += [f"  {problem}" for problem in problems]
    return "\n".join(lines)


def removed(answer: dict) -> str:
    """The results removed from a store, and the results left there."""
    count = counted(len(answer["removed"]), "folder")
    return "\n".join([f"{count} removed, {size(answer['removed_bytes'])}", *answer["busy"]])


def shortened(lines: Iterable[str]) -> list[str]:
    """The first lines of a list, and how many more there are."""
    every = list(lines)
    if len(every) <= MOST_SHOWN:
        return every
    return [*every[:MOST_SHOWN], f"and {len(every) - MOST_SHOWN:,} more"]


def _named(folder: dict) -> str:
    return f"{folder['folder']} (read only)" if folder["read_only"] else folder["folder"]


def _unknown(answer: dict) -> list[str]:
    """Studies that could not be read: their results stand among those of no study."""
    return [
        f"note: {file}: nothing says which results it plans: {problem}"
        for file, problem in answer["unknown"].items()
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells).rstrip()}")
    return lines
