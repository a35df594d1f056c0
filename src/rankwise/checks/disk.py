"""Where the results of a project are written, through links: the disk to look at.

`results` may be a link to another disk, and RANKWISE_STORE may name a folder on a third one.
Standard library only.
"""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from rankwise.core import paths, store
from rankwise.core.units import GIB


def written_folders(root: Path) -> list[Path]:
    """The folders of a project that jobs write to; of one that is not there yet, its parent.

    Args:
        root: The project's folder.
    """
    folders = [root, root / paths.RESULTS, _store(root)]
    return list(dict.fromkeys(_existing(folder) for folder in folders))


def results_folder(root: Path) -> Path:
    """The folder whose disk gets the results; the nearest parent that exists if it does not."""
    return _existing(_store(root))


def free_gib(root: Path) -> float:
    """Free space on the disk that gets the results."""
    return shutil.disk_usage(results_folder(root)).free / GIB


def broken_links(root: Path) -> list[str]:
    """A sentence for each link on the way to the results that leads nowhere."""
    sentences = []
    for folder in (root / paths.RESULTS, _store(root)):
        for part in (folder, *folder.parents):
            if part.is_symlink() and not part.exists():
                sentences.append(
                    f"{part}: got a link to {part.readlink()}, which is not there, allowed: a "
                    "link to a folder; mount its disk, or make the folder"
                )
    return list(dict.fromkeys(sentences))


def read_only(files: Iterable[Path]) -> list[str]:
    """A sentence for each folder on a read-only disk that files are to be written to.

    Snakemake removes a file before the job that writes it, and ends with an error of its own there.
    """
    folders = dict.fromkeys(file.parent for file in files)
    return [
        f"{folder}: {os.strerror(errno.EROFS)}; allowed: a folder that can be written"
        for folder in folders
        if os.statvfs(_existing(folder)).f_flag & os.ST_RDONLY
    ]


def _store(root: Path) -> Path:
    """The folder of results that this process writes to."""
    return store.folders(root)[0]


def _existing(folder: Path) -> Path:
    """A folder, or its nearest parent that exists."""
    return next(part for part in (folder, *folder.parents) if part.exists())
