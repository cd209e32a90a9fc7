"""Tables that relate experiments to each other: comparisons, levels and fronts.

What may be compared is decided in :mod:`llenergymeasure.analysis.comparable`: pairs that may not be
say why, and levels and fronts are those of its first group.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, TypeAlias

import pyarrow as pa

from llenergymeasure.analysis.blocks import Blocks, blocks
from llenergymeasure.analysis.comparable import Comparable
from llenergymeasure.analysis.comparison import Comparison, compare, with_holm
from llenergymeasure.analysis.levels import levels
from llenergymeasure.analysis.pareto import OBJECTIVES, Point, pareto
from llenergymeasure.analysis.selection import Meter, Row, selections
from llenergymeasure.analysis.statistics import seed_of
from llenergymeasure.analysis.summary import NEEDED_COLUMNS, SETTING_COLUMNS
from llenergymeasure.results.table import RUN_SCHEMA

COMPARED = (
    "energy_per_output_token_j",
    "energy_per_request_j",
    "output_tokens_per_s",
    "request_latency_p50_s",
)
"""Quantities that experiments are compared in."""

SURROUNDINGS = ("host", "gpu_name", "gpu_uuid", "driver_version", "power_limit_w")
"""What two compared experiments may differ in, apart from their settings; named where they do."""

NOT_COMPARABLE = "not comparable: "
"""How ``unavailable`` begins where two experiments may not be compared."""
LENGTH = "output_tokens_per_request"
LENGTHS_APART = 1.05
"""Ratio of answers' mean lengths past which a comparison names them too."""

Used: TypeAlias = Mapping[str, Sequence[Row]]

_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TEXTS = pa.list_(pa.field("element", _TEXT))

COMPARISONS_SCHEMA = pa.schema(
    [
        *(("metric", _TEXT), ("experiment_a", _TEXT), ("experiment_b", _TEXT)),
        *(("label_a", _TEXT), ("label_b", _TEXT), ("method", _TEXT)),
        *(("n", _WHOLE), ("n_a", _WHOLE), ("n_b", _WHOLE)),
        *(("ratio", _REAL), ("ci95_low", _REAL), ("ci95_high", _REAL)),
        *(("degrees_of_freedom", _REAL), ("p", _REAL), ("p_holm", _REAL)),
        *(("cycles_to_decide", _WHOLE), ("differs", _TEXTS), ("unavailable", _TEXT)),
    ]
)
LEVELS_SCHEMA = pa.schema(
    [
        *(("metric", _TEXT), ("factor", _TEXT), ("level", _TEXT), ("reference", _TEXT)),
        *(("ratio", _REAL), ("ci95_low", _REAL), ("ci95_high", _REAL), ("p", _REAL)),
        *(("p_holm", _REAL), ("unavailable", _TEXT)),
    ]
)
PARETO_SCHEMA = pa.schema(
    [
        *(("objective", _TEXT), ("direction", _TEXT), ("experiment", _TEXT), ("label", _TEXT)),
        *(("energy_per_output_token_j", _REAL), ("value", _REAL), ("on_front", _FLAG)),
        *(("front_share", _REAL), ("beaten_p_holm", _REAL)),
        *(("dominated_by", _TEXT), ("unavailable", _TEXT)),
    ]
)
SCHEMAS = {
    "comparisons": COMPARISONS_SCHEMA,
    "levels": LEVELS_SCHEMA,
    "pareto": PARETO_SCHEMA,
}


def relate(
    runs: pa.Table,
    labels: Mapping[str, str],
    design_hash: str,
    planned: Sequence[Mapping[str, Any]] = (),
) -> dict[str, pa.Table]:
    """Return the three tables by name, in the order of :data:`SCHEMAS`.

    Args:
        runs: one row a run.
        labels: a short name for every experiment.
        design_hash: the study's; it seeds what is drawn at random.
        planned: the plan's runs, with their settings.
    """
    settings = [name for name in runs.column_names if name not in RUN_SCHEMA.names]
    objectives = [name for name in OBJECTIVES if name in runs.column_names]
    columns = dict.fromkeys([*NEEDED_COLUMNS, *settings, *objectives])
    rows = runs.select(list(columns)).to_pylist()
    study = _Study(rows, [*SETTING_COLUMNS, *settings], labels, design_hash, planned)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for metric in COMPARED:
        found["comparisons"] += study.comparisons(metric)
        found["levels"] += study.levels(metric)
    found["pareto"] = study.front()
    return {name: pa.Table.from_pylist(found[name], schema=SCHEMAS[name]) for name in SCHEMAS}


