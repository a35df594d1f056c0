"""Read YAML files strictly, and say with line and column what is wrong with one.

PyYAML takes the last of two equal keys without a word; here a key stands once. It also builds
whatever a file asks for: values nested so deep that the parser crashes, aliases of aliases that
fill the memory, sets and dates. Here a file is scanned before anything is built, and has limits.
"""

import difflib
import json
from collections import Counter
from pathlib import Path

import yaml

from rankwise.core.errors import ConfigError

SHOWN_CHARACTERS = 40  # of the text at the place of an error
MOST_DEEP = 40  # lists and mappings inside of each other; libyaml crashes at some 100,000
MOST_VALUES = 200_000  # of one file, each as often as aliases repeat it; ours have up to 5,000
MOST_MIB = 16  # of one file
TEMPLATE_KEY = "__use_yte__"  # Snakemake runs a file with this key as a template: as Python
_MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key `<<`, which may stand several times
# Tags that a value may have: of the scalars that JSON has, too.
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
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
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG or not isinstance(key_node, yaml.ScalarNode):
                continue  # PyYAML refuses a list or mapping as a key
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _wrong(f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        # 2026-02-30 looks like a date, and is none; of `!!bool x` and `!!int ""` PyYAML raises the
        # other errors.
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            problem = f"{error}; a text needs quotes"
            raise _wrong(problem, node.start_mark) from None


def _wrong(problem: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def load(text: str) -> object:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: It is not YAML, has a key twice, or is beyond the limits of this module.
    """
    _scan(text)
    return yaml.load(text, _StrictLoader)


def _scan(text: str) -> None:
    """Refuse a text that is too deep, has too many values, or asks for objects by tags.

    Only events are read, which needs no recursion; so the deepest text is refused, and nothing that
    an alias repeats is built.
    """
    open_counts: list[int] = []  # of each open list or mapping: its values so far
    open_anchors: list[str | None] = []
    values_by_anchor: dict[str, int] = {}
    for event in yaml.parse(text, _StrictLoader):
        values = 1
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_counts) == MOST_DEEP:
                problem = f"lists and mappings inside of each other, at most {MOST_DEEP}"
                raise _wrong(problem, event.start_mark)
            open_counts.append(0)
            open_anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            values, anchor = open_counts.pop() + 1, open_anchors.pop()
            if anchor:
                values_by_anchor[anchor] = values
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in open_anchors:
                raise _wrong("an alias of what it does not stand in", event.start_mark)
            values = values_by_anchor.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent) and event.anchor:
            values_by_anchor[event.anchor] = 1
        tag = getattr(event, "tag", None)
        if tag and tag != "!" and tag not in _TAGS:  # "!" marks a text in quotes
            raise _wrong(f"values without the tag {tag!r}", event.start_mark)
        if not isinstance(event, yaml.CollectionStartEvent) and open_counts:
            open_counts[-1] += values
            if open_counts[-1] > MOST_VALUES:
                problem = f"at most {MOST_VALUES:,} values, each as often as aliases repeat it"
                raise _wrong(problem, event.start_mark)


def read_yaml(path: Path, name: str) -> dict:
    """Read the mapping in a YAML file.

    Args:
        path: The file.
        name: How messages call it.

    Raises:
        ConfigError: The file cannot be read, is not YAML, is no mapping, or has a key twice.
    """
    return parse(read_text(path, name), name)


def parse(text: str, name: str) -> dict:
    """The mapping that a YAML text holds.

    Args:
        text: Of a file.
        name: How messages call the file.

    Raises:
        ConfigError: It is not YAML, is no mapping, or has a key twice.
    """
    try:
        value = load(text) or {}
    except yaml.YAMLError as error:
        raise _explained(error, text, name) from None
    return _checked_top(value, name)


def _checked_top(value: object, name: str) -> dict:
    """The value of a file, which must be a mapping and no template."""
    if not isinstance(value, dict):
        raise ConfigError(name, "top level", value, "a mapping: keys with their values")
    if TEMPLATE_KEY in value:
        allowed = (
            "a file without templates: Snakemake would run its expressions as Python; remove this "
            "key, and write out what they stand for"
        )
        raise ConfigError(name, "top level", TEMPLATE_KEY, allowed)
    return value


def check_config_file(path: Path, name: str) -> None:
    """Check a file that Snakemake reads as its configuration: YAML, or JSON, which it tries first.

    Args:
        path: The file.
        name: How messages call it.

    Raises:
        ConfigError: It is neither, has a key twice, or is a template.
    """
    text = read_text(path, name)

    def unique_keys(pairs: list[tuple[str, object]]) -> dict:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ConfigError(name, "top level", f"{key} twice", "each key once")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        allowed = f"lists and mappings inside of each other, at most {MOST_DEEP}"
        raise ConfigError(name, "top level", "deeper ones", allowed) from None
    except ConfigError:
        raise
    except ValueError:  # no JSON
        read_yaml(path, name)
    else:
        _checked_top(value, name)


def read_text(path: Path, name: str) -> str:
    """The text of a YAML file.

    Args:
        path: The file.
        name: How messages call it.

    Raises:
        ConfigError: It is no file, too large, cannot be read, or is not UTF-8.
    """
    try:
        if not path.is_file() and path.exists():  # a pipe or a device may never end
            got = "a folder" if path.is_dir() else "what is no file"
            raise ConfigError(name, "file", got, "a YAML file")
        if path.stat().st_size > MOST_MIB << 20:
            got = f"{path.stat().st_size:,} bytes"
            raise ConfigError(name, "file", got, f"a YAML file of at most {MOST_MIB} MiB")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(name, "file", "nothing", _files_nearby(path, name)) from None
    except OSError as error:  # no permission to read, a name that is too long
        raise ConfigError(name, "file", error.strerror, "a YAML file") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        byte = f"byte 0x{data[error.start]:02x}"
        raise ConfigError(name, _place(before), byte, "text in UTF-8") from None


def _files_nearby(path: Path, name: str) -> str:
    """Files that may be meant by a missing one: YAML files of its folder, the nearest first."""
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
