"""The configuration of a running vLLM as plain values."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS

_LEFT_OUT = frozenset({"hf_config", "hf_text_config", "static_forward_context", "instance_id"})
"""The model's own configuration, which is in the record by itself; the loaded layers, and a
name drawn at random."""

_DEEPEST = 8


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON could hold it: dataclasses and structs by field, the rest by name.

    Credentials and what is not a setting are left out.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > _DEEPEST:
        return str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if is_dataclass(value):
        return plain({each.name: getattr(value, each.name, None) for each in fields(value)}, depth)
    if hasattr(value, "__struct_fields__"):
        return plain({name: getattr(value, name) for name in value.__struct_fields__}, depth)
    if isinstance(value, Mapping):
        return {
            str(name): plain(each, depth + 1)
            for name, each in value.items()
            if name not in _LEFT_OUT and name not in CREDENTIALS and not str(name).startswith("_")
        }
    if isinstance(value, set | frozenset):
        return sorted(str(plain(each, depth + 1)) for each in value)
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, PurePath):
        return str(value)
    return str(value).removeprefix("torch.")
