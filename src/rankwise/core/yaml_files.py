"""Read YAML files strictly, and say with line and column what is wrong with one.

PyYAML takes the last of two equal keys without a word; here a key stands once.
"""

import difflib
from pathlib import Path

import yaml

from rankwise.core.errors import ConfigError

SHOWN_CHARACTERS = 40  # of the text at the place of an error
_MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key `<<`, which may stand several times
# Part of PyYAML's words on a problem, with either of its loaders -> what to do.
_HINTS = {
    "mapping values are not allowed": "a text with a colon and a space needs quotes",
    "tab": "indent with spaces",
    "'\\t'": "indent with spaces",
    "cannot start any token": "a text that begins with this character needs quotes",
}


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """A YAML loader that refuses a key that stands twice, and names the place of a wrong value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = []  # no set: a key may be a list, which PyYAML refuses below
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # 2026-02-30 looks like a date, and is none
            problem = f"{error}; a text needs quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def load(text: str) -> object:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: It is not YAML, or has a key twice.
    """
    return yaml.load(text, _StrictLoader)


def read_yaml(path: Path, name: str) -> dict:
    """Read the mapping in a YAML file.

    Args:
        path: The file.
        name: How messages call it.

    Raises:
        ConfigError: The file cannot be read, is not YAML, is no mapping, or has a key twice.
    """
    text = _text(path, name)
    try:
        value = load(text) or {}
    except yaml.YAMLError as error:
        raise _explained(error, text, name) from None
    if not isinstance(value, dict):
        raise ConfigError(name, "top level", value, "a mapping: keys with their values")
    return value


def _text(path: Path, name: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(name, "file", "nothing", _files_nearby(path, name)) from None
    except OSError as error:  # a folder, or no permission to read
        raise ConfigError(name, "file", error.strerror, "a YAML file") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        byte = f"byte 0x{data[error.start]:02x}"
        raise ConfigError(name, _place(before), byte, "text in UTF-8") from None


def _files_nearby(path: Path, name: str) -> str:
    """What is allowed in place of a missing file: YAML files of its folder, the nearest first."""
    folder = Path(name).parent
    stems = sorted(file.stem for file in path.parent.glob("*.yaml"))
    nearest = difflib.get_close_matches(path.stem, stems, n=3)
    if nearest:
        return f"a YAML file (nearest: {', '.join(f'{folder / stem}.yaml' for stem in nearest)})"
    return f"a YAML file; {folder}/ has {', '.join(f'{stem}.yaml' for stem in stems) or 'none'}"


def _explained(error: yaml.YAMLError, text: str, name: str) -> ConfigError:
    """An error of PyYAML as one of ours, with the text at its place."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a control character; libyaml's position counts bytes
        wrong = yaml.reader.Reader.NON_PRINTABLE.search(text)
        return ConfigError(name, _place(text[: wrong.start()]), wrong[0], "printable characters")
    rest = "".join(text.splitlines(keepends=True)[mark.line :])[mark.column :]
    line = rest.partition("\n")[0].strip()
    got = line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}..."
    if not rest.strip():
        got = "the end of the file"
    allowed = f"valid YAML: {error.problem}"
    start = getattr(error, "context_mark", None)
    if start and (start.line, start.column) != (mark.line, mark.column):
        allowed += f", {error.context} from line {start.line + 1}, column {start.column + 1}"
    hints = [hint for words, hint in _HINTS.items() if words in error.problem]
    if hints:
        allowed += f" ({hints[0]})"
    return ConfigError(name, f"line {mark.line + 1}, column {mark.column + 1}", got, allowed)


def _place(before: str) -> str:
    """The line and column behind a text."""
    lines = before.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"
