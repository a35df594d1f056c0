"""The container image of `--sdm apptainer`: one for the whole workflow.

The image is no part of a request, which names the lock instead: an image that is built anew from
the same lock reruns nothing.

Standard library only.
"""

import re
from pathlib import Path

from rankwise.core import paths, settings
from rankwise.core.config import ConfigError

FILE, VARIABLE = "docker/image", "RANKWISE_IMAGE"
REMOTE = re.compile(r"(docker|oras)://[\w.-]+(:\d+)?(/[\w.-]+)+(:[\w][\w.-]*|@sha256:[0-9a-f]{64})")
ALLOWED = (
    "a file that is there (apptainer build FILE docker/apptainer.def), or "
    "docker://HOST/NAME@sha256:DIGEST (or :TAG)"
)


def reference(project: Path) -> str:
    """The image as Snakemake's `container` directive takes it.

    It is the value of RANKWISE_IMAGE, or the one line of docker/image that is no comment.

    Raises:
        ConfigError: docker/image has not exactly one such line.
    """
    given = settings.read(VARIABLE)
    if given:
        return given
    lines = []
    for line in paths.find(project, FILE).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            lines.append(text)
    if len(lines) != 1:
        raise ConfigError(FILE, "image", " ".join(lines), f"one line: {ALLOWED}")
    return lines[0]


def check(image: str, project: Path) -> None:
    """Refuse an image file that does not exist, and a name without a version.

    Raises:
        ConfigError: The image, where it is named, and what is allowed.
    """
    if "://" in image:
        is_valid = REMOTE.fullmatch(image) is not None
    else:
        is_valid = paths.find(project, image).is_file()
    if not is_valid:
        file = VARIABLE if settings.read(VARIABLE) else FILE
        raise ConfigError(file, "image", image, ALLOWED)
