"""A part of the study file that takes every parameter of an engine, as the engine describes it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import ConfigDict

from llenergymeasure.config.engine_parameters import Schema, forms, load, parameters
from llenergymeasure.config.engine_parameters.check import faults
from llenergymeasure.config.engine_parameters.reserved import why_reserved
from llenergymeasure.config.section import Fault, Section, rejection


class EngineSection(Section):
    """Settings an engine takes by its own names.

    The fields of a subclass are those a study of any engine's user needs most, those of the
    original tool, and those that are ours. Every other name is looked up among the engine's
    parameters, which are read when a study has such a section, and kept as an extra.

    Attributes:
        study_path: where the section is in a study file.
    """

    model_config = ConfigDict(extra="allow")

    study_path: ClassVar[str]

    @classmethod
    def owner(cls) -> str:
        """Return the backend whose engine is meant."""
        return cls.study_path.partition(".")[0]

    @classmethod
    def parameter(cls, name: str) -> Schema | None:
        """Return the schema of an engine's parameter; None if a study may not set that name."""
        return None if cls.refusal(name) is not None else parameters(cls.study_path).get(name)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return every name that a study may set here."""
        settable = [name for name in parameters(cls.study_path) if cls.refusal(name) is None]
        return tuple(dict.fromkeys([*cls.model_fields, *settable]))

    @classmethod
    def alias(cls, name: str) -> str | None:
        """Return the parameter that the engine's command line also calls ``name``, if any."""
        for parameter, schema in parameters(cls.study_path).items():
            if name in schema.get("x-aliases", ()) and cls.refusal(parameter) is None:
                return parameter
        return None

    def explicit_values(self) -> dict[str, Any]:
        """Return what is set, parameters without a field here included, as plain values."""
        return self.model_dump(exclude_none=True)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that are set, as the engine names them today."""
        return self.explicit_values()

    def extras(self) -> dict[str, Any]:
        """Return the parameters that are set and have no field here."""
        return dict(self.model_extra or {})

    @classmethod
    def takes_boolean(cls, name: str) -> bool:
        """Return whether a setting is true or false, and no text."""
        if name in cls.model_fields:
            return super().takes_boolean(name)
        kinds = forms(parameters(cls.study_path).get(name, {"type": "string"}))
        return "boolean" in kinds and not kinds & {"string", "any"}

    @classmethod
    def _prepare(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        rejected = [
            replace(fault, path=(str(name), *fault.path))
            for name, value in data.items()
            if value is not None
            for fault in cls._faults(str(name), cls._read(str(name), value))
        ]
        if rejected:
            raise rejection(rejected)
        return data

    @classmethod
    def _faults(cls, name: str, value: Any) -> Iterable[Fault]:
        if isinstance(value, bool | int | float | str):
            return _scalar_faults(cls, name, type(value).__name__, value)
        return cls.faults(name, value)

    @classmethod
    def faults(cls, name: str, value: Any) -> Iterator[Fault]:
        """Yield why the setting ``name`` may not have that value; nothing if it may."""
        reason = cls.refusal(name)
        if reason is not None:
            yield Fault((), reason, value)
        elif name in parameters(cls.study_path):
            yield from faults(cls.study_path, name, value)
        elif name not in cls.model_fields:
            yield Fault((), cls.unknown(), value)

    @classmethod
    def refusal(cls, name: str) -> str | None:
        """Return why a parameter that the engine has may not be set; None for any other name."""
        reason = why_reserved(cls.study_path, name)
        if reason is None and parameters(cls.study_path).get(name, {}).get("readOnly"):
            return "is set by the engine itself; remove it"
        return reason

    @classmethod
    def unknown(cls) -> str:
        """Return what to say about a name that is near to none the engine knows."""
        engine = load(cls.owner())
        message = f"unknown key; {engine['x-package']} {engine['x-version']} has no such setting"
        if "x-incomplete" in engine:
            return (
                f"{message}, or its list is incomplete: what it lacks goes into "
                "passthrough_kwargs, unchecked"
            )
        return f"{message}; llem config {cls.owner()} lists them"


@lru_cache(maxsize=65_536)
def _scalar_faults(
    section: type[EngineSection], name: str, _kind: str, value: Any
) -> tuple[Fault, ...]:
    """Return a plain value's faults; a grid asks for the same few again and again."""
    return tuple(section.faults(name, value))
