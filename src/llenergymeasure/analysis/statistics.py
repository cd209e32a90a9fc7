"""Means and intervals over a study's cycles.

Two kinds of doubt are kept apart. What differs from cycle to cycle (the machine, the engine,
and the random and resolution part of the meter, ``u95_j``) is in the spread of the cycles
already: adding ``u95_j`` to an interval computed from them would count it twice. What is the
same in every cycle (the sensor's gain, ``u_sys_j``) is in no spread and no number of cycles
shrinks it: it stands beside the interval as a band of its own. (JCGM 100:2008, "GUM", 4.2 and
4.3: evaluation of Type A and Type B, and F.1.1.2 on influences that repeats share.)
"""

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Reals: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95

RESAMPLES = 1999
"""Draws of a bootstrap: the interval's ends move by less than a tenth of its width."""

BOOTSTRAP_ROWS = 1000
"""Means bootstrapped at once, so that memory does not grow with their number."""

MIN_BOOTSTRAP = 5
"""Fewer repeats have too few distinct resamples for a percentile in the tails."""

MIN_GRUBBS = 5
OUTLIER_LEVEL = 0.01


@dataclass(frozen=True)
class Estimate:
    """The mean of independent repeats and the 95 % interval of the true mean.

    Attributes:
        n: how many values.
        mean: their mean; None without a value.
        sd: sample standard deviation (divisor n - 1); None below two values.
        ci95_low: lower end of the t interval; None below two values.
        ci95_high: upper end.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean, spread and 95 % t interval of ``values``.

    The interval is ``mean ± t(0.975, n - 1) · sd / √n`` (Student 1908): exact where the cycles
    are independent and normal, and wide, as it should be, where they are few.
    """
    n = len(values)
    if n == 0:
        return Estimate(n=0)
    mean = statistics.fmean(values)
    if n == 1:
        return Estimate(n=1, mean=mean)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half_width = t_quantile(n - 1) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half_width, mean + half_width)


@cache
def t_quantile(degrees_of_freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t distribution."""
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, degrees_of_freedom))


def seed_of(design_hash: str, purpose: str) -> list[int]:
    """Return the seed of a study's random draws: its design's, another one for each purpose."""
    digits = hashlib.sha256(f"{design_hash}:{purpose}".encode()).digest()
    return [int.from_bytes(digits[place : place + 4], "little") for place in range(0, 16, 4)]


def bca_interval(values: Reals, seed: Sequence[int]) -> tuple[Reals, Reals]:
    """Return the 95 % interval of each row's mean, bias-corrected and accelerated.

    Efron 1987 (J. Am. Stat. Assoc. 82, 171-185), by :func:`scipy.stats.bootstrap`. All rows are
    resampled alike. NaN where a row has fewer than :data:`MIN_BOOTSTRAP` values or no spread.

    Args:
        values: one row for each mean, a column for each repeat.
        seed: of the draws.
    """
    from scipy.stats import bootstrap

    rows, n = values.shape
    low, high = np.full(rows, np.nan), np.full(rows, np.nan)
    spread = np.ptp(values, axis=1) > 0 if n else np.zeros(rows, bool)
    for start in range(0, rows, BOOTSTRAP_ROWS):
        at = start + np.flatnonzero(spread[start : start + BOOTSTRAP_ROWS])
        if n < MIN_BOOTSTRAP or not len(at):
            continue
        interval = bootstrap(
            (values[at],),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            vectorized=True,
            axis=-1,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low[at], high[at] = interval.low, interval.high
    return low, high


def outliers(values: Sequence[float]) -> list[int]:
    """Return the places of values that stand out, by Grubbs' test at the level 0.01.

    Grubbs 1969 (Technometrics 11, 1-21), repeated on what is left while five values are. They are
    to be looked at, never dropped: a mean without them is the mean of other runs.
    """
    from scipy.stats import t

    left = list(range(len(values)))
    found: list[int] = []
    while len(left) >= MIN_GRUBBS:
        n = len(left)
        mean = statistics.fmean(values[place] for place in left)
        sd = statistics.stdev([values[place] for place in left])
        farthest = max(left, key=lambda place: abs(values[place] - mean))
        quantile = float(t.isf(OUTLIER_LEVEL / (2 * n), n - 2))
        limit = (n - 1) / math.sqrt(n) * math.sqrt(quantile**2 / (n - 2 + quantile**2))
        if sd == 0 or abs(values[farthest] - mean) / sd <= limit:
            break
        found.append(farthest)
        left.remove(farthest)
    return sorted(found)
