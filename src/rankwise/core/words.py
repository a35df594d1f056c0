"""Words of numbers in texts."""


def counted(count: int, noun: str) -> str:
    """`1 result`, `2 results`.

    Args:
        count: How many there are.
        noun: The word for one, which takes an s for more.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
