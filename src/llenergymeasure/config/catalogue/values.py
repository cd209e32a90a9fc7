"""Whether a value fits a knob, and what to tell where it does not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llenergymeasure.config.catalogue.knob import Catalogue, Knob, Type
from llenergymeasure.config.nearest import nearest_names

_NUMBERS = ("int", "float")
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
}
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

YES_AND_NO = "text that reads true or false needs quotes"

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """Why a value cannot be.

    Attributes:
        path: where, below the knob.
        message: what would do.
        found: the value that is wrong.
    """

    path: Path
    message: str
    found: Any


def faults(knob: Knob, value: Any, catalogue: Catalogue) -> Iterator[Fault]:
    """Yield why ``value`` cannot be that of ``knob``; nothing if it can."""
    if value is None:
        return
    found = list(_faults(knob.type, value, catalogue, ()))
    yield from found
    if not found and isinstance(value, int | float) and not isinstance(value, bool):
        yield from _out_of_bounds(knob, value)


def _faults(kind: Type, value: Any, catalogue: Catalogue, path: Path) -> Iterator[Fault]:
    if kind == ("python",):
        message = "takes a Python object, which no study file can hold"
        yield Fault(path, message, value)
        return
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "must be a finite number", value)
        return
    if _is_stranger(kind, value):
        message = _expected(tuple(part for part in kind if part != "str"), value)
        yield Fault(
            path, f"{message}{_PLUGIN}" if "did you mean" not in message else message, value
        )
        return
    inner: list[Fault] | None = None
    for part in kind:
        found = _part_faults(part, value, catalogue, path)
        if found == []:
            return
        if found is not None:
            inner = found
    if inner is not None:
        yield from inner
        return
    yield Fault(path, _expected(kind, value), value)


_PLUGIN = "; what a plugin adds goes into passthrough_kwargs"


def _is_stranger(kind: Type, value: Any) -> bool:
    """Whether a text is none of the listed ones, nor the dotted name or path of something else.

    Engines type such a knob as text because a plugin may add to it, and check it on loading.
    """
    if not isinstance(value, str) or "str" not in kind:
        return False
    choices = _choices(kind)
    return bool(choices) and not _is_choice(choices, value) and not set("./:") & set(value)


def _choices(kind: Type) -> list[Any]:
    return [
        choice for part in kind if isinstance(part, Mapping) for choice in part.get("choices", ())
    ]


def _part_faults(part: Any, value: Any, catalogue: Catalogue, path: Path) -> list[Fault] | None:
    """Return what is wrong inside a value of the right form; null where its form is another."""
    if not isinstance(part, Mapping):
        return [] if _is_plain(part, value) else None
    (form, inner), *_ = part.items()
    if form == "choices":
        return [] if _is_choice(inner, value) else None
    if form == "list":
        if not isinstance(value, list | tuple):
            return None
        return [
            fault
            for place, item in enumerate(value)
            for fault in _faults(tuple(inner), item, catalogue, (*path, place))
            if item is not None
        ]
    if not isinstance(value, Mapping):
        return None
    if form == "dict":
        return [
            fault
            for key, item in value.items()
            for fault in _faults(tuple(inner), item, catalogue, (*path, str(key)))
            if item is not None
        ]
    return list(_class_faults(inner, value, catalogue, path))


def _class_faults(
    name: str, value: Mapping[str, Any], catalogue: Catalogue, path: Path
) -> Iterator[Fault]:
    fields = catalogue.classes.get(name)
    if fields is None:
        return
    former = FORMER_FIELDS.get((catalogue.backend, name), {})
    for key, item in value.items():
        knob = fields.get(str(former.get(key, key)))
        if knob is None:
            message = unknown_message(str(key), tuple(fields), f"a field of {name}")
            yield Fault((*path, str(key)), message, item)
            continue
        for fault in faults(knob, item, catalogue):
            yield Fault((*path, str(key), *fault.path), fault.message, fault.found)


FORMER_FIELDS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("vllm", "CompilationConfig"): {"level": "mode"},
}
"""Fields of an engine's classes under the names of older releases, which studies still use."""


def unknown_message(name: str, known: tuple[str, ...], what: str) -> str:
    """Return what to tell about a name that is not ``what``, with the nearest that are."""
    near = nearest_names(name, known)
    if near:
        return f"unknown key; did you mean {' or '.join(near)}?"
    if len(known) <= _FEW:
        return f"unknown key; known here: {', '.join(known)}"
    return f"unknown key; it is not {what}"


_FEW = 30


def _is_plain(part: str, value: Any) -> bool:
    if part == "any":
        return True
    if isinstance(value, bool):
        return part == "bool"
    if isinstance(value, int):
        return part in _NUMBERS
    if isinstance(value, float):
        return part == "float"
    return isinstance(value, str) and part == "str"


def _is_choice(choices: list[Any], value: Any) -> bool:
    if isinstance(value, bool):
        return any(choice is value for choice in choices)
    if value in choices:
        return True
    # Members of an enumeration are named in capitals, and taken in any case.
    return isinstance(value, str) and value.upper() in choices


def _expected(kind: Type, value: Any) -> str:
    choices = _choices(kind)
    forms = [
        _form_words(part) for part in kind if not (isinstance(part, Mapping) and "choices" in part)
    ]
    if choices:
        listed = ", ".join(_shown(choice) for choice in choices)
        forms.insert(0, f"one of {listed}" if len(choices) > 1 else listed)
    text = f"must be {' or '.join(dict.fromkeys(forms))}"
    if isinstance(value, str):
        near = nearest_names(value, [choice for choice in choices if isinstance(choice, str)])
        if near:
            return f"{text}; did you mean {near[0]}?"
        if "str" not in kind and not choices and any(part in ("bool", *_NUMBERS) for part in kind):
            return f"{text}, without quotes"
    if isinstance(value, bool) and (choices or "str" in kind):
        return f"{text}; {YES_AND_NO}"
    if isinstance(value, int | float) and "str" in kind:
        return f"{text}, in quotes"
    return text


def _form_words(part: Any) -> str:
    if not isinstance(part, Mapping):
        return _WORDS.get(part, str(part))
    if "list" in part:
        return "a list"
    return "a mapping"


def _shown(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _out_of_bounds(knob: Knob, value: float) -> Iterator[Fault]:
    checks = {
        "ge": lambda limit: value >= limit,
        "gt": lambda limit: value > limit,
        "le": lambda limit: value <= limit,
        "lt": lambda limit: value < limit,
    }
    if all(checks[name](limit) for name, limit in knob.bounds.items()):
        return
    text = " and ".join(f"{_BOUND_WORDS[name]} {limit:g}" for name, limit in knob.bounds.items())
    yield Fault((), f"must be {text}", value)
