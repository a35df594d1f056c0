"""The splits and labels of a tar archive of text files, from the folders that the files lie in.

`aclImdb/train/pos/1.txt` is a text of the split train with the label pos: the folder that a file
lies in is its label, and a folder with the name of a split is its split.
"""

import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from rankwise.data.reading.bombs import check_unpacked
from rankwise.data.reading.lines import damaged

ENDING = ".txt"


def members(path: Path, split_names: dict[str, str], notes: list[str]) -> dict[str, str]:
    """Split -> pattern of the names of its files, as entries write it; its group is the label.

    Args:
        path: The archive.
        split_names: Name of a folder -> the split that it is.
        notes: Gets a sentence on folders that are no label of every split.

    Returns:
        `train` alone if no folder has the name of a split.

    Raises:
        ValueError: The archive is damaged, has no text files, or its folders are no labels.
    """
    labels_by_place: dict[tuple[str, ...], set[str]] = {}  # folders above the label -> labels
    for name in _text_files(path):
        *above, label, _ = ("", *PurePosixPath(name).parts)
        labels_by_place.setdefault(tuple(above), set()).add(label)
    places = {place: _split(place, split_names) for place in labels_by_place}
    found = sorted({split for split in places.values() if split})
    used = {place: split for place, split in places.items() if split in (found or [None])}
    if len(used) != len(set(used.values())) or (found and "train" not in found):
        shown = ", ".join(sorted("/".join(place[1:]) or "." for place in places))
        raise ValueError(
            f"{path}: got folders of labels in {shown}, allowed: one place for each split, such as "
            "train/LABEL/NAME.txt and test/LABEL/NAME.txt; or write the entry by hand (member)"
        )
    labels = set.intersection(*(labels_by_place[place] for place in used))
    left = set.union(*(labels_by_place[place] for place in used)) - labels
    if left:
        notes.append(f"not used, because not every split has it: {', '.join(sorted(left))}")
    if len(labels) < 2:
        raise ValueError(
            f"{path}: got {len(labels)} folders that could be labels in every split "
            f"({', '.join(sorted(labels)) or 'none'}), allowed: at least 2"
        )
    chosen = "|".join(re.escape(label) for label in sorted(labels))
    return {
        split or "train": "/".join([*map(re.escape, place[1:]), f"({chosen})", r".*\.txt"])
        for place, split in used.items()
    }


def _split(place: tuple[str, ...], split_names: dict[str, str]) -> str | None:
    """The split that the last folder above the labels is; None if it is no split's name."""
    return split_names.get(place[-1].lower()) if place else None


def _text_files(path: Path) -> list[str]:
    """The names of the text files of an archive."""
    try:
        with tarfile.open(path) as archive:
            files = []
            unpacked = 0
            for member in archive:
                unpacked += member.size
                check_unpacked(path, unpacked)
                if member.isreg():
                    files.append(member.name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(damaged(path, "tar archive", error)) from None
    names = [name for name in files if name.endswith(ENDING)]
    if not names:
        raise ValueError(f"{path}: got no file that ends in {ENDING}, allowed: one a text")
    return names
