"""A part of the study file that takes every knob of an engine, checked against its catalogue."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.knob import Catalogue, Knob
from llenergymeasure.config.catalogue.reserved import why_reserved
from llenergymeasure.config.catalogue.values import Fault, faults
from llenergymeasure.config.nearest import nearest_names
from llenergymeasure.config.section import Section

FAULT = "catalogue"
"""Kind of validation error that a catalogue's check raises."""


class EngineSection(Section):
    """Settings an engine takes by its own names.

    The fields of a subclass are those a study of any engine's user needs most, those of the
    original tool, and those that are ours. Every other name is looked up in the engine's
    catalogue, which is read when a study has such a section, and kept as an extra.

    Attributes:
        study_path: where the section stands in a study file.
        catalogue_of: the backend, and the sections of its catalogue that are meant.
    """

    model_config = ConfigDict(extra="allow")

    study_path: ClassVar[str]
    catalogue_of: ClassVar[tuple[str, tuple[str, ...]]]

    @classmethod
    def catalogue(cls) -> Catalogue:
        """Return the engine's catalogue."""
        return store.load(cls.catalogue_of[0])

    @classmethod
    def knob(cls, name: str) -> Knob | None:
        """Return the engine's knob of that name; null if it has none that a study may set."""
        return None if cls.refusal(name) is not None else cls._any_knob(name)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return every name that a study may set here."""
        catalogue, sections = cls.catalogue(), cls.catalogue_of[1]
        known = [name for section in sections for name in catalogue.sections.get(section, {})]
        knobs = [name for name in known if cls.knob(name) is not None]
        return tuple(dict.fromkeys([*cls.model_fields, *knobs]))

    @classmethod
    def alias(cls, name: str) -> str | None:
        """Return the knob that the engine's command line also calls ``name``; null if none."""
        for section in cls.catalogue_of[1]:
            for knob in cls.catalogue().sections.get(section, {}).values():
                if name in knob.aliases and cls.knob(knob.name) is not None:
                    return knob.name
        return None

    def given(self) -> dict[str, Any]:
        """Return what is set, knobs without a field of their own included, as plain values."""
        return self.model_dump(exclude_none=True)

    def extras(self) -> dict[str, Any]:
        """Return the knobs that are set and have no field of their own here."""
        return dict(self.model_extra or {})

    @classmethod
    def takes_boolean(cls, name: str) -> bool:
        """Return whether a setting is true or false, and no text."""
        knob = None if name in cls.model_fields else cls._any_knob(name)
        if knob is None:
            return super().takes_boolean(name)
        return "bool" in knob.type and "str" not in knob.type

    @classmethod
    def _any_knob(cls, name: str) -> Knob | None:
        catalogue, sections = cls.catalogue(), cls.catalogue_of[1]
        for section in sections:
            knob = catalogue.sections.get(section, {}).get(name)
            if knob is not None:
                return knob
        return None

    @model_validator(mode="before")
    @classmethod
    def _fits_the_catalogue(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        errors = [
            error
            for name, value in data.items()
            for error in cls._errors(str(name), cls._read(str(name), value))
        ]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return data

    @classmethod
    def _errors(cls, name: str, value: Any) -> Iterator[InitErrorDetails]:
        if value is None:
            return
        if isinstance(value, bool | int | float | str):
            found = _scalar_faults(cls, name, type(value).__name__, value)
        else:
            found = tuple(cls.faults(name, value))
        for fault in found:
            yield _error((name, *fault.path), fault.message, fault.found)

    @classmethod
    def faults(cls, name: str, value: Any) -> Iterator[Fault]:
        """Yield why the setting ``name`` may not have that value; nothing if it may."""
        knob = cls._any_knob(name)
        if knob is None:
            if name not in cls.model_fields:
                yield Fault((), cls.unknown(name), value)
            return
        reason = cls.refusal(name)
        if reason is not None:
            yield Fault((), reason, value)
            return
        yield from faults(knob, value, cls.catalogue())

    @classmethod
    def refusal(cls, name: str) -> str | None:
        """Return why a knob that the engine has may not be set; null for any other name."""
        reason = why_reserved(cls.study_path, name)
        knob = cls._any_knob(name)
        if reason is None and knob is not None and knob.internal:
            return "is set by the engine itself; remove it"
        return reason

    @classmethod
    def unknown(cls, name: str) -> str:
        """Return what to tell about a name that the engine does not know."""
        catalogue = cls.catalogue()
        near = [cls.alias(name) or "", *nearest_names(name, cls.names())]
        found = next((each for each in near if each), None)
        if found is not None:
            return f"unknown key; did you mean {cls.study_path}.{found}?"
        message = f"unknown key; {catalogue.package} {catalogue.version} has no such setting"
        if catalogue.incomplete is not None:
            return (
                f"{message}, or its catalogue is incomplete: what it lacks goes into "
                "passthrough_kwargs, unchecked"
            )
        return f"{message}; llem config {catalogue.backend} lists them"


@lru_cache(maxsize=65_536)
def _scalar_faults(
    section: type[EngineSection], name: str, _kind: str, value: Any
) -> tuple[Fault, ...]:
    """Return a plain value's faults; a grid asks for the same few again and again."""
    return tuple(section.faults(name, value))


def _error(path: tuple[str | int, ...], message: str, found: Any) -> InitErrorDetails:
    return InitErrorDetails(
        type=PydanticCustomError(FAULT, "{reason}", {"reason": message}), loc=path, input=found
    )
