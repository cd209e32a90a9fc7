"""Matched requests: what two experiments need for the prompts that both answered at one length.

Where answers end by themselves, joules per request are for answers of different lengths. These are
the joules of just those requests of a cycle that asked the same and got answers of the same length.
They are chosen by the outcome and are often the short ones, so that what they show need not hold
for long answers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from llenergymeasure.analysis.relations import LENGTHS_APART
from llenergymeasure.analysis.selection import Row
from llenergymeasure.parquet import read_parquet
from llenergymeasure.results.layout import StudyFolder

MATCHED = "energy_per_matched_request_j"

_FIELDS = ["prompt", "output_tokens", "request_energy_j", "request_energy_unavailable"]


class Side(NamedTuple):
    """The runs of one experiment.

    Attributes:
        folder: its study's, whose runs keep ``requests.parquet``.
        experiment: its id.
        used: the runs in its means.
    """

    folder: StudyFolder
    experiment: str
    used: Sequence[Row]


class MatchedRequests(NamedTuple):
    """Joules of two experiments' matched requests.

    Attributes:
        means_j: of each cycle that has any, the mean of either side.
        matched: how many requests match, of all cycles.
        asked: how many prompts of a cycle both answered.
        unavailable: why an answer of the right length does not match: it has no energy.
    """

    means_j: dict[int, tuple[float, float]]
    matched: int
    asked: int
    unavailable: str | None = None


NONE_MATCHED = MatchedRequests({}, 0, 0)


def matched_requests(a: Side, b: Side) -> MatchedRequests:
    """Return the joules of the requests that two experiments answered at one length.

    Raises:
        ResultsError: a run's table of requests is gone or cannot be read.
    """
    runs_b = {run["cycle"]: run for run in b.used}
    means_j = {}
    matched = asked = 0
    unavailable = None
    for run in a.used:
        cycle, other = run["cycle"], runs_b.get(run["cycle"])
        if other is None or run["prompt_hash"] != other["prompt_hash"]:
            continue
        of_a, of_b = (_answers(side.folder.run(side.experiment, cycle).requests) for side in (a, b))
        both = [(of_a[each], of_b[each]) for each in of_a if each in of_b]
        alike = [pair for pair in both if _alike(*(answer["output_tokens"] for answer in pair))]
        known = [pair for pair in alike if all(math.isfinite(_energy_j(answer)) for answer in pair)]
        reasons = (answer.get("request_energy_unavailable") for pair in alike for answer in pair)
        unavailable = unavailable or next(filter(None, reasons), None)
        asked, matched = asked + len(both), matched + len(known)
        if known:
            mean_a, mean_b = (fmean(map(_energy_j, side)) for side in zip(*known, strict=True))
            means_j[cycle] = (mean_a, mean_b)
    return MatchedRequests(means_j, matched, asked, unavailable)


def _alike(one: int, other: int) -> bool:
    return max(one, other) <= LENGTHS_APART * min(one, other)


def _energy_j(answer: Row) -> float:
    """Return an answer's energy, NaN if it has none; tables of earlier versions never have."""
    energy_j = answer.get("request_energy_j")
    return math.nan if energy_j is None else float(energy_j)


def _answers(path: Path) -> dict[tuple[int, int], Row]:
    """Return the answers of a run by their prompt and how often it was asked before."""
    asked: Counter[int] = Counter()
    answers = {}
    for row in read_parquet(path, _FIELDS).to_pylist():
        if row["output_tokens"]:
            answers[row["prompt"], asked[row["prompt"]]] = row
        asked[row["prompt"]] += 1
    return answers
