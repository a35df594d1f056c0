"""The reference of every key of a study, from the JSON schemas that planning checks it against."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

STUDY_HEAD = """# Study keys

Generated from the JSON schemas in `{folder}`. A key of a section is written as a path:
`train[].ranks` is the key `ranks` of each entry in the list `train`. *required* means that there
is no default. [Studies](../studies.md) explains how the parts fit together.

"""
SECTIONS = {
    "": "Top level",
    "schedule": "schedule",
    "reference": "reference",
    "equivalence": "equivalence",
    "train": "train: runs",
    "evaluate": "evaluate: tasks for kept weights",
    "profile": "profile: measurements without training",
    "search": "search: inside an entry of train",
    "override": "override: what a study changes in a method",
}
SHARED = ("schedule", "override")  # the same keys at the top level and in a grid: shown once


class Key(NamedTuple):
    """One key of a schema."""

    path: str
    allowed: str
    default: str
    description: str


def folder(root: Path) -> Path:
    """Where the schemas lie: in the package, or in config/."""
    found = sorted((root / "src/rankwise").rglob("study.schema.yaml"))
    return found[0].parent if found else root / "config" / "schema"


def read(root: Path, name: str) -> dict:
    """One schema, with the definitions that several share among its own."""
    schema, schedule, shared = (
        yaml.safe_load((folder(root) / f"{file}.schema.yaml").read_text(encoding="utf-8"))
        for file in (name, "schedule", "shared")
    )
    return {**schema, "$defs": {**schema.get("$defs", {}), **shared, "schedule": schedule}}


def keys(schema: dict, node: dict, prefix: str = "") -> Iterator[Key]:
    """The keys of an object, then those of the objects and lists inside it, each with its path."""
    required = node.get("required", [])
    for name, described in node.get("properties", {}).items():
        value = resolve(schema, described)
        path = f"{prefix}{name}"
        default = _default(described, value, name in required)
        yield Key(path, allowed(schema, value), default, _description(described, value))
        yield from _inside(schema, value, path)
    members = node.get("additionalProperties")
    if isinstance(members, dict):
        yield from keys(schema, resolve(schema, members), f"{prefix}NAME.")


def _inside(schema: dict, value: dict, path: str) -> Iterator[Key]:
    if value.get("type") == "array":
        yield from keys(schema, resolve(schema, value.get("items", {})), f"{path}[].")
    elif value.get("type") == "object":
        yield from keys(schema, value, f"{path}.")


def resolve(schema: dict, node: dict) -> dict:
    """A node with its `$ref` replaced by what it refers to, in the same schema."""
    if "$ref" not in node:
        return node
    found = schema
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return resolve(schema, found)


def allowed(schema: dict, node: dict) -> str:
    """What a value may be, in words."""
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "anyOf" in node:
        return " or ".join(allowed(schema, resolve(schema, option)) for option in node["anyOf"])
    kinds = node.get("type", "any")
    words = [_kind(schema, node, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " or ".join(words)


def _kind(schema: dict, node: dict, kind: str) -> str:
    if kind == "array":
        items = allowed(schema, resolve(schema, node.get("items", {})))
        return "list" if items == "any" else f"list of: {items}"
    if kind in ("integer", "number"):
        return kind + _bounds(node)
    return {"object": "mapping", "string": "text", "null": "nothing"}.get(kind, kind)


def _bounds(node: dict) -> str:
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {node[name]}" for name, sign in bounds.items() if name in node]
    return f" {' and '.join(found)}" if found else ""


def _default(described: dict, value: dict, required: bool) -> str:
    if required:
        return "*required*"
    if "default" in described or "default" in value:
        default = described.get("default", value.get("default"))
        return f"`{yaml.safe_dump(default, default_flow_style=True).split(chr(10))[0]}`"
    return ""


def _description(described: dict, value: dict) -> str:
    return described.get("description", value.get("description", ""))


def table(found: list[Key]) -> str:
    """Keys as a Markdown table."""
    rows = [["key", "allowed", "default", "meaning"], ["---"] * 4]
    rows += [[f"`{key.path}`", key.allowed, key.default, key.description] for key in found]
    return "".join(f"| {' | '.join(_cell(text) for text in row)} |\n" for row in rows)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def study_page(root: Path) -> str:
    """The reference of a study, a section a table."""
    schema = read(root, "study")
    parts = [STUDY_HEAD.format(folder=folder(root).relative_to(root))]
    by_section: dict[str, list[Key]] = {name: [] for name in SECTIONS}
    shown = set()
    for key in keys(schema, schema):
        section = _section(key.path)
        own = key.path[key.path.find(f"{section}.") :] if section in SHARED else key.path
        if own not in shown:
            by_section[section].append(key)
        shown.add(own)
    for name, title in SECTIONS.items():
        parts.append(f"## {title}\n\n{table(by_section[name])}\n")
    return "".join(parts)


def _section(path: str) -> str:
    """The section of the page that a key stands in."""
    steps = path.split(".")
    if len(steps) == 1:
        return ""
    for name in ("schedule", "override", "search"):
        if name in [step.removesuffix("[]") for step in steps[:-1]]:
            return name
    return steps[0].removesuffix("[]")
