"""One row an experiment: means over its cycles, with intervals.

Which runs a mean covers is defined in :mod:`llenergymeasure.analysis.selection`; runs left out are
counted in the row and are in ``runs.parquet``.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
import pyarrow as pa

from llenergymeasure.analysis import stopping_rule
from llenergymeasure.analysis.selection import Row, Selection, by_start
from llenergymeasure.analysis.statistics import (
    Estimate,
    energy_per_correct,
    estimate,
    outliers,
    share_interval,
)
from llenergymeasure.analysis.study_runs import CLOCK_REALS, METRICS, StudyRuns
from llenergymeasure.energy.window import quadrature_difference
from llenergymeasure.results.columns import RUN_SCHEMA, SETTING_COLUMNS
from llenergymeasure.results.table import setting_array
from llenergymeasure.units import COVERAGE_FACTOR

ENERGY = stopping_rule.METRIC
PER_CORRECT = "energy_per_correct_j"
NO_CORRECT_ANSWER = "no answer was right"
MAX_NAMED_SETTINGS = 2
"""Most unset settings that an experiment's name lists; with more it is only the model."""
STATISTICS = ("mean", "sd", "ci95_low", "ci95_high")
WINDOW_ENDS_METHOD = 5
"""First method of the meter whose records say what repeats share at the ends of windows."""
_ZEUS_WINDOW_ENDS_METHOD = 6
"""Earlier methods took a counter that Zeus read for one that sees everything."""
_TEXTS = pa.list_(pa.field("element", pa.string()))

SUMMARY_SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("label", pa.string()),
        ("n", pa.int64()),
        ("n_planned", pa.int64()),
        ("n_failed", pa.int64()),
        ("n_pending", pa.int64()),
        ("n_disqualified", pa.int64()),
        ("n_other_meter", pa.int64()),
        ("n_other_machine", pa.int64()),
        ("differs", _TEXTS),
        ("comparison_group", pa.int64()),
        ("not_comparable", pa.string()),
        *((name, pa.string()) for name in SETTING_COLUMNS),
        ("kind", pa.string()),
        ("energy_source", pa.string()),
        ("energy_scopes", _TEXTS),
        *((f"{metric}_{name}", pa.float64()) for metric in METRICS for name in STATISTICS),
        (f"{ENERGY}_median", pa.float64()),
        (f"{ENERGY}_total95_low", pa.float64()),
        (f"{ENERGY}_total95_high", pa.float64()),
        ("interval_method", pa.string()),
        ("interval_unavailable", pa.string()),
        ("cycles_lag1", pa.float64()),
        ("cycles_correlated", pa.bool_()),
        ("energy_u95_rel", pa.float64()),
        ("energy_shared_u95_rel", pa.float64()),
        ("energy_u_sys_rel", pa.float64()),
        ("energy_within_sd_rel", pa.float64()),
        ("energy_between_sd_rel", pa.float64()),
        ("outlier_cycles", pa.list_(pa.field("element", pa.int64()))),
        ("precision_target", pa.float64()),
        ("precision_reached", pa.bool_()),
        ("cycles_needed", pa.int64()),
        *((f"{PER_CORRECT}_{name}", pa.float64()) for name in ("mean", "ci95_low", "ci95_high")),
        (f"{PER_CORRECT}_unavailable", pa.string()),
        ("window_s_mean", pa.float64()),
        *((name, pa.float64()) for name in CLOCK_REALS),
        ("slowed_by", _TEXTS),
        ("validity", _TEXTS),
    ],
    metadata=RUN_SCHEMA.metadata,
)
"""``n`` runs are in the means; ``n_failed`` ended without a result and ``n_pending`` have not
ended; ``n_disqualified`` carry a disqualifying code; ``n_other_meter`` have energy of another
kind, sensor or scope; ``n_other_machine`` were made on another GPU model, driver, power limit or
engine, or of another commit of the model: ``differs`` says in what. Experiments of one
``comparison_group`` may be compared, and ``not_comparable`` says what parts one from group 1.
``energy_u95_rel``, ``energy_shared_u95_rel`` and ``energy_u_sys_rel`` are the means of the runs'
own ``u95_j``, ``shared_u95_j`` (``u95_j`` of methods that did not know all of it) and ``u_sys_j``
over their gross energy; clocks are the ends of the runs' ranges and the medians of the rest;
``validity`` is every code seen, left-out runs included."""


