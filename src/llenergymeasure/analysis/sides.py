"""Two sides compared: two studies, experiment by experiment, or two experiments of one study."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.comparison import holm
from llenergymeasure.analysis.relations import relate

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


def compare_sides(matches: Iterable[Match]) -> list[dict[str, Any]]:
    """Return how B relates to A in each quantity, as rows of ``comparisons.parquet``.

    ``label`` names the pair; ``p_holm`` allows for all pairs of the quantity.
    """
    rows = [{**row, "label": match.label} for match in matches for row in _compared(match)]
    by_metric: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_metric.setdefault(row["metric"], []).append(row)
    for members in by_metric.values():
        p_values = np.array([np.nan if row["p"] is None else row["p"] for row in members])
        for row, p_holm in zip(members, holm(p_values), strict=True):
            row["p_holm"] = float(p_holm) if np.isfinite(p_holm) else None
    return rows


def _compared(match: Match) -> list[dict[str, Any]]:
    sides = {A: match.runs_a, B: match.runs_b}
    named = [_renamed(runs, name) for name, runs in sides.items()]
    both = pa.concat_tables(named, promote_options="permissive")
    found: list[dict[str, Any]] = relate(both, {A: A, B: B}, "")["comparisons"].to_pylist()
    return found


def _renamed(runs: pa.Table, name: str) -> pa.Table:
    place = runs.schema.get_field_index("experiment")
    field = runs.schema.field(place)
    return runs.set_column(place, field, pa.array([name] * runs.num_rows, field.type))


def of_experiment(runs: pa.Table, experiment: str) -> pa.Table:
    """Return the runs of one experiment."""
    return runs.filter(pc.equal(runs["experiment"], experiment))
