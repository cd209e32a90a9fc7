"""Two sides compared: two studies, experiment by experiment, or two experiments of one study."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

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

    def related(self) -> Related:
        """Return the two sides as the two experiments of a study."""
        return _related(_renamed(self.runs_a, A), _renamed(self.runs_b, B))


def compare_sides(matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Return how B relates to A in each quantity, as rows of ``comparisons.parquet``.

    ``label`` names the pair; ``p_holm`` allows for all pairs of the quantity. Pairs whose answers
    differ in length also have a row for their matched requests, with ``matched`` of ``asked``.
    """
    related = [match.related() for match in matches]
    pairs = {metric: with_holm([_pair(sides, metric) for sides in related]) for metric in COMPARED}
    rows = [
        {**asdict(pair), "label": match.label}
        for found in pairs.values()
        for match, pair in zip(matches, found, strict=True)
    ]
    unlike = [
        (match, sides)
        for match, sides, pair in zip(matches, related, pairs["energy_per_request_j"], strict=True)
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


def _matched_rows(unlike: Sequence[tuple[Match, Related]]) -> list[dict[str, Any]]:
    """Return the rows on matched requests of the pairs whose answers differ in length."""
    folders = {folder for match, _ in unlike for folder in (match.folder_a, match.folder_b)}
    configs = {each: configs_of(read_plan(each.plan)["runs"]) for each in folders}
    found = [_matched(match, sides, configs) for match, sides in unlike]
    corrected = with_holm([pair for pair, _ in found])
    return [
        {
            **asdict(pair),
            "label": match.label,
            "matched": requests.matched,
            "asked": requests.asked,
        }
        for (match, _), (_, requests), pair in zip(unlike, found, corrected, strict=True)
    ]


def _matched(
    match: Match, sides: Related, configs: Mapping[StudyFolder, Mapping[str, Mapping[str, Any]]]
) -> tuple[Comparison, MatchedRequests]:
    given = ((A, match.runs_a, match.folder_a), (B, match.runs_b, match.folder_b))
    experiments = [runs["experiment"][0].as_py() for _, runs, _ in given]
    requests = matched_requests(
        *(
            Side(folder, experiment, sides.used(name), configs[folder].get(experiment, {}))
            for experiment, (name, _, folder) in zip(experiments, given, strict=True)
        )
    )
    with_means = [
        _renamed(_with_means(runs, requests, side), name)
        for side, (name, runs, _) in enumerate(given)
    ]
    pair = _pair(_related(*with_means), MATCHED)
    if pair.ratio is None:
        pair = replace(pair, unavailable=f"ratio: {requests.why_few}")
    return pair, requests


def _with_means(runs: pa.Table, requests: MatchedRequests, side: int) -> pa.Table:
    means_j = [requests.means_j.get(cycle) for cycle in runs["cycle"].to_pylist()]
    values = [None if each is None else each[side] for each in means_j]
    return runs.append_column(MATCHED, pa.array(values, pa.float64()))


def _related(runs_a: pa.Table, runs_b: pa.Table) -> Related:
    both = pa.concat_tables([runs_a, runs_b], promote_options="permissive")
    return Related(StudyRuns.of(both), {A: A, B: B})


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