def summarise(study: StudyRuns) -> pa.Table:
    """Return one row for every experiment, in the order of their first run.

    Standard deviation and interval are null for one run; a metric that some of the ``n`` runs
    lack is null, because its mean would not be over ``n``. Where the study has a precision target,
    the interval of the energy per output token takes its spread from the pilot's cycles, or from
    all where they scatter more.
    """
    first_rows = [members[0] for members in study.experiments.values()]
    group_by_experiment = {
        experiment: number
        for number, members in enumerate(study.comparable.groups, start=1)
        for experiment in members
    }
    rows = [
        {
            **_summary_row(members, study.selections[experiment], study.execution),
            "label": label,
            "comparison_group": group_by_experiment.get(experiment),
            "not_comparable": study.comparable.outside.get(experiment),
        }
        for (experiment, members), label in zip(
            study.experiments.items(), _labels(first_rows, [*study.settings]), strict=True
        )
    ]
    table = pa.Table.from_pylist(rows, schema=SUMMARY_SCHEMA)
    for name, kind in study.settings.items():
        column = f"setting.{name}" if name in SUMMARY_SCHEMA.names else name
        array = setting_array([first[name] for first in first_rows])
        table = table.append_column(column, array.cast(kind))
    return table


def _summary_row(
    members: Sequence[Row], selection: Selection, execution: Mapping[str, Any]
) -> dict[str, Any]:
    runs = by_start(selection.used_runs)
    kind, source, scopes = selection.meter
    first = members[0]
    completed = [row for row in members if row["status"] == "completed"]
    row: dict[str, Any] = {
        "experiment": first["experiment"],
        **{name: first[name] for name in SETTING_COLUMNS},
        "n": len(runs),
        "n_planned": len(members),
        **selection.left_out,
        "differs": list(selection.differs),
        "kind": kind,
        "energy_source": source,
        "energy_scopes": list(scopes) if kind else None,
        "energy_u95_rel": _mean_ratio(runs, "energy_u95_j"),
        "energy_shared_u95_rel": shared_u95_rel(runs),
        "energy_u_sys_rel": _mean_ratio(runs, "energy_u_sys_j"),
        "window_s_mean": estimate(_values(runs, "window_s")).mean,
        **_clock_statistics(runs),
        "validity": sorted({code for member in completed for code in member["validity"] or ()}),
    }
    estimates = {metric: estimate(_values(runs, metric)) for metric in METRICS}
    for metric, result in estimates.items():
        for name in STATISTICS:
            row[f"{metric}_{name}"] = getattr(result, name)
    row |= _per_correct_answer(runs, estimates["energy_per_request_j"])
    _add_energy_spread(row, runs, estimates[ENERGY])
    _add_precision(row, runs, execution)
    ends = total95(row, ENERGY)
    if ends is not None:
        row[f"{ENERGY}_total95_low"], row[f"{ENERGY}_total95_high"] = ends
    return row


def _per_correct_answer(runs: Sequence[Row], energy: Estimate) -> dict[str, Any]:
    """Return the energy per right answer: that of a request over the share of right answers.

    The share's interval is that of its questions, which cycles ask again.
    """
    items, scored = _values(runs, "quality_items"), _values(runs, "quality_score")
    row: dict[str, Any] = {}
    if items and scored:
        low, high = share_interval(fmean(scored), min(items))
        row = {"quality_score_ci95_low": low, "quality_score_ci95_high": high}
    if not (items and scored) or energy.mean is None:
        is_scored = any(run["quality_score"] is not None for run in runs)
        why = "not every run has its energy and how many answers were right" if is_scored else None
        return {**row, f"{PER_CORRECT}_unavailable": why}
    values = energy_per_correct(energy, fmean(scored), min(items))
    if values is None:
        return {**row, f"{PER_CORRECT}_unavailable": NO_CORRECT_ANSWER}
    names = ("mean", "ci95_low", "ci95_high")
    return row | {f"{PER_CORRECT}_{name}": value for name, value in zip(names, values, strict=True)}


