"""Tables that relate experiments to each other: comparisons, levels and fronts.

What may be compared is decided in :mod:`llenergymeasure.analysis.comparable`: other pairs say why
not, and levels and fronts are those of its first group.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from operator import itemgetter
from statistics import fmean
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from llenergymeasure.analysis.blocks import Blocks, RunValue, make_blocks
from llenergymeasure.analysis.levels import NO_DATA, Level, level_text, levels
from llenergymeasure.analysis.pairwise_comparison import Comparison, compare, with_holm
from llenergymeasure.analysis.pareto import Point, pareto
from llenergymeasure.analysis.selection import Meter, Row
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import shared_u95_rel
from llenergymeasure.results.columns import SETTING_COLUMNS, column_type

COMPARED = (
    "energy_per_output_token_j",
    "energy_per_request_j",
    "output_tokens_per_s",
    "request_latency_p50_s",
)
"""Quantities that experiments are compared in."""

SURROUNDINGS = ("host", "gpu_name", "gpu_uuid", "driver_version", "power_limit_w")
"""What two compared experiments may differ in apart from their settings; then it is named."""

VERSIONS = (("engine_version", "backend"), ("model_commit", "model"))
"""Likewise, in two experiments with the same backend or model."""

NOT_ALL_POSITIVE = "not every run in the mean has this quantity above zero"
NOT_COMPARABLE = "not comparable: "
"""How ``unavailable`` begins if two experiments may not be compared."""
OUTPUT_LENGTH = "output_tokens_per_request"
MAX_LENGTH_RATIO = 1.05
"""Ratio of answers' mean lengths beyond which a comparison names them too."""

RunsByExperiment: TypeAlias = Mapping[str, Sequence[Row]]


ROWS = {"comparisons": Comparison, "levels": Level, "pareto": Point}
SCHEMAS = {
    name: pa.schema([(field.name, column_type(field.type)) for field in fields(row)])
    for name, row in ROWS.items()
}


def relate(study: StudyRuns, labels: Mapping[str, str]) -> dict[str, pa.Table]:
    """Return the three tables by name, in the order of :data:`SCHEMAS`.

    Args:
        study: its runs.
        labels: a short name for every experiment.
    """
    relations = Relations(study, labels)
    rows_by_table: dict[str, Iterable[Comparison | Level | Point]] = {
        "comparisons": [pair for metric in COMPARED for pair in with_holm(relations.pairs(metric))],
        "levels": [level for metric in COMPARED for level in relations.levels(metric)],
        "pareto": relations.front(),
    }
    return {
        name: pa.Table.from_pylist([*map(vars, rows_by_table[name])], schema=schema)
        for name, schema in SCHEMAS.items()
    }


