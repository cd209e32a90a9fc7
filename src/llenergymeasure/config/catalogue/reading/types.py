"""The type a source file gives to an argument, as a catalogue holds it."""

import ast
from collections.abc import Iterator
from typing import Any

from llenergymeasure.config.catalogue.knob import Type
from llenergymeasure.config.catalogue.reading.names import MAX_STEPS, Found, Module
from llenergymeasure.config.catalogue.reading.values import (
    NotPlainError,
    evaluate,
    is_enumeration,
)

_PLAIN = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "Any": "any",
    "object": "python",
    "NoneType": None,
    "None": None,
    "StrictInt": "int",
    "PositiveInt": "int",
    "NonNegativeInt": "int",
    "PositiveFloat": "float",
    "NonNegativeFloat": "float",
    "PathLike": "str",
    "Path": "str",
}
_LISTS = {"list", "List", "set", "Set", "tuple", "Tuple", "Sequence", "Iterable", "frozenset"}
_DICTS = {"dict", "Dict", "Mapping", "MutableMapping"}
_WRAPPERS = {
    "Annotated",
    "A",
    "SkipValidation",
    "InitVar",
    "Final",
    "Required",
    "Optional",
    "ClassVar",
}


class TypeReader:
    """Turns annotations into types, and collects the classes that they name.

    Attributes:
        classes: by the name they have in the release.
    """

    def __init__(self) -> None:
        self.classes: dict[str, Found] = {}

    def read(self, annotation: ast.AST, module: Module) -> Type:
        """Return the alternatives of an annotation; null left out."""
        parts = list(self._parts(annotation, module, MAX_STEPS))
        return merged(parts)

    def _parts(self, node: ast.AST, module: Module, steps: int) -> Iterator[Any]:
        if steps == 0:
            yield "python"
        elif isinstance(node, ast.Constant):
            yield from self._constant(node, module, steps)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from self._parts(node.left, module, steps - 1)
            yield from self._parts(node.right, module, steps - 1)
        elif isinstance(node, ast.Subscript):
            yield from self._subscript(node, module, steps)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from self._name(node, module, steps)
        else:
            yield "python"

    def _constant(self, node: ast.Constant, module: Module, steps: int) -> Iterator[Any]:
        if node.value is None:
            return
        if isinstance(node.value, str):
            try:
                inner = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                yield "python"
                return
            yield from self._parts(inner, module, steps - 1)

    def _subscript(self, node: ast.Subscript, module: Module, steps: int) -> Iterator[Any]:
        name = _last_name(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            yield {"choices": self._literal(inner, module)}
        elif name == "Union":
            for each in inner:
                yield from self._parts(each, module, steps - 1)
        elif name in _WRAPPERS:
            yield from self._parts(inner[0], module, steps - 1)
        elif name in _LISTS:
            kept = [each for each in inner if not _is_ellipsis(each)]
            parts = [part for each in kept for part in self._parts(each, module, steps - 1)]
            yield {"list": list(merged(parts))}
        elif name in _DICTS:
            yield {"dict": list(merged(list(self._parts(inner[-1], module, steps - 1))))}
        else:
            yield "python"

    def _literal(self, inner: list[ast.expr], module: Module) -> list[Any]:
        values: list[Any] = []
        for each in inner:
            try:
                value = evaluate(each, module)
            except NotPlainError:
                continue
            values += value if isinstance(value, list) else [value]
        return [value for value in dict.fromkeys(values) if value is not None]

    def _name(self, node: ast.Name | ast.Attribute, module: Module, steps: int) -> Iterator[Any]:
        name = _last_name(node)
        found = module.find_dotted(node)
        if found is None:
            if name in _LISTS:
                yield {"list": ["any"]}
            elif name in _DICTS:
                yield {"dict": ["any"]}
            else:
                plain = _PLAIN.get(name, "python")
                if plain is not None:
                    yield plain
        elif not isinstance(found.node, ast.ClassDef):
            yield from self._parts(found.node, found.module, steps - 1)
        elif is_enumeration(found.node):
            yield {"choices": enumeration(found)}
        elif _is_settable(found.node):
            self.classes[found.node.name] = found
            yield {"class": found.node.name}
        else:
            yield "python"


def enumeration(found: Found) -> list[Any]:
    """Return how the members of an enumeration can be written: names, and values if plain."""
    assert isinstance(found.node, ast.ClassDef)
    names: list[Any] = []
    values: list[Any] = []
    for statement in found.node.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        name = statement.targets[0].id
        if name.startswith("_"):
            continue
        names.append(name)
        value = statement.value
        if isinstance(value, ast.Constant) and isinstance(value.value, int | str):
            values.append(value.value)
    dotted = any(isinstance(value, str) and "." in value for value in values)
    if values and not dotted and len(values) == len(names):
        whole = all(isinstance(value, int) for value in values)
        return [*values, *names] if whole else values
    return names


def merged(parts: list[Any]) -> Type:
    """Return alternatives without repeats, choices together, Python objects only if alone."""
    choices = [value for part in parts if _form(part) == "choices" for value in part["choices"]]
    rest = [part for part in parts if _form(part) != "choices"]
    found: list[Any] = [{"choices": list(dict.fromkeys(choices))}] if choices else []
    for part in rest:
        if part not in found:
            found.append(part)
    settable = [part for part in found if part != "python"]
    if "any" in settable:
        settable = ["any"]
    return tuple(settable or found or ["any"])


def _form(part: Any) -> str:
    return next(iter(part)) if isinstance(part, dict) else str(part)


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_settable(node: ast.ClassDef) -> bool:
    """Whether a mapping can stand for the class: it is a record of annotated fields."""
    decorators = {
        _last_name(each.func if isinstance(each, ast.Call) else each)
        for each in node.decorator_list
    }
    bases = {_last_name(each) for each in node.bases}
    record = bool(decorators & {"config", "dataclass"}) or bool(
        bases & {"BaseModel", "StrictBaseModel", "Struct", "TypedDict"}
    )
    return record or any(name.endswith(("Config", "Args", "BaseModel")) for name in bases)
