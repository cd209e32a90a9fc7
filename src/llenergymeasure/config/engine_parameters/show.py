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
class EngineSetting:
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


def matching_settings(backend: str, pattern: str | None) -> list[EngineSetting]:
    """Return the settings of a backend whose name holds every word of ``pattern``.

    Where no name does, those whose help does.
    """
    sections = [section for section in ENGINE_SECTIONS if section.owner() == backend]
    settings = [setting for section in sections for setting in _section_settings(section)]
    words = (pattern or "").lower().replace("-", "_").split()
    by_name = [s for s in settings if all(word in s.key.lower() for word in words)]
    return by_name or [s for s in settings if all(word in s.help.lower() for word in words)]


def setting_lines(backend: str, settings: Sequence[EngineSetting], *, brief: bool) -> Iterator[str]:
    """Yield the lines that show settings; ``brief`` leaves their help out."""
    for setting in settings:
        default = "" if setting.default is None else f" = {setting.default}"
        line = f"{setting.key}: {setting.type}{default}"
        if brief:
            yield line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
            continue
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="      ")
        for text in (setting.note, setting.help):
            if text:
                yield from textwrap.wrap(
                    text, WIDTH, initial_indent="    ", subsequent_indent="    "
                )
    if brief:
        count = len(settings)
        yield f"{count} settings; llem config {backend} PATTERN shows those that fit, with help"


def _section_settings(section: type[EngineSection]) -> Iterator[EngineSetting]:
    engine, schemas = load(section.owner()), parameters(section.study_path)
    package = f"{engine['x-package']} {engine['x-version']}"
    for name in dict.fromkeys([*section.model_fields, *schemas]):
        field = section.model_fields.get(name)
        description = (field.description or "") if field is not None else ""
        key = f"{section.study_path}.{name}"
        schema = schemas.get(name)
        if schema is None:
            kind = _annotation_text(field.annotation if field is not None else None)
            missing = f"not among the arguments of {package}"
            yield EngineSetting(key, kind, None, description, missing)
            continue
        reason = section.refusal(name)
        note = f"not for a study to set: it {reason}" if reason else None
        if reason is None and schema.get("deprecated"):
            note = "deprecated by the engine"
        text = schema.get("description") or description
        yield EngineSetting(key, _type_with_bounds(schema), default_text(schema), text, note)


def _annotation_text(annotation: Any) -> str:
    annotation = reduce(or_, alternatives(annotation))
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("typing.", "").replace(" | None", "").replace("NoneType", "null")


def _type_with_bounds(schema: Schema) -> str:
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _SYMBOLS.items() if key in schema]
    return f"{type_text(schema)}{' ' + ', '.join(bounds) if bounds else ''}"
