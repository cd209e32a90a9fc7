"""Means and intervals over a study's cycles.

Two kinds of uncertainty are kept apart. What differs from cycle to cycle (the machine, the engine,
and the random and resolution part of the meter, ``u95_j``) is already in the spread of the cycles:
adding ``u95_j`` to an interval computed from them would count it twice. What is the same in every
cycle (the sensor's gain, ``u_sys_j``) is not in the spread, and more cycles do not make it smaller:
it is reported next to the interval as a separate band. (JCGM 100:2008, "GUM", 4.2 and
4.3: evaluation of Type A and Type B, and F.1.1.2 on influences that repeats share.)
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Reals: TypeAlias = NDArray[np.float64]

ROUNDING_REL = 1e-13
"""A relative standard error below this is only rounding."""

MIN_VALUES_GRUBBS = 5
OUTLIER_LEVEL = 0.01

MIN_VALUES_LAG1 = 3

STRONG_LAG1 = 0.6
"""Correlation of successive cycles beyond which an interval that ignores it holds 70 % or less."""

ONE_SIDED = 1.645
"""One-sided 5 % point of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """The mean of repeats and the 95 % interval of the true mean.

    Attributes:
        n: how many values.
        mean: their arithmetic mean; None without a value.
        sd: sample standard deviation (divisor n - 1); None below two values.
        ci95_low: lower end of the t interval; None below two values.
        ci95_high: upper end.
        lag1: correlation of successive values; None below three, or where they are equal.
        correlated: whether that is more than chance; None where the values do not show it.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    lag1: float | None = None
    correlated: bool | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean, spread and 95 % t interval of ``values``, given in the order of time.

    The interval of positive values is ``mean · exp(±t(0.975, n - 1) · s / √n)``, ``s`` being the
    standard deviation of the logarithms: a t interval (Student 1908) that never goes below zero.
    Otherwise it is the plain one, cut at zero where no value is negative. It is widened where
    successive values are correlated (:func:`autocorrelation`).
    """
    n = len(values)
    if n == 0:
        return Estimate(n=0)
    mean = statistics.fmean(values)
    if n == 1:
        return Estimate(n=1, mean=mean)
    sd = statistics.stdev(values)
    least = min(values)
    scaled = [math.log(value) for value in values] if least > 0 else list(values)
    correlation = autocorrelation(scaled)
    half_width = t_quantile(n - 1) * statistics.stdev(scaled) / math.sqrt(n) * correlation.widening
    if least > 0:
        low, high = log_interval_around(mean, half_width)
    else:
        low, high = mean - half_width, mean + half_width
        low = max(low, 0.0) if least == 0 else low
    return Estimate(n, mean, sd, low, high, correlation.lag1, correlation.correlated)


def log_interval_around(mean: float, log_half_width: float) -> tuple[float, float]:
    """Return the ends of an interval on the logarithm around an arithmetic mean.

    On the logarithm it is the geometric mean that a t interval is exact for; the arithmetic one
    lies half a variance above it, which at a coefficient of variation of 5 % is 0.1 %. Around the
    arithmetic mean the interval holds the true arithmetic mean as often as it should
    (``benchmarks/claims.py``), which around the geometric one it does not.
    """
    return mean * math.exp(-log_half_width), mean * math.exp(log_half_width)


def energy_per_correct(
    energy: Estimate, share: float, items: float
) -> tuple[float, float | None, float | None] | None:
    """Return energy per right answer and its 95 % interval; None if none was right.

    Both parts are uncertain: the energy of a request by its cycles, the share of right answers by
    the items, which stand for others like them and are the same in every cycle, so that cycles add
    nothing. Its interval is Wilson's (1927, J. Am. Stat. Assoc. 22, 209-212); the distances of the
    ends add in quadrature on the logarithm (Donner and Zou 2012, Stat. Methods Med. Res. 21,
    347-359).

    Args:
        energy: of a request.
        share: of right answers.
        items: in one cycle.
    """
    if energy.mean is None or share <= 0:
        return None
    mean = energy.mean / share
    if energy.ci95_low is None or energy.ci95_high is None or energy.ci95_low <= 0:
        return mean, None, None
    least, most = share_interval(share, items)
    down = math.hypot(math.log(energy.mean / energy.ci95_low), math.log(most / share))
    up = math.hypot(math.log(energy.ci95_high / energy.mean), math.log(share / least))
    return mean, mean * math.exp(-down), mean * math.exp(up)


