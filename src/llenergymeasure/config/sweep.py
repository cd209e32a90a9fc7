"""The sweep's grammar: what a study varies, and the points of its grid."""

import heapq
import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llenergymeasure.config import ranges
from llenergymeasure.config.dotted import leaves, nested
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import (
    field_at,
    takes_mapping,
    takes_whole_numbers_only,
    unknown_key_message,
    unknown_settings,
)
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.section import Fault, refused
from llenergymeasure.config.strict_yaml import KeyPath
from llenergymeasure.units import BACKENDS, BackendName

MAX_POINTS = 200_000
"""More would take hours to plan and years to run."""

NOT_SWEPT = ("output_dir",)
"""Settings of an experiment that are the study's."""

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


def parse_axes(sweep: Any, reserved: Collection[str] = ()) -> tuple[Axis, ...]:
    """Return the axes of a study's ``sweep``, in the order of the file.

    Args:
        sweep: what was written.
        reserved: keys of the study that are no settings of experiments.

    Raises:
        ValueError: keys or values that cannot be swept; all are named at once.
    """
    if not isinstance(sweep, Mapping):
        raise refused([Fault((), "must be a mapping of settings to lists of values", sweep)])
    if not sweep:
        message = "is empty; give it a setting and its values, or remove it"
        raise refused([Fault((), message, ...)])
    faults: list[Fault] = []
    axes = [_axis(key, value, reserved, faults) for key, value in sweep.items()]
    made = tuple(axis for axis in axes if axis is not None)
    faults += _set_twice(made)
    if faults:
        raise refused(faults)
    return made


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


def _axis(key: str, value: Any, reserved: Collection[str], faults: list[Fault]) -> Axis | None:
    """Return an axis; None where it cannot be, and why is added to ``faults``."""
    setting = tuple(key.split("."))
    before = len(faults)
    entries: list[Mapping[Setting, Any]] = []
    if setting[0] in reserved:
        message = "is no setting of an experiment and cannot be swept; write it at the top level"
        faults.append(Fault((key,), message, value))
    elif field_at(meant(setting)) is not None:
        entries = [{setting: item} for item in _values(setting, value, faults)]
    elif is_group(value):
        entries = _group(key, value, reserved, faults)
    else:
        faults.append(Fault((key,), unknown_key_message(setting), value))
    return Axis(key, tuple(entries)) if len(faults) == before else None


def _values(setting: Setting, value: Any, faults: list[Fault]) -> list[Any]:
    key = ".".join(setting)
    field = field_at(meant(setting))
    annotation = None if field is None else field.annotation
    message = None
    if isinstance(value, Mapping):
        if not takes_mapping(annotation):
            try:
                return list(ranges.expand(value, takes_whole_numbers_only(annotation)))
            except ranges.RangeError as error:
                message = str(error)
        else:
            inside, _ = next(leaves(nested(setting, value)), (f"{key}.…", None))
            while field_at(tuple(inside.split("."))) is None and inside != key:
                inside = inside.rpartition(".")[0]
            message = f"needs a list of mappings, each a value of {key}"
            message += f"; to vary a setting in it write {inside}: […]" if inside != key else ""
    elif not isinstance(value, list):
        message = f"needs a list of values, such as [{_shown(value)}]"
    elif not value:
        message = "has no values; list at least one, or remove it"
    if message is not None:
        faults.append(Fault((key,), message, value))
        return []
    for place, item in enumerate(value):
        faults += _faults_of_value(setting, item, (key, place))
    return list(value)


def _faults_of_value(setting: Setting, value: Any, where: KeyPath) -> Iterator[Fault]:
    setting = meant(setting)
    field = field_at(setting)
    if isinstance(value, Mapping) and field is not None:
        if not takes_mapping(field.annotation):
            yield Fault(where, f"{'.'.join(setting)} takes plain values, not a mapping", value)
            return
        for fault in unknown_settings(nested(setting, value)):
            yield replace(fault, path=(*where, *fault.path[len(setting) :]))
    elif setting == _BACKEND and value not in BACKENDS:
        yield Fault(where, no_backend(value), value)


