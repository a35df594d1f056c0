"""Read the study and its library of entries; say exactly what is wrong with them.

Every message names the file, the key, the value got and the values allowed, and the nearest name for a typo.
"""

import copy
import difflib
import functools
from collections.abc import Iterable
from pathlib import Path

import jsonschema
import yaml

from rankwise.core import paths

LIBRARY = ("methods", "models", "datasets", "claims")
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "an integer",
    "boolean": "true or false",
}


class ConfigError(ValueError):
    """`file: key: got X, allowed: Y`, in one sentence."""

    def __init__(self, file: str, key: str, got: object, allowed: str | Iterable[str]):
        names = [] if isinstance(allowed, str) else sorted(map(str, allowed))
        near = difflib.get_close_matches(str(got), names, n=1)
        hint = f" (nearest: {near[0]!r})" if near else ""
        super().__init__(
            f"{file}: {key}: got {got!r}, allowed: {allowed if not names else ', '.join(names)}{hint}"
        )


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [
            self.construct_object(key, deep=True)
            for key, _ in node.value
            if key.tag != "tag:yaml.org,2002:merge"
        ]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _yaml(path: Path) -> object:
    return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)


def read_yaml(path: Path, name: str) -> dict:
    """The mapping in a YAML file, called `name` in messages.

    Raises:
        ConfigError: the file is missing, is not YAML, or has a key twice.
    """
    try:
        return _yaml(path) or {}
    except FileNotFoundError:
        raise ConfigError(name, "file", "nothing", "a YAML file") from None
    except yaml.YAMLError as error:
        where = (
            f"line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else "YAML"
        )
        raise ConfigError(
            name, where, getattr(error, "problem", str(error)), "valid YAML"
        ) from None


@functools.cache
def _schema(path: Path) -> dict:
    rules, shared = (_yaml(one) for one in (path, path.with_name("schedule.schema.yaml")))
    return {**rules, "$defs": {**rules["$defs"], "schedule": shared}}


def check(value: dict, schema: Path, file: str) -> dict:
    """`value` with the schema's defaults filled in.

    Raises:
        ConfigError: the first place where `value` breaks the schema.
    """
    rules = _schema(schema)
    errors = jsonschema.Draft202012Validator(rules).iter_errors(value)
    error = jsonschema.exceptions.best_match(errors)
    if error is not None:
        raise _explain(error, file)
    return _with_defaults(rules, value, rules)


def _explain(error: jsonschema.ValidationError, file: str) -> ConfigError:
    key = ".".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        return ConfigError(
            file, key, next(name for name in error.instance if name not in known), known
        )
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        text = error.schema["properties"].get(missing, {}).get("description", "a value")
        return ConfigError(
            file, f"{key}.{missing}" if error.absolute_path else missing, "nothing", text
        )
    if error.validator == "enum":
        return ConfigError(file, key, error.instance, map(str, error.validator_value))
    return ConfigError(file, key, error.instance, _allowed(error))


def _allowed(error: jsonschema.ValidationError) -> str:
    if error.validator == "type":
        kinds = (
            error.validator_value
            if isinstance(error.validator_value, list)
            else [error.validator_value]
        )
        text = " or ".join(_WORDS.get(kind, f"a {kind}") for kind in kinds)
        return text + (
            " (YAML reads 2e-4 as text: write 2.0e-4)"
            if "number" in text and isinstance(error.instance, str)
            else ""
        )
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "minItems": "items: at least",
    }
    if error.validator in limits:
        return f"{limits[error.validator]} {error.validator_value}"
    return error.schema.get("description", error.message)


def _with_defaults(rules: dict, value: object, root: dict) -> object:
    """A copy of `value` in which every absent property with a `default` has it; `x-partial` marks what stays as given."""
    if rules.get("x-partial"):
        return copy.deepcopy(value)
    if "$ref" in rules:
        rules = functools.reduce(
            lambda node, part: node[part], rules["$ref"].removeprefix("#/").split("/"), root
        )
    if isinstance(value, list):
        return [_with_defaults(rules.get("items", {}), item, root) for item in value]
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    known = rules.get("properties", {})
    absent = {
        k: copy.deepcopy(r["default"])
        for k, r in known.items()
        if "default" in r and k not in value
    }
    other = rules.get("additionalProperties") or {}
    return {k: _with_defaults(known.get(k, other), v, root) for k, v in {**value, **absent}.items()}


def library(project: Path) -> dict[str, dict]:
    """The checked entries of methods, models, datasets and claims.

    The workflow's own entries come first. A project outside of the workflow's clone may add entries
    of its own in `config/{methods,models,datasets,claims}.yaml`.

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
        file = f"config/{kind}.yaml"
        if (project / file).is_file():
            own = _entries(project, kind)
            for name in own:
                if name in entries[kind]:
                    raise ConfigError(
                        file,
                        name,
                        "an entry with the name of one of the workflow's",
                        "another name, or `override` in the study",
                    )
            entries[kind] = {**entries[kind], **own}
    return entries


def _entries(root: Path, kind: str) -> dict:
    """The checked entries of one file."""
    file = f"config/{kind}.yaml"
    return check(read_yaml(root / file, file), paths.SCHEMAS / f"{kind}.schema.yaml", file)


def included(study: dict, project: Path) -> dict:
    """The checked study, with the profiles of the studies that it includes behind its own."""
    grids = list(study["profile"])
    for file in study["include"]:
        other = read_yaml(paths.find(project, file), file)
        grids += check(other, paths.SCHEMAS / "study.schema.yaml", file)["profile"]
    return {**study, "profile": grids}


def pick(entries: dict, name: str, file: str, key: str) -> dict:
    """The entry called `name`; `key` says where the name stands."""
    if name not in entries:
        raise ConfigError(file, key, name, entries)
    return entries[name]


def merge(base: dict, over: dict) -> dict:
    """`base` with `over` laid on top, mapping by mapping."""
    both = {
        k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
        for k, v in over.items()
    }
    return {**base, **both}


def without(entry: dict, keys: tuple[str, ...]) -> dict:
    """`entry` less the keys that only people read."""
    return {key: value for key, value in entry.items() if key not in keys}


def first_dataset(entries: dict[str, dict], model: str) -> str:
    """The first dataset whose task a model has a head for, and whose length it has positions for.

    Raises:
        ConfigError: there is no such model, or no such dataset.
    """
    entry = pick(entries["models"], model, "config/models.yaml", "model")
    for name, dataset in entries["datasets"].items():
        if (
            dataset["task"] in entry["head"]
            and dataset["max_length_tokens"] <= entry["max_positions_tokens"]
        ):
            return name
    raise ConfigError(
        "config/models.yaml", f"{model}.head", list(entry["head"]), "a task that some dataset has"
    )
