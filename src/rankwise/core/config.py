"""Read the study and its library of entries, and say exactly what is wrong with them.

Every message names the file, the key, the value that was got and the values that are allowed, and
the nearest name for a typo.
"""

import copy
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import jsonschema

from rankwise.core import paths
from rankwise.core.config_values import IN_QUOTES, check_values, whole
from rankwise.core.errors import ConfigError
from rankwise.core.yaml_files import load, parse, read_text, read_yaml

LIBRARY = ("methods", "models", "datasets", "claims", "evaluations")
SHORT = {"models": "model", "datasets": "data"}  # key of a grid -> the study's key for all grids


def _is_integer(_: object, value: object) -> bool:
    """80.0 is an integer, as in the standard; `check` makes it one in Python, too."""
    is_whole = isinstance(value, float) and value.is_integer()
    return is_whole or (isinstance(value, int) and not isinstance(value, bool))


def _is_number(_: object, value: object) -> bool:
    """YAML's .nan and .inf are no numbers here: .nan would pass every limit."""
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": _is_integer,
            "number": _is_number,
        }
    ),
)
FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("regex", raises=re.error)
def _is_regex(value: object) -> bool:
    if isinstance(value, str):
        re.compile(value)
    return True


# JSON's types in words.
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "an integer",
    "boolean": "true or false",
}
# A schema's limits in words, before their number.
_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "minItems": "items: at least",
}


# Schemas ------------------------------------------------------------------------------------------


@functools.cache
def _schema(path: Path) -> dict:
    """A schema; its definitions contain the schemas that several of them share."""
    schema, schedule, shared = (
        load(file.read_text(encoding="utf-8"))
        for file in (path, *map(path.with_name, ("schedule.schema.yaml", "shared.schema.yaml")))
    )
    return {**schema, "$defs": {**schema["$defs"], **shared, "schedule": schedule}}


def check(value: dict, schema: Path, file: str) -> dict:
    """Check a configuration against a schema.

    Args:
        value: What was read from the file.
        schema: The schema's file.
        file: How messages call the configuration's file.

    Returns:
        The value with the schema's defaults filled in, and with integers where 3.0 stands for 3.

    Raises:
        ConfigError: Names the first place where the value breaks the schema.
    """
    rules = _schema(schema)
    errors = VALIDATOR(rules, format_checker=FORMATS).iter_errors(value)
    error = jsonschema.exceptions.best_match(errors)
    if error is not None:
        raise _explained(error, file)
    check_values(value, file)  # after the schema, whose sentences say more of a key
    return _with_defaults(rules, value, rules)


def _explained(error: jsonschema.ValidationError, file: str) -> ConfigError:
    """An error of jsonschema as one of ours."""
    path = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(name for name in error.instance if name not in known)
        not_there = error.schema.get("x-not-there", {})
        if unknown in not_there:
            key = f"{path}.{unknown}" if path else unknown
            return ConfigError(file, key, error.instance[unknown], not_there[unknown])
        return ConfigError(file, path or "top level", unknown, known)
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        allowed = error.schema["properties"].get(missing, {}).get("description", "a value")
        return ConfigError(file, f"{path}.{missing}" if path else missing, "nothing", allowed)
    if error.validator == "uniqueItems":
        described = error.schema.get("description", "")
        allowed = described if "each once" in described else "each value once"
        return ConfigError(file, path, _repeated(error.instance), allowed)
    allowed = _allowed(error)
    if error.validator == "format":
        allowed = f"{allowed} ({error.cause})"
    if error.validator == "enum":
        allowed = map(str, error.validator_value)
    return ConfigError(file, path or "top level", error.instance, allowed)


def _repeated(values: list) -> str:
    """The values that a list has several times: `1 twice`."""
    counts = Counter(map(str, values))
    words = {2: "twice"}
    repeated = [
        f"{value} {words.get(count, f'{count} times')}"
        for value, count in counts.items()
        if count > 1
    ]
    return ", ".join(repeated)


def _allowed(error: jsonschema.ValidationError) -> str:
    """The values that a schema allows where one broke it, in words."""
    if error.validator == "type":
        return _allowed_types(error)
    if error.validator in _LIMITS:
        return f"{_LIMITS[error.validator]} {error.validator_value}"
    return error.schema.get("description", error.message)


def _allowed_types(error: jsonschema.ValidationError) -> str:
    types = (
        error.validator_value
        if isinstance(error.validator_value, list)
        else [error.validator_value]
    )
    text = " or ".join(_TYPES.get(name, f"a {name}") for name in types)
    if isinstance(error.instance, float) and not math.isfinite(error.instance):
        return f"{text} that is finite"
    if "number" in text and isinstance(error.instance, str):
        return f"{text} (YAML reads 2e-4 as text: write 2.0e-4)"
    if text == "a text" and not isinstance(error.instance, dict | list):
        return IN_QUOTES
    return text


def _with_defaults(rules: dict, value: object, root: dict, is_partial: bool = False) -> object:
    """A copy of a value in which every missing property with a `default` has it.

    An integer that is written 3.0 is one in the copy.

    Args:
        rules: The part of the schema that the value follows. `x-partial` marks one whose values
            only override others, so that none is filled in.
        value: Of the configuration.
        root: The whole schema, for references.
        is_partial: Whether a part above this one is marked so.
    """
    is_partial = is_partial or rules.get("x-partial", False)
    if "$ref" in rules:
        rules = _referenced(rules["$ref"], root)
    if isinstance(value, list):
        items = rules.get("items", {})
        return [_with_defaults(items, item, root, is_partial) for item in value]
    if not isinstance(value, dict):
        return whole(value, rules.get("type", ()))
    known = rules.get("properties", {})
    filled = dict(value)
    for name, rule in known.items():
        if "default" in rule and name not in value and not is_partial:
            filled[name] = copy.deepcopy(rule["default"])
    others = rules.get("additionalProperties") or {}
    return {
        name: _with_defaults(known.get(name, others), item, root, is_partial)
        for name, item in filled.items()
    }


