"""Turns what the models reject into messages that a person can act on."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS
from llenergymeasure.config.fields import unknown_key_message
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.section import FAULT, Fault
from llenergymeasure.config.strict_yaml import KeyPath, Place, dotted
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.redact import without_secrets

Places = Mapping[KeyPath, Place]
Validated = TypeVar("Validated", bound=BaseModel)
FOUND_LENGTH = 60

_WORDS = (
    (r"^(Input|String|List|Dictionary) should ", "must "),
    ("greater than or equal to", "at least"),
    ("greater than", "more than"),
    ("less than or equal to", "at most"),
    ("a valid integer.*", "a whole number"),
    ("a valid number", "a number"),
    ("a valid boolean", "true or false"),
    ("a valid string", "text"),
    ("a valid dictionary.*", "a mapping"),
    ("a valid list", "a list"),
    ("have at least 1 .*", "not be empty; give it a value, or remove it"),
    ("Field required", "is missing; give it a value"),
    ("^Value error, ", ""),
)
"""What stands for pydantic's words in a message about a YAML file."""


def describe(value: Any) -> str:
    """Return ``value`` as it would appear in the file, cut to fit in a message."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = repr(value)
    text = without_secrets(text)
    return text if len(text) <= FOUND_LENGTH else f"{text[: FOUND_LENGTH - 1]}…"


def problem(
    message: str,
    path: KeyPath,
    places: Places,
    *,
    found: Any = ...,
    file: Path | None = None,
) -> Problem:
    """Return a problem at ``path``, with the place of the nearest key that was written."""
    around = (path[:length] for length in range(len(path), -1, -1))
    place = next((places[each] for each in around if each in places), Place(file))
    secret = any(name in CREDENTIALS for part in path for name in str(part).split("."))
    return Problem(
        message,
        key=dotted(path) or None,
        found=None if found is ... or secret else describe(found),
        file=place.file,
        line=place.line,
    )


def located(fault: Fault, places: Places, path: KeyPath | None = None) -> Problem:
    """Return a fault as a problem of the file; it stands at ``path`` there, or else at its own."""
    return problem(fault.message, fault.path if path is None else path, places, found=fault.found)


def fault_text(fault: Fault) -> str:
    """Return ``key: message (found …)``."""
    return str(problem(fault.message, fault.path, {}, found=fault.found))


def faults_of(
    error: ValidationError, values: Mapping[str, Any], model: type[BaseModel]
) -> list[Fault]:
    """Return each reason in a validation error once, in the order of the model.

    Args:
        error: what the model raised.
        values: the mapping it was given.
        model: the model.
    """
    found: dict[KeyPath, Fault] = {}
    for details in error.errors(include_url=False):
        path, value = _real_path(details["loc"], values, details["type"])
        message = _message(details, path, value, model)
        if path in found and found[path].message != message:
            message = f"{found[path].message}, or it {message}"
        if details["type"] == FAULT:
            value = details["input"]  # nothing where it is not to be shown
            found[path] = Fault(path, message, value, details["ctx"]["alone"])
            continue
        whole = isinstance(value, Mapping | BaseModel) or value is ...
        together = details["type"] in ("missing", "value_error") and whole
        found[path] = Fault(path, message, ... if together else value, not together)
    return list(found.values())


def validated(
    model: type[Validated], values: Mapping[str, Any], places: Places, prefix: KeyPath = ()
) -> Validated:
    """Return a mapping, that stands at ``prefix`` of a file, as its model.

    Raises:
        ConfigurationError: the model rejects it; every reason is named.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = faults_of(error, values, model)
        found = [located(each, places, (*prefix, *each.path)) for each in faults]
        raise ConfigurationError(found) from None


def _real_path(loc: tuple[int | str, ...], values: Any, kind: str) -> tuple[KeyPath, Any]:
    """Return ``loc`` without the names of union branches, and the value that is there."""
    path: list[str | int] = []
    at: Any = values
    for place, part in enumerate(loc):
        last = place == len(loc) - 1
        inside_list = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if inside_list or (isinstance(at, Mapping) and part in at):
            at = at[part]
        elif last and kind in ("missing", FAULT):
            at = ...
        elif isinstance(at, Mapping) and str(part) in at:
            at, part = at[str(part)], str(part)
        else:
            continue
        path.append(part)
    return tuple(path), at


def _message(details: ErrorDetails, path: KeyPath, value: Any, model: type[BaseModel]) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        return unknown_key_message(tuple(str(part) for part in path), root=model)
    message = str(details["msg"])
    for theirs, ours in _WORDS:
        message = re.sub(theirs, ours, message)
    if kind == "literal_error" and isinstance(value, str):
        names = re.findall(r"'([^']*)'", str(details["ctx"]["expected"]))
        return f"{message}{did_you_mean(nearest_names(value, names)[:1])}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{message}, in quotes"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        return f"{message}, without quotes"
    return message
