"""Experiments compared in pairs: the ratio, how sure it is, and how many pairs were looked at.

Within a cycle two runs share what the machine was like, so the difference of their logarithms is
free of it. The mean of these differences is the ratio's logarithm, with a t interval over cycles
(paired t test, Student 1908). Where the cycles were not blocks in time, the runs are compared
unpaired, with an interval for unequal variances (Welch 1947, Biometrika 34, 28-35).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.blocks import Blocks, Covariate, Reals, adjusted, covariates
from llenergymeasure.analysis.statistics import MIN_BOOTSTRAP, bca_interval

MAX_ALL_PAIRS = 40
"""Up to so many experiments every pair is compared; of more, each with the first one planned."""

MIN_SHARED_CYCLES = 2

ROUNDING = 1e-13
"""A standard error of the logarithm below this is the arithmetic's own."""


@dataclass(frozen=True)
class Comparison:
    """How experiment B relates to experiment A in one quantity.

    Attributes:
        experiment_a: what is compared with.
        experiment_b: what is compared.
        method: ``paired`` by cycle or ``unpaired``; null where neither can be.
        n: cycles that both have (paired), or null.
        n_a: runs of A.
        n_b: runs of B.
        ratio: B over A, of geometric means, at the same order and temperature where these matter.
        ci95_low: lower end of its 95 % t interval.
        ci95_high: upper end.
        bca95_low: lower end of its BCa bootstrap interval over cycles.
        bca95_high: upper end.
        ratio_unadjusted: as measured, whatever the order and temperature.
        adjusted_for: the covariates taken out.
        effect_size: difference of the logarithms over their mean standard deviation (Hedges' g).
        degrees_of_freedom: of the interval.
        p: two-sided p value of no difference.
        p_holm: the same, corrected for all pairs of the quantity.
        order_difference_mean: mean place of B less that of A in the order; far from 0, a drift
            would show as a difference.
        unavailable: what cannot be told, and why.
    """

    experiment_a: str
    experiment_b: str
    method: str | None
    n: int | None
    n_a: int
    n_b: int
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    bca95_low: float | None = None
    bca95_high: float | None = None
    ratio_unadjusted: float | None = None
    adjusted_for: tuple[str, ...] = ()
    effect_size: float | None = None
    degrees_of_freedom: float | None = None
    p: float | None = None
    p_holm: float | None = None
    order_difference_mean: float | None = None
    unavailable: str | None = None