class Relations:
    """How the experiments of a study relate to each other, by the runs in their means."""

    def __init__(self, study: StudyRuns, labels: Mapping[str, str]) -> None:
        """Take a study's runs, and a short name for every experiment."""
        self._study, self._labels = study, labels
        self._completed = [row for row in study.rows if row["status"] == "completed"]
        self._runs = {name: selection.used_runs for name, selection in study.selections.items()}
        self._runs_by_meter: dict[Meter, dict[str, Sequence[Row]]] = {}
        for name, selection in study.selections.items():
            if selection.used_runs:
                self._runs_by_meter.setdefault(selection.meter, {})[name] = selection.used_runs
        self._surroundings = {
            name: [{run[column] for run in runs} - {None} for column in SURROUNDINGS]
            for name, runs in self._runs.items()
        }
        self._versions = {
            name: [
                {(run[owner], run[column]) for run in runs if run[column]}
                for column, owner in VERSIONS
            ]
            for name, runs in self._runs.items()
        }
        self._lengths = {name: _mean_length(runs) for name, runs in self._runs.items()}
        self._shared_u95 = {name: shared_u95_rel(runs) or 0.0 for name, runs in self._runs.items()}

    def pairs(self, metric: str, run_value: RunValue | None = None) -> list[Comparison]:
        """Return every pair's comparison in one quantity, not yet corrected for their number.

        Args:
            metric: its name.
            run_value: the quantity, where it is no column.
        """
        comparisons = []
        for runs in self._runs_by_meter.values():
            if run_value is None:
                pairs = compare(self._blocks(runs, metric))
                comparisons += [self._if_complete(pair, metric) for pair in pairs]
            else:
                comparisons += compare(make_blocks(runs, self._completed, run_value))
        return [
            replace(
                pair,
                metric=metric,
                label_a=self._labels[pair.experiment_a],
                label_b=self._labels[pair.experiment_b],
                differs=self._differences(pair.experiment_a, pair.experiment_b),
                shared_u95_rel=self._shared_uncertainty(pair, metric),
            )
            for pair in map(self._if_comparable, comparisons)
        ]

    def runs_in_mean(self, experiment: str) -> Sequence[Row]:
        """Return the runs in the means of an experiment."""
        return self._runs.get(experiment, ())

    def not_paired(self, a: str, b: str, metric: str) -> Comparison:
        """Return why two experiments have no pair."""
        n_a, n_b = (len(self.runs_in_mean(name)) for name in (a, b))
        why = f"ratio: {n_a} and {n_b} runs are in the means"
        pair = Comparison(experiment_a=a, experiment_b=b, n_a=n_a, n_b=n_b, unavailable=why)
        return replace(self._if_comparable(pair), metric=metric)

    def _if_comparable(self, pair: Comparison) -> Comparison:
        """Return a comparison, or why there is none."""
        reason = self._study.comparable.incomparable_reason(pair.experiment_a, pair.experiment_b)
        if reason is None:
            return pair
        return Comparison(
            experiment_a=pair.experiment_a,
            experiment_b=pair.experiment_b,
            n_a=pair.n_a,
            n_b=pair.n_b,
            unavailable=f"{NOT_COMPARABLE}{reason}",
        )

    def levels(self, metric: str) -> list[Level]:
        """Return what the values of each setting do to one quantity.

        Experiments outside the first comparable group are included without data, so that their
        levels are named.
        """
        group = self._first_group()
        runs = {name: group.get(name, ()) for name in self._runs}
        first_rows = [
            (*self._runs[name], members[0])[0] for name, members in self._study.experiments.items()
        ]
        factors = [*SETTING_COLUMNS, *self._study.settings]
        factor_values = {name: [row[name] for row in first_rows] for name in factors}
        reasons = {}
        for factor, values in factor_values.items():
            for name, value in zip(self._runs, values, strict=True):
                if any(run[metric] for run in runs[name]):
                    reasons[factor, level_text(value)] = f"no data: {NOT_ALL_POSITIVE}"
                elif self._runs[name] and name not in group:
                    reasons[factor, level_text(value)] = self._why_outside(name)
        return [
            replace(
                level,
                metric=metric,
                unavailable=reasons.get((level.factor, level.level), NO_DATA)
                if level.unavailable == NO_DATA
                else level.unavailable,
            )
            for level in levels(self._blocks(runs, metric), factor_values)
        ]

    def front(self) -> list[Point]:
        """Return every experiment's place for each objective."""
        group = self._first_group()
        digits = hashlib.sha256(f"{self._study.design_hash}:front".encode()).digest()
        points = pareto(group, np.frombuffer(digits[:16], "<u4").tolist())
        point_by_key = {(point.objective, point.experiment): point for point in points}
        return [
            replace(
                point_by_key.get((objective, name))
                or Point(objective, direction, name, unavailable=self._why_outside(name)),
                label=self._labels[name],
            )
            for objective, direction in dict.fromkeys((p.objective, p.direction) for p in points)
            for name in self._runs
        ]

    def _shared_uncertainty(self, pair: Comparison, metric: str) -> float | None:
        """Return the sensors' shared uncertainty of a ratio of energies; None if there is none."""
        if pair.ratio is None or not metric.startswith("energy_"):
            return None
        u95_a, u95_b = self._shared_u95[pair.experiment_a], self._shared_u95[pair.experiment_b]
        return math.hypot(u95_a, u95_b) or None

    def _if_complete(self, pair: Comparison, metric: str) -> Comparison:
        """Return a comparison with the runs in the means, and why a ratio would be of fewer."""
        runs_a, runs_b = self._runs[pair.experiment_a], self._runs[pair.experiment_b]
        if _all_positive(runs_a, metric) and _all_positive(runs_b, metric):
            return pair
        return replace(
            pair, n_a=len(runs_a), n_b=len(runs_b), unavailable=f"ratio: {NOT_ALL_POSITIVE}"
        )

    def _blocks(self, runs: RunsByExperiment, metric: str) -> Blocks:
        """Return a column of the runs; none of an experiment if one of its runs lacks it.

        The remaining runs would be selected by their outcome.
        """
        complete = {
            name: rows if _all_positive(rows, metric) else () for name, rows in runs.items()
        }
        return make_blocks(complete, self._completed, itemgetter(metric))

    def _why_outside(self, experiment: str) -> str:
        reason = self._study.comparable.outside.get(experiment)
        return "no run is in the mean" if reason is None else f"{NOT_COMPARABLE}{reason}"

    def _first_group(self) -> RunsByExperiment:
        """Return the experiments of the first comparable group that have a mean."""
        groups = (
            [name for name in group if self._runs[name]] for group in self._study.comparable.groups
        )
        return {name: self._runs[name] for name in next(filter(None, groups), [])}

    def _differences(self, a: str, b: str) -> list[str]:
        pairs = zip(SURROUNDINGS, self._surroundings[a], self._surroundings[b], strict=True)
        names = [
            name
            for name, values_a, values_b in pairs
            if values_a != values_b and f"gpu.{name}" not in self._study.settings
        ]
        versions = zip(VERSIONS, self._versions[a], self._versions[b], strict=True)
        names += [
            name
            for (name, _), pairs_a, pairs_b in versions
            if pairs_a != pairs_b and dict(pairs_a).keys() == dict(pairs_b).keys()
        ]
        short, long = sorted((self._lengths[a], self._lengths[b]))
        return [*names, OUTPUT_LENGTH] if long > MAX_LENGTH_RATIO * short else names


def _all_positive(runs: Sequence[Row], metric: str) -> bool:
    """Return whether every run has a quantity that a ratio can be made of."""
    return all((run[metric] or 0) > 0 for run in runs)


def _mean_length(runs: Sequence[Row]) -> float:
    """Return the mean tokens of an answer; not a number, which differs by nothing, if unknown."""
    lengths = [run[OUTPUT_LENGTH] for run in runs if run[OUTPUT_LENGTH] is not None]
    return fmean(lengths) if lengths else math.nan


def experiment_labels(summary: Iterable[Row]) -> dict[str, str]:
    """Return each experiment's short name from the summary."""
    return {row["experiment"]: row["label"] for row in summary}
