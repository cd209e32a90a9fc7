"""Finding the classes that a catalogue is made of."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llenergymeasure.config.catalogue.knob import Knob
from llenergymeasure.config.catalogue.reading.fields import class_fields, is_deprecated, tidy
from llenergymeasure.config.catalogue.reading.names import Found, Module, Sources
from llenergymeasure.config.catalogue.reading.types import TypeReader
from llenergymeasure.config.catalogue.reading.values import NotPlainError, evaluate
from llenergymeasure.errors import ConfigurationError, Problem


def own_class(sources: Sources, module: str, name: str) -> Found:
    """Return a class that a release must have.

    Raises:
        ConfigurationError: it has none by that name there.
    """
    home = sources.module(module)
    found = None if home is None else home.find(name)
    if found is None or not isinstance(found.node, ast.ClassDef):
        package, version = sources.release.package, sources.release.version
        message = (
            f"has no class {name} in {module}: {package} {version} is laid out otherwise than the "
            "releases this program knows"
        )
        raise ConfigurationError(Problem(message, file=sources.release.location))
    return found


def named_classes(
    sections: Mapping[str, Mapping[str, Knob]], types: TypeReader
) -> dict[str, dict[str, Knob]]:
    """Return the fields of every class that the knobs' types name, and of those these name."""
    classes: dict[str, dict[str, Knob]] = {}
    left = [knob.type for knobs in sections.values() for knob in knobs.values()]
    while left:
        for name in _names(left.pop()):
            if name not in classes:
                classes[name] = class_fields(types.classes[name], types)
                left += [knob.type for knob in classes[name].values()]
    return dict(sorted(classes.items()))


def _names(kind: Sequence[Any]) -> Iterator[str]:
    for part in kind:
        if isinstance(part, Mapping):
            if "class" in part:
                yield part["class"]
            for form in ("list", "dict"):
                yield from _names(part.get(form, ()))


@dataclass(frozen=True)
class Spoken:
    """What an engine's command line says of an argument.

    Attributes:
        help: its description.
        choices: its values, where they are listed and can be told.
    """

    help: str = ""
    choices: tuple[Any, ...] = ()


def command_line(tree: ast.AST, module: Module) -> dict[str, Spoken]:
    """Return what each ``add_argument("--some-name", …)`` says, by ``some_name``."""
    spoken = {}
    local = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "add_argument":
            continue
        given = {each.arg: each.value for each in node.keywords}
        help_text = _told(given.get("help"), module)
        listed = given.get("choices")
        if isinstance(listed, ast.Name):
            listed = local.get(listed.id, listed)
        choices = _told(listed, module)
        said = Spoken(
            tidy(help_text) if isinstance(help_text, str) else "",
            tuple(choices) if isinstance(choices, list) else (),
        )
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                spoken[argument.value.lstrip("-").replace("-", "_")] = said
    return spoken


def with_command_line(knob: Knob, spoken: Mapping[str, Spoken]) -> Knob:
    """Return the knob with the help and choices that only the command line states."""
    said = spoken.get(knob.name)
    if said is None:
        return knob
    help_text = knob.help or said.help
    listed = not knob.choices and said.choices and knob.type == ("str",)
    kind = ({"choices": list(said.choices)},) if listed else knob.type
    deprecated = knob.deprecated or is_deprecated(help_text)
    return replace(knob, help=help_text, type=kind, deprecated=deprecated)


def _told(node: ast.expr | None, module: Module) -> Any:
    try:
        return None if node is None else evaluate(node, module)
    except NotPlainError:
        return None
