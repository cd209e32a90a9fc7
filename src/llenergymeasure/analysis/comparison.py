"""Experiments compared in pairs: the ratio, its interval, and a correction for all pairs.

Within a cycle two runs share what the machine was like, so the difference of their logarithms is
free of it. The mean of these differences is the ratio's logarithm, with a t interval over cycles
(paired t test, Student 1908). Where the cycles were not blocks in time, the runs are compared
unpaired, with an interval for unequal variances (Welch 1947, Biometrika 34, 28-35).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.blocks import Blocks, widening
from llenergymeasure.analysis.statistics import (
    ROUNDING,
    Reals,
    column_means,
    column_variances,
    finite,
    holm_known,
    t_quantile,
    t_tail,
    t_upper,
)

MAX_ALL_PAIRS = 40
"""Up to this many experiments, every pair is compared; otherwise each with the first with data."""

MIN_SHARED_CYCLES = 2

LEVEL = 0.05
"""A difference is shown where the p value, corrected for all pairs, is below this."""

POWER = 0.8
"""The probability that the cycles of :func:`cycles_to_decide` show the difference."""

MOST_CYCLES = 1000
"""A larger number of cycles is not recommended."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How experiment B relates to experiment A in one quantity: a row of ``comparisons.parquet``.

    Attributes:
        metric: the quantity.
        experiment_a: the experiment that is compared with.
        experiment_b: the other experiment.
        label_a: short name of A.
        label_b: short name of B.
        method: ``paired`` by cycle or ``unpaired``; None where neither can be.
        n: cycles that both have (paired), or None.
        n_a: runs of A.
        n_b: runs of B.
        ratio: B over A, of geometric means.
        ci95_low: lower end of its 95 % t interval.
        ci95_high: upper end.
        degrees_of_freedom: of the interval.
        p: two-sided p value of no difference.
        p_holm: the same, corrected for all pairs of the quantity.
        shared_u95_rel: half width of what the sensors leave open of the ratio, in neither interval
            nor p; None if there is none.
        cycles_to_decide: cycles in all that would show a difference of this size; None where it
            is shown, or where more than :data:`MOST_CYCLES` would be needed.
        differs: what the runs of A and B differ in, apart from their settings.
        unavailable: what is not known, and why.
    """

    metric: str = ""
    experiment_a: str
    experiment_b: str
    label_a: str = ""
    label_b: str = ""
    method: str | None = None
    n: int | None = None
    n_a: int
    n_b: int
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    degrees_of_freedom: float | None = None
    p: float | None = None
    p_holm: float | None = None
    shared_u95_rel: float | None = None
    cycles_to_decide: int | None = None
    differs: list[str] = field(default_factory=list)
    unavailable: str | None = None


def compare(data: Blocks) -> list[Comparison]:
    """Return every pair's comparison, in the order of the experiments, not yet corrected."""
    first, second = _pairs([bool(column.any()) for column in np.isfinite(data.logs).T])
    if not len(first):
        return []
    logs_a, logs_b = data.logs[:, first], data.logs[:, second]
    differences = logs_b - logs_a
    n_a, n_b, shared = (np.isfinite(each).sum(axis=0) for each in (logs_a, logs_b, differences))
    blocked = _blocked(data, first, second)
    paired = blocked & (shared >= MIN_SHARED_CYCLES)
    unpaired = ~paired & (n_a >= 2) & (n_b >= 2)
    methods = [paired, unpaired]
    with np.errstate(invalid="ignore", divide="ignore"):
        of_each = column_variances(data.logs) / np.isfinite(data.logs).sum(axis=0)
        if unpaired.any():
            # In differences within cycles it cancels; in the difference of two means it does not.
            of_each *= [
                widening(*each) ** 2 for each in zip(data.began.T, data.logs.T, strict=True)
            ]
        of_a, of_b = of_each[first], of_each[second]
        welch = (of_a + of_b) ** 2 / (of_a**2 / (n_a - 1) + of_b**2 / (n_b - 1))
        apart = column_means(logs_b) - column_means(logs_a)
        center = np.select(methods, [column_means(differences), apart], np.nan)
        square = np.select(methods, [column_variances(differences) / shared, of_a + of_b], np.nan)
        freedom = np.select(methods, [shared - 1.0, welch], np.nan)
    half_width, p = _t_interval(center, np.sqrt(square), freedom)
    return [
        Comparison(
            experiment_a=data.experiments[first[at]],
            experiment_b=data.experiments[second[at]],
            method="paired" if paired[at] else "unpaired" if unpaired[at] else None,
            n=int(shared[at]) if paired[at] else None,
            n_a=int(n_a[at]),
            n_b=int(n_b[at]),
            ratio=_exp(center[at]),
            ci95_low=_exp(center[at] - half_width[at]),
            ci95_high=_exp(center[at] + half_width[at]),
            degrees_of_freedom=finite(freedom[at]),
            p=finite(p[at]),
            unavailable="; ".join(
                _reasons(
                    int(n_a[at]),
                    int(n_b[at]),
                    paired=bool(paired[at]),
                    blocked=bool(blocked[at]),
                    told=bool(np.isfinite(p[at])),
                )
            )
            or None,
        )
        for at in range(len(first))
    ]


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with the values that depend on their number."""
    tests = sum(each.p is not None for each in comparisons)
    p_values = holm_known([each.p for each in comparisons])
    return [
        replace(
            each,
            p_holm=p_holm,
            cycles_to_decide=None
            if p_holm is None or p_holm < LEVEL
            else cycles_to_decide(each, tests),
        )
        for each, p_holm in zip(comparisons, p_values, strict=True)
    ]


def cycles_to_decide(found: Comparison, tests: int) -> int | None:
    """Return how many cycles would show a difference of the size seen, in most studies.

    The size and the spread are assumed to be the true ones, and the level is the strictest that
    Holm's correction may require. The spread of few cycles is itself uncertain, and so is this
    number: it distinguishes 10 from 100, not 10 from 12.

    Args:
        found: a comparison.
        tests: how many pairs of the quantity were tested.
    """
    if found.ratio is None or found.ci95_high is None or found.degrees_of_freedom is None:
        return None
    runs = found.n or max(found.n_a, found.n_b)
    error = math.log(found.ci95_high / found.ratio) / t_quantile(found.degrees_of_freedom)
    seen = abs(math.log(found.ratio)) / (error * math.sqrt(runs))
    enough = np.flatnonzero(seen * np.sqrt(_CYCLES) >= _errors_needed(tests))
    return max(int(_CYCLES[enough[0]]), runs + 1) if len(enough) else None


_CYCLES = np.arange(2, MOST_CYCLES + 1)


@cache
def _errors_needed(tests: int) -> Reals:
    """Return for each of ``_CYCLES`` how many standard errors a difference must have."""
    needed: Reals = t_upper(LEVEL / 2 / tests, _CYCLES - 1) + t_upper(1 - POWER, _CYCLES - 1)
    return needed


def _pairs(known: Sequence[bool]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs to compare, of experiments that have data or not."""
    experiments = len(known)
    if experiments > MAX_ALL_PAIRS:
        baseline = int(np.argmax(known))
        others = np.delete(np.arange(experiments), baseline)
        return np.full(len(others), baseline), others
    all_pairs = np.array(list(combinations(range(experiments), 2)), np.intp).reshape(-1, 2)
    return all_pairs[:, 0], all_pairs[:, 1]


