"""Archives that unpack to far more than their own size are refused before they fill the memory.

Texts compress to about a tenth, very even ones to a fiftieth; a bomb of zeros to a thousandth (the
most that deflate can do is 1,032) or less.
"""

from pathlib import Path

MOST_RATIO = 200  # of unpacked to packed bytes
FREE_BYTES = 64 << 20  # so many may unpack from anything


def check_unpacked(path: Path, unpacked: int) -> None:
    """Refuse an archive that has unpacked, or says that it would unpack, to too many bytes.

    Args:
        path: The packed file.
        unpacked: Bytes so far.

    Raises:
        ValueError: They are more than `FREE_BYTES`, and more than `MOST_RATIO` times the file's.
    """
    packed = path.stat().st_size
    if unpacked > max(FREE_BYTES, MOST_RATIO * packed):
        raise ValueError(
            f"{path}: got {packed:,} bytes that unpack to {unpacked:,} or more, allowed: at most "
            f"{MOST_RATIO} times as many, as texts have; if you trust the file, unpack it yourself"
        )
