"""A study file as written: its values, where each stands, and what it takes from its base."""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llenergymeasure.config import strict_yaml
from llenergymeasure.config.dotted import nest
from llenergymeasure.config.fields import (
    field_at,
    takes_any_key,
    unknown_key_message,
    unknown_settings,
)
from llenergymeasure.config.identity import BUILT_IN_NAMES, LOCAL_SETTINGS
from llenergymeasure.config.merge_settings import NotASectionError, assign, flatten, merge
from llenergymeasure.config.old_names import is_original_format
from llenergymeasure.config.section import Fault
from llenergymeasure.config.strict_yaml import KeyPath, Place, dotted_name
from llenergymeasure.config.study_file import STUDY_KEYS, StudyFile
from llenergymeasure.config.validation_messages import as_problem, describe, validation_faults
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BACKENDS

MAX_BASES = 20

_NOT_INHERITED = ("name", "base", "sweep", "experiments", "runners", "execution")
"""What a study does not take from its base."""

_PATH_SETTINGS = (*LOCAL_SETTINGS, "quality.texts")
"""Settings whose path is relative to the file that names them, as its base is."""

_SERVER_MODEL_NAMES = ("openai.model", "openai.body.model")
"""What a server calls its model: a name, whatever lies here under it."""


@dataclass(frozen=True)
class Document:
    """The values of a study, its base merged in, and the place of each.

    Attributes:
        values: plain values: mappings with text keys, lists, text, numbers, booleans, nulls.
        places: where each was written.
        file: the study file, if it was read from one.
        overrides: settings of every experiment that win over what the study says.
        notes: what is to be said of how it was read.
    """

    values: dict[str, Any]
    places: dict[KeyPath, Place]
    file: Path | None
    overrides: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_document(path: Path, based_on_it: tuple[Path, ...] = ()) -> Document:
    """Return a study file with its base merged in.

    Args:
        path: the file.
        based_on_it: the files that are based on it.

    Raises:
        ConfigurationError: a file is missing, is not strict YAML, or bases itself on itself.
    """
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(Problem(f"cannot be read: {error}", file=path)) from None
    values, places = strict_yaml.read(path)
    if values is None:
        raise ConfigurationError(Problem("is empty; a study names at least a model", file=path))
    if not isinstance(values, dict):
        message = "a study must be a mapping of settings to values"
        raise ConfigurationError(Problem(message, found=describe(values), file=path, line=1))
    notes: dict[str, str] = {}
    values = _resolve_paths(values, path, notes)
    document = Document(values, places, path, notes=tuple(notes.values()))
    return _with_base(document, (*based_on_it, resolved))


def document_from(values: Mapping[str, Any], origin: Path | None) -> Document:
    """Return a mapping that was made in a program as a document.

    Raises:
        ConfigurationError: a value is not plain, or its base cannot be read.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(Problem("a study must be a mapping", found=describe(values)))
    problems: list[Problem] = []
    plain = _plain(values, (), problems, origin)
    if problems:
        raise ConfigurationError(problems)
    document = Document(plain, {(): Place(origin)}, origin)
    return _with_base(document, (origin,) if origin is not None else ())


def with_overrides(document: Document, overrides: Mapping[str, Any]) -> Document:
    """Return ``document`` with settings from outside, by dotted key, which win over its own.

    What is the study's (its name, execution, sweep, backends) is set here; the settings of
    experiments are kept apart, for they are laid over each experiment after the expansion.
    """
    problems: list[Problem] = []
    plain = _plain(overrides, (), problems, None)
    if problems:
        raise ConfigurationError(problems)
    values, places = dict(document.values), dict(document.places)
    settings: dict[tuple[str, ...], Any] = {}
    seen_paths: set[tuple[str, ...]] = set()
    for key, value in plain.items():
        path = _override_path(key)
        if path[0] in STUDY_KEYS:
            values = _with_study_key(values, path, value)
            assignments = {path: value} if path[0] == "sweep" else flatten(nest(path, value))
        else:
            assignments = _override_settings(path, value)
            settings |= assignments
        for setting in assignments.keys() & seen_paths:
            message = f"sets {'.'.join(setting)}, which is set already"
            raise ConfigurationError(Problem(message, key=key))
        seen_paths |= assignments.keys()
        for setting in assignments:
            places = {at: place for at, place in places.items() if at[: len(setting)] != setting}
            places[setting] = Place(None)
    return replace(document, values=values, places=places, overrides=settings)


def _override_path(key: str) -> tuple[str, ...]:
    """Return the path of an override; a key of the sweep is one part of it, dots and all."""
    path = tuple(key.split("."))
    if not all(path):
        raise ConfigurationError(Problem("is no setting's name", key=key))
    if path[0] == "base":
        message = "cannot be set over a study; name it in the study itself"
        raise ConfigurationError(Problem(message, key=key))
    return ("sweep", ".".join(path[1:])) if path[0] == "sweep" and path[1:] else path


def _with_study_key(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if path == ("backend",):
        values = _on_one_backend(values, value)
    try:
        return assign(values, {path: value})
    except NotASectionError as error:
        message = str(error)
        if path[0] in ("experiments", "name"):  # neither can be a mapping
            message = "cannot be set from outside here"
        raise ConfigurationError(Problem(message, key=".".join(path))) from None


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Return ``key=value`` arguments as a mapping, the values read as YAML.

    Raises:
        ConfigurationError: an argument has no ``=``, or its value is not strict YAML.
    """
    overrides: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        key = name.strip()
        if not equals or not key:
            message = "must be KEY=VALUE, such as n=16 or decoder.temperature=0"
            raise ConfigurationError(Problem(message, found=argument))
        if key in overrides or not text.strip():
            message = "is given twice" if key in overrides else "has no value; `null` unsets it"
            raise ConfigurationError(Problem(message, key=key))
        try:
            overrides[key] = strict_yaml.parse(text.encode())[0]
        except ConfigurationError as error:
            message = error.problems[0].message
            raise ConfigurationError(Problem(message, key=key, found=text)) from None
    return overrides


