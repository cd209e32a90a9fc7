"""SGLang's knobs: the namespaces that ``ServerArgs`` is put together from, and sampling."""

import ast
from collections.abc import Iterator
from dataclasses import replace

from llenergymeasure.config.catalogue.knob import Catalogue, Knob
from llenergymeasure.config.catalogue.reading.collecting import (
    command_line,
    named_classes,
    own_class,
    with_command_line,
)
from llenergymeasure.config.catalogue.reading.fields import class_fields, is_deprecated, tidy
from llenergymeasure.config.catalogue.reading.names import Found, Module, Sources, attributes
from llenergymeasure.config.catalogue.reading.release import Release
from llenergymeasure.config.catalogue.reading.types import TypeReader, merged
from llenergymeasure.config.catalogue.reading.values import NotPlainError, evaluate

_FIELDS = "sglang/srt/arg_groups/fields"
_SERVER = "sglang.srt.server_args"
_SAMPLING = "sglang.srt.sampling.sampling_params"

_SET_BY_THE_ENGINE = {
    "stop_strs",
    "stop_regex_strs",
    "stop_str_max_len",
    "stop_regex_max_len",
    "is_normalized",
    "ebnf_full_assistant",
}
"""Fields of ``SamplingParams`` below SGLang's comment "not API-facing"."""


def read(release: Release) -> Catalogue:
    """Return the catalogue of a release of SGLang.

    Up to 0.5.13 ``ServerArgs`` is one dataclass; later its fields stand in files by theme.

    Raises:
        ConfigurationError: the release is laid out otherwise than those known.
    """
    sources, types = Sources(release), TypeReader()
    server = own_class(sources, _SERVER, "ServerArgs").module
    spoken = command_line(server.tree, server)
    engine: dict[str, Knob] = {}
    for found in _holders(sources, release):
        engine |= {knob.name: with_command_line(knob, spoken) for knob in _arguments(found, types)}
    sampling = {
        name: replace(knob, internal=name in _SET_BY_THE_ENGINE)
        for name, knob in class_fields(
            own_class(sources, _SAMPLING, "SamplingParams"), types
        ).items()
    }
    sections = {"engine": engine, "sampling": sampling}
    return Catalogue(
        backend="sglang",
        package=release.package,
        version=release.version,
        sections=sections,
        classes=named_classes(sections, types),
        source=sources.read(),
    )


def _holders(sources: Sources, release: Release) -> Iterator[Found]:
    paths = [path for path in release.files(_FIELDS) if not path.endswith("__init__.py")]
    if not paths:
        yield own_class(sources, _SERVER, "ServerArgs")
        return
    for path in paths:
        module = sources.module(path.removesuffix(".py").replace("/", "."))
        assert module is not None
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and _is_namespace(node):
                yield Found(node, module)


def _is_namespace(node: ast.ClassDef) -> bool:
    return any(
        isinstance(each, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "_NS_PATH" for target in each.targets)
        for each in node.body
    )


def _arguments(found: Found, types: TypeReader) -> Iterator[Knob]:
    plain = class_fields(found, types, private=True)
    assert isinstance(found.node, ast.ClassDef)
    for statement, _ in attributes(found.node):
        assert isinstance(statement.target, ast.Name)
        knob = plain.get(statement.target.id)
        if knob is not None:
            yield _with_metadata(knob, statement.annotation, found.module)


def _with_metadata(knob: Knob, annotation: ast.expr, module: Module) -> Knob:
    """Return the knob with what ``A[T, "help"]`` or ``A[T, Arg(…)]`` says of it."""
    internal = knob.name.startswith("_")
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
        return replace(knob, internal=internal)
    for part in annotation.slice.elts[1:]:
        if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "Arg":
            knob = _with_arg(knob, part, module)
        elif not isinstance(part, ast.Call):
            knob = replace(knob, help=tidy(_text(part, module)))
    return replace(knob, internal=internal or knob.internal, deprecated=is_deprecated(knob.help))


def _with_arg(knob: Knob, call: ast.Call, module: Module) -> Knob:
    given = {each.arg: each.value for each in call.keywords if each.arg is not None}
    if "help" in given:
        knob = replace(knob, help=tidy(_text(given["help"], module)))
    if "choices" in given:
        knob = _with_choices(knob, given["choices"], module)
    if "fallback" in given and knob.default is None:
        try:
            knob = replace(knob, default=evaluate(given["fallback"], module))
        except NotPlainError:
            knob = replace(knob, default_text=ast.unparse(given["fallback"]))
    names = [_text(given["cli_name"], module)] if "cli_name" in given else []
    if "aliases" in given and isinstance(given["aliases"], ast.List):
        names += [_text(each, module) for each in given["aliases"].elts]
    aliases = tuple(name.lstrip("-").replace("-", "_") for name in names if name.startswith("--"))
    return replace(knob, aliases=aliases)


def _with_choices(knob: Knob, node: ast.expr, module: Module) -> Knob:
    """Return the knob with its listed choices, in a list too where it takes several."""
    try:
        values = evaluate(node, module)
    except NotPlainError:
        return knob
    choices = {"choices": [value for value in values if value is not None]}
    listed = any(isinstance(part, dict) and "list" in part for part in knob.type)
    return replace(knob, type=({"list": [choices]},) if listed else merged([choices]))


def _text(node: ast.expr, module: Module) -> str:
    try:
        return str(evaluate(node, module))
    except NotPlainError:
        return ""
