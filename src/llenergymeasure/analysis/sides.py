"""Two sides compared: two studies, experiment by experiment, or two experiments of one study."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.comparison import Comparison, with_holm
from llenergymeasure.analysis.matched import MATCHED, MatchedRequests, Side, matched_requests
from llenergymeasure.analysis.relations import COMPARED, LENGTH, Related
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.tables import read_plan
from llenergymeasure.plan.fairness import configs_of
from llenergymeasure.results.layout import StudyFolder

A, B = "A", "B"
Configs: TypeAlias = Sequence[Mapping[str, Any]]
"""The settings of A and of B, as their plans have them."""


@dataclass(frozen=True)
class Match:
    """What is compared: the runs of one experiment on each side.

    Attributes:
        label: what the pair is called.
        runs_a: rows of ``runs.parquet`` of what is compared with.
        runs_b: rows of what is compared.
        folder_a, folder_b: their studies.
    """

    label: str
    runs_a: pa.Table
    runs_b: pa.Table
    folder_a: StudyFolder
    folder_b: StudyFolder

    @property
    def sides(self) -> tuple[tuple[pa.Table, StudyFolder, str], ...]:
        """The runs, the study and the experiment's id of A and of B; "" where there is no run."""
        given = ((self.runs_a, self.folder_a), (self.runs_b, self.folder_b))
        return tuple(
            (runs, folder, runs["experiment"][0].as_py() if runs.num_rows else "")
            for runs, folder in given
        )


def compare_sides(matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Return how B relates to A in each quantity, as rows of ``comparisons.parquet``.

    ``label`` names the pair; ``p_holm`` allows for all pairs of the quantity. Pairs whose answers
    differ in length also have a row for their matched requests, with ``matched`` of ``asked``.
    """
    folders = {folder for match in matches for _, folder, _ in match.sides}
    plans = {each: configs_of(read_plan(each.plan)["runs"]) for each in folders}
    asked = [[plans[at].get(name, {}) for _, at, name in match.sides] for match in matches]
    related = [
        _related([runs for runs, _, _ in match.sides], configs)
        for match, configs in zip(matches, asked, strict=True)
    ]
    pairs = {metric: with_holm([_pair(sides, metric) for sides in related]) for metric in COMPARED}
    rows = [
        {**asdict(pair), "label": match.label}
        for found in pairs.values()
        for match, pair in zip(matches, found, strict=True)
    ]
    of_requests = pairs["energy_per_request_j"]
    unlike = [
        (match, sides, configs)
        for match, sides, configs, pair in zip(matches, related, asked, of_requests, strict=True)
        if pair.ratio is not None and LENGTH in pair.differs and not _under_traffic(sides)
    ]
    rows += _matched_rows(unlike)
    order = {match.label: place for place, match in enumerate(matches)}
    return sorted(rows, key=lambda row: order[row["label"]])


def _under_traffic(sides: Related) -> bool:
    """Return whether requests overlapped, so that none has an energy of its own."""
    return any(
        run["offered_requests_per_s"] is not None for name in (A, B) for run in sides.used(name)
    )


def _matched_rows(unlike: Sequence[tuple[Match, Related, Configs]]) -> list[dict[str, Any]]:
    """Return the rows on matched requests of the pairs whose answers differ in length."""
    found = [_matched(match, sides, configs) for match, sides, configs in unlike]
    corrected = with_holm([pair for pair, _ in found])
    return [
        {
            **asdict(pair),
            "label": match.label,
            "matched": requests.matched,
            "asked": requests.asked,
        }
        for (match, _, _), (_, requests), pair in zip(unlike, found, corrected, strict=True)
    ]


def _matched(match: Match, sides: Related, configs: Configs) -> tuple[Comparison, MatchedRequests]:
    requests = matched_requests(
        *(
            Side(folder, experiment, sides.used(name), config)
            for name, (_, folder, experiment), config in zip(
                (A, B), match.sides, configs, strict=True
            )
        )
    )
    with_means = [
        _with_means(runs, requests, side) for side, (runs, _, _) in enumerate(match.sides)
    ]
    pair = _pair(_related(with_means, configs), MATCHED)
    if pair.ratio is None:
        pair = replace(pair, unavailable=f"ratio: {requests.why_few}")
    return pair, requests


def _with_means(runs: pa.Table, requests: MatchedRequests, side: int) -> pa.Table:
    means_j = [requests.means_j.get(cycle) for cycle in runs["cycle"].to_pylist()]
    values = [None if each is None else each[side] for each in means_j]
    return runs.append_column(MATCHED, pa.array(values, pa.float64()))


def _related(sides: Sequence[pa.Table], configs: Configs) -> Related:
    """Return the runs of A and B as two experiments of a study that asked for both."""
    renamed = [_renamed(runs, name) for runs, name in zip(sides, (A, B), strict=True)]
    planned = [
        {"experiment": name, "config": each} for name, each in zip((A, B), configs, strict=True)
    ]
    both = pa.concat_tables(renamed, promote_options="permissive")
    return Related(StudyRuns.of(both, {"runs": planned}), {A: A, B: B})


def _pair(related: Related, metric: str) -> Comparison:
    found = related.pairs(metric)
    return found[0] if found else related.not_paired(A, B, metric)


def _renamed(runs: pa.Table, name: str) -> pa.Table:
    """Return the runs of a side under its name; of what is asked twice none is left out."""
    for column, text in (("experiment", name), ("settings_in_force", None)):
        place = runs.schema.get_field_index(column)
        values = pa.array([text] * runs.num_rows, pa.string())
        runs = runs.set_column(place, column, values)
    return runs


def of_experiment(runs: pa.Table, experiment: str) -> pa.Table:
    """Return the runs of one experiment."""
    return runs.filter(pc.equal(runs["experiment"], experiment))