def check_document(document: Document) -> StudyFile:
    """Return a study whose every part can be used by itself.

    Raises:
        ConfigurationError: the parts that cannot; all are named at once.
    """
    default = "study" if document.file is None else document.file.stem
    values = {"name": default, **document.values}
    if values["name"] is None:
        values["name"] = default
    shared = {key: value for key, value in values.items() if key not in STUDY_KEYS}
    faults = list(unknown_settings(shared, STUDY_KEYS))
    try:
        study = StudyFile.model_validate(values)
        faults = faults or _unused_sections(study, {path[0] for path in document.overrides})
    except ValidationError as error:
        faults += validation_faults(error, values, StudyFile)
    if faults:
        raise ConfigurationError([as_problem(fault, document.places) for fault in faults])
    return study


def _unused_sections(study: StudyFile, override_sections: set[str]) -> list[Fault]:
    backends = study.used_backends
    return [
        Fault(
            (name,),
            f"belongs to backend {name}, which the study does not use; "
            f"set backend: {name} or remove this section",
            ...,
        )
        for name in BACKENDS
        if name not in backends and (name in study.shared or name in override_sections)
    ]


def _override_settings(path: tuple[str, ...], value: Any) -> dict[tuple[str, ...], Any]:
    """Return what an override sets, a mapping of a section taken apart."""
    field = field_at(path)
    if field is None:
        message = unknown_key_message(path, STUDY_KEYS)
        raise ConfigurationError(Problem(message, key=".".join(path), found=describe(value)))
    if not isinstance(value, Mapping) or takes_any_key(field.annotation):
        return {path: value}  # what else a free mapping or a data set holds stays
    settings: dict[str, Any] = nest(path, value)
    for fault in unknown_settings(settings, STUDY_KEYS):  # else a key without a value is lost
        raise ConfigurationError(as_problem(fault, {}))
    return flatten(settings)


