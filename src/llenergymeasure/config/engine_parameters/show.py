"""An engine's parameters as a person looks for them: names, types, defaults and help."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from llenergymeasure.config.engine_parameters import (
    Schema,
    default_text,
    load,
    parameters,
    type_text,
)
from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.fields import ENGINE_SECTIONS, alternatives

WIDTH = 100
_SYMBOLS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Shown:
    """One setting of a study file, as it is shown.

    Attributes:
        key: its dotted name in a study.
        type: of its values.
        default: the engine's, as text; None where there is none.
        help: what the engine, or this program, says of it.
        note: why a study may not set it, or that it is on its way out.
    """

    key: str
    type: str
    default: str | None
    help: str
    note: str | None = None


def matching(backend: str, pattern: str | None) -> list[Shown]:
    """Return the settings of a backend whose name holds every word of ``pattern``.

    Where no name does, those whose help does.
    """
    sections = [each for each in ENGINE_SECTIONS if each.owner() == backend]
    everything = [shown for section in sections for shown in _shown(section)]
    words = (pattern or "").lower().replace("-", "_").split()
    named = [each for each in everything if all(word in each.key.lower() for word in words)]
    if named:
        return named
    return [each for each in everything if all(word in each.help.lower() for word in words)]


def setting_lines(backend: str, found: Sequence[Shown], *, brief: bool) -> Iterator[str]:
    """Yield the lines that show settings; ``brief`` leaves their help out."""
    for each in found:
        default = "" if each.default is None else f" = {each.default}"
        line = f"{each.key}: {each.type}{default}"
        if brief:
            yield line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
            continue
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="      ")
        for text in (each.note, each.help):
            if text:
                yield from textwrap.wrap(
                    text, WIDTH, initial_indent="    ", subsequent_indent="    "
                )
    if brief:
        count = len(found)
        yield f"{count} settings; llem config {backend} PATTERN shows those that fit, with help"


def _shown(section: type[EngineSection]) -> Iterator[Shown]:
    engine, known = load(section.owner()), parameters(section.study_path)
    for name in dict.fromkeys([*section.model_fields, *known]):
        own = section.model_fields.get(name)
        described = (own.description or "") if own is not None else ""
        key = f"{section.study_path}.{name}"
        schema = known.get(name)
        if schema is None:
            note = f"not among the arguments of {engine['x-package']} {engine['x-version']}"
            kind = _annotation_text(own.annotation if own is not None else None)
            yield Shown(key, kind, None, described, note)
            continue
        reason = section.refusal(name)
        note_or_none = f"not for a study to set: it {reason}" if reason else None
        if reason is None and schema.get("deprecated"):
            note_or_none = "deprecated by the engine"
        text = schema.get("description") or described
        yield Shown(key, _type_with_bounds(schema), default_text(schema), text, note_or_none)


def _annotation_text(annotation: Any) -> str:
    annotation = reduce(or_, alternatives(annotation))
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("typing.", "").replace(" | None", "").replace("NoneType", "null")


def _type_with_bounds(schema: Schema) -> str:
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _SYMBOLS.items() if key in schema]
    return f"{type_text(schema)}{' ' + ', '.join(bounds) if bounds else ''}"
