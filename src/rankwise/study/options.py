"""What options a method or optimizer takes, read from its source: importing it would import torch.

A module under methods/ or optim/ holds one class named like the file (`head_only.py` -> `HeadOnly`). The options of a method
are the fields of its dataclass, those of an optimizer the arguments of its `__init__`; the defaults are the paper's.
"""

import ast
import functools
import json
from dataclasses import dataclass
from pathlib import Path

REQUIRED = object()
SUPPLIED = ("self", "params", "lr", "seed")  # of an optimizer's arguments
_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


@dataclass(frozen=True)
class Option:
    """One field: its name, its annotation as written, and its default (`REQUIRED` where there is none)."""

    name: str
    annotation: str
    default: object

    def accepts(self, value: object) -> bool:
        """Whether a value from YAML fits the annotation."""
        return _accepts(_annotation(self.annotation), value)

    @property
    def allowed(self) -> str:
        """The annotation in words for an error message."""
        node = _annotation(self.annotation)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            return ", ".join(str(value) for value in _literal(node))
        words = {
            "tuple[str, ...]": "a list of names",
            "int": "an integer",
            "float": "a number",
            "bool": "true or false",
        }
        return words.get(self.annotation, self.annotation)


@functools.cache
def _annotation(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _literal(node: ast.Subscript) -> tuple:
    value = ast.literal_eval(node.slice)
    return value if isinstance(value, tuple) else (value,)


def _accepts(node: ast.expr, value: object) -> bool:
    if isinstance(node, ast.Constant) and node.value is None:
        return value is None
    if isinstance(node, ast.BinOp):  # int | None
        return _accepts(node.left, value) or _accepts(node.right, value)
    if isinstance(node, ast.Subscript):
        if ast.unparse(node.value) == "Literal":
            return value in _literal(node)
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        repeated = isinstance(items[-1], ast.Constant) and items[-1].value is Ellipsis
        if not isinstance(value, list | tuple) or (not repeated and len(value) != len(items)):
            return False
        kinds = [items[0]] * len(value) if repeated else items
        return all(_accepts(kind, item) for kind, item in zip(kinds, value, strict=True))
    name = ast.unparse(node)
    return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))


@functools.cache
def options(path: Path) -> dict[str, Option]:
    """The options of the module at `path`, in order; values as JSON has them (lists, not tuples)."""
    body = _body(path)
    built = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    fields = [(n.target.id, n.annotation, n.value) for n in body if isinstance(n, ast.AnnAssign)]
    given = _arguments(built[0].args) if built else fields
    return {name: Option(name, ast.unparse(kind), _default(value)) for name, kind, value in given}


@functools.cache
def constant(path: Path, name: str, default: object) -> object:
    """What the class at `path` says of itself in `name = literal` (QUANTIZED, RELEASE), or `default`."""
    said = [
        n.value
        for n in _body(path)
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name
    ]
    return ast.literal_eval(said[0]) if said else default


@functools.cache
def defines(path: Path, name: str) -> bool:
    """Whether the class at `path` has a method `name` of its own."""
    return any(isinstance(n, ast.FunctionDef) and n.name == name for n in _body(path))


def _body(path: Path) -> list[ast.stmt]:
    """The body of the class named like the file."""
    wanted = path.stem.replace("_", "")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.lower() == wanted]
    if not classes:
        raise ValueError(f"{path}: no class named like the file ({wanted}, whatever the case)")
    return classes[0].body


def _arguments(args: ast.arguments) -> list[tuple[str, ast.expr, ast.expr | None]]:
    """(name, annotation, default) of every argument but those that the workflow itself supplies."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(positional) - len(args.defaults)), *args.defaults, *args.kw_defaults]
    every = zip([*positional, *args.kwonlyargs], defaults, strict=True)
    return [(arg.arg, arg.annotation, value) for arg, value in every if arg.arg not in SUPPLIED]


def _default(value: ast.expr | None) -> object:
    return REQUIRED if value is None else json.loads(json.dumps(ast.literal_eval(value)))
