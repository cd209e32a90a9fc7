"""The fields of a class of settings (a dataclass, a pydantic model, a msgspec structure)."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llenergymeasure.config.catalogue.knob import BOUNDS, Knob
from llenergymeasure.config.catalogue.reading.names import Found, Module, attributes
from llenergymeasure.config.catalogue.reading.types import TypeReader
from llenergymeasure.config.catalogue.reading.values import NotPlainError, evaluate

HELP_LENGTH = 700
"""Longer help is cut at the end of a sentence: the engine's own reference has the rest."""

_FACTORIES: Mapping[str, Any] = {"dict": {}, "list": [], "set": []}


@dataclass(frozen=True)
class Default:
    """What a field is if it is not set.

    Attributes:
        value: as JSON holds it; null where there is none, or where it cannot be told.
        text: the expression, where its value cannot be told.
        bounds: those stated with it.
        help: the text stated with it.
        required: whether there is no default.
        settable: whether the class takes it as an argument at all.
    """

    value: Any = None
    text: str | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    help: str = ""
    required: bool = False
    settable: bool = True


def class_fields(found: Found, types: TypeReader, *, private: bool = False) -> dict[str, Knob]:
    """Return the settable fields of a class and of its bases, in order.

    Args:
        found: the class.
        types: reads its annotations.
        private: whether fields whose name starts with ``_`` count too.
    """
    knobs: dict[str, Knob] = {}
    for statement, text, module in _all_attributes(found):
        assert isinstance(statement.target, ast.Name)
        name = statement.target.id
        if (name.startswith("_") and not private) or _mentions(statement.annotation, "ClassVar"):
            continue
        default = read_default(statement.value, module)
        if not default.settable:
            knobs.pop(name, None)
            continue
        help_text = tidy(text or default.help or described(statement.annotation, module))
        knobs[name] = Knob(
            name=name,
            type=types.read(statement.annotation, module),
            default=default.value,
            default_text=default.text,
            help=help_text,
            bounds=default.bounds or _annotated_bounds(statement.annotation, module),
            required=default.required,
            deprecated=is_deprecated(help_text),
        )
    return knobs


def _all_attributes(found: Found) -> Iterator[tuple[ast.AnnAssign, str, Module]]:
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        inherited = found.module.find_dotted(base)
        if inherited is not None and isinstance(inherited.node, ast.ClassDef):
            yield from _all_attributes(inherited)
    for statement, text in attributes(found.node):
        yield statement, text, found.module


def field_of(found: Found, name: str) -> tuple[ast.AnnAssign, str, Module] | None:
    """Return the statement that gives a class the field ``name``; null if it has none."""
    for statement, text, module in reversed(list(_all_attributes(found))):
        assert isinstance(statement.target, ast.Name)
        if statement.target.id == name:
            return statement, text, module
    return None


def read_default(node: ast.expr | None, module: Module) -> Default:
    """Return what the right side of a field's statement says."""
    if node is None:
        return Default(required=True)
    call = _field_call(node)
    if call is not None:
        return _from_field(call, module)
    if isinstance(node, ast.Call) and _last(node.func) == "get_field" and len(node.args) == 2:
        owner, name = module.find_dotted(node.args[0]), node.args[1]
        if owner is not None and isinstance(name, ast.Constant):
            return linked_default(owner, str(name.value)) or Default(text=ast.unparse(node))
    if isinstance(node, ast.Attribute):
        owner = module.find_dotted(node.value)
        if owner is not None and isinstance(owner.node, ast.ClassDef):
            linked = linked_default(owner, node.attr)
            if linked is not None:
                return linked
    return _plain(node, module)


def linked_default(owner: Found, name: str) -> Default | None:
    """Return the default that another class gives to a field; null if it has no such field."""
    if not isinstance(owner.node, ast.ClassDef):
        return None
    found = field_of(owner, name)
    if found is None:
        return None
    statement, _, module = found
    return read_default(statement.value, module)


def _plain(node: ast.expr, module: Module) -> Default:
    try:
        return Default(value=evaluate(node, module))
    except NotPlainError:
        return Default(text=ast.unparse(node)[:120])


def _field_call(node: ast.expr) -> ast.Call | None:
    if not isinstance(node, ast.Call):
        return None
    name = _last(node.func)
    return node if name in ("Field", "field", "PydanticField") else None


def _from_field(call: ast.Call, module: Module) -> Default:
    given = {each.arg: each.value for each in call.keywords if each.arg is not None}
    init = given.get("init")
    settable = not (isinstance(init, ast.Constant) and init.value is False)
    bounds = {}
    for name in BOUNDS:
        if name in given:
            try:
                bounds[name] = evaluate(given[name], module)
            except NotPlainError:
                continue
    text = ""
    if "description" in given:
        try:
            text = str(evaluate(given["description"], module))
        except NotPlainError:
            text = ""
    base = Default(required=True)
    if call.args:
        is_required = isinstance(call.args[0], ast.Constant) and call.args[0].value is ...
        base = Default(required=True) if is_required else _plain(call.args[0], module)
    elif "default" in given:
        base = _plain(given["default"], module)
    elif "default_factory" in given:
        base = _from_factory(given["default_factory"], module)
    return Default(base.value, base.text, bounds, text, base.required, settable)


def _from_factory(node: ast.expr, module: Module) -> Default:
    if isinstance(node, ast.Lambda):
        return _plain(node.body, module)
    name = _last(node)
    if name in _FACTORIES:
        return Default(value=_FACTORIES[name])
    return Default(text=f"{ast.unparse(node)}()"[:120])


def _annotated_bounds(annotation: ast.expr, module: Module) -> dict[str, float]:
    """Return the bounds in ``Annotated[T, Field(ge=…)]`` and in pydantic's named types."""
    bounds: dict[str, float] = {}
    for node in ast.walk(annotation):
        if isinstance(node, ast.Call) and _last(node.func) in ("Field", "Ge", "Gt", "Le", "Lt"):
            bounds |= _from_field(node, module).bounds
        elif isinstance(node, ast.Name):
            bounds |= _NAMED_BOUNDS.get(node.id, {})
    return bounds


_NAMED_BOUNDS: Mapping[str, Mapping[str, float]] = {
    "PositiveInt": {"gt": 0},
    "PositiveFloat": {"gt": 0},
    "NonNegativeInt": {"ge": 0},
    "NonNegativeFloat": {"ge": 0},
}


def described(annotation: ast.expr, module: Module) -> str:
    """Return the description in ``Annotated[T, Field(description=…)]``, if there is one."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Call) and _last(node.func) == "Field":
            return _from_field(node, module).help
    return ""


def _mentions(annotation: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(annotation))


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def tidy(text: str) -> str:
    """Return a description on one line, cut at the end of a sentence where it is long."""
    line = re.sub(r"\s+", " ", text).strip()
    if len(line) <= HELP_LENGTH:
        return line
    end = line.rfind(". ", 0, HELP_LENGTH)
    return f"{line[: end + 1] if end > 0 else line[:HELP_LENGTH]} …"


def is_deprecated(text: str) -> bool:
    """Whether a description says that the field is on its way out."""
    return (
        re.search(r"^\W*\[?deprecated|\bis deprecated\b|deprecated and ", text.lower()) is not None
    )
