"""What an engine or its server says of its settings, as values that JSON holds."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any

from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS
from llenergymeasure.screen import clean

_LEFT_OUT = frozenset({"hf_config", "hf_text_config", "static_forward_context", "instance_id"})
"""Of vLLM: the model's own configuration, which is in the record by itself; the loaded layers, and
a name drawn at random."""

_DEEPEST = 8
"""Levels of an engine's own objects, which may lead back to themselves."""


def plain(value: Any, deepest: int = _DEEPEST) -> Any:
    """Return a value as JSON could hold it: dataclasses and structs by field, the rest by name.

    Credentials and what is not a setting are left out.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if deepest < 0:
        nested = isinstance(value, list | dict)
        return "nested deeper than is recorded" if nested else str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if is_dataclass(value):
        held = {each.name: getattr(value, each.name, None) for each in fields(value)}
        return plain(held, deepest)
    if hasattr(value, "__struct_fields__"):
        return plain({name: getattr(value, name) for name in value.__struct_fields__}, deepest)
    if isinstance(value, Mapping):
        return {
            clean(str(name)): plain(each, deepest - 1)
            for name, each in value.items()
            if name not in _LEFT_OUT and name not in CREDENTIALS and not str(name).startswith("_")
        }
    if isinstance(value, set | frozenset):
        return sorted(str(plain(each, deepest - 1)) for each in value)
    if isinstance(value, list | tuple):
        return [plain(each, deepest - 1) for each in value]
    if isinstance(value, PurePath):
        return str(value)
    return str(value).removeprefix("torch.")
