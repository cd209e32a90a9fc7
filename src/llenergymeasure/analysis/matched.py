"""Matched requests: what two experiments need for the prompts that both answered at one length.

Where answers end by themselves, joules per request are for answers of different lengths. These are
the joules of just those requests of a cycle that asked the same and got as many tokens. They are
chosen by the outcome and are often the short ones, so that what they show need not hold for long
answers. Lengths that are only near would not do: where one side writes more, most of the near pairs
are longer on that side.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa

from llenergymeasure.analysis.selection import Row
from llenergymeasure.errors import ResultsError
from llenergymeasure.parquet import read_parquet
from llenergymeasure.results.layout import StudyFolder

MATCHED = "energy_per_matched_request_j"

_NUMBERS = {"prompt": pa.int64(), "input_tokens": pa.int64(), "output_tokens": pa.int64()}
_ENERGIES = {"request_energy_j": pa.float64(), "request_energy_unavailable": pa.string()}
"""Tables of earlier versions have none of them."""


class Side(NamedTuple):
    """The runs of one experiment.

    Attributes:
        folder: its study's, whose runs keep ``requests.parquet``.
        experiment: its id.
        used: the runs in its means.
        config: its settings.
    """

    folder: StudyFolder
    experiment: str
    used: Sequence[Row]
    config: Mapping[str, Any]

    @property
    def order(self) -> tuple[Any, ...]:
        """What the place of a prompt in a run depends on, apart from the prompts themselves."""
        order = self.config.get("dataset_order")
        return order, self.config.get("random_seed") if order == "shuffled" else None

    def answers(self, cycle: int) -> dict[tuple[int, ...], Row]:
        """Return a run's answers by their prompt, its tokens and how often it was asked before.

        Raises:
            ResultsError: the table is gone, or does not hold what it should.
        """
        asked: Counter[int] = Counter()
        answers: dict[tuple[int, ...], Row] = {}
        for row in _rows(self.folder.run(self.experiment, cycle).requests):
            if row["prompt"] is None:
                continue
            if row["output_tokens"]:
                answers[row["prompt"], row["input_tokens"] or 0, asked[row["prompt"]]] = row
            asked[row["prompt"]] += 1
        return answers


class MatchedRequests(NamedTuple):
    """Joules of two experiments' matched requests.

    Attributes:
        means_j: of each cycle that has any, the mean of either side.
        matched: how many requests match, of all cycles.
        asked: how many prompts of a cycle both answered.
        why_few: why there are no more.
    """

    means_j: dict[int, tuple[float, float]]
    matched: int
    asked: int
    why_few: str


def matched_requests(a: Side, b: Side) -> MatchedRequests:
    """Return the joules of the requests that two experiments answered with as many tokens."""
    hashes_b = {run["cycle"]: run["prompt_hash"] for run in b.used}
    common = [run for run in a.used if run["cycle"] in hashes_b]
    same = [run["cycle"] for run in common if run["prompt_hash"] == hashes_b[run["cycle"]]]
    if not same or a.order != b.order:
        return MatchedRequests({}, 0, 0, "the prompts, or their order, are not the same")
    means_j = {}
    alike = matched = asked = 0
    missing = None
    for cycle in same:
        try:
            of_a, of_b = a.answers(cycle), b.answers(cycle)
        except ResultsError as error:
            missing = missing or str(error)
            continue
        both = [(of_a[each], of_b[each]) for each in of_a if each in of_b]
        equal = [
            (one, other) for one, other in both if one["output_tokens"] == other["output_tokens"]
        ]
        known = [pair for pair in equal if all(_has_energy(answer) for answer in pair)]
        reasons = (answer["request_energy_unavailable"] for pair in equal for answer in pair)
        missing = missing or next(filter(None, reasons), None)
        asked, alike, matched = asked + len(both), alike + len(equal), matched + len(known)
        if known:
            mean_a, mean_b = (
                fmean(answer["request_energy_j"] for answer in side)
                for side in zip(*known, strict=True)
            )
            means_j[cycle] = (mean_a, mean_b)
    why = f"{alike} of {asked} answers are as long in both"
    if matched < alike:
        why += f", {matched} of them with an energy of each"
    return MatchedRequests(means_j, matched, asked, f"{why}; {missing}" if missing else why)


def _has_energy(answer: Row) -> bool:
    return answer["request_energy_j"] is not None


def _rows(path: Path) -> list[dict[str, Any]]:
    table = read_parquet(path, [*_NUMBERS, *_ENERGIES])
    try:
        columns = {name: table[name].cast(kind) for name, kind in _NUMBERS.items()}
        for name, kind in _ENERGIES.items():
            known = name in table.column_names
            columns[name] = table[name].cast(kind) if known else pa.nulls(len(table), kind)
    except (KeyError, pa.ArrowException) as error:
        raise ResultsError(f"{path} is no table of requests: {error}") from error
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows
