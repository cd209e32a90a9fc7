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

from llenergymeasure.analysis.blocks import Blocks, ValueOf, blocks
from llenergymeasure.analysis.comparison import Comparison, compare, with_holm
from llenergymeasure.analysis.levels import NO_DATA, Level, level_text, levels
from llenergymeasure.analysis.pareto import Point, pareto
from llenergymeasure.analysis.selection import Meter, Row
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import shared_share
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

NOT_ALL = "not every run in the mean has this quantity above zero"
NOT_COMPARABLE = "not comparable: "
"""How ``unavailable`` begins if two experiments may not be compared."""
LENGTH = "output_tokens_per_request"
LENGTHS_APART = 1.05
"""Ratio of answers' mean lengths beyond which a comparison names them too."""

Used: TypeAlias = Mapping[str, Sequence[Row]]


ROWS = {"comparisons": Comparison, "levels": Level, "pareto": Point}
SCHEMAS = {
    name: pa.schema([(each.name, column_type(each.type)) for each in fields(row)])
    for name, row in ROWS.items()
}


def relate(study: StudyRuns, labels: Mapping[str, str]) -> dict[str, pa.Table]:
    """Return the three tables by name, in the order of :data:`SCHEMAS`.

    Args:
        study: its runs.
        labels: a short name for every experiment.
    """
    related = Related(study, labels)
    found: dict[str, Iterable[Comparison | Level | Point]] = {
        "comparisons": [pair for each in COMPARED for pair in with_holm(related.pairs(each))],
        "levels": [level for each in COMPARED for level in related.levels(each)],
        "pareto": related.front(),
    }
    return {
        name: pa.Table.from_pylist([*map(vars, found[name])], schema=schema)
        for name, schema in SCHEMAS.items()
    }


