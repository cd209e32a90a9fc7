"""What a catalogue holds: an engine's knobs, and the types of their values."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Type = tuple[Any, ...]
"""The alternatives of a type, as they stand in a catalogue's file.

Each is one of ``bool``, ``int``, ``float``, ``str``, ``any``, ``python`` (an object that no study
file can hold), or a mapping with one key: ``{"choices": [values]}``, ``{"list": [alternatives]}``,
``{"dict": [alternatives of its values]}``, ``{"class": name}`` (a mapping with the fields of a
class in :attr:`Catalogue.classes`). Null is not among them: it means "not set", for every knob.
"""


@dataclass(frozen=True)
class Knob:
    """One argument of an engine.

    Attributes:
        name: as the engine has it.
        type: what its values may be.
        default: as a value of JSON; null where there is none.
        default_text: the engine's expression, for a default that is no such value.
        help: what the engine says of it.
        bounds: ``ge``, ``gt``, ``le``, ``lt``: those the engine checks.
        aliases: further names its command line knows.
        required: whether the engine has no default for it.
        internal: whether the engine sets it by itself, so that a study may not.
        deprecated: whether the engine says that it is on its way out.
    """

    name: str
    type: Type
    default: Any = None
    default_text: str | None = None
    help: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    required: bool = False
    internal: bool = False
    deprecated: bool = False

    @property
    def choices(self) -> tuple[Any, ...]:
        """Return the values it may have, if they are listed."""
        return tuple(value for part in self.type for value in _choices(part))

    def as_dict(self) -> dict[str, Any]:
        """Return it as it stands in a catalogue's file, without its name and what is not set."""
        stored: dict[str, Any] = {"type": list(self.type)}
        if self.default is not None:
            stored["default"] = self.default
        if self.default_text is not None:
            stored["default_text"] = self.default_text
        stored |= self.bounds
        if self.aliases:
            stored["aliases"] = list(self.aliases)
        for flag in ("required", "internal", "deprecated"):
            if getattr(self, flag):
                stored[flag] = True
        if self.help:
            stored["help"] = self.help
        return stored

    @classmethod
    def from_dict(cls, name: str, stored: Mapping[str, Any]) -> "Knob":
        """Return the knob that a catalogue's file holds under ``name``."""
        return cls(
            name=name,
            type=tuple(stored["type"]),
            default=stored.get("default"),
            default_text=stored.get("default_text"),
            help=stored.get("help", ""),
            bounds={key: stored[key] for key in BOUNDS if key in stored},
            aliases=tuple(stored.get("aliases", ())),
            required=stored.get("required", False),
            internal=stored.get("internal", False),
            deprecated=stored.get("deprecated", False),
        )


BOUNDS = ("ge", "gt", "le", "lt")

Knobs = Mapping[str, Knob]


@dataclass(frozen=True)
class Changes:
    """What differs between an engine's release and the one before it.

    Attributes:
        version: of the earlier one.
        added: dotted names that it did not have.
        removed: dotted names that only it had, with what replaced each; null where nothing is
            known to.
        altered: dotted names whose type or default changed, with a sentence on how.
    """

    version: str
    added: tuple[str, ...] = ()
    removed: Mapping[str, str | None] = field(default_factory=dict)
    altered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """The knobs of one release of one engine.

    Attributes:
        backend: our name of the engine.
        package: its Python package.
        version: of the release.
        sections: its knobs, by section of the study file (``engine``, ``sampling``; for pytorch
            ``loading`` and ``generation``, which share one section).
        classes: the fields of each class that a knob's type names.
        source: the files of the release it was read from.
        incomplete: why knobs may be missing; null where all of them are here.
        changes: against the catalogue before it.
    """

    backend: str
    package: str
    version: str
    sections: Mapping[str, Knobs]
    classes: Mapping[str, Knobs] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    incomplete: str | None = None
    changes: Changes | None = None

    def knobs(self) -> Iterator[tuple[str, Knob]]:
        """Yield every knob with its section."""
        for section, knobs in self.sections.items():
            for knob in knobs.values():
                yield section, knob


def _choices(part: Any) -> tuple[Any, ...]:
    return tuple(part.get("choices", ())) if isinstance(part, Mapping) else ()


def type_text(kind: Type) -> str:
    """Return a type as people read it, its choices left out where they are many."""
    return " | ".join(dict.fromkeys(_part_text(part) for part in kind))


def _part_text(part: Any) -> str:
    if not isinstance(part, Mapping):
        return "Python object" if part == "python" else str(part)
    (form, inner), *_ = part.items()
    if form == "choices":
        return " | ".join(json.dumps(value) for value in inner)
    if form == "list":
        return f"list[{type_text(tuple(inner))}]"
    if form == "dict":
        return f"dict[str, {type_text(tuple(inner))}]"
    return str(inner)
