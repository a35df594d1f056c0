"""Small files of data, and the entry that is proposed for each, or the sentence that refuses it."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from rankwise.data.propose import Choices, propose

GOOD = ["a fine and lovely film", "the cast is superb here", "warm and very well told"]
BAD = ["a dull and weary film", "the plot is poor here", "cold and very badly told"]


def reviews(number: int = 10) -> list[tuple[str, str]]:
    """(text, label) of so many rows of each of two classes."""
    return [
        (f"{texts[index % 3]} {index}", label)
        for index in range(number)
        for texts, label in ((GOOD, "pos"), (BAD, "neg"))
    ]


def csv_file(path: Path, rows: list[tuple], header: str = "review,mood") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def proposed(project: Path, given: str, **choices: object):
    return propose(given, Choices(**choices), project)


def sentence(project: Path, given: str, **choices: object) -> str:
    with pytest.raises(ValueError) as error:
        propose(given, Choices(**choices), project)
    assert "\n" not in str(error.value)
    return str(error.value)


def tar_file(path: Path, names: list[str]) -> None:
    """An archive whose files say their own names."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            text = f"the text of {name}".encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


def json_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(number: int = 60) -> list[tuple[str, str]]:
    return [(f"{GOOD[index % 3]} {index}", f"{index / 8}") for index in range(number)]