def _referenced(reference: str, root: dict) -> dict:
    """The part of a schema that a reference such as `#/$defs/schedule` points to."""
    node = root
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


# The library and the study ------------------------------------------------------------------------


def library(project: Path) -> dict[str, dict]:
    """The checked entries of methods, models, datasets, claims and evaluations.

    The workflow's own entries come first. A project outside of the workflow's clone may add entries
    of its own in `config/{methods,models,datasets,claims,evaluations}.yaml`.

    Args:
        project: The folder that the user works in.

    Raises:
        ConfigError: A file breaks its schema, or an entry of the project has the name of an entry
            of the workflow.
    """
    workflow = paths.workflow_root(project)
    entries = {kind: _entries(workflow, kind) for kind in LIBRARY}
    if workflow.resolve() == project.resolve():
        return entries
    for kind in LIBRARY:
        if (project / _library_file(kind)).is_file():
            own = _entries(project, kind)
            _check_new_names(own, entries[kind], kind)
            entries[kind] = {**entries[kind], **own}
    return entries


def _library_file(kind: str) -> str:
    return f"config/{kind}.yaml"


def _entries(root: Path, kind: str) -> dict:
    """The checked entries of one file, the caller's own."""
    file = _library_file(kind)
    return json.loads(_checked_entries(read_text(root / file, file), kind, file))


@functools.lru_cache(maxsize=64)
def _checked_entries(text: str, kind: str, file: str) -> str:
    """The entries of a file's text, as JSON: a process that plans several studies checks once."""
    from rankwise.core import dataset_defaults  # noqa: PLC0415 - its messages are those of this module

    entries = parse(text, file)
    if kind == "datasets":
        entries = dataset_defaults.filled(entries)
    return json.dumps(check(entries, paths.SCHEMAS / f"{kind}.schema.yaml", file))


def _check_new_names(own: dict, shipped: dict, kind: str) -> None:
    for name in own:
        if name in shipped:
            raise ConfigError(
                _library_file(kind),
                name,
                "an entry with the name of one of the workflow's",
                "another name, or `override` in the study",
            )


def checked_study(study: dict, project: Path, file: str) -> dict:
    """The checked study, with the profiles of the studies that it includes behind its own.

    Its `model` and `data` are filled into every grid that has no `models` or `datasets`.

    Args:
        study: The study as its file has it.
        project: The folder that the user works in.
        file: The study's file, for messages.

    Raises:
        ConfigError: The study, or one that it includes, breaks the schema.
    """
    schema = paths.SCHEMAS / "study.schema.yaml"
    checked = check(_spread(study), schema, file)
    grids = list(checked["profile"])
    for other in checked["include"]:
        content = read_yaml(paths.find(project, other), other)
        grids += check(_spread(content), schema, other)["profile"]
    return {**checked, "profile": grids}


def _spread(study: dict) -> dict:
    """An unchecked study, with its `model` and `data` in every grid that names none."""
    filled = dict(study)
    for plural, short in SHORT.items():
        if not isinstance(study.get(short), str):
            continue
        for kind in ("train", "profile"):
            if isinstance(filled.get(kind), list):
                filled[kind] = [
                    {plural: [study[short]], **grid} if isinstance(grid, dict) else grid
                    for grid in filled[kind]
                ]
    return filled


def pick(entries: dict, name: str, file: str, key: str) -> dict:
    """The entry called `name`.

    Raises:
        ConfigError: There is none; the message says that the name stands at `key` of `file`.
    """
    if name not in entries:
        raise ConfigError(file, key, name, entries)
    return entries[name]


def merge(base: dict, over: dict) -> dict:
    """`base` overridden by `over`, nested mappings key by key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = merge(base[key], value)
        else:
            merged[key] = value
    return merged


def without(entry: dict, keys: Collection[str]) -> dict:
    """A copy of a mapping that lacks some keys."""
    return {key: value for key, value in entry.items() if key not in keys}


def first_dataset(entries: dict[str, dict], model: str) -> str:
    """The first dataset that fits a model's heads and positions.

    Args:
        entries: The library.
        model: Name of a model.

    Raises:
        ConfigError: There is no such model, or no such dataset.
    """
    return next(iter(_first_datasets(entries, model).values()))


def usual_dataset(entries: dict[str, dict], model: str) -> str:
    """The first dataset of what a model is mostly trained for (`tasks.usual`), or of any task.

    Args:
        entries: The library.
        model: Name of a model.

    Raises:
        ConfigError: There is no such model, or no dataset that fits it.
    """
    from rankwise.core import tasks  # noqa: PLC0415 - its messages are those of this module

    fitting = _first_datasets(entries, model)
    task = tasks.usual(entries["models"][model])
    return fitting.get(task) or next(iter(fitting.values()))


def _first_datasets(entries: dict[str, dict], model: str) -> dict[str, str]:
    """The first dataset of each task that fits a model's heads and positions."""
    from rankwise.core import tasks  # noqa: PLC0415

    entry = pick(entries["models"], model, "config/models.yaml", "model")
    fitting: dict[str, str] = {}
    for name, dataset in entries["datasets"].items():
        has_head = bool(tasks.head(entry, dataset["task"]))
        if has_head and dataset["max_length_tokens"] <= entry["max_positions_tokens"]:
            fitting.setdefault(dataset["task"], name)
    if not fitting:
        allowed = "a task that some dataset has"
        raise ConfigError("config/models.yaml", f"{model}.head", list(entry["head"]), allowed)
    return fitting
