"""Which runs of an experiment have a common mean.

A run is in the mean if it completed, carries no disqualifying code, has energy of the prevailing
meter, and was made on the prevailing machine: the same kind of GPU under the same driver and power
limit, with the same engine and the same commit of the model. A measured joule and an estimated one
have no common mean, and neither have two cards. What is left out is counted and named. What may be
compared across experiments is in :mod:`llenergymeasure.analysis.comparable`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llenergymeasure.units import MISSING
from llenergymeasure.validity_codes import DISQUALIFYING

Row: TypeAlias = Mapping[str, Any]
Meter: TypeAlias = tuple[str | None, str | None, tuple[str, ...]]
Machine: TypeAlias = tuple[Any, ...]

PENDING = frozenset({"running", MISSING})
"""Statuses of runs that have not ended or not begun."""

MACHINE_COLUMNS = ("gpu_name", "driver_version", "power_limit_w", "engine_version", "model_commit")
"""What must be the same in runs of one experiment that are averaged."""


@dataclass(frozen=True)
class Selection:
    """The runs of one experiment, sorted by whether they are in its mean.

    Attributes:
        used_runs: runs in the mean.
        matching_runs: completed runs of that meter and machine, disqualified ones among them.
        meter: kind, sensor and scopes of the used runs' energy.
        left_out: how many are not in the mean and why, as columns of the summary.
        differs: in which of :data:`MACHINE_COLUMNS` other machines differ, with what was found.
    """

    used_runs: tuple[Row, ...]
    matching_runs: tuple[Row, ...]
    meter: Meter
    left_out: Mapping[str, int]
    differs: tuple[str, ...]


def select(members: Sequence[Row]) -> Selection:
    """Return which of an experiment's runs are in its mean."""
    completed = [row for row in members if row["status"] == "completed"]
    sound = [row for row in completed if in_means(row)]
    candidates = sound or completed
    meter = _prevailing_meter(candidates)
    machine = _prevailing_machine([row for row in candidates if run_meter(row) == meter])
    matching = [
        row for row in completed if run_meter(row) == meter and _agree(run_machine(row), machine)
    ]
    same_meter = [row for row in sound if run_meter(row) == meter]
    other_machine_runs = [row for row in same_meter if not _agree(run_machine(row), machine)]
    pending = sum(row["status"] in PENDING for row in members)
    return Selection(
        used_runs=tuple(row for row in matching if in_means(row)),
        matching_runs=tuple(matching),
        meter=meter,
        left_out={
            "n_failed": len(members) - len(completed) - pending,
            "n_pending": pending,
            "n_disqualified": len(completed) - len(sound),
            "n_other_meter": len(sound) - len(same_meter),
            "n_other_machine": len(other_machine_runs),
        },
        differs=tuple(_differences(machine, other_machine_runs)),
    )


def selections(rows: Iterable[Row]) -> dict[str, Selection]:
    """Return the selection of each experiment, in the order of their first rows."""
    return {experiment: select(members) for experiment, members in by_experiment(rows).items()}


def used_runs(rows: Iterable[Row]) -> dict[str, tuple[Row, ...]]:
    """Return the runs in the mean of each experiment."""
    return {experiment: selection.used_runs for experiment, selection in selections(rows).items()}


def by_experiment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each experiment, in the order of their first ones."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["experiment"], []).append(row)
    return groups


def by_start(rows: Iterable[Row]) -> list[Row]:
    """Return the rows in the order in which their runs began."""
    return sorted(rows, key=lambda row: (row["started_at"] or "", row["order"]))


def kind_rank(kind: str | None) -> int:
    """Return the rank of a kind of energy: measured, then estimated, then none."""
    return {"measured": 0, "estimated": 1}.get(kind or "", 2)


def in_means(row: Row) -> bool:
    """Return whether a run completed without a disqualifying code."""
    return row["status"] == "completed" and not DISQUALIFYING & set(row["validity"] or ())


def run_meter(row: Row) -> Meter:
    """Return the kind, sensor and scopes of a run's energy."""
    return row["kind"], row["energy_source"], tuple(row["energy_scopes"] or ())


def run_machine(row: Row) -> Machine:
    """Return what a run was made on, one value for each of :data:`MACHINE_COLUMNS`."""
    return tuple(row.get(name) for name in MACHINE_COLUMNS)


def _agree(one: Machine, other: Machine) -> bool:
    """Return whether two machines agree in everything that is known of both."""
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def _prevailing_meter(rows: Sequence[Row]) -> Meter:
    """Return the meter of the means: measured before estimated, then that of most runs."""
    if not rows:
        return None, None, ()
    counts = Counter(run_meter(row) for row in rows)
    return min(counts, key=lambda meter: (kind_rank(meter[0]), -counts[meter], str(meter)))


def _prevailing_machine(rows: Sequence[Row]) -> Machine:
    """Return the machine that most runs agree with; among equals, the one with most known.

    What is not known of it is taken from the most of these runs: two drivers must not meet in a
    mean because both agree with a run whose driver is unknown.
    """
    if not rows:
        return (None,) * len(MACHINE_COLUMNS)
    counts = Counter(run_machine(row) for row in rows)

    def rank(machine: Machine) -> tuple[int, int, str]:
        agreeing = sum(count for other, count in counts.items() if _agree(machine, other))
        return -agreeing, machine.count(None), str(machine)

    machine = min(counts, key=rank)
    for place, value in enumerate(machine):
        agreeing = [other for other in map(run_machine, rows) if _agree(other, machine)]
        known = Counter(other[place] for other in agreeing if other[place] is not None)
        if value is None and known:
            prevailing = min(known, key=lambda value: (-known[value], str(value)))
            machine = (*machine[:place], prevailing, *machine[place + 1 :])
    return machine


def _differences(machine: Machine, runs: Iterable[Row]) -> Iterable[str]:
    other_machines = [run_machine(row) for row in runs]
    for place, name in enumerate(MACHINE_COLUMNS):
        values = {other[place] for other in other_machines} - {None, machine[place]}
        if values and machine[place] is not None:
            text = ", ".join(sorted(str(value) for value in values))
            yield f"{name}: {machine[place]} in the mean, not {text}"
