"""Turns what the models reject into messages that a person can act on."""

import json
import math
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llenergymeasure.config.engine_parameters.check import BOOLEAN_HINT
from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import (
    constraints,
    field_at,
    not_a_mapping_message,
    section_at,
    takes_mapping,
    unknown_key_message,
)
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.old_names import VALUE_REPLACEMENTS
from llenergymeasure.config.section import FAULT, Fault
from llenergymeasure.config.strict_yaml import KeyPath, Place, dotted_name
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.redact import without_secrets

Places = Mapping[KeyPath, Place]
Validated = TypeVar("Validated", bound=BaseModel)
FOUND_LENGTH = 60
FORMER_VALUES: Mapping[str, Any] = {
    **VALUE_REPLACEMENTS["backend"],
    **VALUE_REPLACEMENTS["precision"],
    "hf": "pytorch",
    "trt": "tensorrt",
    "trtllm": "tensorrt",
}
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][\d_]*|(?=\.\d))(?:\.\d*)?(?:[eE][-+]?\d+)?")
"""What a study reads as a number where it stands without quotes; a date is none."""
HINTS = {
    "bf16": "; fewer bits are set by the engine, as pytorch.load_in_8bit, vllm.engine.quantization",
    "openai": "; openai is any other server, such as llama.cpp's (docs/openai.md)",
}
"""What to say of a value that is none of those known, by one that is."""

_MESSAGES = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "list_type": "must be a list",
    "missing": "is missing; give it a value",
    "string_pattern_mismatch": "must be a plain name of letters, digits and _",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty; list at least one, or remove it",
}

_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def describe(value: Any) -> str:
    """Return ``value`` as it would appear in the file, cut to fit in a message."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = repr(value)
    text = without_secrets(text)
    return text if len(text) <= FOUND_LENGTH else f"{text[: FOUND_LENGTH - 1]}…"


def as_problem(fault: Fault, places: Places, path: KeyPath | None = None) -> Problem:
    """Return a fault as a problem of the file, with the place of the nearest key written there.

    Args:
        fault: what is wrong.
        places: where each key was written; without any, the problem names its key alone.
        path: where the fault stands in the file, if not at its own path.
    """
    key_path = fault.path if path is None else path
    prefixes = (key_path[:length] for length in range(len(key_path), -1, -1))
    place = next((places[prefix] for prefix in prefixes if prefix in places), Place(None))
    is_secret = any(name in CREDENTIALS for part in key_path for name in str(part).split("."))
    return Problem(
        fault.message,
        key=dotted_name(key_path) or None,
        found=None if fault.found is ... or is_secret else describe(fault.found),
        file=place.file,
        line=place.line,
    )


def validation_faults(
    error: ValidationError, values: Mapping[str, Any], model: type[BaseModel]
) -> list[Fault]:
    """Return each reason in a validation error once, in the order of the model.

    Args:
        error: what the model raised.
        values: the mapping it was given.
        model: the model.
    """
    faults: dict[KeyPath, Fault] = {}
    for details in error.errors(include_url=False):
        path, value = _real_path(details["loc"], values, details["type"])
        is_mapping = details["type"] == "string_type" and isinstance(value, Mapping)
        if is_mapping and section_at(tuple(map(str, path)), model) is not None:
            continue  # text would do as well, but what is wrong in the mapping is named too
        message = _message(details, path, value, model)
        if path in faults and faults[path].message != message:
            message = f"{faults[path].message}, or it {message}"
        if details["type"] == FAULT:
            value = details["input"]  # nothing where it is not to be shown
            faults[path] = Fault(path, message, value, details["ctx"]["standalone"])
            continue
        is_section = value is ... or isinstance(value, Mapping | BaseModel)
        is_joint = is_section and details["type"] in ("missing", "value_error")
        faults[path] = Fault(path, message, ... if is_joint else value, not is_joint)
    return list(faults.values())


def validate(
    model: type[Validated], values: Mapping[str, Any], places: Places, prefix: KeyPath = ()
) -> Validated:
    """Return a mapping, that stands at ``prefix`` of a file, as its model.

    Raises:
        ConfigurationError: the model rejects it; every reason is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = validation_faults(error, values, model)
        problems = [as_problem(fault, places, (*prefix, *fault.path)) for fault in faults]
        raise ConfigurationError(problems) from None


