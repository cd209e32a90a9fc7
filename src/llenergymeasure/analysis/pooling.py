"""Means by any factor, over one study or several, of runs that may be averaged.

Runs that were made differently are only averaged on request: several GPUs, drivers, power limits,
engine versions or commits of a model within a group are refused, and several kinds, sensors or
scopes of energy always.
Runs with a disqualifying code are counted but never in a mean, and how they were made does not
matter; the other codes are shown elsewhere and have no effect here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from statistics import fmean, variance
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.selection import MACHINE_COLUMNS, Row, by_start, in_means
from llenergymeasure.analysis.statistics import (
    Estimate,
    autocorrelation,
    estimate,
    log_interval_around,
    share_interval,
    t_quantile,
)
from llenergymeasure.analysis.study_runs import METRICS
from llenergymeasure.analysis.tables import read_plan
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.results.layout import StudyFolder

POOLABLE = MACHINE_COLUMNS
"""What must be the same within a group, unless the user asks to average over it."""

METER_COLUMNS = ("kind", "energy_source", "energy_scopes")
"""What must be the same within a group if energy is averaged."""

ENERGY_PREFIXES = (
    *("energy_", "power_mean_w", "idle_power_w", "carbon_", "cost_"),
    *("gaps_energy_j", "gaps_u95_j", "gaps_waiting_energy_j"),
)
CURRENCY, SCORE = "cost_currency", "quality_score"
QUESTION_COUNTS = ("quality_items", "quality_correct")
MAX_NAMED_VALUES = 4
_ALL_RUNS_PREFIXES = ("energy_per_", "energy_prefill_", "energy_decode_")
"""Such columns, as those of the summary, are null by what a run did: nothing came, for one."""
INCOMPLETE = "not every run of an experiment has this quantity"
LEFT_OUT_COUNTS = ("n_disqualified", "n_not_observed", "n_failed")
"""Counts of the runs of a group that are not in its mean."""

PLAIN_METRICS = {
    "energy": "energy_per_output_token_j",
    "power": "power_mean_w",
    "throughput": "output_tokens_per_s",
}
"""Short names for columns."""

_KEYS = ("model", "study", "experiment", "cycle", "status", "started_at", "order")

_RUN_IDENTITY = ("experiment", "host", "started_at")
"""Is the same in two rows of one run alone, where the time is given to less than a second."""


def study_runs(folders: Sequence[Path]) -> pa.Table:
    """Return all runs of several studies in one table; a setting that one lacks is null there.

    Studies of one name are distinguished by their folders.

    Raises:
        ResultsError: a plan or a finished run's record cannot be read.
        ConfigurationError: two of the folders hold the same run.
    """
    folders = [*{path.resolve(): path for path in folders}.values()]
    plans = [read_plan(StudyFolder(path).plan) for path in folders]
    name_counts = Counter(plan["study"] for plan in plans)
    tables = [merge_runs(plan, path) for plan, path in zip(plans, folders, strict=True)]
    for same_run in duplicate_runs(zip(folders, tables, strict=True)):
        raise ConfigurationError(same_run.words())
    tables = [
        _with_folder_in_name(table, path) if name_counts[plan["study"]] > 1 else table
        for plan, path, table in zip(plans, folders, tables, strict=True)
    ]
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    for name in names:
        kinds = {table.schema.field(name).type for table in tables if name in table.column_names}
        if len(kinds) > 1 and not all(map(_is_number, kinds)):
            tables = [_as_text(table, name) for table in tables]
    return pa.concat_tables(tables, promote_options="permissive")


class DuplicateRun(NamedTuple):
    """A run that is in two studies, as in a results folder and its copy."""

    experiment: str
    started_at: str
    first_folder: Path
    second_folder: Path

    def words(self) -> str:
        """Return why it is not counted."""
        return (
            f"{self.first_folder} and {self.second_folder} hold the same run ({self.experiment}, "
            f"begun at {self.started_at}), as a copy of a results folder does: "
            "it would count as two. Name one of them, or keep its own runs alone in each"
        )


def duplicate_runs(studies: Iterable[tuple[Path, pa.Table]]) -> Iterator[DuplicateRun]:
    """Yield the runs that are also in another study: a copy must not count as a repeat."""
    folders: dict[tuple[Any, ...], Path] = {}
    for path, runs in studies:
        completed = runs.filter(pc.equal(runs["status"], "completed"))
        for row in completed.select([*_RUN_IDENTITY]).to_pylist():
            first = folders.setdefault(tuple(row.values()), path)
            if first.resolve() != path.resolve() and "." in (row["started_at"] or ""):
                yield DuplicateRun(row["experiment"], row["started_at"], first, path)


def _with_folder_in_name(runs: pa.Table, path: Path) -> pa.Table:
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
    that of the cycles' means; otherwise it adds up the experiments' own (Welch-Satterthwaite), or
    what their runs of a cycle have in common, whichever is more. A share of right answers has the
    interval of its questions, which cycles ask again.

    Args:
        runs: one row a run.
        by: columns that make a group.
        metric: the column averaged.
        pool: which of :data:`POOLABLE` may differ within a group.

    Returns:
        One row a group: the columns of ``by`` first, in their order.

    Raises:
        ConfigurationError: there is no such column, or runs differ in what would be averaged.
    """
    pool = tuple(pool)
    _check_columns(runs, by, metric, pool)
    groups: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    needed = (*_KEYS, "validity", *POOLABLE, *METER_COLUMNS, CURRENCY, *QUESTION_COUNTS)
    for row in runs.select([*dict.fromkeys([*by, metric, *needed])]).to_pylist():
        group = groups.setdefault(tuple(_scalar(row[name]) for name in by), {})
        group.setdefault(_count_column(row, metric), []).append(row)
    ordered = {key: groups[key] for key in sorted(groups, key=lambda key: [*map(_sortable, key)])}
    used_runs = {key: group.get("n", []) for key, group in ordered.items()}
    _refuse_unlike(used_runs, by, metric, pool)
    schema = pa.schema(
        [
            *((name, pa.int64()) for name in ("experiments", "studies", "n", *LEFT_OUT_COUNTS)),
            *((f"{metric}_{part}", pa.float64()) for part in _PARTS),
            ("interval_method", pa.string()),
            ("interval_unavailable", pa.string()),
        ]
    )
    rows = [_row(group, metric) for group in ordered.values()]
    table = pa.Table.from_pylist(rows, schema=schema)
    for index, name in enumerate(by):
        column = f"setting.{name}" if name in schema.names else name  # of another quantity
        table = table.add_column(index, column, pa.array([key[index] for key in ordered]))
    return table


