"""vLLM's knobs: ``EngineArgs``, ``SamplingParams``, and the classes behind them."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace

from llenergymeasure.config.catalogue.knob import Catalogue, Knob, Type
from llenergymeasure.config.catalogue.reading.collecting import (
    command_line,
    named_classes,
    own_class,
    with_command_line,
)
from llenergymeasure.config.catalogue.reading.fields import (
    class_fields,
    field_of,
    is_deprecated,
    tidy,
)
from llenergymeasure.config.catalogue.reading.names import Found, Module, Sources, attributes
from llenergymeasure.config.catalogue.reading.release import Release
from llenergymeasure.config.catalogue.reading.types import TypeReader

_ARGUMENTS = "vllm.engine.arg_utils"
_SAMPLING = "vllm.sampling_params"

_MAPPINGS = {
    "speculative_config": "SpeculativeConfig",
    "watermark_config": "WatermarkConfig",
    "diffusion_config": "DiffusionConfig",
    "quantization_config": "QuantizationConfigArgs",
}
"""Knobs typed as plain mappings that the engine makes one of its classes of."""

_OURS = {
    "target_model_config",
    "target_parallel_config",
    "draft_model_config",
    "draft_parallel_config",
}
"""Fields of ``SpeculativeConfig`` that the engine fills in from its own."""

_SET_BY_THE_ENGINE = {"output_text_buffer_length", "skip_clone", "output_kind"}
"""Fields of ``SamplingParams`` that vLLM's comments reserve for itself, or that change how
answers are handed over and so what we can count."""


def read(release: Release) -> Catalogue:
    """Return the catalogue of a release of vLLM.

    Raises:
        ConfigurationError: the release is laid out otherwise than those known.
    """
    sources, types = Sources(release), TypeReader()
    engine = own_class(sources, _ARGUMENTS, "EngineArgs")
    sampling = own_class(sources, _SAMPLING, "SamplingParams")
    knobs = {
        knob.name: replace(knob, internal=knob.name.startswith("_"))
        for knob in _engine(engine, types)
    }
    sections = {"engine": knobs, "sampling": _sampling(sampling, types)}
    return Catalogue(
        backend="vllm",
        package=release.package,
        version=release.version,
        sections=sections,
        classes=_classes(sections, types),
        source=sources.read(),
    )


def _engine(found: Found, types: TypeReader) -> Iterator[Knob]:
    plain = class_fields(found, types, private=True)
    assert isinstance(found.node, ast.ClassDef)
    holders = list(_config_classes(found.module))
    spoken = command_line(found.module.tree, found.module)
    for statement, text in attributes(found.node):
        assert isinstance(statement.target, ast.Name)
        knob = plain.get(statement.target.id)
        if knob is None:
            continue
        link = _link(statement, found.module) or _namesake(knob.name, holders)
        if link is not None:
            knob = _with_link(knob, link, types)
        knob = with_command_line(replace(knob, help=tidy(text) or knob.help), spoken)
        named = _MAPPINGS.get(knob.name)
        owner = found.module.sources.find_class(named) if named else None
        if named and owner is not None:
            types.classes[named] = owner
            knob = replace(knob, type=({"class": named},))
        yield replace(knob, deprecated=is_deprecated(knob.help) or _announced(knob, found.module))


def _link(statement: ast.AnnAssign, module: Module) -> tuple[Found, str] | None:
    """Return the class and field that ``x: T = SomeConfig.y`` takes its default from."""
    value = statement.value
    owner: Found | None = None
    name = ""
    if isinstance(value, ast.Attribute):
        owner, name = module.find_dotted(value.value), value.attr
    elif isinstance(value, ast.Call) and len(value.args) == 2:
        owner = module.find_dotted(value.args[0])
        name = str(getattr(value.args[1], "value", ""))
    if owner is None or not isinstance(owner.node, ast.ClassDef) or field_of(owner, name) is None:
        return None
    return owner, name


def _namesake(name: str, holders: list[Found]) -> tuple[Found, str] | None:
    """Return the configuration class that has a field of the same name, if only one has."""
    having = [holder for holder in holders if field_of(holder, name) is not None]
    return (having[0], name) if len(having) == 1 else None


def _config_classes(module: Module) -> Iterator[Found]:
    for name in module.imported_names():
        if name.endswith("Config") and name not in ("VllmConfig", "SpeculativeConfig"):
            found = module.find(name)
            if found is not None and isinstance(found.node, ast.ClassDef):
                yield found


def _with_link(knob: Knob, link: tuple[Found, str], types: TypeReader) -> Knob:
    owner, name = link
    linked = class_fields(owner, types).get(name)
    if linked is None:
        return knob
    kind: Type = knob.type
    if linked.choices and not knob.choices:
        kind = linked.type
    return replace(
        knob,
        type=kind,
        help=linked.help or knob.help,
        bounds=knob.bounds or linked.bounds,
    )


def _announced(knob: Knob, module: Module) -> bool:
    """Whether vLLM has a message ready that says the argument is on its way out."""
    return module.find(f"_{knob.name.upper()}_DEPRECATION_MESSAGE") is not None


def _sampling(found: Found, types: TypeReader) -> dict[str, Knob]:
    return {
        name: replace(knob, internal=name.startswith("_") or name in _SET_BY_THE_ENGINE)
        for name, knob in class_fields(found, types, private=True).items()
    }


def _classes(
    sections: Mapping[str, Mapping[str, Knob]], types: TypeReader
) -> dict[str, dict[str, Knob]]:
    classes = named_classes(sections, types)
    speculative = classes.get("SpeculativeConfig", {})
    classes["SpeculativeConfig"] = {
        name: knob for name, knob in speculative.items() if name not in _OURS
    }
    return classes
