"""The values of constant expressions in source: defaults of options.

Nothing is run: an expression is read as a syntax tree.
"""

import ast
import operator

from rankwise.study.module_source import parse, statements

UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def evaluate(node: ast.expr) -> object:
    """The value of a constant expression; tuples become lists, as in JSON."""
    if isinstance(node, ast.Constant) and not isinstance(node.value, bytes | complex):
        if node.value is not Ellipsis:
            return node.value
    elif isinstance(node, ast.Tuple | ast.List):
        return [evaluate(item) for item in node.elts]
    elif isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](_number(node.operand))
    elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return BINARY[type(node.op)](_number(node.left), _number(node.right))
    raise ValueError("not a constant expression")


def _number(node: ast.expr) -> int | float:
    value = evaluate(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return value


def with_constants(node: ast.expr, module: str) -> ast.expr:
    """An expression in which the names that a module sets at its top stand as what they are set to.

    `ns_steps: int = DEFAULT_STEPS` is how torch's Muon has its defaults.

    Args:
        node: the expression, left as it is.
        module: the dotted name of the module that it stands in.
    """
    values = {}
    for statement in statements(parse(module)):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = statement.value

    class Constants(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            return values.get(name.id, name)

    return Constants().visit(ast.parse(ast.unparse(node), mode="eval").body)