def _scalar(value: Any) -> Any:
    """Return a list of codes as one text, and other values unchanged."""
    return ";".join(value) if isinstance(value, list) else value


def _count_column(row: Row, metric: str) -> str:
    """Return the column that counts a run: ``n`` where it is in a mean."""
    if row["status"] != "completed":
        return "n_failed"
    if row[metric] is None or not math.isfinite(row[metric]):
        return "n_not_observed"
    return "n" if in_means(row) else "n_disqualified"


def _check_columns(runs: pa.Table, by: Sequence[str], metric: str, pool: Sequence[str]) -> None:
    if not by:
        raise ConfigurationError("name at least one column to group by")
    for name in by:
        if name not in runs.column_names:
            raise ConfigurationError(f"--group-by: {_no_column(name, runs.column_names)}")
    numbers = [field.name for field in runs.schema if _is_number(field.type)]
    if metric not in numbers:
        raise ConfigurationError(f"--metric: {_no_column(metric, [*PLAIN_METRICS, *numbers])}")
    for name in pool:
        if name in METER_COLUMNS:
            raise ConfigurationError(
                f"--pool: energies of different {name} have no common mean; group by {name}"
            )
        if name not in POOLABLE:
            raise ConfigurationError(f"--pool: {_no_column(name, POOLABLE)}")


def _no_column(name: str, names: Sequence[str]) -> str:
    matches = get_close_matches(name, names, 3, 0.5)
    hint = f"did you mean {' or '.join(matches)}?" if matches else f"there are {', '.join(names)}"
    return f"no column {name}; {hint}"