class _Study:
    """The runs in the means, by the meter of their energy."""

    def __init__(
        self,
        rows: Sequence[Row],
        factors: Sequence[str],
        labels: Mapping[str, str],
        design_hash: str,
        planned: Sequence[Mapping[str, Any]],
    ) -> None:
        self._labels, self._factors, self._design = labels, factors, design_hash
        self._started = [row for row in rows if row["status"] == "completed"]
        chosen = selections(rows)
        self._used = {name: each.used for name, each in chosen.items()}
        first = {row["experiment"]: row for row in reversed(rows)}
        self._settings = {name: (*used, first[name])[0] for name, used in self._used.items()}
        self._comparable = Comparable(chosen, planned)
        self._meters: dict[Meter, dict[str, Sequence[Row]]] = {}
        for name, each in chosen.items():
            if each.used:
                self._meters.setdefault(each.meter, {})[name] = each.used
        self._surroundings = {
            name: [{row[column] for row in used} - {None} for column in SURROUNDINGS]
            for name, used in self._used.items()
        }
        self._lengths = {name: _mean_length(used) for name, used in self._used.items()}

    def comparisons(self, metric: str) -> list[dict[str, Any]]:
        """Return every pair of one quantity as rows."""
        found: list[Comparison] = []
        for group in self._meters.values():
            found += map(self._fair, compare(self._blocks(group, metric)))
        return [
            {
                "metric": metric,
                **asdict(each),
                "label_a": self._labels[each.experiment_a],
                "label_b": self._labels[each.experiment_b],
                "differs": self._differs(each.experiment_a, each.experiment_b),
            }
            for each in with_holm(found)
        ]

    def _fair(self, found: Comparison) -> Comparison:
        """Return a comparison, or why there is none."""
        names = (found.experiment_a, found.experiment_b)
        reason = self._comparable.why_not(*names)
        if reason is None:
            return found
        reason = f"{NOT_COMPARABLE}{reason}"
        return Comparison(*names, None, None, found.n_a, found.n_b, unavailable=reason)

    def levels(self, metric: str) -> list[dict[str, Any]]:
        """Return what the values of each setting do to one quantity as rows.

        Experiments that stand outside of the first comparable group go in without data, so that
        their levels are named.
        """
        group = self._first_group()
        used = {name: group.get(name, ()) for name in self._used}
        values = {name: [row[name] for row in self._settings.values()] for name in self._factors}
        found = levels(self._blocks(used, metric), values)
        return [{"metric": metric, **asdict(each)} for each in found]

    def front(self) -> list[dict[str, Any]]:
        """Return every experiment's place for each objective as rows."""
        group = self._first_group()
        points = pareto(group, seed_of(self._design, "front"))
        others = [name for name in self._used if name not in group]
        points += [
            Point(objective, direction, name, unavailable=self._outside(name))
            for objective, direction in dict.fromkeys((p.objective, p.direction) for p in points)
            for name in others
        ]
        place = {name: number for number, name in enumerate(self._used)}
        rank = {name: number for number, name in enumerate(OBJECTIVES)}
        points.sort(key=lambda point: (rank[point.objective], place[point.experiment]))
        return [{**asdict(point), "label": self._labels[point.experiment]} for point in points]

    def _blocks(self, group: Used, metric: str) -> Blocks:
        return blocks(group, self._started, metric)

    def _outside(self, experiment: str) -> str:
        reason = self._comparable.outside.get(experiment)
        return "no run is in the mean" if reason is None else f"{NOT_COMPARABLE}{reason}"

    def _first_group(self) -> Used:
        """Return the experiments of the first comparable group that have a mean."""
        groups = ([name for name in each if self._used[name]] for each in self._comparable.groups)
        return {name: self._used[name] for name in next(filter(None, groups), [])}

    def _differs(self, one: str, other: str) -> list[str]:
        pairs = zip(SURROUNDINGS, self._surroundings[one], self._surroundings[other], strict=True)
        found = [name for name, of_one, of_other in pairs if of_one != of_other]
        short, long = sorted((self._lengths[one], self._lengths[other]))
        return [*found, LENGTH] if long > LENGTHS_APART * short else found


def _mean_length(used: Sequence[Row]) -> float:
    """Return the mean tokens of an answer; not a number, which differs by nothing, if unknown."""
    known = [run[LENGTH] for run in used if run[LENGTH] is not None]
    return fmean(known) if known else math.nan


def labels_of(summary: Iterable[Row]) -> dict[str, str]:
    """Return each experiment's short name from the summary."""
    return {row["experiment"]: row["label"] for row in summary}
