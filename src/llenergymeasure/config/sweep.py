"""The sweep's grammar: what a study varies, and the points of its grid."""

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llenergymeasure.config import ranges
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import (
    field_at,
    takes_mapping,
    takes_whole_numbers_only,
    unknown_key_message,
    unknown_keys,
)
from llenergymeasure.config.messages import Places, problem
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.strict_yaml import KeyPath
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BACKENDS, BackendName

MAX_POINTS = 200_000
"""More would take hours to plan and years to run."""

OWN_OF_A_STUDY = ("name", "base", "sweep", "experiments", "runners", "execution")
"""What a study does not take from its base."""

STUDY_ONLY = (*OWN_OF_A_STUDY, "notify", "carbon", "quality")
NOT_SWEPT = (*STUDY_ONLY, "output_dir")

Setting = tuple[str, ...]
Step = tuple[int, Mapping[Setting, Any]]
"""One entry of an axis, with its place in the list."""

_BACKEND: Setting = ("backend",)


@dataclass(frozen=True)
class Axis:
    """One thing that varies: a setting, or several that move together.

    Attributes:
        label: its key in the sweep.
        entries: what each step along it sets.
    """

    label: str
    entries: tuple[Mapping[Setting, Any], ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return every setting that some entry sets, in the order of the file."""
        return tuple(dict.fromkeys(setting for entry in self.entries for setting in entry))

    @property
    def names_backend(self) -> bool:
        """Whether each of its entries says which backend it is for."""
        return _BACKEND in self.settings

    def steps_for(self, backend: BackendName) -> list[Step]:
        """Return the steps along the axis that ``backend`` takes; one that sets nothing if none.

        A setting of another backend is left off, except where the entry names its backend: that
        contradiction is kept, so that the point is left out and reported.
        """
        steps: list[Step] = list(enumerate(self.entries))
        if self.names_backend:
            return [(place, entry) for place, entry in steps if entry[_BACKEND] == backend]
        own: list[Step] = [
            (place, {s: value for s, value in entry.items() if scope_of(s) in (None, backend)})
            for place, entry in steps
        ]
        return own if any(entry for _, entry in own) else [(0, {})]


@dataclass(frozen=True)
class Point:
    """One point of the grid.

    Attributes:
        backend: the engine.
        settings: what it sets.
        written: where each setting was written.
        steps: where along each axis it stands.
    """

    backend: BackendName
    settings: Mapping[Setting, Any]
    written: Mapping[Setting, KeyPath]
    steps: tuple[int, ...]


def scope_of(setting: Setting) -> BackendName | None:
    """Return the backend that a setting belongs to; None if it is for all."""
    return next((name for name in BACKENDS if setting[0] == name), None)


@lru_cache(maxsize=4096)
def meant(setting: Setting) -> Setting:
    """Return what a key of the sweep sets: ``pytorch.precision`` is the precision on pytorch."""
    shared = setting[1:]
    if scope_of(setting) is None or not shared or field_at(setting) is not None:
        return setting
    of_all = scope_of(shared) is None and shared[0] not in (*NOT_SWEPT, "backend")
    return shared if of_all and field_at(shared) is not None else setting


def parse_axes(sweep: Any, places: Places) -> list[Axis]:
    """Return the axes of a study's ``sweep``, in the order of the file.

    Raises:
        ConfigurationError: keys or values that cannot be swept; all are named at once.
    """
    where: KeyPath = ("sweep",)
    if not isinstance(sweep, Mapping):
        message = "must be a mapping of settings to lists of values"
        raise ConfigurationError(problem(message, where, places, found=sweep))
    if not sweep:
        message = "is empty; give it a setting and its values, or remove it"
        raise ConfigurationError(problem(message, where, places))
    problems: list[Problem] = []
    axes: list[Axis] = []
    for key, value in sweep.items():
        try:
            axes.append(_axis(key, value, places))
        except ConfigurationError as error:
            problems.extend(error.problems)
    problems += _set_twice(axes, places)
    if problems:
        raise ConfigurationError(problems)
    return axes


def backends_named(axes: Sequence[Axis]) -> list[BackendName]:
    """Return the backends that an axis varies, in the order of the file."""
    named = [entry[_BACKEND] for axis in axes if axis.names_backend for entry in axis.entries]
    return list(dict.fromkeys(named))


def backends_scoped(axes: Sequence[Axis]) -> dict[BackendName, str]:
    """Return the backends whose own settings are swept, each with the first axis that does."""
    scoped: dict[BackendName, str] = {}
    for axis in axes:
        for setting in axis.settings:
            scope = scope_of(setting)
            if scope is not None:
                scoped.setdefault(scope, axis.label)
    return scoped


def count_points(axes: Sequence[Axis], backends: Sequence[BackendName]) -> int:
    """Return how many points the grid has, without making them."""
    return sum(math.prod(len(axis.steps_for(name)) for axis in axes) for name in backends)


def points(axes: Sequence[Axis], backends: Sequence[BackendName]) -> Iterator[Point]:
    """Yield the points of the grid, the last axis of the file fastest.

    Where no axis names the backend, it is the slowest.
    """
    of_each = [_points_of(name, axes) for name in backends]
    if any(axis.names_backend for axis in axes):
        return heapq.merge(*of_each, key=lambda point: point.steps)
    return itertools.chain(*of_each)


def _points_of(backend: BackendName, axes: Sequence[Axis]) -> Iterator[Point]:
    for chosen in itertools.product(*(axis.steps_for(backend) for axis in axes)):
        settings: dict[Setting, Any] = {}
        written: dict[Setting, KeyPath] = {}
        for axis, (place, entry) in zip(axes, chosen, strict=True):
            for setting, value in entry.items():
                settings[meant(setting)] = value
                written[meant(setting)] = ("sweep", axis.label, place)
        settings.pop(_BACKEND, None)
        yield Point(backend, settings, written, tuple(place for place, _ in chosen))


def _axis(key: str, value: Any, places: Places) -> Axis:
    setting = tuple(key.split("."))
    where: KeyPath = ("sweep", key)
    if setting[0] in NOT_SWEPT:
        message = "is no setting of an experiment and cannot be swept; write it at the top level"
        raise ConfigurationError(problem(message, where, places))
    if field_at(meant(setting)) is not None:
        return Axis(key, tuple({setting: item} for item in _values(setting, value, places)))
    if _is_group(value):
        return _group(key, value, places)
    message = unknown_key_message(setting)
    raise ConfigurationError(problem(message, where, places, found=value))


def _values(setting: Setting, value: Any, places: Places) -> list[Any]:
    where: KeyPath = ("sweep", ".".join(setting))
    field = field_at(meant(setting))
    annotation = None if field is None else field.annotation
    if isinstance(value, Mapping):
        if takes_mapping(annotation):
            message = f"needs a list of mappings, each a value of {where[1]}"
            raise ConfigurationError(problem(message, where, places, found=value))
        try:
            return list(ranges.expand(value, takes_whole_numbers_only(annotation)))
        except ranges.RangeError as error:
            raise ConfigurationError(problem(str(error), where, places, found=value)) from None
    if not isinstance(value, list):
        message = f"needs a list of values, such as [{_shown(value)}]"
        raise ConfigurationError(problem(message, where, places, found=value))
    if not value:
        message = "has no values; list at least one, or remove it"
        raise ConfigurationError(problem(message, where, places, found=value))
    problems = [
        bad
        for place, item in enumerate(value)
        if (bad := _bad_item(setting, item, (*where, place), places)) is not None
    ]
    if problems:
        raise ConfigurationError(problems)
    return value


def _bad_item(setting: Setting, item: Any, where: KeyPath, places: Places) -> Problem | None:
    setting = meant(setting)
    field = field_at(setting)
    if isinstance(item, Mapping) and field is not None:
        if not takes_mapping(field.annotation):
            message = f"{'.'.join(setting)} takes plain values, not a mapping"
            return problem(message, where, places, found=item)
        nested: dict[str, Any] = dict(item)
        for part in reversed(setting):
            nested = {part: nested}
        for unknown in unknown_keys(nested):
            message = unknown_key_message(tuple(str(part) for part in unknown))
            path = (*where, *unknown[len(setting) :])
            return problem(message, path, places)
    if setting == _BACKEND and item not in BACKENDS:
        return unknown_backend(item, where, places)
    return None


def unknown_backend(name: Any, where: KeyPath, places: Places) -> Problem:
    """Return the problem of a name that is no backend."""
    near = nearest_names(name, list(BACKENDS)) if isinstance(name, str) else []
    message = f"is no backend: there are {', '.join(BACKENDS)}{did_you_mean(near[:1])}"
    return problem(message, where, places, found=name)


def _is_group(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _group(label: str, value: list[Any], places: Places) -> Axis:
    where: KeyPath = ("sweep", label)
    sections = [
        name
        for name, field in ExperimentConfig.model_fields.items()
        if takes_mapping(field.annotation)
    ]
    near = nearest_names(label, sections, cutoff=0.82)
    if near:
        message = (
            f"is no setting, but near to {near[0]}; correct it, or give the group another label"
        )
        raise ConfigurationError(problem(message, where, places))
    problems: list[Problem] = []
    entries: list[Mapping[Setting, Any]] = []
    for place, item in enumerate(value):
        here = (*where, place)
        if not isinstance(item, Mapping):
            message = "each entry of a group must be a mapping of settings to values"
            problems.append(problem(message, here, places, found=item))
            continue
        entry = {tuple(key.split(".")): inner for key, inner in item.items()}
        for setting, inner in entry.items():
            problems += _bad_setting(setting, inner, (*here, ".".join(setting)), places)
        entries.append(entry)
    if not problems and not any(entries):
        problems.append(problem("sets nothing in any entry; remove it", where, places))
    if 0 < sum(_BACKEND in entry for entry in entries) < len(entries):
        message = "names a backend in some entries only; name one in each, or in none"
        problems.append(problem(message, where, places))
    if problems:
        raise ConfigurationError(problems)
    return Axis(label, tuple(entries))


def _bad_setting(setting: Setting, value: Any, where: KeyPath, places: Places) -> list[Problem]:
    if setting[0] in NOT_SWEPT:
        message = "is no setting of an experiment and cannot be swept"
        return [problem(message, where, places)]
    if field_at(meant(setting)) is None:
        return [problem(unknown_key_message(setting), where, places, found=value)]
    bad = _bad_item(setting, value, where, places)
    return [] if bad is None else [bad]


def _set_twice(axes: Sequence[Axis], places: Places) -> list[Problem]:
    problems = []
    owners: dict[Setting, str] = {}
    for axis in axes:
        for setting in axis.settings:
            for other, label in owners.items():
                apart = len({scope_of(setting), scope_of(other)} - {None}) > 1
                if label != axis.label and not apart and _overlap(meant(setting), meant(other)):
                    message = f"sets {'.'.join(setting)}, which {label} sets too; keep one"
                    problems.append(problem(message, ("sweep", axis.label), places))
            owners.setdefault(setting, axis.label)
    return problems


def _overlap(one: Setting, other: Setting) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _shown(value: Any) -> str:
    return "" if value is None else str(value)[:40]