def _refuse_unlike(
    runs_by_group: Mapping[tuple[Any, ...], Sequence[Row]],
    by: Sequence[str],
    metric: str,
    pool: Sequence[str],
) -> None:
    """Raise one error that names all differences between the runs of a group."""
    aspects = [name for name in POOLABLE if name not in by and name not in pool]
    if metric.startswith(ENERGY_PREFIXES):
        meter_columns = (*METER_COLUMNS, CURRENCY) if metric.startswith("cost_") else METER_COLUMNS
        aspects += [name for name in meter_columns if name not in by]
    differences: dict[str, str] = {}
    for group_values, rows in runs_by_group.items():
        group = ", ".join(f"{name}={value}" for name, value in zip(by, group_values, strict=True))
        for name in aspects:
            values = _different_values(rows, name)
            if len(values) > 1:
                more = ", …" if len(values) > MAX_NAMED_VALUES else ""
                text = ", ".join(values[:MAX_NAMED_VALUES]) + more
                differences.setdefault(name, f"{text} where {group}")
    if not differences:
        return
    text = "; ".join(f"{name} ({differences[name]})" for name in aspects if name in differences)
    remedies = [f"group by it (--group-by {','.join([*by, *differences])})"]
    poolable = [name for name in differences if name in POOLABLE]
    if poolable:
        remedies.append(f"average over it all the same (--pool {','.join([*pool, *poolable])})")
    raise ConfigurationError(f"runs of one group differ in {text}: {', or '.join(remedies)}")


def _different_values(rows: Sequence[Row], name: str) -> list[str]:
    """Return the known values of an aspect; of commits, which are a model's own, those of one."""
    by_model: dict[str | None, set[str]] = {}
    for row in rows:
        if row[name] is not None:
            model = row["model"] if name == "model_commit" else None
            by_model.setdefault(model, set()).add(str(_scalar(row[name])) or "none")
    return sorted(max(by_model.values(), key=len, default=()))


def _row(group: Mapping[str, Sequence[Row]], metric: str) -> dict[str, Any]:
    """Return one group's counts, its mean over experiments, and its interval."""
    runs = by_start(group.get("n", ()))
    experiments = _values(runs, metric, "experiment")
    row: dict[str, Any] = {
        "experiments": len(experiments),
        "studies": len({run["study"] for run in runs}),
        "n": len(runs),
        **{name: len(group.get(name, ())) for name in LEFT_OUT_COUNTS},
    }
    if not runs:
        return {**row, "interval_unavailable": "no run of the group can be averaged"}
    if _lacks_some(group, metric):
        return {**row, "interval_unavailable": INCOMPLETE}
    row[f"{metric}_mean"] = fmean(map(fmean, experiments.values()))
    if len(experiments) == 1:
        row[f"{metric}_sd"] = estimate([run[metric] for run in runs]).sd
    interval = _interval(runs, metric, list(experiments.values()))
    if isinstance(interval, str):
        return {**row, "interval_unavailable": interval}
    pooled, row["interval_method"] = interval
    for part in ("mean", "ci95_low", "ci95_high"):
        row[f"{metric}_{part}"] = getattr(pooled, part)
    return row


def _lacks_some(group: Mapping[str, Sequence[Row]], metric: str) -> bool:
    """Return whether the runs with a quantity are those of some experiment in which it went well.

    Where no sensor could be read, what is missing says nothing of the rest.
    """
    if metric not in METRICS and not metric.startswith(_ALL_RUNS_PREFIXES):
        return False
    needs_sensor = metric.startswith(ENERGY_PREFIXES)
    lacking = {
        run["experiment"]
        for run in group.get("n_not_observed", ())
        if in_means(run) and (run["kind"] is not None or not needs_sensor)
    }
    return not lacking.isdisjoint(run["experiment"] for run in group["n"])


