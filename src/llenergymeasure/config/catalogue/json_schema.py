"""An engine's knobs in the JSON Schema of a study file, for editors."""

import re
from collections.abc import Mapping
from typing import Any

from llenergymeasure.config.catalogue.knob import Knob, Type
from llenergymeasure.config.catalogue.section import EngineSection

Schema = dict[str, Any]

DESCRIPTION_LENGTH = 160
_TYPES = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def knob_properties(section: type[EngineSection]) -> Schema:
    """Return the schema of each knob that a section takes and has no field of its own for."""
    properties = {}
    for name in section.names():
        knob = section.knob(name)
        if knob is not None and name not in section.model_fields:
            properties[name] = _knob_schema(knob)
    return properties


def sweep_pattern(section: type[EngineSection]) -> str:
    """Return what matches a sweep's key for a knob without a field, or for a key inside a knob."""
    own = section.model_fields
    names = [re.escape(name) for name in section.names() if name not in own]
    inside = [re.escape(name) for name in own if _is_mapping(section.knob(name))]
    parts = [rf"({'|'.join(names)})(\..+)?"] if names else []
    parts += [rf"({'|'.join(inside)})\..+"] if inside else []
    return rf"^{re.escape(section.study_path)}\.({'|'.join(parts)})$"


def _is_mapping(knob: Knob | None) -> bool:
    if knob is None:
        return False
    return any(isinstance(part, Mapping) and {"dict", "class"} & set(part) for part in knob.type)


def _knob_schema(knob: Knob) -> Schema:
    schema = _type_schema(knob.type)
    schema |= {_BOUNDS[name]: limit for name, limit in knob.bounds.items() if "type" in schema}
    if knob.help:
        schema["description"] = _first_sentence(knob.help)
    if knob.default is not None:
        schema["default"] = knob.default
    if knob.deprecated:
        schema["deprecated"] = True
    return schema


def _type_schema(kind: Type) -> Schema:
    parts = [_part_schema(part) for part in kind]
    if {} in parts:
        return {}
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _part_schema(part: Any) -> Schema:
    if not isinstance(part, Mapping):
        return {"type": _TYPES[part]} if part in _TYPES else {}
    (form, inner), *_ = part.items()
    if form == "choices":
        return {"enum": list(inner)}
    if form == "list":
        items = _type_schema(tuple(inner))
        return {"type": "array", "items": items} if items else {"type": "array"}
    return {"type": "object"}


def _first_sentence(text: str) -> str:
    sentence = re.split(r"(?<=[.:]) ", text, maxsplit=1)[0]
    if len(sentence) <= DESCRIPTION_LENGTH:
        return sentence
    return f"{sentence[: DESCRIPTION_LENGTH - 1].rsplit(' ', 1)[0]}…"