def compare(data: Blocks, seed: Sequence[int]) -> list[Comparison]:
    """Return every pair's comparison, in the order of the experiments.

    Args:
        data: one quantity of the study's runs.
        seed: of the bootstrap; the same seed gives the same intervals.
    """
    first, second = _pairs(len(data.experiments))
    if not len(first):
        return []
    found = covariates(data)
    pairs = _Pairs(data, first, second, found)
    bootstrap = _bootstrap(pairs, seed)
    names = tuple(each.name for each in found if each.used)
    return with_holm(
        [_comparison(data, pairs, place, bootstrap, names) for place in range(len(first))]
    )


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p values corrected for all of them together."""
    p_values = np.array([np.nan if each.p is None else each.p for each in comparisons])
    return [
        replace(each, p_holm=_known(corrected))
        for each, corrected in zip(comparisons, holm(p_values), strict=True)
    ]


def holm(p_values: Reals) -> Reals:
    """Return p values corrected for their number (Holm 1979, Scand. J. Stat. 6, 65-70).

    Rejecting where the corrected value is at most 0.05 errs in at most 5 % of studies, whatever
    the dependence. NaN stays NaN and counts as no test.
    """
    corrected = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    if not len(tested):
        return corrected
    ascending = tested[np.argsort(p_values[tested], kind="stable")]
    factors = len(tested) - np.arange(len(tested))
    corrected[ascending] = np.minimum(np.maximum.accumulate(p_values[ascending] * factors), 1.0)
    return corrected


def _pairs(experiments: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if experiments > MAX_ALL_PAIRS:
        return np.zeros(experiments - 1, np.intp), np.arange(1, experiments)
    all_pairs = np.array(list(combinations(range(experiments), 2)), np.intp).reshape(-1, 2)
    return all_pairs[:, 0], all_pairs[:, 1]


class _Pairs:
    """All pairs at once; every attribute holds one value a pair, NaN where there is none."""

    def __init__(
        self,
        data: Blocks,
        first: NDArray[np.intp],
        second: NDArray[np.intp],
        found: Sequence[Covariate],
    ) -> None:
        self.first, self.second = first, second
        logs = adjusted(data, found)
        raw_a, raw_b = data.logs[:, first], data.logs[:, second]
        self.differences = logs[:, second] - logs[:, first]
        self.shared = np.isfinite(self.differences).sum(axis=0)
        self.n_a, self.n_b = np.isfinite(raw_a).sum(axis=0), np.isfinite(raw_b).sum(axis=0)
        self.blocked = _blocked(data, first, second)
        self.is_paired = self.blocked & (self.shared >= MIN_SHARED_CYCLES)
        self.is_unpaired = ~self.is_paired & (self.n_a >= 2) & (self.n_b >= 2)
        self._paired(data, found)
        self._unpaired(logs[:, first], logs[:, second])
        places_a, places_b = data.places[:, first], data.places[:, second]
        self.order_gap = self._mean_difference(places_a, places_b)
        self.raw_log_ratio = self._mean_difference(raw_a, raw_b)
        self.effect = self._effect(logs[:, first], logs[:, second])
        self.half_width, self.p = _t_interval(self.log_ratio, self.error, self.freedom)

    def _mean_difference(self, of_a: Reals, of_b: Reals) -> Reals:
        return np.where(self.is_paired, _mean(of_b - of_a), _mean(of_b) - _mean(of_a))

    def _paired(self, data: Blocks, found: Sequence[Covariate]) -> None:
        """Take mean, standard error and degrees of freedom from the differences within cycles.

        The slopes were fitted to the same residuals; what they took is shared among the pairs,
        and their own doubt counts as far as the pair's mean places and temperatures differ.
        """
        n = self.shared
        used = [
            (each, values)
            for each, values in zip(found, (data.places, data.temperatures), strict=True)
            if each.used
        ]
        present = np.isfinite(data.logs)
        columns = max(int(present.any(axis=0).sum()) - 1, 1)
        lost = len(used) / columns
        freedom = n - 1 - lost
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = _variance(self.differences) * (n - 1) / freedom / n
        for each, values in used:
            gap = _mean(values[:, self.second] - values[:, self.first])
            variance = variance + (gap * (each.standard_error or 0.0)) ** 2
        usable = self.is_paired & (freedom > 0)
        self.log_ratio = np.where(self.is_paired, _mean(self.differences), np.nan)
        self.error = np.where(usable, np.sqrt(variance), np.nan)
        self.freedom = np.where(usable, freedom, np.nan)

    def _unpaired(self, logs_a: Reals, logs_b: Reals) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            of_a, of_b = _variance(logs_a) / self.n_a, _variance(logs_b) / self.n_b
            freedom = (of_a + of_b) ** 2 / (
                of_a**2 / np.maximum(self.n_a - 1, 1) + of_b**2 / np.maximum(self.n_b - 1, 1)
            )
        whole = np.where(np.isfinite(freedom), freedom, self.n_a + self.n_b - 2)
        at = self.is_unpaired
        self.log_ratio = np.where(at, _mean(logs_b) - _mean(logs_a), self.log_ratio)
        self.error = np.where(at, np.sqrt(of_a + of_b), self.error)
        self.freedom = np.where(at, whole, self.freedom)

    def _effect(self, logs_a: Reals, logs_b: Reals) -> Reals:
        """Return Hedges' g by the mean of both variances (Hedges 1981, J. Educ. Stat. 6, 107)."""
        freedom = self.n_a + self.n_b - 2
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt((_variance(logs_a) + _variance(logs_b)) / 2)
            small_sample = 1 - 3 / (4 * freedom - 1)
            g = self.log_ratio / sd * small_sample
        return np.where((self.n_a >= 2) & (self.n_b >= 2) & np.isfinite(g), g, np.nan)


