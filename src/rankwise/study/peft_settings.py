"""The settings of a type of peft, checked against the source of the installed peft.

`settings` of the method `peft` are fields of a type's configuration class. Importing peft would
import torch, so the class is read as a syntax tree. Where peft is not installed, as on some login
nodes, the job finds a wrong setting.
"""

import ast
import functools
import importlib.util
from pathlib import Path

from rankwise.core import annotations
from rankwise.core.config import ConfigError
from rankwise.study.options import constant
from rankwise.study.origin import Origin

MODULE = "peft"  # the file of methods/ whose options these are
# Fields of peft that the entry and the model's entry decide.
FILLED = ("target_modules", "modules_to_save", "fan_in_fan_out")
MAY_NAME = ("token_indices",)  # which tokens, where the rank only says how many


def check(options: dict, is_quantized: bool, origin: Origin) -> None:
    """Check the rank, the targets, the settings and the storage of a type.

    Args:
        options: the resolved options of the method `peft`.
        is_quantized: whether the base is stored in 4 or 8 bits.
        origin: where the values of the entry come from.

    Raises:
        ConfigError: the type has no rank and one is given, or the other way round; a setting is
            unknown, has a wrong value, or is filled from the rank; the type reads dense matrices;
            it has targets and finds its own places.
    """
    kind, settings = options["type"], options["settings"] or {}
    works_quantized = constant(f"rankwise.methods.{MODULE}", "ON_CODES", None)
    if is_quantized and kind not in works_quantized:
        allowed = f"fp32 or bf16 under {kind}"
        raise ConfigError(*origin.place("weights"), "a base in 4 or 8 bits", allowed)
    capacity = constant(f"rankwise.methods.{MODULE}", "CAPACITY", None).get(kind)
    if capacity is None and options["rank"] is not None:
        allowed = f"null: {kind} has no rank"
        raise ConfigError(*origin.place("options", "rank"), options["rank"], allowed)
    if capacity is not None and options["rank"] is None:
        allowed = f"an integer, or no key: the rank of the cell is the {capacity} of {kind}"
        raise ConfigError(*origin.place("options", "rank"), None, allowed)
    finds_its_places = kind in constant(f"rankwise.methods.{MODULE}", "OWN_PLACES", None)
    if finds_its_places and options["targets"]:
        got = ", ".join(options["targets"])
        allowed = f"no key: {kind} finds its places in a model itself"
        raise ConfigError(*origin.place("options", "targets"), got, allowed)
    if not finds_its_places and not options["targets"]:
        allowed = f"a list of at least one role: {kind} adapts the matrices of `targets`"
        raise ConfigError(*origin.place("options", "targets"), options["targets"], allowed)
    for name in settings:
        _check_setting(name, options, capacity, origin)


def _check_setting(name: str, options: dict, capacity: str | None, origin: Origin) -> None:
    """Check one setting.

    Args:
        name: of the setting.
        options: the resolved options of the method `peft`.
        capacity: the field that the rank fills; None if the type has none.
        origin: where the values of the entry come from.

    Raises:
        ConfigError: it is unknown, has a wrong value, or is filled from the rank.
    """
    kind, value = options["type"], options["settings"][name]
    file, key = origin.place("options", "settings")
    if name == capacity and name not in MAY_NAME:
        raise ConfigError(file, f"{key}.{name}", value, "no key: `rank` sets it")
    fields = config_fields(kind)
    if fields is None:
        return
    if name not in fields or name in FILLED:
        allowed = [field for field in fields if field not in FILLED and field != capacity]
        raise ConfigError(file, key, name, allowed or f"no settings: {kind} has none")
    annotation = fields[name]
    if value == "rank" and options["rank"] is not None:
        value = options["rank"]  # the text stands for it
    if name in MAY_NAME and isinstance(value, list) and len(value) != options["rank"]:
        allowed = f"as many as the rank, {options['rank']}"
        raise ConfigError(file, f"{key}.{name}", f"{len(value)} of them", allowed)
    if annotations.is_supported(annotation) and not annotations.accepts(annotation, value):
        raise ConfigError(file, f"{key}.{name}", value, annotations.in_words(annotation))


@functools.cache
def config_fields(kind: str) -> dict[str, str] | None:
    """The annotations of the fields of a type's configuration class, by name.

    Args:
        kind: the type, as peft writes it: LOHA.

    Returns:
        The fields of the class and of its bases among the types; None where peft is not installed
        or has no such type.
    """
    spec = importlib.util.find_spec("peft")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "tuners"
    for file in sorted(folder.glob("*/config.py")):
        if f"PeftType.{kind}\n" in file.read_text(encoding="utf-8"):
            return _fields(file, kind)
    return None


def _fields(file: Path, kind: str) -> dict[str, str] | None:
    """The fields of the class in `file` that sets the type `kind`."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and f"PeftType.{kind}\n" in f"{ast.unparse(node)}\n":
            fields = {}
            for base in node.bases:
                fields |= _base_fields(file, ast.unparse(base))
            return fields | _own_fields(node)
    return None


def _base_fields(file: Path, name: str) -> dict[str, str]:
    """The fields that a type inherits from another type, or from what LyCORIS' types share."""
    folder = file.parent.parent
    shared = {"LycorisConfig": folder / "lycoris_utils.py", "LoraConfig": folder / "lora/config.py"}
    for node in ast.parse(shared[name].read_text(encoding="utf-8")).body if name in shared else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _own_fields(node)
    return {}


def _own_fields(node: ast.ClassDef) -> dict[str, str]:
    fields = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            fields[ast.unparse(statement.target)] = ast.unparse(statement.annotation)
    return fields
