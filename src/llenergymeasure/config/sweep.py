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
from llenergymeasure.config.dotted import leaves, nest
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import (
    field_at,
    takes_mapping,
    takes_whole_numbers_only,
    unknown_key_message,
    unknown_settings,
)
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.config.section import Fault, rejection
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
            return [(index, entry) for index, entry in steps if entry[_BACKEND] == backend]
        own_steps: list[Step] = [
            (index, {s: value for s, value in entry.items() if setting_scope(s) in (None, backend)})
            for index, entry in steps
        ]
        return own_steps if any(entry for _, entry in own_steps) else [(0, {})]


@dataclass(frozen=True)
class Point:
    """One point of the grid.

    Attributes:
        backend: the engine.
        settings: what it sets.
        places: where each setting was written.
        steps: where along each axis it stands.
    """

    backend: BackendName
    settings: Mapping[Setting, Any]
    places: Mapping[Setting, KeyPath]
    steps: tuple[int, ...]


def setting_scope(setting: Setting) -> BackendName | None:
    """Return the backend that a setting belongs to; None if it is for all."""
    return next((name for name in BACKENDS if setting[0] == name), None)


@lru_cache(maxsize=4096)
def target_setting(setting: Setting) -> Setting:
    """Return what a key of the sweep sets: ``pytorch.precision`` is the precision on pytorch."""
    shared = setting[1:]
    if setting_scope(setting) is None or not shared or field_at(setting) is not None:
        return setting
    is_shared = setting_scope(shared) is None and shared[0] not in (*NOT_SWEPT, "backend")
    return shared if is_shared and field_at(shared) is not None else setting


def parse_axes(sweep: Any, reserved: Collection[str]) -> tuple[Axis, ...]:
    """Return the axes of a study's ``sweep``, in the order of the file.

    Args:
        sweep: what was written.
        reserved: keys of the study that are no settings of experiments.

    Raises:
        ValueError: keys or values that cannot be swept; all are named at once.
    """
    if not isinstance(sweep, Mapping):
        raise rejection([Fault((), "must be a mapping of settings to lists of values", sweep)])
    if not sweep:
        message = "is empty; give it a setting and its values, or remove it"
        raise rejection([Fault((), message, ...)])
    faults: list[Fault] = []
    axes = [_read_axis(key, value, reserved, faults) for key, value in sweep.items()]
    parsed = tuple(axis for axis in axes if axis is not None)
    faults += _overlap_faults(parsed)
    if faults:
        raise rejection(faults)
    return parsed


def backends_named(axes: Sequence[Axis]) -> list[BackendName]:
    """Return the backends that an axis varies, in the order of the file."""
    named = [entry[_BACKEND] for axis in axes if axis.names_backend for entry in axis.entries]
    return list(dict.fromkeys(named))


def backends_scoped(axes: Sequence[Axis]) -> dict[BackendName, str]:
    """Return the backends whose own settings are swept, each with the first axis that does."""
    scoped: dict[BackendName, str] = {}
    for axis in axes:
        for setting in axis.settings:
            scope = setting_scope(setting)
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
    points_by_backend = [_backend_points(name, axes) for name in backends]
    if any(axis.names_backend for axis in axes):
        return heapq.merge(*points_by_backend, key=lambda point: point.steps)
    return itertools.chain(*points_by_backend)


def _backend_points(backend: BackendName, axes: Sequence[Axis]) -> Iterator[Point]:
    for combination in itertools.product(*(axis.steps_for(backend) for axis in axes)):
        settings: dict[Setting, Any] = {}
        places: dict[Setting, KeyPath] = {}
        for axis, (step, entry) in zip(axes, combination, strict=True):
            for setting, value in entry.items():
                settings[target_setting(setting)] = value
                places[target_setting(setting)] = ("sweep", axis.label, step)
        settings.pop(_BACKEND, None)
        yield Point(backend, settings, places, tuple(step for step, _ in combination))


def _read_axis(key: str, value: Any, reserved: Collection[str], faults: list[Fault]) -> Axis | None:
    """Return an axis; None where it cannot be, and why is added to ``faults``."""
    setting = tuple(key.split("."))
    fault_count = len(faults)
    entries: list[Mapping[Setting, Any]] = []
    if setting[0] in reserved:
        message = "is no setting of an experiment and cannot be swept; write it at the top level"
        faults.append(Fault((key,), message, value))
    elif field_at(target_setting(setting)) is not None:
        entries = [{setting: item} for item in _axis_values(setting, value, faults)]
    elif is_group(value):
        entries = _group_entries(key, value, reserved, faults)
    else:
        faults.append(Fault((key,), unknown_key_message(setting), value))
    return Axis(key, tuple(entries)) if len(faults) == fault_count else None


def _axis_values(setting: Setting, value: Any, faults: list[Fault]) -> list[Any]:
    key = ".".join(setting)
    field = field_at(target_setting(setting))
    annotation = None if field is None else field.annotation
    message = None
    if isinstance(value, Mapping) and not takes_mapping(annotation):
        try:
            return list(ranges.expand(value, takes_whole_numbers_only(annotation)))
        except ranges.RangeError as error:
            message = str(error)
    elif isinstance(value, Mapping):
        inner_key, _ = next(leaves(nest(setting, value)), (f"{key}.…", None))
        while field_at(tuple(inner_key.split("."))) is None and inner_key != key:
            inner_key = inner_key.rpartition(".")[0]
        message = f"needs a list of mappings, each a value of {key}"
        message += f"; to vary a setting in it write {inner_key}: […]" if inner_key != key else ""
    elif not isinstance(value, list):
        message = f"needs a list of values, such as [{_example_values(value)}]"
    elif not value:
        message = "has no values; list at least one, or remove it"
    if message is not None:
        faults.append(Fault((key,), message, value))
        return []
    for place, item in enumerate(value):
        faults += _value_faults(setting, item, (key, place))
    return list(value)


def _value_faults(setting: Setting, value: Any, where: KeyPath) -> Iterator[Fault]:
    setting = target_setting(setting)
    field = field_at(setting)
    if isinstance(value, Mapping) and field is not None:
        if not takes_mapping(field.annotation):
            yield Fault(where, f"{'.'.join(setting)} takes plain values, not a mapping", value)
            return
        for fault in unknown_settings(nest(setting, value)):
            yield replace(fault, path=(*where, *fault.path[len(setting) :]))
    elif setting == _BACKEND and value not in BACKENDS:
        yield Fault(where, unknown_backend_message(value), value)


def unknown_backend_message(name: Any) -> str:
    """Return what to say of a name that is no backend."""
    near = nearest_names(name, list(BACKENDS)) if isinstance(name, str) else []
    return f"is no backend: there are {', '.join(BACKENDS)}{did_you_mean(near[:1])}"


def is_group(value: Any) -> bool:
    """Return whether a key of the sweep has settings that move together."""
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _group_entries(
    label: str, value: list[Any], reserved: Collection[str], faults: list[Fault]
) -> list[Mapping[Setting, Any]]:
    sections = [
        name
        for name, field in ExperimentConfig.model_fields.items()
        if takes_mapping(field.annotation)
    ]
    nearest = nearest_names(label, sections, cutoff=0.82)
    if nearest:
        message = (
            f"is no setting, but near to {nearest[0]}; correct it, or give the group another label"
        )
        faults.append(Fault((label,), message, ...))
        return []
    fault_count = len(faults)
    entries: list[Mapping[Setting, Any]] = []
    for place, item in enumerate(value):
        if not isinstance(item, Mapping):
            message = "each entry of a group must be a mapping of settings to values"
            faults.append(Fault((label, place), message, item))
            continue
        entry = {tuple(key.split(".")): setting_value for key, setting_value in item.items()}
        for setting, setting_value in entry.items():
            where = (label, place, ".".join(setting))
            if setting[0] in reserved:
                message = "is no setting of an experiment and cannot be swept"
                faults.append(Fault(where, message, setting_value))
            elif field_at(target_setting(setting)) is None:
                faults.append(Fault(where, unknown_key_message(setting), setting_value))
            else:
                faults += _value_faults(setting, setting_value, where)
                faults += _entry_faults(setting, entry, where)
        entries.append(entry)
    if len(faults) == fault_count and not any(entries):
        faults.append(Fault((label,), "sets nothing in any entry; remove it", ...))
    if 0 < sum(_BACKEND in entry for entry in entries) < len(entries):
        message = "names a backend in some entries only; name one in each, or in none"
        faults.append(Fault((label,), message, ...))
    return entries


def _entry_faults(
    setting: Setting, entry: Mapping[Setting, Any], where: KeyPath
) -> Iterator[Fault]:
    """Yield what would be lost of an entry that says a thing twice, or of another backend."""
    scope, backend = setting_scope(setting), entry.get(_BACKEND)
    if scope not in (None, backend) and backend is not None and target_setting(setting) != setting:
        yield Fault(where, f"is for {scope}, and its entry for {backend}; remove one", ...)
    for other in itertools.takewhile(lambda key: key != setting, entry):
        outer, inner = sorted((other, setting), key=lambda key: len(target_setting(key)))
        below = target_setting(inner)[len(target_setting(outer)) :]
        if _overlaps(outer, inner) and _sets_value_at(entry[outer], below):
            yield Fault(where, f"is set by {'.'.join(other)} of the same entry too; keep one", ...)


def _sets_value_at(value: Any, path: Setting) -> bool:
    for part in path:
        if not isinstance(value, Mapping):
            return value is not None
        if part not in value:
            return False
        value = value[part]
    return True


def _overlap_faults(axes: Sequence[Axis]) -> Iterator[Fault]:
    owners: dict[Setting, str] = {}
    for axis in axes:
        for setting in axis.settings:
            for earlier, label in owners.items():
                if label != axis.label and _overlaps(setting, earlier):
                    message = f"sets {'.'.join(setting)}, which {label} sets too; keep one"
                    yield Fault((axis.label,), message, ...)
            owners.setdefault(setting, axis.label)


def _overlaps(first: Setting, second: Setting) -> bool:
    """Return whether two keys are for one backend, and set the same or a part of it."""
    if len({setting_scope(first), setting_scope(second)} - {None}) > 1:
        return False
    first, second = target_setting(first), target_setting(second)
    shared = min(len(first), len(second))
    return first[:shared] == second[:shared]


def _example_values(value: Any) -> str:
    text = "" if value is None else str(value)[:40]
    return "1, 2, 4" if not text or re.search(r"[(\[{]", text) else text