def _blocked(data: Blocks, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return whether the cycles of each pair were blocks: apart in time, on one machine each."""
    places_a, places_b = data.places[:, first], data.places[:, second]
    same_host = data.hosts[:, first] == data.hosts[:, second]
    shared = np.isfinite(places_a) & np.isfinite(places_b)
    far = np.nanmax(data.places, initial=0.0) + 2
    begin = np.minimum(places_a, places_b) + far * data.hosts[:, first]
    end = np.maximum(places_a, places_b) + far * data.hosts[:, first]
    by_begin = np.argsort(np.where(shared, begin, np.inf), axis=0, kind="stable")
    begin = np.take_along_axis(np.where(shared, begin, np.inf), by_begin, axis=0)
    end = np.take_along_axis(np.where(shared, end, np.inf), by_begin, axis=0)
    apart = (end[:-1] < begin[1:]) | np.isinf(begin[1:])
    blocked: NDArray[np.bool_] = apart.all(axis=0) & (same_host | ~shared).all(axis=0)
    return blocked


def _t_interval(center: Reals, error: Reals, freedom: Reals) -> tuple[Reals, Reals]:
    """Return half width and p value; runs that differ by rounding alone tell nothing."""
    from scipy.stats import t

    told = np.isfinite(error) & (error > ROUNDING)
    half_width, p = np.full(error.shape, np.nan), np.full(error.shape, np.nan)
    half_width[told] = t.ppf(0.975, freedom[told]) * error[told]
    p[told] = 2 * t.sf(np.abs(center[told]) / error[told], freedom[told])
    return half_width, p


def _bootstrap(pairs: _Pairs, seed: Sequence[int]) -> tuple[Reals, Reals]:
    """Return the BCa interval of each paired ratio's logarithm, cycles resampled together."""
    low, high = np.full(len(pairs.p), np.nan), np.full(len(pairs.p), np.nan)
    for n in np.unique(pairs.shared[pairs.is_paired]):
        at = np.flatnonzero(pairs.is_paired & (pairs.shared == n))
        columns = pairs.differences[:, at].T
        values = columns[np.isfinite(columns)].reshape(len(at), n)
        low[at], high[at] = bca_interval(values, seed)
    return low, high


def _comparison(
    data: Blocks,
    pairs: _Pairs,
    place: int,
    bootstrap: tuple[Reals, Reals],
    names: tuple[str, ...],
) -> Comparison:
    center, half_width = float(pairs.log_ratio[place]), float(pairs.half_width[place])
    paired = bool(pairs.is_paired[place])
    told = bool(np.isfinite(center))
    return Comparison(
        experiment_a=data.experiments[pairs.first[place]],
        experiment_b=data.experiments[pairs.second[place]],
        method="paired" if paired else "unpaired" if told else None,
        n=int(pairs.shared[place]) if paired else None,
        n_a=int(pairs.n_a[place]),
        n_b=int(pairs.n_b[place]),
        ratio=_exp(center),
        ci95_low=_exp(center - half_width),
        ci95_high=_exp(center + half_width),
        bca95_low=_exp(float(bootstrap[0][place])),
        bca95_high=_exp(float(bootstrap[1][place])),
        ratio_unadjusted=_exp(float(pairs.raw_log_ratio[place])) if told else None,
        adjusted_for=names if told else (),
        effect_size=_known(pairs.effect[place]),
        degrees_of_freedom=_known(pairs.freedom[place]),
        p=_known(pairs.p[place]),
        order_difference_mean=_known(pairs.order_gap[place]),
        unavailable="; ".join(_reasons(pairs, place)) or None,
    )


def _reasons(pairs: _Pairs, place: int) -> Iterator[str]:
    n_a, n_b = int(pairs.n_a[place]), int(pairs.n_b[place])
    if not np.isfinite(pairs.log_ratio[place]):
        yield f"ratio: it needs two runs of each, there are {n_a} and {n_b}"
        return
    if not pairs.is_paired[place]:
        why = (
            "fewer than two cycles are shared"
            if pairs.blocked[place]
            else "the runs of a cycle did not follow each other on one machine"
        )
        yield f"pairing: {why}"
    if not np.isfinite(pairs.half_width[place]):
        yield "interval: the runs do not differ at all, or the covariates left no freedom"
    if not np.isfinite(pairs.p[place]):
        return
    if pairs.is_paired[place] and pairs.shared[place] < MIN_BOOTSTRAP:
        yield f"bootstrap: it needs {MIN_BOOTSTRAP} cycles, there are {int(pairs.shared[place])}"
    elif not pairs.is_paired[place]:
        yield "bootstrap: it is over shared cycles"


def _mean(values: Reals) -> Reals:
    """Return the mean of each column over what is known; NaN where nothing is."""
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Reals = np.where(present, values, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean


def _variance(values: Reals) -> Reals:
    """Return the sample variance of each column over what is known; NaN below two values."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    left = np.where(present, values - _mean(values), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance: Reals = np.where(n >= 2, (left * left).sum(axis=0) / (n - 1), np.nan)
    return variance


def _exp(value: float) -> float | None:
    return float(np.exp(value)) if np.isfinite(value) else None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
