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
from llenergymeasure.config.old_names import FORMER_NAMES
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

SHOWN_NAMES = 8


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """Return the models among the alternatives of a type."""
    return [part for part in alternatives(annotation) if _is_model(part)]


def _is_section(annotation: Any) -> bool:
    parts = [part for part in alternatives(annotation) if part is not type(None)]
    return all(_is_model(part) for part in parts)


def takes_any_key(annotation: Any) -> bool:
    """Return whether a type is a free mapping, whose keys are not ours to check."""
    return any(part is dict or get_origin(part) is dict for part in alternatives(annotation))


def takes_mapping(annotation: Any) -> bool:
    """Return whether a mapping can be a value of this type."""
    return bool(submodels(annotation)) or takes_any_key(annotation)


def takes_numbers(annotation: Any) -> bool:
    """Return whether a number can be a value of this type."""
    return not {int, float}.isdisjoint(alternatives(annotation))


def takes_whole_numbers_only(annotation: Any) -> bool:
    """Return whether a number of this type is an integer."""
    parts = alternatives(annotation)
    return int in parts and float not in parts


def field_in(model: type[BaseModel], name: str) -> FieldInfo | None:
    """Return a model's setting by its name, an engine's parameter too; None if there is none."""
    field = model.model_fields.get(name)
    if field is not None or not issubclass(model, EngineSection):
        return field
    parameter = model.parameter(name)
    return None if parameter is None else _parameter_field(parameter)


def _parameter_field(parameter: Schema) -> FieldInfo:
    """Return an engine's parameter in the form of a model's setting."""
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
    if not path:
        return None
    section = section_at(path[:-1], root)
    if section is not None:
        return field_in(section, path[-1])
    parent = field_at(path[:-1], root)
    return parent if parent is not None and takes_any_key(parent.annotation) else None


def section_at(path: tuple[str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model of the section at a path below ``root``; None if there is no section."""
    section = root
    for part in path:
        field = field_in(section, part)
        inner = [] if field is None else submodels(field.annotation)
        if not inner:
            return None
        section = inner[0]
    return section


def unknown_settings(
    values: Mapping[str, Any],
    extra: tuple[str, ...] = (),
    section: type[BaseModel] = ExperimentConfig,
    parent: tuple[str, ...] = (),
) -> Iterator[Fault]:
    """Yield a fault for each key that is no setting of an experiment, at any depth.

    Args:
        values: the section's content.
        extra: further keys that are known at the top, such as those of a study.
        section: the section that the keys are looked for in.
        parent: the path of the section.
    """
    for name, value in values.items():
        field, path = field_in(section, name), (*parent, name)
        if field is None:
            message = "unknown key; dotted keys are for sweep, write nested mappings here"
            yield Fault(path, message if "." in name else unknown_key_message(path, extra), value)
        elif isinstance(value, Mapping):
            for inner in submodels(field.annotation):
                yield from unknown_settings(value, extra, inner, path)
        elif value is not None and _is_section(field.annotation):
            yield Fault(path, not_a_mapping_message((name,), section), value)


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
    """Return every setting's dotted path, sections included, in the order of the models."""
    return tuple(path for path, _, _ in settings())


def unknown_key_message(
    path: tuple[str, ...],
    extra: tuple[str, ...] = (),
    root: type[BaseModel] = ExperimentConfig,
) -> str:
    """Return what to say about a key that is not known, with the nearest ones that are.

    Args:
        path: the path of the key, below ``root``.
        extra: further keys that are known at the top, such as those of a study.
        root: what was checked.
    """
    section = _engine_section(path[:-1], root)
    reason = None if section is None else section.refusal(path[-1])
    if reason is not None:
        return reason
    nearest = suggestions(path, extra, root)
    if nearest:
        return f"unknown key{did_you_mean(nearest)}"
    if section is not None:
        return section.unknown()
    names = known_names(path[:-1], extra, root)
    hint = "; a file is named by itself, as dataset: prompts.csv" if path[0] == "dataset" else ""
    return f"unknown key; known here: {', '.join(names)}{hint}" if names else "unknown key"


def suggestions(path: tuple[str, ...], extra: tuple[str, ...], root: type[BaseModel]) -> list[str]:
    """Return the known dotted paths that ``path`` may stand for, best first, at most two."""
    prefix, name = path[:-1], path[-1]
    of_experiment = root is ExperimentConfig
    section = _engine_section(prefix, root)
    alias = None if section is None else section.alias(name)
    if alias is not None:
        return [".".join((*prefix, alias))]
    names = known_names(prefix, extra, root)
    replacement = FORMER_NAMES.get(name, "")
    parent, _, new_name = replacement.rpartition(".")
    if new_name in names and parent == ".".join(prefix):
        return [replacement]
    if replacement and of_experiment and not prefix:  # an experiment has none of a study's keys
        return [replacement] if replacement.partition(".")[0] in names else []
    longer = [] if section else [key for key in names if key.startswith(f"{name}_")]
    close = longer or nearest_names(name, names)
    if close or not of_experiment:
        return [".".join((*prefix, key)) for key in close[:1]]
    matches = [key for key in all_paths() if key.rsplit(".", 1)[-1] == name]
    matches += [f"{part.study_path}.{name}" for part in ENGINE_SECTIONS if part.parameter(name)]
    if not matches and not prefix and len(name) > 3:
        matches = [key for key in all_paths() if f".{name}_" in key]
    if matches:
        return list(dict.fromkeys(matches))[:2]
    if section is not None:
        return []
    other_keys = [key for key in all_paths() if key != ".".join(prefix)]
    return nearest_names(".".join(path), other_keys, cutoff=0.85)[:1]


def known_names(
    prefix: tuple[str, ...], extra: tuple[str, ...], root: type[BaseModel]
) -> tuple[str, ...]:
    """Return the names known in the section at a path, with those that are known at the top too."""
    if not prefix:
        return tuple(dict.fromkeys((*root.model_fields, *extra)))  # a study has its own of some
    engine, section = _engine_section(prefix, root), section_at(prefix, root)
    if engine is not None:
        return engine.names()
    return () if section is None else tuple(section.model_fields)


def not_a_mapping_message(path: tuple[str, ...], root: type[BaseModel]) -> str:
    """Return what to say where a mapping was expected, with the names that it may hold."""
    names = known_names(path, (), root)
    if len(names) > SHOWN_NAMES:
        names = (*names[:SHOWN_NAMES], "…")
    return f"must be a mapping of {', '.join(names)}" if names else "must be a mapping"


def _engine_section(path: tuple[str, ...], root: type[BaseModel]) -> type[EngineSection] | None:
    """Return the engine's section at a path; None if there is none, or another kind."""
    section = section_at(path, root)
    return section if section is not None and issubclass(section, EngineSection) else None


def constraints(field: FieldInfo) -> list[Any]:
    """Return the constraints on a setting's value, of any kind."""
    annotated = [part for part in _parts(field.annotation) if get_origin(part) is Annotated]
    infos = [i for part in annotated for i in get_args(part)[1:] if isinstance(i, FieldInfo)]
    return [*field.metadata, *(constraint for info in infos for constraint in info.metadata)]


def alternatives(annotation: Any) -> list[Any]:
    """Return the alternatives of a type, without the constraints on their values."""
    parts = _parts(annotation)
    return [get_args(part)[0] if get_origin(part) is Annotated else part for part in parts]


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for alternative in get_args(annotation) for part in _parts(alternative)]
    return [annotation]


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
