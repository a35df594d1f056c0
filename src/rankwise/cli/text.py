"""Text for a terminal that several commands print."""


def aligned(markdown: str) -> str:
    """A Markdown table with its columns lined up for a terminal.

    Args:
        markdown: Its second line says which columns are aligned to the right. A row with fewer
            cells ends with a sentence, which widens no column.
    """
    rows = []
    for line in markdown.splitlines():
        rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    numeric = [cell.endswith(":") for cell in rows.pop(1)]
    widths = [0] * len(numeric)
    for row in rows:
        for column, cell in enumerate(_in_columns(row, numeric)):
            widths[column] = max(widths[column], len(cell))
    lines = []
    for row in rows:
        cells = zip(_in_columns(row, numeric), widths, numeric, strict=False)
        padded = [cell.rjust(n) if right else cell.ljust(n) for cell, n, right in cells]
        lines.append("  ".join([*padded, *row[len(padded) :]]).rstrip())
    return "\n".join(lines)


def _in_columns(row: list[str], columns: list[bool]) -> list[str]:
    """The cells of a row without the sentence that ends a short one."""
    return row[:-1] if len(row) < len(columns) else row
