"""Read the study and its library of entries, checked against their schemas."""

import functools
import json
from collections.abc import Collection
from pathlib import Path

from rankwise.core import paths
from rankwise.core.errors import ConfigError
from rankwise.core.schemas import check
from rankwise.core.yaml_files import parse, read_text, read_yaml

LIBRARY = ("methods", "models", "datasets", "claims", "evaluations")
SHORT = {"models": "model", "datasets": "data"}  # key of a grid -> the study's key for all grids


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


def named_model(given: str, models: Collection[str]) -> str:
    """The entry's name: as it was typed, or with `_` for `-`, as bert-base for bert_base.

    Args:
        given: What was typed.
        models: Names of models.
    """
    return given if given in models else given.replace("-", "_")


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