def _values(runs: Sequence[Row], metric: str, *keys: str) -> dict[tuple[Any, ...], list[float]]:
    """Return the values of the runs that have the same keys, as their first runs began."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        values.setdefault(tuple(run[key] for key in keys), []).append(run[metric])
    return values


def _interval(
    runs: Sequence[Row], metric: str, experiments: Sequence[Sequence[float]]
) -> tuple[Estimate, str] | str:
    """Return a group's interval and what its repeats are, or why there is none."""
    if metric == SCORE and all(None not in [run[name] for name in QUESTION_COUNTS] for run in runs):
        score = fmean(map(fmean, experiments))
        ends = share_interval(score, min(run["quality_items"] for run in runs))
        return Estimate(len(runs), score, None, *ends), "questions"
    studies = {run["study"] for run in runs}
    if len(studies) > 1:
        cells = _values(runs, metric, "study", "experiment")
        if len(cells) != len(studies) * len(experiments):
            return "not every study has every experiment of the group"
        means = [
            fmean(fmean(values) for (name, _), values in cells.items() if name == study)
            for study in dict.fromkeys(name for name, _ in cells)  # as they began
        ]
        return estimate(means), "studies"
    cycles = list(_values(runs, metric, "cycle").values())
    if len(cycles) >= 2 and all(len(values) == len(experiments) for values in cycles):
        return estimate(list(map(fmean, cycles))), "cycles"
    if min(map(len, experiments)) < 2:
        return "an experiment of the group has a single run"
    variances = [_variance_of_mean(values) for values in experiments]
    total, mean = math.fsum(variances), fmean(map(fmean, experiments))
    if total == 0:
        return Estimate(len(runs), mean, None, mean, mean), "experiments"
    parts = zip(variances, experiments, strict=True)
    freedom = total**2 / math.fsum(part**2 / (len(values) - 1) for part, values in parts)
    by_cycle = _variance_by_cycle(runs, metric)
    if by_cycle > total:
        total, freedom = by_cycle, min(freedom, len(cycles) - 1)
    half_width = t_quantile(freedom) * math.sqrt(total) / len(experiments)
    lowest = min(map(min, experiments))
    low, high = mean - half_width, mean + half_width
    if lowest > 0:
        # To first order the error of the logarithm is the relative one: never below zero.
        low, high = log_interval_around(mean, half_width / mean)
    low = max(low, 0.0) if lowest == 0 else low
    return Estimate(len(runs), mean, None, low, high), "experiments"


def _variance_of_mean(values: Sequence[float]) -> float:
    """Return the variance of an experiment's mean, larger if its successive runs are correlated."""
    scaled = [math.log(value) for value in values] if min(values) > 0 else values
    return variance(values) / len(values) * autocorrelation(scaled).widening ** 2


def _variance_by_cycle(runs: Sequence[Row], metric: str) -> float:
    """Return the variance of the sum of the experiments' means, a cycle's runs taken together.

    It is that of the cycles' means where every cycle holds each experiment (Liang and Zeger 1986,
    Biometrika 73, 13-22).
    """
    values = _values(runs, metric, "experiment")
    deviations: dict[int, float] = {}
    for run in runs:
        of_experiment = values[run["experiment"],]
        deviation = (run[metric] - fmean(of_experiment)) / len(of_experiment)
        deviations[run["cycle"]] = deviations.get(run["cycle"], 0.0) + deviation
    cycles = len(deviations)
    total = math.fsum(off * off for off in deviations.values()) * cycles / max(cycles - 1, 1)
    return total * autocorrelation([*deviations.values()]).widening ** 2


_PARTS = ("mean", "sd", "ci95_low", "ci95_high")


def _sortable(value: Any) -> tuple[bool, bool, Any]:
    """Return a sort key for values of mixed types: numbers, then text, then null."""
    is_number = isinstance(value, int | float)
    return value is None, not is_number, value if is_number else str(value)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _as_text(table: pa.Table, name: str) -> pa.Table:
    if name not in table.column_names:
        return table
    index = table.schema.get_field_index(name)
    texts = [None if value is None else str(value) for value in table[name].to_pylist()]
    return table.set_column(index, name, pa.array(texts, pa.string()))