class Related:
    """How the experiments of a study relate to each other, by the runs in their means."""

    def __init__(self, study: StudyRuns, labels: Mapping[str, str]) -> None:
        """Take a study's runs, and a short name for every experiment."""
        self._study, self._labels = study, labels
        self._started = [row for row in study.rows if row["status"] == "completed"]
        self._used = {name: each.used for name, each in study.selections.items()}
        self._meters: dict[Meter, dict[str, Sequence[Row]]] = {}
        for name, each in study.selections.items():
            if each.used:
                self._meters.setdefault(each.meter, {})[name] = each.used
        self._surroundings = {
            name: [{row[column] for row in used} - {None} for column in SURROUNDINGS]
            for name, used in self._used.items()
        }
        self._versions = {
            name: [
                {(row[of], row[column]) for row in used if row[column]} for column, of in VERSIONS
            ]
            for name, used in self._used.items()
        }
        self._lengths = {name: _mean_length(used) for name, used in self._used.items()}
        self._shared = {name: shared_share(used) or 0.0 for name, used in self._used.items()}

    def pairs(self, metric: str, value_of: ValueOf | None = None) -> list[Comparison]:
        """Return every pair's comparison in one quantity, not yet corrected for their number.

        Args:
            metric: its name.
            value_of: the quantity, where it is no column.
        """
        by_meter = self._meters.values()
        data = (
            self._blocks(used, metric) if value_of is None else self._of_runs(used, value_of)
            for used in by_meter
        )
        found = [each for of_meter in data for each in compare(of_meter)]
        if value_of is None:
            found = [self._whole(each, metric) for each in found]
        return [
            replace(
                pair,
                metric=metric,
                label_a=self._labels[pair.experiment_a],
                label_b=self._labels[pair.experiment_b],
                differs=self._differs(pair.experiment_a, pair.experiment_b),
                shared_u95_rel=self._open(pair, metric),
            )
            for pair in map(self._fair, found)
        ]

    def used(self, experiment: str) -> Sequence[Row]:
        """Return the runs in the means of an experiment."""
        return self._used.get(experiment, ())

    def not_paired(self, one: str, other: str, metric: str) -> Comparison:
        """Return why two experiments have no pair."""
        n_a, n_b = (len(self.used(name)) for name in (one, other))
        why = f"ratio: {n_a} and {n_b} runs are in the means"
        nothing = Comparison(
            experiment_a=one, experiment_b=other, n_a=n_a, n_b=n_b, unavailable=why
        )
        return replace(self._fair(nothing), metric=metric)

    def _fair(self, found: Comparison) -> Comparison:
        """Return a comparison, or why there is none."""
        reason = self._study.comparable.why_not(found.experiment_a, found.experiment_b)
        if reason is None:
            return found
        return Comparison(
            experiment_a=found.experiment_a,
            experiment_b=found.experiment_b,
            n_a=found.n_a,
            n_b=found.n_b,
            unavailable=f"{NOT_COMPARABLE}{reason}",
        )

    def levels(self, metric: str) -> list[Level]:
        """Return what the values of each setting do to one quantity.

        Experiments outside the first comparable group are included without data, so that their
        levels are named.
        """
        group = self._first_group()
        used = {name: group.get(name, ()) for name in self._used}
        firsts = [
            (*self._used[name], members[0])[0] for name, members in self._study.experiments.items()
        ]
        factors = [*SETTING_COLUMNS, *self._study.settings]
        values = {name: [row[name] for row in firsts] for name in factors}
        apart = {
            (factor, level_text(value)): f"no data: {NOT_ALL}"
            if name in group
            else self._outside(name)
            for factor, texts in values.items()
            for name, value in zip(self._used, texts, strict=True)
            if self._used[name] and (name not in group or any(run[metric] for run in group[name]))
        }
        return [
            replace(
                each,
                metric=metric,
                unavailable=apart.get((each.factor, each.level), NO_DATA)
                if each.unavailable == NO_DATA
                else each.unavailable,
            )
            for each in levels(self._blocks(used, metric), values)
        ]

    def front(self) -> list[Point]:
        """Return every experiment's place for each objective."""
        group = self._first_group()
        digits = hashlib.sha256(f"{self._study.design_hash}:front".encode()).digest()
        points = pareto(group, np.frombuffer(digits[:16], "<u4").tolist())
        found = {(point.objective, point.experiment): point for point in points}
        return [
            replace(
                found.get((objective, name))
                or Point(objective, direction, name, unavailable=self._outside(name)),
                label=self._labels[name],
            )
            for objective, direction in dict.fromkeys((p.objective, p.direction) for p in points)
            for name in self._used
        ]

    def _open(self, pair: Comparison, metric: str) -> float | None:
        """Return the sensors' shared uncertainty of a ratio of energies; None if there is none."""
        if pair.ratio is None or not metric.startswith("energy_"):
            return None
        of_a, of_b = self._shared[pair.experiment_a], self._shared[pair.experiment_b]
        return math.hypot(of_a, of_b) or None

    def _whole(self, pair: Comparison, metric: str) -> Comparison:
        """Return a comparison with the runs in the means, and why a ratio would be of fewer."""
        a, b = self._used[pair.experiment_a], self._used[pair.experiment_b]
        if _has(a, metric) and _has(b, metric):
            return pair
        return replace(pair, n_a=len(a), n_b=len(b), unavailable=f"ratio: {NOT_ALL}")

    def _blocks(self, used: Used, metric: str) -> Blocks:
        """Return a column of the runs; none of an experiment if one of its runs lacks it.

        The remaining runs would be selected by their outcome.
        """
        known = {name: rows if _has(rows, metric) else () for name, rows in used.items()}
        return self._of_runs(known, itemgetter(metric))

    def _of_runs(self, used: Used, value_of: ValueOf) -> Blocks:
        return blocks(used, self._started, value_of)

    def _outside(self, experiment: str) -> str:
        reason = self._study.comparable.outside.get(experiment)
        return "no run is in the mean" if reason is None else f"{NOT_COMPARABLE}{reason}"

    def _first_group(self) -> Used:
        """Return the experiments of the first comparable group that have a mean."""
        groups = (
            [name for name in each if self._used[name]] for each in self._study.comparable.groups
        )
        return {name: self._used[name] for name in next(filter(None, groups), [])}

    def _differs(self, one: str, other: str) -> list[str]:
        pairs = zip(SURROUNDINGS, self._surroundings[one], self._surroundings[other], strict=True)
        found = [
            name
            for name, of_one, of_other in pairs
            if of_one != of_other and f"gpu.{name}" not in self._study.settings
        ]
        versions = zip(VERSIONS, self._versions[one], self._versions[other], strict=True)
        found += [
            name
            for (name, _), of_one, of_other in versions
            if of_one != of_other and dict(of_one).keys() == dict(of_other).keys()
        ]
        short, long = sorted((self._lengths[one], self._lengths[other]))
        return [*found, LENGTH] if long > LENGTHS_APART * short else found


def _has(used: Sequence[Row], metric: str) -> bool:
    """Return whether every run has a quantity that a ratio can be made of."""
    return all((run[metric] or 0) > 0 for run in used)


def _mean_length(used: Sequence[Row]) -> float:
    """Return the mean tokens of an answer; not a number, which differs by nothing, if unknown."""
    known = [run[LENGTH] for run in used if run[LENGTH] is not None]
    return fmean(known) if known else math.nan


def labels_of(summary: Iterable[Row]) -> dict[str, str]:
    """Return each experiment's short name from the summary."""
    return {row["experiment"]: row["label"] for row in summary}
