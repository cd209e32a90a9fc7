"""Whether a value fits an engine's parameter, and what to say where it does not."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from llenergymeasure.config.engine_parameters import Schema, choices, forms, load, parameters
from llenergymeasure.config.nearest import did_you_mean, known_names_hint, nearest_names
from llenergymeasure.config.old_names import FORMER_FIELDS
from llenergymeasure.config.section import Fault

Path = tuple[str | int, ...]

BOOLEAN_HINT = "text that reads true or false needs quotes"

_PLUGIN_HINT = "; what a plugin adds goes into passthrough_kwargs"
_KIND_NAMES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def faults(study_path: str, name: str, value: Any) -> Iterator[Fault]:
    """Yield why a value cannot be that of an engine's parameter; nothing if it can."""
    validator = _validator(study_path, name)
    if validator is None or value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault((), "must be a finite number", value)
        return
    former = FORMER_FIELDS.get(f"{study_path}.{name}", {})
    if isinstance(value, Mapping):
        value = {former.get(key, key): item for key, item in value.items()}
    for error in validator.iter_errors(_without_nulls(value)):
        yield from _error_faults(error, ())


@lru_cache(maxsize=4096)
def _validator(study_path: str, name: str) -> Any:
    """Return what checks a parameter; None where jsonschema is not installed.

    An engine's image may lack it. The study was checked where it was planned, and the engine
    checks its parameters itself.
    """
    try:
        from jsonschema import Draft4Validator, Draft202012Validator, validators
    except ImportError:
        return None
    # Draft 4 is the last in which 1.0 is no integer.
    validator = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"enum": _check_enum}, type_checker=Draft4Validator.TYPE_CHECKER
    )
    definitions = load(study_path.partition(".")[0]).get("$defs", {})
    return validator({"$defs": definitions, **parameters(study_path)[name]})


def _check_enum(_validator: Any, allowed: list[Any], value: Any, _schema: Any) -> Iterator[Any]:
    """Check a value against those allowed; an enumeration's names are taken in any case."""
    from jsonschema import ValidationError

    if isinstance(value, str) and value.upper() in allowed:
        return
    if not any(choice == value and type(choice) is type(value) for choice in allowed):
        yield ValidationError("is not listed")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        non_null = {str(key): item for key, item in value.items() if item is not None}
        return {key: _without_nulls(item) for key, item in non_null.items()}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _error_faults(error: Any, parent: Path) -> Iterator[Fault]:
    path: Path = (*parent, *error.path)
    if error.validator == "additionalProperties":
        names = tuple(error.schema.get("properties", ()))
        for key, value in error.instance.items():
            if key not in names:
                yield Fault((*path, key), f"unknown key{known_names_hint(key, names)}", value)
        return
    if error.validator == "not":
        yield Fault(path, "takes a Python object, which no study file can hold", error.instance)
        return
    if error.validator in _BOUNDS:
        bounds = [
            f"{word} {error.schema[key]:g}" for key, word in _BOUNDS.items() if key in error.schema
        ]
        yield Fault(path, f"must be {' and '.join(bounds)}", error.instance)
        return
    inner_errors = [inner for inner in error.context or () if inner.path or _is_specific(inner)]
    for inner in inner_errors:
        yield from _error_faults(inner, path)
    if not inner_errors:
        yield Fault(path, _expected_message(error.schema, error.instance), error.instance)


def _is_specific(error: Any) -> bool:
    """Return whether a value has the form of an alternative, and is wrong inside it."""
    return error.validator in ("additionalProperties", *_BOUNDS)


def _expected_message(schema: Schema, value: Any) -> str:
    values, kinds = choices(schema), forms(schema) - {"enum"}
    open_to_plugins = any("pattern" in part for part in schema.get("anyOf", ()))
    words = [word for kind, word in _KIND_NAMES.items() if kind in kinds]
    if open_to_plugins and isinstance(value, str):
        words = [word for word in words if word != "text"]
    if values:
        texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
        words.insert(0, f"one of {', '.join(texts)}" if len(texts) > 1 else texts[0])
    text = f"must be {' or '.join(words)}"
    if isinstance(value, str):
        near = nearest_names(value, [item for item in values if isinstance(item, str)])
        if near:
            return f"{text}{did_you_mean(near[:1])}"
        if open_to_plugins:
            return f"{text}{_PLUGIN_HINT}"
        if not values and kinds & {"boolean", "integer", "number"}:
            return f"{text}, without quotes"
    if isinstance(value, bool) and (values or "string" in kinds):
        return f"{text}; {BOOLEAN_HINT}"
    if isinstance(value, int | float) and "string" in kinds:
        return f"{text}, in quotes"
    return text
