"""Check values against a JSON schema, fill in its defaults, and say exactly what is wrong.

Every message names the file, the key, the value that was got and the values that are allowed, and
the nearest name for a typo.
"""

import copy
import functools
import math
import re
from collections import Counter
from pathlib import Path

import jsonschema

from rankwise.core.config_values import IN_QUOTES, check_values, whole
from rankwise.core.errors import ConfigError
from rankwise.core.yaml_files import load


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
