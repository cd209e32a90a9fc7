"""The settings a study may name: dotted paths, types, and the nearest to a misspelling."""

import difflib
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.strict_yaml import KeyPath

# Names from before version 2 of the original tool.
_FORMER_NAMES = {
    "model_name": "model",
    "fp_precision": "precision",
    "num_input_prompts": "n",
    "extra_metadata": "passthrough_kwargs",
}


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """Return the models among the alternatives of a type."""
    return [part for part in _alternatives(annotation) if _is_model(part)]


def takes_any_key(annotation: Any) -> bool:
    """Return whether a type is a free mapping, whose keys are not ours to check."""
    return any(part is dict or get_origin(part) is dict for part in _alternatives(annotation))


def takes_mapping(annotation: Any) -> bool:
    """Return whether a mapping can be a value of this type."""
    return bool(submodels(annotation)) or takes_any_key(annotation)


def takes_whole_numbers_only(annotation: Any) -> bool:
    """Return whether a number of this type is whole."""
    parts = _alternatives(annotation)
    return int in parts and float not in parts


def field_at(path: tuple[str, ...]) -> FieldInfo | None:
    """Return the setting at a path below the experiment; null if there is none by that name.

    A path inside a free mapping gives the mapping's own field.
    """
    model: type[BaseModel] | None = ExperimentConfig
    field: FieldInfo | None = None
    for part in path:
        if model is None:
            return field if field is not None and takes_any_key(field.annotation) else None
        field = model.model_fields.get(part)
        if field is None:
            return None
        models = submodels(field.annotation)
        model = models[0] if models else None
    return field


def unknown_keys(values: Any, model: type[BaseModel] = ExperimentConfig) -> Iterator[KeyPath]:
    """Yield the path of each key in ``values`` that ``model`` does not know, at any depth."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            yield (key,)
            continue
        for inner in submodels(field.annotation):
            for path in unknown_keys(value, inner):
                yield (key, *path)


@lru_cache
def all_paths() -> tuple[str, ...]:
    """Return every setting's dotted path, sections included, in the order they are described."""
    return tuple(".".join(path) for path in _walk(ExperimentConfig, ()))


def unknown_key_message(path: tuple[str, ...], also: tuple[str, ...] = ()) -> str:
    """Return what to tell about a key that is not known, with the nearest ones that are.

    Args:
        path: the path of the key, below the experiment.
        also: further keys that are known where it stands, such as those of a study.
    """
    nearest = suggestions(path, also)
    if nearest:
        return f"unknown key; did you mean {' or '.join(nearest)}?"
    siblings = _siblings(path[:-1]) + (also if len(path) == 1 else ())
    return f"unknown key; known here: {', '.join(siblings)}" if siblings else "unknown key"


def suggestions(path: tuple[str, ...], also: tuple[str, ...] = ()) -> list[str]:
    """Return the known dotted paths that ``path`` may stand for, best first, at most two."""
    name = path[-1]
    if name in _FORMER_NAMES:
        return [_FORMER_NAMES[name]]
    prefix = path[:-1]
    siblings = _siblings(prefix) + (also if not prefix else ())
    close = nearest_names(name, siblings)
    if close:
        return [".".join((*prefix, close[0]))]
    elsewhere = [known for known in all_paths() if known.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return elsewhere[:2]
    return nearest_names(".".join(path), all_paths(), cutoff=0.85)[:1]


def nearest_names(name: str, known: tuple[str, ...] | list[str], cutoff: float = 0.7) -> list[str]:
    """Return the names in ``known`` that ``name`` is likely a misspelling of, best first."""
    folded = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower()[:200], list(folded), n=2, cutoff=cutoff)
    return [folded[item] for item in close]


def _siblings(prefix: tuple[str, ...]) -> tuple[str, ...]:
    if not prefix:
        return tuple(ExperimentConfig.model_fields)
    field = field_at(prefix)
    models = submodels(field.annotation) if field is not None else []
    return tuple(models[0].model_fields) if models else ()


def _walk(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for inner in submodels(field.annotation):
            yield from _walk(inner, (*prefix, name))


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for each in get_args(annotation) for part in _alternatives(each)]
    return [annotation]


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
