"""Two sides compared: two studies, experiment by experiment, or two experiments of one study."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.comparison import Comparison, with_holm
from llenergymeasure.analysis.relations import COMPARED, Related
from llenergymeasure.analysis.study_runs import StudyRuns

A, B = "A", "B"


@dataclass(frozen=True)
class Match:
    """What is compared: the runs of one experiment on each side.

    Attributes:
        label: what the pair is called.
        runs_a: rows of ``runs.parquet`` of what is compared with.
        runs_b: rows of what is compared.
    """

    label: str
    runs_a: pa.Table
    runs_b: pa.Table

    def related(self) -> Related:
        """Return the two sides as the two experiments of a study."""
        sides = [_renamed(self.runs_a, A), _renamed(self.runs_b, B)]
        both = pa.concat_tables(sides, promote_options="permissive")
        return Related(StudyRuns.of(both), {A: A, B: B})


def compare_sides(matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Return how B relates to A in each quantity, as rows of ``comparisons.parquet``.

    ``label`` names the pair; ``p_holm`` allows for all pairs of the quantity.
    """
    related = [(match.label, match.related()) for match in matches]
    rows = []
    for metric in COMPARED:
        found = with_holm([_pair(each, metric) for _, each in related])
        rows += [
            {**asdict(pair), "label": label}
            for (label, _), pair in zip(related, found, strict=True)
        ]
    order = {match.label: place for place, match in enumerate(matches)}
    return sorted(rows, key=lambda row: order[row["label"]])


def _pair(related: Related, metric: str) -> Comparison:
    found = related.pairs(metric)
    return found[0] if found else related.not_paired(A, B, metric)


def _renamed(runs: pa.Table, name: str) -> pa.Table:
    place = runs.schema.get_field_index("experiment")
    field = runs.schema.field(place)
    return runs.set_column(place, field, pa.array([name] * runs.num_rows, field.type))


def of_experiment(runs: pa.Table, experiment: str) -> pa.Table:
    """Return the runs of one experiment."""
    return runs.filter(pc.equal(runs["experiment"], experiment))
