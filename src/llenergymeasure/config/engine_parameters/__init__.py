"""The engines' parameters: one JSON Schema a backend, as its engine describes them.

``tools/dump_engine_parameters.py`` writes the files, with the Python that has the engine.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

Schema = Mapping[str, Any]

ENGINES = ("pytorch", "vllm", "sglang", "tensorrt")
"""The backends whose engine has parameters of its own."""


@lru_cache
def load(backend: str) -> Schema:
    """Return what the engine of a backend takes.

    It describes the backend's section of a study. In addition to JSON Schema's own keys it has
    ``x-package``, ``x-version``, ``x-incomplete`` (why parameters may be missing), and for a
    parameter ``x-default`` (a default that JSON cannot hold), ``x-aliases`` (its other names on
    the engine's command line), ``x-command-line`` (``false`` where that does not have it, ``json``
    where it takes a list as one JSON text), ``x-request`` (the field of a request to the engine's
    server) and ``readOnly`` (the engine sets it by itself).
    """
    text = files(__name__).joinpath(f"{backend}.json").read_text("utf-8")
    schema: Schema = json.loads(text)
    return schema


def parameters(study_path: str) -> Schema:
    """Return the parameters of a section of a study, such as ``vllm.engine``, by name."""
    backend, _, part = study_path.partition(".")
    schema = load(backend)
    section = schema["properties"][part] if part else schema
    by_name: Schema = section["properties"]
    return by_name


def forms(schema: Schema) -> frozenset[str]:
    """Return the kinds of value a schema takes: JSON Schema's types, or ``any``."""
    if "anyOf" in schema:
        return frozenset().union(*(forms(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return frozenset({"object"})
    if "enum" in schema:
        return frozenset({"enum"})
    if "not" in schema:
        return frozenset({"nothing"})
    return frozenset({schema.get("type", "any")})


def choices(schema: Schema) -> list[Any]:
    """Return the values that a schema lists."""
    return [choice for part in schema.get("anyOf", [schema]) for choice in part.get("enum", ())]


def type_text(schema: Schema) -> str:
    """Return a type as people read it."""
    return " | ".join(dict.fromkeys(_part_text(part) for part in schema.get("anyOf", [schema])))


_TYPES = {"boolean": "bool", "integer": "int", "number": "float", "string": "str"}


def _part_text(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "not" in schema:
        return "Python object"
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list[{type_text(schema.get('items', {}))}]"
    if kind == "object":
        inner = schema.get("additionalProperties", {})
        return f"dict[str, {type_text(inner if isinstance(inner, Mapping) else {})}]"
    return _TYPES.get(kind, str(kind))


def default_text(schema: Schema) -> str | None:
    """Return a parameter's default as text; None where it has none."""
    if "default" in schema:
        return json.dumps(schema["default"], ensure_ascii=False)
    return schema.get("x-default")
