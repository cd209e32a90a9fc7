"""The value of an expression in a source file, where it can be told without running it."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from llenergymeasure.config.catalogue.reading.names import MAX_STEPS, Found, Module


class NotPlainError(ValueError):
    """The expression's value is only known to the running engine."""


_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
_EMPTY: Mapping[str, Callable[[], Any]] = {"dict": dict, "list": list, "set": list, "tuple": list}


def evaluate(node: ast.AST, module: Module, steps: int = MAX_STEPS) -> Any:
    """Return the value of an expression as JSON would hold it; sets and tuples become lists.

    Raises:
        NotPlainError: only running the engine would tell.
    """
    if steps == 0:
        raise NotPlainError
    if isinstance(node, ast.Constant):
        if node.value is ... or isinstance(node.value, bytes | complex):
            raise NotPlainError
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return _items(node.elts, module, steps)
    if isinstance(node, ast.Dict):
        return _mapping(node, module, steps)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -evaluate(node.operand, module, steps - 1)
    if isinstance(node, ast.BinOp):
        return _operation(node, module, steps)
    if isinstance(node, ast.JoinedStr):
        return _text(node, module, steps)
    if isinstance(node, ast.Call):
        return _call(node, module, steps)
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node, module, steps)
    raise NotPlainError


def _items(elements: list[ast.expr], module: Module, steps: int) -> list[Any]:
    items: list[Any] = []
    for element in elements:
        if isinstance(element, ast.Starred):
            items += evaluate(element.value, module, steps - 1)
        else:
            items.append(evaluate(element, module, steps - 1))
    return items


def _mapping(node: ast.Dict, module: Module, steps: int) -> dict[str, Any]:
    pairs = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise NotPlainError
        pairs[str(evaluate(key, module, steps - 1))] = evaluate(value, module, steps - 1)
    return pairs


def _operation(node: ast.BinOp, module: Module, steps: int) -> Any:
    operation = _OPERATIONS.get(type(node.op))
    if operation is None:
        raise NotPlainError
    left = evaluate(node.left, module, steps - 1)
    right = evaluate(node.right, module, steps - 1)
    try:
        return operation(left, right)
    except (TypeError, ZeroDivisionError, OverflowError):
        raise NotPlainError from None


def _text(node: ast.JoinedStr, module: Module, steps: int) -> str:
    """Return a formatted text; what is filled in and cannot be told is left out."""
    parts = []
    for value in node.values:
        inner = value.value if isinstance(value, ast.FormattedValue) else value
        try:
            parts.append(str(evaluate(inner, module, steps - 1)))
        except NotPlainError:
            continue
    return "".join(parts)


def _call(node: ast.Call, module: Module, steps: int) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name in _EMPTY and not node.args and not node.keywords:
        return _EMPTY[name]()
    if name in ("list", "set", "tuple", "frozenset", "sorted", "get_args") and len(node.args) == 1:
        value = evaluate(node.args[0], module, steps - 1)
        if isinstance(value, list | dict):
            return sorted(value) if name == "sorted" else list(value)
    if name == "keys" and isinstance(node.func, ast.Attribute):
        value = evaluate(node.func.value, module, steps - 1)
        if isinstance(value, dict):
            return list(value)
    raise NotPlainError


def _named(node: ast.Name | ast.Attribute, module: Module, steps: int) -> Any:
    found = module.find_dotted(node)
    if found is None and isinstance(node, ast.Attribute):
        owner = module.find_dotted(node.value)
        found = None if owner is None else _member(owner, node.attr)
    if found is None or isinstance(found.node, ast.ClassDef):
        raise NotPlainError
    if isinstance(found.node, ast.Subscript):
        return _literal(found, steps)
    return evaluate(found.node, found.module, steps - 1)


def _member(owner: Found, name: str) -> Found | None:
    """Return what a class sets an attribute to; for a member of an enumeration its name."""
    if not isinstance(owner.node, ast.ClassDef):
        return None
    for statement in owner.node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = statement.value  # type: ignore[attr-defined]
            if is_enumeration(owner.node) and not _is_scalar(value):
                return Found(ast.Constant(name), owner.module)
            return Found(value, owner.module)
    return None


def _is_scalar(node: ast.expr) -> bool:
    """Whether a member can be written by its value; a dotted text is the path of a class."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float | str):
        return False
    return not isinstance(node.value, str) or "." not in node.value


def is_enumeration(node: ast.ClassDef) -> bool:
    """Whether a class is an enumeration, by the names of its bases."""
    names = {
        base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        for base in node.bases
    }
    return any(name.endswith("Enum") for name in names)


def _literal(found: Found, steps: int) -> list[Any]:
    """Return the values of an alias such as ``Literal["a", "b"]``."""
    node = found.node
    assert isinstance(node, ast.Subscript)
    if getattr(node.value, "id", "") != "Literal":
        raise NotPlainError
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    values: list[Any] = []
    for each in inner:
        value = evaluate(each, found.module, steps - 1)
        values += value if isinstance(value, list) else [value]
    return values
