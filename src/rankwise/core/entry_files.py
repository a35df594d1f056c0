"""Add an entry to one of the project's files of entries, and leave all else in it as it is.

The file is never rewritten: the entry's text is put behind it, in a copy that then takes the file's
place. So comments and layout stay, and a file is never half written.
"""

import json
from pathlib import Path

import yaml

from rankwise.core import paths
from rankwise.core.config import ConfigError
from rankwise.core.files import durable_write
from rankwise.core.schemas import check
from rankwise.core.yaml_files import load, read_yaml

LINE_CHARACTERS = 110  # of a mapping that stands in one line
HEADS = {
    "datasets": "# Datasets of your own. They stand beside Rankwise's own entries.\n",
    "models": "# Models of your own. They stand beside Rankwise's own entries.\n",
}


def file_of(kind: str) -> str:
    """The file of entries of a kind, relative to the project."""
    return f"config/{kind}.yaml"


def text(name: str, entry: dict) -> str:
    """An entry as YAML: a key a line, and short mappings and lists in one line.

    Args:
        name: The entry's name.
        entry: Its keys with plain values.
    """
    lines = [f"{scalar(name)}:"]
    for key, value in entry.items():
        lines += _lines(key, value, "  ")
    return "\n".join(lines) + "\n"


def _lines(key: str, value: object, indent: str) -> list[str]:
    flow = f"{indent}{scalar(key)}: {_flow(value)}"
    is_nested = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
    if not isinstance(value, dict) or not value or (len(flow) <= LINE_CHARACTERS and not is_nested):
        return [flow]
    lines = [f"{indent}{scalar(key)}:"]
    for inner, inner_value in value.items():
        lines += _lines(inner, inner_value, indent + "  ")
    return lines


def _flow(value: object) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        pairs = [f"{scalar(key)}: {_flow(inner)}" for key, inner in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return scalar(value)


def scalar(value: object) -> str:
    """A scalar that YAML reads as the same value, also between commas and braces."""
    if not isinstance(value, str):
        return "null" if value is None else yaml.safe_dump(value).splitlines()[0]
    try:
        is_plain = value == value.strip() and yaml.safe_load(f"[{value}]") == [value]
        is_plain = is_plain and yaml.safe_load(f"{{{value}: 0}}") == {value: 0}
        is_plain = is_plain and yaml.safe_load(value) == value and "\n" not in value
    except yaml.YAMLError:
        is_plain = False
    return value if is_plain else json.dumps(value, ensure_ascii=True)


def check_new(project: Path, kind: str, name: str, library: dict[str, dict]) -> None:
    """Check that no entry has a name yet.

    Args:
        project: The folder that the user works in.
        kind: `datasets` or `models`.
        name: The name of the new entry.
        library: Checked entries by kind and name.

    Raises:
        ConfigError: An entry of the project or of the workflow has it.
    """
    file = file_of(kind)
    own = read_yaml(project / file, file) if (project / file).is_file() else {}
    if name in own or name in library[kind]:
        allowed = "a new name (--name NAME); no entry is written over"
        raise ConfigError(file, name, "an entry that is there already", allowed)


def append(project: Path, kind: str, name: str, entry: dict) -> str:
    """Put an entry behind those of the project's file, which is made if it is not there.

    Args:
        project: The folder that the user works in.
        kind: `datasets` or `models`.
        name: The entry's name, which is new.
        entry: The entry.

    Returns:
        The file, relative to the project.

    Raises:
        ConfigError: The file is not valid, or the entry is not.
    """
    file = file_of(kind)
    path = project / file
    old = path.read_text(encoding="utf-8") if path.is_file() else HEADS[kind]
    before = (read_yaml(path, file) if path.is_file() else {}) or {}
    gap = "" if old.endswith("\n") else "\n"
    new = f"{old}{gap}\n{text(name, entry)}"
    if load(new) != {**before, name: entry}:
        allowed = "a mapping of entries in block style, so that one can be put behind them"
        raise ConfigError(file, "end", "another layout", allowed)
    check(load(new), paths.SCHEMAS / f"{kind}.schema.yaml", file)
    write_whole(path, new)
    return file


def write_whole(path: Path, content: str) -> None:
    """Write a file whole or not at all; its permissions stay."""
    target = path.resolve()
    with durable_write(target) as part:
        part.write_text(content, encoding="utf-8")
        if target.exists():
            part.chmod(target.stat().st_mode & 0o777)