def _resolve_paths(value: Any, file: Path, notes: dict[str, str], path: KeyPath = ()) -> Any:
    """Return a study's values with each path that exists next to ``file`` as seen from here.

    What is not there keeps its words: it may be a model's id, or relative to the working folder as
    it was in earlier versions. ``notes`` gets what is found there alone, and what no longer counts
    as a path.
    """
    if isinstance(value, Mapping):
        return {key: _resolve_paths(item, file, notes, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve_paths(item, file, notes, path) for item in value]
    if not isinstance(value, str) or not value:
        return value
    name = f".{dotted_name(path)}"
    key = next((key for key in _PATH_SETTINGS if name.endswith(f".{key}")), None)
    if key is None or any(value in names for names in BUILT_IN_NAMES.values()):
        return value
    resolved = str(file.parent / value) if _exists(file.parent / value) else None
    server_key = next((key for key in _SERVER_MODEL_NAMES if name.endswith(f".{key}")), None)
    if server_key is not None and resolved not in (None, value):
        note = f"{server_key}: {value} is sent as written; earlier versions sent {resolved}"
        notes[note] = f"{note}, under another id"
    elif server_key is None and resolved is not None:
        return resolved
    elif server_key is None and _exists(Path(value)):
        notes.setdefault(
            key,
            f"{key}: {value} is found from the working folder, as in earlier versions; write it "
            f"relative to {file}, or it may be another file, or none, from another folder",
        )
    return value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _with_base(document: Document, based_on_it: tuple[Path, ...]) -> Document:
    if is_original_format(document.values):
        message = (
            "is a study in the format of LLenergyMeasure 0.6 or 0.7, which is another than that "
            f"of v1.19; `llem convert {shlex.quote(str(document.file or 'OLD.yaml'))} > new.yaml` "
            "rewrites it"
        )
        raise ConfigurationError(Problem(message, file=document.file))
    base = document.values.get("base")
    if base is None:
        return document
    folder = document.file.parent if document.file is not None else Path()
    reason = _base_problem(base, folder, based_on_it)
    if reason is not None:
        raise ConfigurationError(as_problem(Fault(("base",), reason, base), document.places))
    path = folder / base
    try:
        parent = read_document(path, based_on_it)
    except ConfigurationError as error:  # what a file that is no study holds is not to be shown
        problems = [replace(problem, found=None) for problem in error.problems]
        raise ConfigurationError(problems) from None
    shared = {key: value for key, value in parent.values.items() if key not in _NOT_INHERITED}
    places = {place: where for place, where in parent.places.items() if place[:1] != ()}
    return replace(
        document,
        values=merge(shared, document.values),
        places={**places, **document.places},
        notes=(*parent.notes, *document.notes),
    )


def _base_problem(base: Any, folder: Path, based_on_it: tuple[Path, ...]) -> str | None:
    """Return why a study cannot be based on what it names; None if it can."""
    if not isinstance(base, str) or not base.strip() or "\0" in base:
        return "must be the path of a study file, relative to this one"
    path = folder / base
    if not path.is_file():
        return "no such file; base is a path relative to the file that names it"
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        return "is no study's file by its name, which ends in .yaml, .yml or .json"
    if path.resolve() in based_on_it:
        return "leads back to itself; remove one base"
    if len(based_on_it) >= MAX_BASES:
        return f"is the end of a chain of more than {MAX_BASES} bases; merge some"
    return None


def as_plain(value: Any) -> Any:
    """Return a value of NumPy's, or of an enumeration, as the plain one that it stands for."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return str.__str__(value)  # str() gives an enumeration's own name for it
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _plain(value: Any, path: KeyPath, problems: list[Problem], file: Path | None) -> Any:
    """Return ``value`` in plain types; what has none is added to ``problems``."""
    value = as_plain(value)
    key = dotted_name(path) or None
    if len(path) > strict_yaml.MAX_DEPTH:
        message = "is nested too deep, or holds itself"
        raise ConfigurationError(Problem(message, key=dotted_name(path[:3]), file=file))
    if isinstance(value, Mapping):
        plain = {}
        for name, item in value.items():
            if not isinstance(name, str) and path[-1:] != ("max_memory",):
                problems.append(
                    Problem("a key must be text", key=key, found=describe(name), file=file)
                )
                continue
            plain[str(name)] = _plain(item, (*path, str(name)), problems, file)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, n), problems, file) for n, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem("must be a finite number", key=key, found=str(value), file=file))
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if value is not None:
        message = f"must be text, a number, true, false, a list or a mapping, not {type(value)}"
        problems.append(Problem(message, key=key, file=file))
    return None


def _on_one_backend(values: dict[str, Any], backend: Any) -> dict[str, Any]:
    """Return a study whose sweep and experiments name no other backend than the one given.

    Of a group that has entries for it those are taken, and of any other all.
    """
    values = dict(values)
    if isinstance(values.get("sweep"), Mapping):
        sweep = {key: value for key, value in values.pop("sweep").items() if key != "backend"}
        axes = {key: _entries_for_backend(value, backend) for key, value in sweep.items()}
        kept_axes = {key: value for key, value in axes.items() if value == sweep[key] or any(value)}
        values |= {"sweep": kept_axes} if kept_axes else {}
    if "experiments" in values:
        values["experiments"] = _without_backend(values["experiments"])
    return values


def _entries_for_backend(axis: Any, backend: Any) -> Any:
    if not isinstance(axis, list):
        return axis
    mappings = [entry for entry in axis if isinstance(entry, Mapping)]
    entries = [entry for entry in mappings if entry.get("backend") == backend]
    return entries or _without_backend(axis)


def _without_backend(entries: Any) -> Any:
    if not isinstance(entries, list):
        return entries
    return [
        {key: value for key, value in entry.items() if key != "backend"}
        if isinstance(entry, Mapping)
        else entry
        for entry in entries
    ]
