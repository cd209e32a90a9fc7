"""Means by any factor, over one study or several, of runs that may be averaged.

What was not made alike is not averaged unless it is asked for: another GPU, driver, power limit or
engine version within a group is refused, and energy of another kind, sensor or scope always is.
Runs with a disqualifying code are counted and never in a mean, and what they were made with is not
asked; the other codes are shown elsewhere and part nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.selection import MACHINE_COLUMNS
from llenergymeasure.analysis.statistics import Reals, around, estimate, t_quantile
from llenergymeasure.analysis.tables import read_plan
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.units import DISQUALIFYING

POOLABLE = MACHINE_COLUMNS
"""What must be the same within a group unless it is asked to be averaged over."""

METER = ("kind", "energy_source", "energy_scopes")
"""What must be the same within a group wherever energy is averaged."""

ENERGY_PREFIXES = ("energy_", "power_mean_w")
SHOWN_VALUES = 4
_KEYS = ("study", "experiment", "cycle", "status")


def study_runs(folders: Sequence[Path]) -> pa.Table:
    """Return all runs of several studies in one table; a setting that one lacks is null there.

    Studies of one name are distinguished by their folders.

    Raises:
        ResultsError: a plan or a finished run's record cannot be read.
    """
    plans = [read_plan(StudyFolder(path).plan) for path in folders]
    named = Counter(plan["study"] for plan in plans)
    tables = [
        _renamed(merge_runs(plan, path), path)
        if named[plan["study"]] > 1
        else merge_runs(plan, path)
        for plan, path in zip(plans, folders, strict=True)
    ]
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    for name in names:
        kinds = {table.schema.field(name).type for table in tables if name in table.column_names}
        if len(kinds) > 1 and not all(map(_is_number, kinds)):
            tables = [_as_text(table, name) for table in tables]
    return pa.concat_tables(tables, promote_options="permissive")


def _renamed(runs: pa.Table, path: Path) -> pa.Table:
    field = runs.schema.field("study")
    texts = pa.array([f"{name} ({path})" for name in runs["study"].to_pylist()], field.type)
    return runs.set_column(runs.schema.get_field_index("study"), field, texts)


def summarise_by(
    runs: pa.Table, by: Sequence[str], metric: str, pool: Iterable[str] = ()
) -> pa.Table:
    """Return the mean and its 95 % interval for every group of runs.

    Each experiment counts alike, whatever the number of its runs. Over several studies the repeats
    are the studies, for what a study's cycles share (a day, a room, a start of the machine) is no
    spread between them: the interval is that of the studies' means, if each has every experiment of
    the group. Within one study, where every cycle holds each experiment of the group once, it is
    that of the cycles' means; otherwise it adds up the experiments' own (Welch-Satterthwaite).

    Args:
        runs: one row a run.
        by: columns that make a group.
        metric: the column averaged.
        pool: which of :data:`POOLABLE` may differ within a group.

    Raises:
        ConfigurationError: there is no such column, or runs differ in what would be averaged.
    """
    pool = tuple(pool)
    _check_names(runs, by, metric, pool)
    needed = dict.fromkeys([*by, metric, *_KEYS, "validity", *POOLABLE, *METER])
    table = runs.select(list(needed))
    for name in needed:
        if pa.types.is_list(table.schema.field(name).type):
            joined = pc.binary_join(table[name], ";")
            table = table.set_column(table.schema.get_field_index(name), name, joined)
    completed = pc.equal(table["status"], "completed")
    failed, done = table.filter(pc.invert(completed)), table.filter(completed)
    observed = pc.fill_null(pc.is_finite(done[metric].cast(pa.float64())), False)
    blind, done = done.filter(pc.invert(observed)), done.filter(observed)
    codes = pc.unique(done["validity"]).to_pylist()
    bad = [text for text in codes if text and DISQUALIFYING & set(text.split(";"))]
    left_out = pc.is_in(done["validity"], pa.array(bad, pa.string()))
    used = done.filter(pc.invert(left_out))
    _refuse_unlike(used, by, metric, pool)
    others = {
        "n_disqualified": done.filter(left_out),
        "n_not_observed": blind,
        "n_failed": failed,
    }
    return _Groups(by, metric, used, others).table()


def _check_names(runs: pa.Table, by: Sequence[str], metric: str, pool: Sequence[str]) -> None:
    if not by:
        raise ConfigurationError("name at least one column to group by")
    for name in by:
        if name not in runs.column_names:
            raise ConfigurationError(f"--group-by: {_no_such(name, runs.column_names)}")
    numbers = [field.name for field in runs.schema if _is_number(field.type)]
    if metric not in numbers:
        raise ConfigurationError(f"--metric: {_no_such(metric, numbers)}")
    for name in pool:
        if name in METER:
            raise ConfigurationError(
                f"--pool: energies of different {name} have no common mean; group by {name}"
            )
        if name not in POOLABLE:
            raise ConfigurationError(f"--pool: {_no_such(name, POOLABLE)}")


def _no_such(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 3, 0.5)
    told = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"no column {name}; {told}"


def _refuse_unlike(done: pa.Table, by: Sequence[str], metric: str, pool: Sequence[str]) -> None:
    """Raise one error that names everything in which runs of one group differ."""
    aspects = [name for name in POOLABLE if name not in by and name not in pool]
    if metric.startswith(ENERGY_PREFIXES):
        aspects += [name for name in METER if name not in by]
    found = {}
    for name in aspects:
        counts = done.select([*dict.fromkeys([*by, name])]).group_by(list(by))
        distinct = counts.aggregate([(name, "count_distinct")])
        many = distinct.filter(pc.greater(distinct[f"{name}_count_distinct"], 1))
        if many.num_rows:
            found[name] = _example(done, by, name, many)
    if not found:
        return
    told = "; ".join(f"{name} ({example})" for name, example in found.items())
    ways = [f"group by it (--group-by {','.join([*by, *found])})"]
    poolable = [name for name in found if name in POOLABLE]
    if poolable:
        ways.append(f"average over it all the same (--pool {','.join([*pool, *poolable])})")
    raise ConfigurationError(f"runs of one group differ in {told}: {', or '.join(ways)}")


def _example(done: pa.Table, by: Sequence[str], name: str, many: pa.Table) -> str:
    """Return the values of the first group that has several, and which group it is."""
    group = min(many.select(list(by)).to_pylist(), key=str)
    rows = done
    for key, value in group.items():
        alike = pc.is_null(rows[key]) if value is None else pc.equal(rows[key], value)
        rows = rows.filter(alike)
    values = sorted(str(v) or "none" for v in pc.unique(rows[name]).to_pylist() if v is not None)
    shown = ", ".join(values[:SHOWN_VALUES]) + (", …" if len(values) > SHOWN_VALUES else "")
    where = ", ".join(f"{key}={value}" for key, value in group.items())
    return f"{shown} where {where}"


class _Groups:
    """The groups' means, from the means of their experiments and cycles."""

    def __init__(
        self, by: Sequence[str], metric: str, used: pa.Table, others: Mapping[str, pa.Table]
    ) -> None:
        self._by, self._metric = list(by), metric
        self._cells = self._aggregated(used, "experiment")
        self._of_studies = self._aggregated(used, "study", "experiment")
        self._of_cycles = self._aggregated(used, "cycle")
        self._studies = self._of_groups(used, "study", "count_distinct")
        self._least = self._of_groups(used, metric, "min")
        self._others = {
            name: self._of_groups(table, "status", "count") for name, table in others.items()
        }

    def table(self) -> pa.Table:
        """Return one row a group, sorted by the group's values."""
        found = {*self._cells, *(group for counts in self._others.values() for group in counts)}
        names = sorted(found, key=lambda group: tuple(_sortable(value) for value in group))
        rows = [self._row(group) for group in names]
        schema = pa.schema(
            [
                ("experiments", pa.int64()),
                ("studies", pa.int64()),
                ("n", pa.int64()),
                *((name, pa.int64()) for name in self._others),
                *((f"{self._metric}_{part}", pa.float64()) for part in _PARTS),
                ("interval_method", pa.string()),
                ("interval_unavailable", pa.string()),
            ]
        )
        table = pa.Table.from_pylist(rows, schema=schema)
        for place, name in enumerate(self._by):
            table = table.add_column(place, name, pa.array([group[place] for group in names]))
        return table

    def _row(self, group: tuple[Any, ...]) -> dict[str, Any]:
        others = {name: counts.get(group, 0) for name, counts in self._others.items()}
        if group not in self._cells:
            none = {"experiments": 0, "studies": 0, "n": 0, **others}
            return {**none, "interval_unavailable": "no run of the group can be averaged"}
        count, mean, variance = self._cells[group]
        interval = self._interval(group)
        return {
            "experiments": len(count),
            "studies": self._studies.get(group, 0),
            "n": int(count.sum()),
            **others,
            f"{self._metric}_mean": float(mean.mean()) if interval.mean is None else interval.mean,
            f"{self._metric}_sd": _root(float(variance[0])) if len(count) == 1 else None,
            f"{self._metric}_ci95_low": interval.low,
            f"{self._metric}_ci95_high": interval.high,
            "interval_method": interval.method,
            "interval_unavailable": interval.unavailable,
        }

    def _interval(self, group: tuple[Any, ...]) -> "_Interval":
        count, mean, variance = self._cells[group]
        studies = self._studies.get(group, 0)
        if studies > 1:
            _, of_each, _ = self._of_studies[group]
            if len(of_each) != studies * len(count):
                return _Interval(unavailable="not every study has every experiment of the group")
            return _t(of_each.reshape(studies, -1).mean(axis=1), "studies")
        in_cycle, of_cycle, _ = self._of_cycles[group]
        if len(of_cycle) >= 2 and (in_cycle == len(count)).all():
            return _t(of_cycle, "cycles")
        if (count < 2).any():
            return _Interval(unavailable="an experiment of the group has a single run")
        parts = variance / count
        total, center = float(parts.sum()), float(mean.mean())
        if total == 0:
            return _Interval(center, center, center, "experiments")
        freedom = total**2 / float((parts**2 / (count - 1)).sum())
        half_width = t_quantile(freedom) * math.sqrt(total) / len(count)
        if self._least[group] > 0:
            # To first order the error of the logarithm is the relative one: never below zero.
            return _Interval(center, *around(center, half_width / center), "experiments")
        low = center - half_width
        low = max(low, 0.0) if self._least[group] == 0 else low
        return _Interval(center, low, center + half_width, "experiments")

    def _aggregated(
        self, table: pa.Table, *below: str
    ) -> dict[tuple[Any, ...], tuple[Reals, Reals, Reals]]:
        """Return counts, means and variances below each group, one value for each further key."""
        keys = [*self._by, *(name for name in below if name not in self._by)]
        options = pc.VarianceOptions(ddof=1)
        found = table.group_by(keys).aggregate(
            [(self._metric, "count"), (self._metric, "mean"), (self._metric, "variance", options)]
        )
        found = found.sort_by([(key, "ascending") for key in keys])
        columns = [found[f"{self._metric}_{name}"].to_numpy() for name in _AGGREGATES]
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, group in enumerate(zip(*(found[k].to_pylist() for k in self._by), strict=True)):
            places.setdefault(group, []).append(place)
        return {
            group: tuple(column[at].astype(np.float64) for column in columns)
            for group, at in places.items()
        }

    def _of_groups(self, table: pa.Table, name: str, function: str) -> dict[tuple[Any, ...], Any]:
        """Return one figure of each group, such as its least value of a column."""
        found = table.group_by(self._by).aggregate([(name, function)])
        groups = zip(*(found[key].to_pylist() for key in self._by), strict=True)
        return dict(zip(groups, found[f"{name}_{function}"].to_pylist(), strict=True))


@dataclass(frozen=True)
class _Interval:
    """A 95 % interval, the mean of what it is over, and what that is; or why there is none."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    unavailable: str | None = None


def _t(means: Reals, method: str) -> _Interval:
    found = estimate(means.tolist())
    return _Interval(found.mean, found.ci95_low, found.ci95_high, method)


_PARTS = ("mean", "sd", "ci95_low", "ci95_high")
_AGGREGATES = ("count", "mean", "variance")


def _root(variance: float) -> float | None:
    return math.sqrt(variance) if math.isfinite(variance) else None


def _sortable(value: Any) -> tuple[bool, bool, Any]:
    """Return what values of mixed types sort by: numbers, then text, then null."""
    number = isinstance(value, int | float)
    return value is None, not number, value if number else str(value)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _as_text(table: pa.Table, name: str) -> pa.Table:
    if name not in table.column_names:
        return table
    place = table.schema.get_field_index(name)
    values: Mapping[int, Any] = dict(enumerate(table[name].to_pylist()))
    texts = [None if value is None else str(value) for value in values.values()]
    return table.set_column(place, name, pa.array(texts, pa.string()))
