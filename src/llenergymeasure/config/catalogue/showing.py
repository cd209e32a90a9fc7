"""The knobs of a backend as a person looks for them: names, types, defaults and help."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llenergymeasure.config.catalogue.knob import BOUNDS, Knob, type_text
from llenergymeasure.config.catalogue.section import EngineSection
from llenergymeasure.config.fields import ENGINE_SECTIONS

WIDTH = 100
_SYMBOLS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Shown:
    """One setting of a study file, as it is shown.

    Attributes:
        key: its dotted name in a study.
        type: of its values.
        default: the engine's, as text; null where there is none.
        help: what the engine, or this program, says of it.
        note: why a study may not set it, or that it is on its way out.
    """

    key: str
    type: str
    default: str | None
    help: str
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "key": self.key,
            "type": self.type,
            "default": self.default,
            "help": self.help,
            "note": self.note,
        }


def matching(backend: str, pattern: str | None) -> list[Shown]:
    """Return the settings of a backend whose name holds every word of ``pattern``.

    Where no name does, those whose help does.
    """
    everything = [shown for section in _sections(backend) for shown in _shown(section)]
    words = (pattern or "").lower().replace("-", "_").split()
    named = [each for each in everything if all(word in each.key.lower() for word in words)]
    if named:
        return named
    return [each for each in everything if all(word in each.help.lower() for word in words)]


def knob_lines(backend: str, found: Sequence[Shown], *, brief: bool) -> Iterator[str]:
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


def _sections(backend: str) -> list[type[EngineSection]]:
    return [each for each in ENGINE_SECTIONS if each.catalogue_of[0] == backend]


def _shown(section: type[EngineSection]) -> Iterator[Shown]:
    catalogue, parts = section.catalogue(), section.catalogue_of[1]
    knobs: dict[str, Knob] = {}
    for part in parts:
        knobs |= catalogue.sections.get(part, {})
    for name in dict.fromkeys([*section.model_fields, *knobs]):
        knob = knobs.get(name)
        if knob is None:
            field = section.model_fields[name]
            note = f"not among the arguments of {catalogue.package} {catalogue.version}"
            kind = _annotation_text(field.annotation)
            yield Shown(f"{section.study_path}.{name}", kind, None, field.description or "", note)
            continue
        reason = section.refusal(name)
        note_or_none = f"not for a study to set: it {reason}" if reason else None
        if reason is None and knob.deprecated:
            note_or_none = "deprecated by the engine"
        own = section.model_fields.get(name)
        yield Shown(
            f"{section.study_path}.{name}",
            _type_with_bounds(knob),
            default_text(knob),
            knob.help or ((own.description or "") if own is not None else ""),
            note_or_none,
        )


def _annotation_text(annotation: Any) -> str:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("typing.", "").replace(" | None", "").replace("NoneType", "null")


def _type_with_bounds(knob: Knob) -> str:
    bounds = [f"{_SYMBOLS[name]} {knob.bounds[name]:g}" for name in BOUNDS if name in knob.bounds]
    return f"{type_text(knob.type)}{' ' + ', '.join(bounds) if bounds else ''}"


def default_text(knob: Knob) -> str | None:
    """Return a knob's default as text; null where it has none."""
    if knob.default_text is not None:
        return knob.default_text
    return None if knob.default is None else json.dumps(knob.default, ensure_ascii=False)