def _clock_statistics(runs: Sequence[Row]) -> dict[str, Any]:
    """Return the clocks over all runs: the ends of their ranges, the middle, mean shares."""
    statistics: dict[str, Callable[[list[float]], float]] = {
        "_min_": min,
        "_max_": max,
        "_share": fmean,
    }
    row: dict[str, Any] = {}
    for name in CLOCK_REALS:
        values = [run[name] for run in runs if run[name] is not None]
        statistic = next((statistics[infix] for infix in statistics if infix in name), median)
        row[name] = statistic(values) if values else None
    known = [run["slowed_by"] for run in runs if run["slowed_by"] is not None]
    row["slowed_by"] = (
        sorted({reason for reasons in known for reason in reasons}) if known else None
    )
    return row


def _add_energy_spread(row: dict[str, Any], runs: Sequence[Row], energy: Estimate) -> None:
    """Add the median, the outliers, whether cycles are correlated, and the parts of the variance.

    What the meter's own randomness explains (``u95_j`` less what repeats share) is the part within
    runs; the rest of the spread is between cycles.
    """
    values = _values(runs, ENERGY)
    row["outlier_cycles"] = [runs[place]["cycle"] for place in outliers(values)]
    row["interval_method"] = "t" if len(values) > 1 else None
    row["interval_unavailable"] = _no_interval(len(runs), values)
    row["cycles_lag1"], row["cycles_correlated"] = energy.lag1, energy.correlated
    if not values:
        return
    row[f"{ENERGY}_median"] = float(np.median(values))
    within_sd = row["energy_within_sd_rel"] = _within_sd_rel(runs)
    if within_sd is not None and len(values) > 1:
        total_sd = row[f"{ENERGY}_sd"] / row[f"{ENERGY}_mean"]
        row["energy_between_sd_rel"] = math.sqrt(max(total_sd**2 - within_sd**2, 0.0))


def _within_sd_rel(runs: Sequence[Row]) -> float | None:
    """Return the standard deviation that the meter's randomness gives a run, over its energy.

    It is the root of the mean variance, as that of the runs themselves is: a run that the meter
    knows badly counts by its square.
    """
    if _mean_ratio(runs, "energy_u95_j") is None:
        return None
    random_parts = [
        quadrature_difference(run["energy_u95_j"], run["energy_shared_u95_j"] or 0.0)
        / run["energy_gross_j"]
        for run in runs
    ]
    return math.sqrt(fmean(part * part for part in random_parts)) / COVERAGE_FACTOR


def _no_interval(run_count: int, values: Sequence[float]) -> str | None:
    if len(values) > 1:
        return None
    if run_count == 0:
        return "no run is in the mean"
    if not values:
        return "not every run in the mean has energy per output token"
    return "one run has no spread to compute an interval from"


def _add_precision(row: dict[str, Any], runs: Sequence[Row], execution: Mapping[str, Any]) -> None:
    """Add whether a precision that was asked for is reached, and the interval that goes with it."""
    target = execution.get("precision_target")
    if target is None:
        return
    pilot_cycles, values = execution["n_cycles"], _values(runs, ENERGY)
    pilot = [run[ENERGY] for run in runs if run["cycle"] <= pilot_cycles] if values else []
    decision = stopping_rule.decide(pilot, pilot_cycles, target, execution["max_cycles"])
    row["precision_target"] = target
    row["cycles_needed"] = decision.needed
    row["precision_reached"] = False
    ends = stopping_rule.interval(pilot, values) if values else None
    if ends is not None:
        row["interval_method"] = "stein"
        row[f"{ENERGY}_ci95_low"], row[f"{ENERGY}_ci95_high"] = ends
        row["precision_reached"] = ends[1] <= row[f"{ENERGY}_mean"] * (1 + target) * (1 + 1e-9)


