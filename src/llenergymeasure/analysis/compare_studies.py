"""Two sides compared: two studies, experiment by experiment, or two experiments of one study.

If answers end by themselves, joules per request are for answers of different lengths. Matched
requests are those of a cycle with the same prompt and equally many tokens in the answer. They are
selected by the outcome and are often short, so their result need not hold for long answers. Similar
lengths would not do: if one side writes more, most of the similar pairs are longer on that side.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.blocks import RunValue
from llenergymeasure.analysis.comparison_tables import COMPARED, OUTPUT_LENGTH, Relations
from llenergymeasure.analysis.pairwise_comparison import Comparison, with_holm
from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.tables import read_plan
from llenergymeasure.errors import ResultsError
from llenergymeasure.parquet import read_parquet
from llenergymeasure.plan.fairness import configs_by_experiment
from llenergymeasure.results.layout import StudyFolder

ENERGY_PER_MATCHED_REQUEST = "energy_per_matched_request_j"
SIDE_A, SIDE_B = "A", "B"
Settings: TypeAlias = Callable[[StudyFolder], Mapping[str, Mapping[str, Any]]]
"""The settings of each experiment of a study, as its plan has them."""

_NUMBERS = {"prompt": pa.int64(), "input_tokens": pa.int64(), "output_tokens": pa.int64()}
_ENERGIES = {"request_energy_j": pa.float64(), "request_energy_unavailable": pa.string()}
"""Columns that tables of earlier versions lack."""


@dataclass(frozen=True)
class Match:
    """What is compared: the runs of one experiment on each side.

    Attributes:
        label: the pair's name.
        runs_a: rows of ``runs.parquet`` of the side that is compared with.
        runs_b: rows of the other side.
        folder_a, folder_b: their studies.
    """

    label: str
    runs_a: pa.Table
    runs_b: pa.Table
    folder_a: StudyFolder
    folder_b: StudyFolder


def compare_sides(matches: Sequence[Match]) -> list[dict[str, Any]]:
    """Return how B relates to A in each quantity, as rows of ``comparisons.parquet``.

    ``label`` names the pair; ``p_holm`` allows for all pairs of the quantity. Pairs whose answers
    differ in length also have a row for their matched requests, with ``matched`` of ``asked``.
    """

    @cache
    def settings(folder: StudyFolder) -> Mapping[str, Mapping[str, Any]]:
        return configs_by_experiment(read_plan(folder.plan)["runs"])

    all_pairs = [_Pair(match, settings) for match in matches]
    comparisons = {metric: [pair.compare(metric) for pair in all_pairs] for metric in COMPARED}
    rows = [row for compared in comparisons.values() for row in _rows(all_pairs, compared)]
    unlike = [
        pair
        for pair, comparison in zip(all_pairs, comparisons["energy_per_request_j"], strict=True)
        if comparison.ratio is not None
        and OUTPUT_LENGTH in comparison.differs
        and not pair.overlaps
    ]
    matched = [pair.matched_requests() for pair in unlike]
    compared = [
        pair.compare_matched(requests) for pair, requests in zip(unlike, matched, strict=True)
    ]
    rows += [
        {**row, "matched": requests.matched, "asked": requests.shared}
        for row, requests in zip(_rows(unlike, compared), matched, strict=True)
    ]
    order = {match.label: place for place, match in enumerate(matches)}
    return sorted(rows, key=lambda row: order[row["label"]])


def experiment_runs(runs: pa.Table, experiment: str) -> pa.Table:
    """Return the runs of one experiment."""
    return runs.filter(pc.equal(runs["experiment"], experiment))


class _Side(NamedTuple):
    """An experiment that is compared.

    Attributes:
        folder: its study's, whose runs keep ``requests.parquet``.
        experiment: its id; "" where there is no run.
        config: its settings.
    """

    folder: StudyFolder
    experiment: str
    config: Mapping[str, Any]

    @property
    def order(self) -> tuple[Any, ...]:
        """What decides the place of a prompt in a run, apart from the prompts themselves."""
        order = self.config.get("dataset_order")
        return order, self.config.get("random_seed") if order == "shuffled" else None

    def answers(self, cycle: int) -> dict[tuple[int, ...], Row]:
        """Return a run's answers by prompt: its tokens, and how often it was asked before.

        Raises:
            ResultsError: the table is gone, or does not hold what it should.
        """
        repeats: Counter[int] = Counter()
        answers: dict[tuple[int, ...], Row] = {}
        for row in _requests(self.folder.run(self.experiment, cycle).requests):
            if row["prompt"] is None:
                continue
            if row["output_tokens"]:
                answers[row["prompt"], row["input_tokens"] or 0, repeats[row["prompt"]]] = row
            repeats[row["prompt"]] += 1
        return answers


class _Matched(NamedTuple):
    """Joules of two sides' matched requests.

    Attributes:
        means_j: of each cycle that has any, the mean of either side.
        matched: how many requests match, in all cycles.
        shared: how many prompts of a cycle both answered.
        why_no_more: why there are no more.
    """

    means_j: dict[int, tuple[float, float]]
    matched: int
    shared: int
    why_no_more: str


class _Pair:
    """The two experiments of a match, as those of a study that asked for both."""

    def __init__(self, match: Match, settings: Settings) -> None:
        self.label = match.label
        sides = ((match.runs_a, match.folder_a), (match.runs_b, match.folder_b))
        ids = [runs["experiment"][0].as_py() if runs.num_rows else "" for runs, _ in sides]
        self._sides = [
            _Side(folder, experiment, settings(folder).get(experiment, {}))
            for experiment, (_, folder) in zip(ids, sides, strict=True)
        ]
        tables = [
            _with_name(runs, name) for name, (runs, _) in zip((SIDE_A, SIDE_B), sides, strict=True)
        ]
        planned = [
            {"experiment": name, "config": side.config}
            for name, side in zip((SIDE_A, SIDE_B), self._sides, strict=True)
        ]
        both = pa.concat_tables(tables, promote_options="permissive")
        self._relations = Relations(
            StudyRuns(both, {"runs": planned}), {SIDE_A: SIDE_A, SIDE_B: SIDE_B}
        )

    @property
    def overlaps(self) -> bool:
        """Whether requests overlapped, as under traffic: then none has an energy of its own."""
        runs = (*self._relations.runs_in_mean(SIDE_A), *self._relations.runs_in_mean(SIDE_B))
        return any(run["offered_requests_per_s"] is not None for run in runs)

    def compare(self, metric: str, run_value: RunValue | None = None) -> Comparison:
        """Return how B relates to A in one quantity, by default a column of their runs."""
        pairs = self._relations.pairs(metric, run_value)
        return pairs[0] if pairs else self._relations.not_paired(SIDE_A, SIDE_B, metric)

    def compare_matched(self, requests: _Matched) -> Comparison:
        """Return how B relates to A in the joules of their matched requests."""

        def mean_j(run: Row) -> float | None:
            means_j = requests.means_j.get(run["cycle"])
            return None if means_j is None else means_j[(SIDE_A, SIDE_B).index(run["experiment"])]

        pair = self.compare(ENERGY_PER_MATCHED_REQUEST, mean_j)
        if pair.ratio is not None:
            return pair
        return replace(pair, unavailable=f"ratio: {requests.why_no_more}")

    def matched_requests(self) -> _Matched:
        """Return the joules of the requests that both sides answered with equally many tokens."""
        hashes_a, hashes_b = (
            {run["cycle"]: run["prompt_hash"] for run in self._relations.runs_in_mean(name)}
            for name in (SIDE_A, SIDE_B)
        )
        shared_cycles = [cycle for cycle in hashes_a if cycle in hashes_b]
        same_prompts = [cycle for cycle in shared_cycles if hashes_a[cycle] == hashes_b[cycle]]
        a, b = self._sides
        if not same_prompts or a.order != b.order:
            return _Matched({}, 0, 0, "the prompts, or their order, are not the same")
        means_j = {}
        counts: Counter[str] = Counter()
        problem = None
        for cycle in same_prompts:
            try:
                answers_a, answers_b = a.answers(cycle), b.answers(cycle)
            except ResultsError as error:
                problem = problem or str(error)
                continue
            both = [(answers_a[key], answers_b[key]) for key in answers_a if key in answers_b]
            same_length = [(x, y) for x, y in both if x["output_tokens"] == y["output_tokens"]]
            matched = [pair for pair in same_length if all(map(_has_energy, pair))]
            reasons = (
                answer["request_energy_unavailable"] for pair in same_length for answer in pair
            )
            problem = problem or next(filter(None, reasons), None)
            counts.update(shared=len(both), same_length=len(same_length), matched=len(matched))
            if matched:
                mean_a, mean_b = (
                    fmean(pair[side]["request_energy_j"] for pair in matched) for side in (0, 1)
                )
                means_j[cycle] = (mean_a, mean_b)
        why = f"{counts['same_length']} of {counts['shared']} answers are as long in both"
        if counts["matched"] < counts["same_length"]:
            why += f", {counts['matched']} of them with an energy of each"
        return _Matched(
            means_j, counts["matched"], counts["shared"], f"{why}; {problem}" if problem else why
        )


def _rows(pairs: Sequence[_Pair], comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the pairs' comparisons in one quantity, corrected for their number."""
    corrected = with_holm(comparisons)
    return [
        {**asdict(comparison), "label": pair.label}
        for pair, comparison in zip(pairs, corrected, strict=True)
    ]


def _with_name(runs: pa.Table, name: str) -> pa.Table:
    """Return the runs of a side under its name; of what is asked twice none is left out."""
    for column, text in (("experiment", name), ("settings_in_force", None)):
        place = runs.schema.get_field_index(column)
        values = pa.array([text] * runs.num_rows, pa.string())
        runs = runs.set_column(place, column, values)
    return runs


def _has_energy(answer: Row) -> bool:
    return answer["request_energy_j"] is not None


def _requests(path: Path) -> list[dict[str, Any]]:
    table = read_parquet(path, [*_NUMBERS, *_ENERGIES])
    try:
        columns = {name: table[name].cast(kind) for name, kind in _NUMBERS.items()}
        for name, kind in _ENERGIES.items():
            is_present = name in table.column_names
            columns[name] = table[name].cast(kind) if is_present else pa.nulls(len(table), kind)
    except (KeyError, pa.ArrowException) as error:
        raise ResultsError(f"{path} is no table of requests: {error}") from error
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows
