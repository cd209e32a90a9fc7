"""The settings a study may name: dotted paths, types, and the nearest to a misspelling."""

import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.backends.sglang import SGLangEngineConfig, SGLangSamplingConfig
from llenergymeasure.config.backends.tensorrt import TensorRTEngineConfig, TensorRTSamplingConfig
from llenergymeasure.config.backends.vllm import VLLMEngineConfig, VLLMSamplingConfig
from llenergymeasure.config.engine_parameters import Schema, forms
from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.section import Fault

ENGINE_SECTIONS: tuple[type[EngineSection], ...] = (
    PyTorchConfig,
    VLLMEngineConfig,
    VLLMSamplingConfig,
    SGLangEngineConfig,
    SGLangSamplingConfig,
    TensorRTEngineConfig,
    TensorRTSamplingConfig,
)
"""The parts of a study file that an engine describes."""


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """Return the models among the alternatives of a type."""
    parts = [part for part in _alternatives(annotation) if isinstance(part, type)]
    return [part for part in parts if issubclass(part, BaseModel)]


def takes_any_key(annotation: Any) -> bool:
    """Return whether a type is a free mapping, whose keys are not ours to check."""
    return any(part is dict or get_origin(part) is dict for part in _alternatives(annotation))


def takes_mapping(annotation: Any) -> bool:
    """Return whether a mapping can be a value of this type."""
    return bool(submodels(annotation)) or takes_any_key(annotation)


def takes_numbers(annotation: Any) -> bool:
    """Return whether a number can be a value of this type."""
    return not {int, float}.isdisjoint(_alternatives(annotation))


def takes_whole_numbers_only(annotation: Any) -> bool:
    """Return whether a number of this type is an integer."""
    parts = _alternatives(annotation)
    return int in parts and float not in parts


def field_in(model: type[BaseModel], name: str) -> FieldInfo | None:
    """Return a model's setting by its name, an engine's parameter too; None if there is none."""
    field = model.model_fields.get(name)
    if field is not None or not issubclass(model, EngineSection):
        return field
    parameter = model.parameter(name)
    return None if parameter is None else _as_field(parameter)


def _as_field(parameter: Schema) -> FieldInfo:
    """Return an engine's parameter as a setting of a model would be."""
    kinds = forms(parameter)
    annotation: Any = Any
    if "object" in kinds:
        annotation = dict[str, Any] | None
    elif kinds == {"integer"}:
        annotation = int | None
    elif kinds & {"integer", "number"}:
        annotation = float | None
    elif "array" in kinds:
        annotation = list[Any] | None
    return FieldInfo(annotation=annotation, default=None)


def field_at(path: tuple[str, ...], root: type[BaseModel] = ExperimentConfig) -> FieldInfo | None:
    """Return the setting at a path below ``root``; None if there is none by that name.

    A path inside a free mapping gives the mapping's own field.
    """
    model: type[BaseModel] | None = root
    field: FieldInfo | None = None
    for part in path:
        if model is None:
            return field if field is not None and takes_any_key(field.annotation) else None
        field = field_in(model, part)
        if field is None:
            return None
        models = submodels(field.annotation)
        model = models[0] if models else None
    return field


def below(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return ``value`` in the sections that ``path`` names."""
    *sections, name = path
    nested = {name: value}
    for section in reversed(sections):
        nested = {section: nested}
    return nested


def unknown_settings(
    values: Any,
    also: tuple[str, ...] = (),
    model: type[BaseModel] = ExperimentConfig,
    above: tuple[str, ...] = (),
) -> Iterator[Fault]:
    """Yield a fault for each key that is no setting of an experiment, at any depth."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        path = (*above, str(key))
        field = field_in(model, str(key))
        if field is None:
            message = unknown_key_message(path, also)
            if "." in str(key):
                message = "unknown key; dotted keys are for sweep, write nested mappings here"
            yield Fault(path, message, value)
            continue
        for inner in submodels(field.annotation):
            yield from unknown_settings(value, also, inner, path)


def settings(
    model: type[BaseModel] = ExperimentConfig, prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    """Yield every setting's dotted path, sections included, with its model and its field there."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", model, field
        for inner in submodels(field.annotation):
            yield from settings(inner, f"{prefix}{name}.")


@lru_cache
def all_paths() -> tuple[str, ...]:
    """Return every setting's dotted path, sections included, in the order they are described."""
    return tuple(path for path, _, _ in settings())


def unknown_key_message(
    path: tuple[str, ...],
    also: tuple[str, ...] = (),
    root: type[BaseModel] = ExperimentConfig,
) -> str:
    """Return what to say about a key that is not known, with the nearest ones that are.

    Args:
        path: the path of the key, below ``root``.
        also: further keys that are known at the top, such as those of a study.
        root: what was checked.
    """
    *above, name = path
    for section in ENGINE_SECTIONS:
        if section.study_path == ".".join(above):
            return section.refusal(name) or section.unknown(name)
    field = field_at(tuple(above), root)
    models = [] if field is None else submodels(field.annotation)
    known = tuple(models[0].model_fields) if models else ()
    if not above:
        known = tuple(dict.fromkeys((*root.model_fields, *also)))  # a study has its own of some
    near = [".".join((*above, each)) for each in nearest_names(name, known)[:1]]
    if root is ExperimentConfig:
        near = near or _elsewhere(name)
    if near or not known:
        return f"unknown key{did_you_mean(near)}"
    return f"unknown key; known here: {', '.join(known)}"


def _elsewhere(name: str) -> list[str]:
    """Return the settings of this name in other sections, at most two."""
    found = [known for known in all_paths() if known.rsplit(".", 1)[-1] == name]
    found += [f"{each.study_path}.{name}" for each in ENGINE_SECTIONS if each.parameter(name)]
    return list(dict.fromkeys(found))[:2]


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for each in get_args(annotation) for part in _alternatives(each)]
    return [annotation]