def total95(row: Row, metric: str) -> tuple[float, float] | None:
    """Return the interval of a true energy: chance, what repeats share, and the sensor's gain.

    All are half widths of independent 95 % intervals and add in quadrature (JCGM 100:2008, 5.1.2),
    here those of the logarithm, so that the lower end is never below zero: each part alone moves
    the ends as far as it says, and a part of 100 % or more moves the lower end to zero. What a
    sensor does not see, smears over a window's ends or counts late, and channels that disagree, are
    off the same way in every cycle: no number of cycles makes that smaller (F.1.1.2). None where a
    part is not known.

    Args:
        row: of the summary.
        metric: an energy per token or request.
    """
    mean, band = row[f"{metric}_mean"], row["energy_u_sys_rel"]
    low, high = row[f"{metric}_ci95_low"], row[f"{metric}_ci95_high"]
    if low is None or band is None or mean <= 0:
        return None
    parts = (band, row["energy_shared_u95_rel"] or 0.0)
    up = math.hypot(math.log(high / mean), *(math.log1p(part) for part in parts))
    if low <= 0 or max(parts) >= 1:
        return 0.0, mean * math.exp(up)
    down = math.hypot(math.log(mean / low), *(math.log1p(-part) for part in parts))
    return mean * math.exp(-down), mean * math.exp(up)


def _values(rows: Sequence[Row], name: str) -> list[float]:
    """Return the values of one column, or none at all if any row lacks it."""
    values = [row[name] for row in rows]
    return values if all(value is not None and math.isfinite(value) for value in values) else []


def _mean_ratio(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of a column over the gross energy; None where a run lacks either."""
    parts, wholes = _values(rows, name), _values(rows, "energy_gross_j")
    if not parts or not wholes or min(wholes) <= 0:
        return None
    return fmean(part / whole for part, whole in zip(parts, wholes, strict=True))


def records_window_ends(run: Row) -> bool:
    """Return whether a run's record says what it shares with its repeats at the window's ends."""
    is_zeus = run.get("energy_source") == "zeus"
    first = _ZEUS_WINDOW_ENDS_METHOD if is_zeus else WINDOW_ENDS_METHOD
    return (run["energy_method"] or 0) >= first


def shared_u95_rel(rows: Sequence[Row]) -> float | None:
    """Return the uncertainty that repeats share, over the energy; where unknown, all of it."""
    name = "energy_shared_u95_j"
    completed = [
        row if records_window_ends(row) else {**row, name: row["energy_u95_j"]} for row in rows
    ]
    return _mean_ratio([row for row in completed if row[name] is not None], name)


def _labels(experiments: Sequence[Row], settings: Sequence[str]) -> list[str]:
    """Return a short name for every experiment from the settings in which they differ."""
    varying = [
        name
        for name in (*SETTING_COLUMNS, *settings)
        if len({str(row[name]) for row in experiments}) > 1
    ]
    labels = [_label(row, varying) for row in experiments]
    counts = Counter(labels)
    return [
        label if counts[label] == 1 else f"{label} · {row['experiment']}"
        for label, row in zip(labels, experiments, strict=True)
    ]


def _label(row: Row, varying: Sequence[str]) -> str:
    parts = [label_part(name, row[name]) for name in varying if row[name] is not None]
    if not parts and len(varying) <= MAX_NAMED_SETTINGS:
        parts = [f"{name.rpartition('.')[2]} not set" for name in varying]
    return " · ".join(parts) or row["model"] or row["experiment"]


def label_part(name: str, value: Any) -> str:
    """Return a column's value as in a name: a swept setting with its key."""
    if name in SETTING_COLUMNS:
        return str(value)
    short = name.rpartition(".")[2]
    if isinstance(value, bool):
        return f"{short}={str(value).lower()}"
    return f"{short}={str(value).removesuffix('.0') if isinstance(value, float) else value}"