def _blocked(data: Blocks, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether the cycles of each pair were blocks: apart in time, on one machine each."""
    places_a, places_b = data.places[:, first], data.places[:, second]
    same_host = data.hosts[:, first] == data.hosts[:, second]
    shared = np.isfinite(places_a) & np.isfinite(places_b)
    # Places are counted on each machine: an offset larger than any of them keeps machines apart.
    far = np.nanmax(data.places, initial=0.0) + 2
    begin = np.minimum(places_a, places_b) + far * data.hosts[:, first]
    end = np.maximum(places_a, places_b) + far * data.hosts[:, first]
    # Cycles that only one of the two has sort to the end, as infinities, and are apart.
    by_begin = np.argsort(np.where(shared, begin, np.inf), axis=0, kind="stable")
    begin = np.take_along_axis(np.where(shared, begin, np.inf), by_begin, axis=0)
    end = np.take_along_axis(np.where(shared, end, np.inf), by_begin, axis=0)
    apart = (end[:-1] < begin[1:]) | np.isinf(begin[1:])
    blocked: NDArray[np.bool_] = apart.all(axis=0) & (same_host | ~shared).all(axis=0)
    return blocked


def _t_interval(center: Reals, error: Reals, freedom: Reals) -> tuple[Reals, Reals]:
    """Return half width and p value; differences that are only rounding show nothing."""
    told = np.isfinite(error) & (error > ROUNDING)
    half_width, p = np.full(error.shape, np.nan), np.full(error.shape, np.nan)
    half_width[told] = t_upper(0.025, freedom[told]) * error[told]
    p[told] = 2 * t_tail(np.abs(center[told]) / error[told], freedom[told])
    return half_width, p


def _reasons(n_a: int, n_b: int, *, paired: bool, blocked: bool, told: bool) -> Iterator[str]:
    if not paired and min(n_a, n_b) < 2:
        yield f"ratio: it needs two runs of each, there are {n_a} and {n_b}"
        return
    if not paired:
        why = (
            "fewer than two cycles are shared"
            if blocked
            else "the runs of a cycle did not follow each other on one machine"
        )
        yield f"pairing: {why}"
    if not told:
        yield "interval: repeats do not scatter, and nothing says how sure the ratio is"


def _exp(value: float) -> float | None:
    return float(np.exp(value)) if np.isfinite(value) else None
