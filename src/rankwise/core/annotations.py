"""The annotations that options may have: which values they accept, and how messages name them.

An annotation is a text as the source has it, `int | None`. It is read as a syntax tree, never
evaluated.
"""

import ast
import functools

ALLOWED = (
    "int, float, bool, str, dict, Literal[...], X | None, Optional[X], Union[X, Y], "
    "tuple[X, ...], list[X]"
)
ANYTHING = "None | bool | float | str | list[float] | list[str]"
TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict": dict}
WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "keys with values",
}
PLURALS = {"int": "integers", "float": "numbers", "bool": "true or false", "str": "names"}


def is_supported(annotation: str) -> bool:
    """Whether options may have this annotation."""
    try:
        tree = _tree(annotation)
    except SyntaxError:
        return False
    return _supports(tree)


def accepts(annotation: str, value: object) -> bool:
    """Whether a value fits a supported annotation.

    Args:
        annotation: One that `is_supported`, as the source has it.
        value: From YAML or JSON, where tuples are lists.
    """
    return _accepts(_tree(annotation), value)


def converted(annotation: str, value: object) -> object:
    """An accepted value as its annotation means it: 3.0 is 3 where only integers are allowed.

    Args:
        annotation: One that `is_supported`, as the source has it.
        value: One that the annotation accepts.
    """
    return _converted(_tree(annotation), value)


def text(annotation: object) -> str:
    """An annotation of a class at run time, as a source would have it: `int | None`."""
    if isinstance(annotation, str):
        return annotation
    is_plain = isinstance(annotation, type) and not getattr(annotation, "__args__", None)
    return annotation.__name__ if is_plain else str(annotation)


def supported_part(annotation: str) -> str | None:
    """What of an annotation options may have: `float` of `float | Tensor`; None if it has none.

    Plain torch optimizers annotate as they like, and an entry gives what YAML can write.
    """
    try:
        part = _supported_part(_tree(annotation))
    except SyntaxError:
        return None
    return None if part is None else ast.unparse(part)


def of_default(value: object) -> str:
    """The annotation of an argument that has none, from its default as JSON has it.

    A number stands for any number: many write `weight_decay=0`.
    """
    if value is None:
        return ANYTHING
    if isinstance(value, bool | str):
        return type(value).__name__
    if isinstance(value, list):
        items = [of_default(item) for item in value] or ["float", "..."]
        return f"tuple[{', '.join(items)}]"
    return "float"


def in_words(annotation: str) -> str:
    """A supported annotation in words: `a number or null`."""
    return _in_words(_tree(annotation))


def takes_text(annotation: str) -> bool:
    """Whether a text may be a value, or a part of one."""
    nodes = ast.walk(_tree(annotation))
    return any(isinstance(node, ast.Name) and node.id == "str" for node in nodes)


@functools.cache
def _tree(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


def _supports(node: ast.expr) -> bool:
    if _is_none(node):
        return True
    if members := _union(node):
        return all(_supports(member) for member in members)
    if not isinstance(node, ast.Subscript):
        return ast.unparse(node) in TYPES
    kind = _container(node)
    if kind == "Literal":
        return all(isinstance(item, ast.Constant | ast.UnaryOp) for item in _items(node))
    items, _ = _element_types(node)
    if kind == "list" and len(_items(node)) != 1:
        return False
    return kind in ("tuple", "list") and bool(items) and all(_supports(item) for item in items)


def _supported_part(node: ast.expr) -> ast.expr | None:
    if members := _union(node):
        parts = [part for member in members if (part := _supported_part(member)) is not None]
        texts = [ast.unparse(part) for part in parts]
        return _tree(" | ".join(texts)) if texts else None
    if isinstance(node, ast.Subscript) and _container(node) in ("tuple", "list"):
        types, repeated = _element_types(node)
        parts = [_supported_part(item) for item in types]
        if not parts or None in parts:
            return None
        texts = [ast.unparse(part) for part in parts] + ["..."] * repeated
        return _tree(f"tuple[{', '.join(texts)}]")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _supported_part(_tree(node.value))  # a part in quotes
    return node if _supports(node) else None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _container(node: ast.Subscript) -> str:
    """The name before the brackets: `tuple` in `tuple[int, ...]`, `Optional` in `Optional[int]`."""
    name = ast.unparse(node.value).rpartition(".")[2]
    return {"Tuple": "tuple", "List": "list"}.get(name, name)


def _items(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _union(node: ast.expr) -> list[ast.expr]:
    """The members of `X | Y`, `Union[X, Y]` or `Optional[X]`; empty for anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [node.left, node.right]
    if isinstance(node, ast.Subscript) and _container(node) == "Union":
        return _items(node)
    if isinstance(node, ast.Subscript) and _container(node) == "Optional":
        return [*_items(node), ast.Constant(None)]
    return []


def _element_types(node: ast.Subscript) -> tuple[list[ast.expr], bool]:
    """The types in a tuple or list, and whether one type stands for any number of elements."""
    items = _items(node)
    if _container(node) == "list":
        return items, True
    if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is Ellipsis:
        return items[:1], True
    return items, False


def _accepts(node: ast.expr, value: object) -> bool:
    if _is_none(node):
        return value is None
    if members := _union(node):
        return any(_accepts(member, value) for member in members)
    if not isinstance(node, ast.Subscript):
        name = ast.unparse(node)
        # Python counts True as an integer, YAML does not.
        is_whole = name == "int" and isinstance(value, float) and value.is_integer()
        is_bool = isinstance(value, bool)
        return is_whole or (isinstance(value, TYPES[name]) and is_bool == (name == "bool"))
    if _container(node) == "Literal":
        return _choice(node, value) is not None
    items, repeated = _element_types(node)
    if not isinstance(value, list | tuple) or (not repeated and len(value) != len(items)):
        return False
    types = items * len(value) if repeated else items
    return all(_accepts(kind, element) for kind, element in zip(types, value, strict=True))


def _choice(node: ast.Subscript, value: object) -> ast.expr | None:
    """The member of a `Literal` that a value is: 2.0 is 2, and True is not 1."""
    for item in _items(node):
        choice = ast.literal_eval(item)
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return item
    return None


def _converted(node: ast.expr, value: object) -> object:
    if members := _union(node):
        accepting = [member for member in members if _accepts(member, value)]
        is_whole = isinstance(value, float) and any(
            ast.unparse(one) == "float" for one in accepting
        )
        return value if is_whole else _converted(accepting[0], value)
    if isinstance(node, ast.Subscript):
        if _container(node) == "Literal":
            return ast.literal_eval(_choice(node, value))
        items, repeated = _element_types(node)
        types = items * len(value) if repeated else items
        pairs = zip(types, value, strict=True)
        return type(value)(_converted(kind, element) for kind, element in pairs)
    is_whole_float = ast.unparse(node) == "int" and isinstance(value, float)
    return int(value) if is_whole_float else value


def _in_words(node: ast.expr) -> str:
    if _is_none(node):
        return "null"
    if members := _union(node):
        return " or ".join(_in_words(member) for member in members)
    if not isinstance(node, ast.Subscript):
        return WORDS[ast.unparse(node)]
    if _container(node) == "Literal":
        return ", ".join(str(ast.literal_eval(item)) for item in _items(node))
    items, repeated = _element_types(node)
    names = {ast.unparse(item) for item in items}
    if len(names) > 1 or not names <= set(PLURALS):
        return f"a list: {ast.unparse(node)}"
    plural = PLURALS[names.pop()]
    return f"a list of {plural}" if repeated else f"a list of {len(items)} {plural}"
