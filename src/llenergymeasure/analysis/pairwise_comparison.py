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
    ROUNDING_REL,
    Reals,
    column_means,
    column_variances,
    finite,
    holm_optional,
    t_isf,
    t_quantile,
    t_sf,
)

MAX_ALL_PAIRS = 40
"""Up to this many experiments, every pair is compared; otherwise each with the first with data."""

MIN_SHARED_CYCLES = 2

SIGNIFICANCE_LEVEL = 0.05
"""A difference is shown where the p value, corrected for all pairs, is below this."""

POWER = 0.8
"""The probability that the cycles of :func:`cycles_to_decide` show the difference."""

MAX_CYCLES_TO_DECIDE = 1000
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
            is shown, or where more than :data:`MAX_CYCLES_TO_DECIDE` would be needed.
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
    n_a, n_b, shared = (np.isfinite(logs).sum(axis=0) for logs in (logs_a, logs_b, differences))
    blocked = _blocked(data, first, second)
    paired = blocked & (shared >= MIN_SHARED_CYCLES)
    unpaired = ~paired & (n_a >= 2) & (n_b >= 2)
    methods = [paired, unpaired]
    with np.errstate(invalid="ignore", divide="ignore"):
        variances = column_variances(data.logs) / np.isfinite(data.logs).sum(axis=0)
        if unpaired.any():
            # In differences within cycles it cancels; in the difference of two means it does not.
            variances *= [
                widening(*columns) ** 2 for columns in zip(data.order.T, data.logs.T, strict=True)
            ]
        var_a, var_b = variances[first], variances[second]
        welch = (var_a + var_b) ** 2 / (var_a**2 / (n_a - 1) + var_b**2 / (n_b - 1))
        mean_difference = column_means(logs_b) - column_means(logs_a)
        center = np.select(methods, [column_means(differences), mean_difference], np.nan)
        squared_error = np.select(
            methods, [column_variances(differences) / shared, var_a + var_b], np.nan
        )
        freedom = np.select(methods, [shared - 1.0, welch], np.nan)
    half_width, p = _t_interval(center, np.sqrt(squared_error), freedom)
    return [
        Comparison(
            experiment_a=data.experiments[first[pair]],
            experiment_b=data.experiments[second[pair]],
            method="paired" if paired[pair] else "unpaired" if unpaired[pair] else None,
            n=int(shared[pair]) if paired[pair] else None,
            n_a=int(n_a[pair]),
            n_b=int(n_b[pair]),
            ratio=_exp(center[pair]),
            ci95_low=_exp(center[pair] - half_width[pair]),
            ci95_high=_exp(center[pair] + half_width[pair]),
            degrees_of_freedom=finite(freedom[pair]),
            p=finite(p[pair]),
            unavailable="; ".join(
                _reasons(
                    int(n_a[pair]),
                    int(n_b[pair]),
                    paired=bool(paired[pair]),
                    blocked=bool(blocked[pair]),
                    scatters=bool(np.isfinite(p[pair])),
                )
            )
            or None,
        )
        for pair in range(len(first))
    ]


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with the values that depend on their number."""
    tests = sum(pair.p is not None for pair in comparisons)
    p_values = holm_optional([pair.p for pair in comparisons])
    return [
        replace(
            pair,
            p_holm=p_holm,
            cycles_to_decide=None
            if p_holm is None or p_holm < SIGNIFICANCE_LEVEL
            else cycles_to_decide(pair, tests),
        )
        for pair, p_holm in zip(comparisons, p_values, strict=True)
    ]


def cycles_to_decide(pair: Comparison, tests: int) -> int | None:
    """Return how many cycles would show a difference of the size seen, in most studies.

    The size and the spread are assumed to be the true ones, and the level is the strictest that
    Holm's correction may require. The spread of few cycles is itself uncertain, and so is this
    number: it distinguishes 10 from 100, not 10 from 12.

    Args:
        pair: a comparison.
        tests: how many pairs of the quantity were tested.
    """
    if pair.ratio is None or pair.ci95_high is None or pair.degrees_of_freedom is None:
        return None
    runs = pair.n or max(pair.n_a, pair.n_b)
    error = math.log(pair.ci95_high / pair.ratio) / t_quantile(pair.degrees_of_freedom)
    errors_of_one_run = abs(math.log(pair.ratio)) / (error * math.sqrt(runs))
    deciding = np.flatnonzero(errors_of_one_run * np.sqrt(_CYCLE_COUNTS) >= _errors_needed(tests))
    return max(int(_CYCLE_COUNTS[deciding[0]]), runs + 1) if len(deciding) else None


_CYCLE_COUNTS = np.arange(2, MAX_CYCLES_TO_DECIDE + 1)


@cache
def _errors_needed(tests: int) -> Reals:
    """Return for each of ``_CYCLE_COUNTS`` how many standard errors a difference must have."""
    freedom = _CYCLE_COUNTS - 1
    needed: Reals = t_isf(SIGNIFICANCE_LEVEL / 2 / tests, freedom) + t_isf(1 - POWER, freedom)
    return needed


def _pairs(has_data: Sequence[bool]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs to compare, of experiments that have data or not."""
    experiments = len(has_data)
    if experiments > MAX_ALL_PAIRS:
        baseline = int(np.argmax(has_data))
        others = np.delete(np.arange(experiments), baseline)
        return np.full(len(others), baseline), others
    all_pairs = np.array(list(combinations(range(experiments), 2)), np.intp).reshape(-1, 2)
    return all_pairs[:, 0], all_pairs[:, 1]


def _blocked(data: Blocks, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether the cycles of each pair were blocks: apart in time, on one machine each."""
    order_a, order_b = data.host_order[:, first], data.host_order[:, second]
    same_host = data.hosts[:, first] == data.hosts[:, second]
    shared = np.isfinite(order_a) & np.isfinite(order_b)
    # The order is counted on each machine: an offset larger than any of them keeps machines apart.
    host_offset = np.nanmax(data.host_order, initial=0.0) + 2
    begin = np.minimum(order_a, order_b) + host_offset * data.hosts[:, first]
    end = np.maximum(order_a, order_b) + host_offset * data.hosts[:, first]
    # Cycles that only one of the two has sort to the end, as infinities, and are apart.
    by_begin = np.argsort(np.where(shared, begin, np.inf), axis=0, kind="stable")
    begin = np.take_along_axis(np.where(shared, begin, np.inf), by_begin, axis=0)
    end = np.take_along_axis(np.where(shared, end, np.inf), by_begin, axis=0)
    are_apart = (end[:-1] < begin[1:]) | np.isinf(begin[1:])
    blocked: NDArray[np.bool_] = are_apart.all(axis=0) & (same_host | ~shared).all(axis=0)
    return blocked


def _t_interval(center: Reals, error: Reals, freedom: Reals) -> tuple[Reals, Reals]:
    """Return half width and p value; differences that are only rounding show nothing."""
    scatters = np.isfinite(error) & (error > ROUNDING_REL)
    half_width, p = np.full(error.shape, np.nan), np.full(error.shape, np.nan)
    half_width[scatters] = t_isf(0.025, freedom[scatters]) * error[scatters]
    p[scatters] = 2 * t_sf(np.abs(center[scatters]) / error[scatters], freedom[scatters])
    return half_width, p


def _reasons(n_a: int, n_b: int, *, paired: bool, blocked: bool, scatters: bool) -> Iterator[str]:
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
    if not scatters:
        yield "interval: repeats do not scatter, and nothing says how sure the ratio is"


def _exp(value: float) -> float | None:
    return float(np.exp(value)) if np.isfinite(value) else None
