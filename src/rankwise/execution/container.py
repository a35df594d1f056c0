"""The image that jobs run in with `--sdm apptainer`: one reference for the whole workflow, and what is wrong with it.

No part of a request, which names the lock: a rebuilt image of the same lock reruns nothing. Standard library only.
"""

import re
from pathlib import Path

from rankwise.core import paths, settings
from rankwise.core.config import ConfigError

FILE, VARIABLE = "docker/image", "RANKWISE_IMAGE"
REMOTE = re.compile(r"(docker|oras)://[\w.-]+(:\d+)?(/[\w.-]+)+(:[\w][\w.-]*|@sha256:[0-9a-f]{64})")
ALLOWED = "a file that is there (apptainer build FILE docker/apptainer.def), or docker://HOST/NAME@sha256:DIGEST (or :TAG)"


def reference(root: Path) -> str:
    """The image, as Snakemake's `container` directive takes it: RANKWISE_IMAGE, or the line of docker/image.

    Raises:
        ConfigError: docker/image has not one line beside its comments.
    """
    given = settings.read(VARIABLE)
    if given:
        return given
    lines = (
        line.partition("#")[0].strip()
        for line in paths.find(root, FILE).read_text(encoding="utf-8").splitlines()
    )
    found = [line for line in lines if line]
    if len(found) != 1:
        raise ConfigError(FILE, "image", " ".join(found), f"one line: {ALLOWED}")
    return found[0]


def check(image: str, root: Path) -> None:
    """Refuse an image that is not there, or a name that does not say which version.

    Raises:
        ConfigError: says what is allowed.
    """
    there = REMOTE.fullmatch(image) if "://" in image else paths.find(root, image).is_file()
    if not there:
        where = (VARIABLE, "image") if settings.read(VARIABLE) else (FILE, "image")
        raise ConfigError(*where, image, ALLOWED)