def _real_path(loc: tuple[int | str, ...], values: Any, kind: str) -> tuple[KeyPath, Any]:
    """Return ``loc`` without the names of union branches, and the value that is there."""
    path: list[str | int] = []
    current: Any = values
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        inside_list = isinstance(current, list) and isinstance(part, int) and part < len(current)
        if inside_list or (isinstance(current, Mapping) and part in current):
            current = current[part]
        elif last and kind == "missing":
            current = ...
        elif isinstance(current, Mapping) and str(part) in current:
            current, part = current[str(part)], str(part)
        else:
            continue
        path.append(part)
    return tuple(path), current


def _message(details: ErrorDetails, path: KeyPath, value: Any, model: type[BaseModel]) -> str:
    keys = tuple(str(part) for part in path)
    text, can_sweep = _plain_message(details, path, value, model), model is ExperimentConfig
    if text == _MESSAGES["dict_type"]:
        return not_a_mapping_message(keys, model)
    field = field_at(keys, model) if can_sweep and path and isinstance(path[-1], str) else None
    is_plain = field is not None and not takes_mapping(field.annotation)
    if isinstance(value, list) and is_plain and not details["type"].startswith("too_"):
        return f"{text}; to compare several, write sweep: {{{'.'.join(keys)}: […]}}"
    return text


def _plain_message(details: ErrorDetails, path: KeyPath, value: Any, model: type[BaseModel]) -> str:
    kind = details["type"]
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key_message(tuple(str(part) for part in path), root=model)
    if kind == "literal_error":
        return _literal(str(context["expected"]), value)
    if kind == "value_error":
        return str(context["error"])
    if kind == FAULT:
        return str(details["msg"])
    if kind == "too_long":
        return f"lists {context['actual_length']}; at most {context['max_length']}"
    if kind == "string_too_long":
        return f"must be no longer than {context['max_length']} characters"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        return _bounds(context, path, model)
    return _type_message(kind, value, str(details["msg"]), str((path or ("",))[-1]))


def _literal(expected: str, value: Any) -> str:
    names = re.findall(r"'([^']*)'", expected)
    values = expected.replace("'", "")
    text = f"must be {'' if ' or ' not in values else 'one of '}{values}"
    if isinstance(value, str):
        current = FORMER_VALUES.get(value, "")
        near = [current] if current in names else nearest_names(value, names)
        text += did_you_mean(near[:1])
        if not near and value not in FORMER_VALUES:
            text += next((hint for name, hint in HINTS.items() if name in names), "")
    return f"{text}; {BOOLEAN_HINT}" if isinstance(value, bool) else text


def _type_message(kind: str, value: Any, fallback: str, name: str) -> str:
    message = _MESSAGES.get(kind)
    if message is None:
        return f"is not valid: {fallback[0].lower()}{fallback[1:]}"
    if kind == "string_type":
        if isinstance(value, bool):
            return f"{message}; {BOOLEAN_HINT}"
        return f"{message}, in quotes" if isinstance(value, int | float) else message
    if kind == "list_type" and isinstance(value, str | int):
        return f"{message}, such as {describe(_as_list(value, name))}"
    if isinstance(value, str) and kind.startswith(("int", "float")):
        if re.search(r"\d\s*(?!e[+-]?\d)[a-zµ%]", value, re.IGNORECASE):
            return f"{message}, without a unit"
        return f"{message}, without quotes" if _NUMBER.fullmatch(value) else message
    is_quoted = kind.startswith("bool") and str(value).lower() in ("true", "false")
    return f"{message}, without quotes" if is_quoted else message


def _as_list(value: str | int, name: str) -> list[str | int]:
    """Return a list as it was meant that was given as text, or its one value."""
    if isinstance(value, int):
        return [value]
    if name == "command":
        with suppress(ValueError):
            return [*shlex.split(value)]
        return [*value.split()]
    parts = filter(None, re.split(r"[,\s]+", value))
    return [int(part) if part.isdecimal() else part for part in parts]


def _bounds(context: Mapping[str, Any], path: KeyPath, model: type[BaseModel]) -> str:
    """Return both bounds, though only one was broken: the next guess should do."""
    field = field_at(tuple(str(part) for part in path), model)
    bounds = dict(context)
    for constraint in [] if field is None else constraints(field):
        bounds |= {name: getattr(constraint, name) for name in _BOUNDS if hasattr(constraint, name)}
    parts = [f"{word} {bounds[name]}" for name, word in _BOUNDS.items() if name in bounds]
    return f"must be {' and '.join(parts)}"