def no_backend(name: Any) -> str:
    """Return what to say of a name that is no backend."""
    near = nearest_names(name, list(BACKENDS)) if isinstance(name, str) else []
    return f"is no backend: there are {', '.join(BACKENDS)}{did_you_mean(near[:1])}"


def is_group(value: Any) -> bool:
    """Return whether a key of the sweep has settings that move together."""
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _group(
    label: str, value: list[Any], reserved: Collection[str], faults: list[Fault]
) -> list[Mapping[Setting, Any]]:
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
        faults.append(Fault((label,), message, ...))
        return []
    before = len(faults)
    entries: list[Mapping[Setting, Any]] = []
    for place, item in enumerate(value):
        if not isinstance(item, Mapping):
            message = "each entry of a group must be a mapping of settings to values"
            faults.append(Fault((label, place), message, item))
            continue
        entry = {tuple(key.split(".")): inner for key, inner in item.items()}
        for setting, inner in entry.items():
            where = (label, place, ".".join(setting))
            if setting[0] in reserved:
                message = "is no setting of an experiment and cannot be swept"
                faults.append(Fault(where, message, inner))
            elif field_at(meant(setting)) is None:
                faults.append(Fault(where, unknown_key_message(setting), inner))
            else:
                faults += _faults_of_value(setting, inner, where)
                faults += _faults_in_entry(setting, entry, where)
        entries.append(entry)
    if len(faults) == before and not any(entries):
        faults.append(Fault((label,), "sets nothing in any entry; remove it", ...))
    if 0 < sum(_BACKEND in entry for entry in entries) < len(entries):
        message = "names a backend in some entries only; name one in each, or in none"
        faults.append(Fault((label,), message, ...))
    return entries


def _faults_in_entry(
    setting: Setting, entry: Mapping[Setting, Any], where: KeyPath
) -> Iterator[Fault]:
    """Yield what would be lost of an entry that says a thing twice, or of another backend."""
    scope, named = scope_of(setting), entry.get(_BACKEND)
    if scope not in (None, named) and named is not None and meant(setting) != setting:
        yield Fault(where, f"is for {scope}, and its entry for {named}; remove one", ...)
    for other in itertools.takewhile(lambda each: each != setting, entry):
        outer, inner = sorted((other, setting), key=lambda each: len(meant(each)))
        below = meant(inner)[len(meant(outer)) :]
        if _overlap(outer, inner) and _holds(entry[outer], below):
            yield Fault(where, f"is set by {'.'.join(other)} of the same entry too; keep one", ...)


def _holds(value: Any, below: Setting) -> bool:
    for part in below:
        if not isinstance(value, Mapping):
            return value is not None
        if part not in value:
            return False
        value = value[part]
    return True


def _set_twice(axes: Sequence[Axis]) -> Iterator[Fault]:
    owners: dict[Setting, str] = {}
    for axis in axes:
        for setting in axis.settings:
            for other, label in owners.items():
                if label != axis.label and _overlap(setting, other):
                    message = f"sets {'.'.join(setting)}, which {label} sets too; keep one"
                    yield Fault((axis.label,), message, ...)
            owners.setdefault(setting, axis.label)


def _overlap(one: Setting, other: Setting) -> bool:
    """Return whether two keys are for one backend, and set the same or a part of it."""
    apart = len({scope_of(one), scope_of(other)} - {None}) > 1
    one, other = meant(one), meant(other)
    shared = min(len(one), len(other))
    return not apart and one[:shared] == other[:shared]


def _shown(value: Any) -> str:
    text = "" if value is None else str(value)[:40]
    return "1, 2, 4" if re.search(r"[(\[{]", text) else text