def share_interval(share: float, items: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of so many items."""
    z = t_quantile(math.inf)
    middle = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = math.sqrt(share * (1 - share) / items + (z / (2 * items)) ** 2) * z / (1 + z * z / items)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True)
class Autocorrelation:
    """Whether successive values are alike, and what that does to the error of their mean.

    Attributes:
        lag1: correlation of each value with the next; None below three values, or of equal ones.
        correlated: whether that is more than chance; None where so few values do not show it.
        widening: by how much the mean's standard error exceeds that of independent values; 1
            unless ``correlated``.
    """

    lag1: float | None = None
    correlated: bool | None = None
    widening: float = 1.0


def autocorrelation(values: Sequence[float]) -> Autocorrelation:
    """Return whether successive values, in the order of time, are correlated.

    ``correlated`` is True for 5 % of independent series (mean -1/n and variance
    (n - 2)² / (n² (n - 1)) of the estimate: Moran 1948, Biometrika 35, 255-260), and False for at
    most 5 % of those with a true correlation of :data:`STRONG_LAG1`, r, whose
    estimate is (1 + 4 r) / n too small on average (Marriott and Pope 1954, Biometrika 41, 390-402).
    """
    n = len(values)
    mean = statistics.fmean(values)
    residuals = [value - mean for value in values]
    total = math.fsum(value * value for value in residuals)
    if n < MIN_VALUES_LAG1 or total <= n * (ROUNDING_REL * max(1.0, abs(mean))) ** 2:
        return Autocorrelation()
    lag1 = math.fsum(value * next_value for value, next_value in pairwise(residuals)) / total
    spread = (n - 2) / (n * math.sqrt(n - 1))
    if lag1 > ONE_SIDED * spread - 1 / n:
        return Autocorrelation(lag1, True, _widening(lag1, n))
    weak = lag1 < STRONG_LAG1 - (1 + 4 * STRONG_LAG1) / n - ONE_SIDED * spread
    return Autocorrelation(lag1, False if weak else None)


def _widening(lag1: float, n: int) -> float:
    """Return the root of the variance inflation of a first-order autoregression's mean.

    Correlation makes the mean's error larger and the spread that is seen smaller (Zięba 2010,
    Metrol. Meas. Syst. 17, 3-16). At least two values are taken to be independent.
    """
    rho = min(max(lag1 + (1 + 4 * max(lag1, 0.0)) / n, 0.0), 0.99)
    inflation = min((1 + rho) / (1 - rho), n / 2)
    return math.sqrt(inflation * (n - 1) / (n - inflation))


def finite(value: float) -> float | None:
    """Return a number, or None for one that is not finite."""
    return float(value) if np.isfinite(value) else None


def column_means(values: Reals) -> Reals:
    """Return the mean of the known values along the first axis; NaN where there are none."""
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Reals = np.where(present, values, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean


def column_variances(values: Reals) -> Reals:
    """Return the sample variance along the first axis; NaN below two known values."""
    present = np.isfinite(values)
    n = present.sum(axis=0)
    residuals = np.where(present, values - column_means(values), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance: Reals = np.where(n >= 2, (residuals * residuals).sum(axis=0) / (n - 1), np.nan)
    return variance


@cache
def t_quantile(degrees_of_freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    return float(t_isf(0.025, degrees_of_freedom))


def t_isf(tail: Any, degrees_of_freedom: Any) -> Any:
    """Return what Student's t exceeds with the probability ``tail``; numbers or arrays."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return -stdtrit(degrees_of_freedom, tail)


def t_sf(value: Any, degrees_of_freedom: Any) -> Any:
    """Return the probability that Student's t exceeds ``value``; numbers or arrays."""
    from scipy.special import stdtr

    return stdtr(degrees_of_freedom, -np.asarray(value))


def f_isf(tail: float, dfn: Any, dfd: Any) -> Any:
    """Return what a ratio of two variances exceeds by chance alone; NaN without freedom."""
    from scipy.special import fdtri

    return fdtri(dfn, dfd, 1 - tail)


def outliers(values: Sequence[float]) -> list[int]:
    """Return the places of outliers, by Grubbs' test at the level 0.01.

    Grubbs 1969 (Technometrics 11, 1-21), repeated while at least five values are left. They
    should be looked at, never dropped: a mean without them is the mean of other runs.
    """
    places = list(range(len(values)))
    found: list[int] = []
    while len(places) >= MIN_VALUES_GRUBBS:
        n = len(places)
        mean = statistics.fmean(values[place] for place in places)
        sd = statistics.stdev([values[place] for place in places])
        farthest = max(places, key=lambda place: abs(values[place] - mean))
        quantile = float(t_isf(OUTLIER_LEVEL / (2 * n), n - 2))
        limit = (n - 1) / math.sqrt(n) * math.sqrt(quantile**2 / (n - 2 + quantile**2))
        if sd == 0 or abs(values[farthest] - mean) / sd <= limit:
            break
        found.append(farthest)
        places.remove(farthest)
    return sorted(found)


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


def holm_optional(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for their number; None stays None and counts as no test."""
    return [finite(p) for p in holm(np.array(p_values, np.float64))]
