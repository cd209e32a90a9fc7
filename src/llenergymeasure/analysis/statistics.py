"""Means and intervals over a study's cycles.

Two kinds of doubt are kept apart. What differs from cycle to cycle (the machine, the engine,
and the random and resolution part of the meter, ``u95_j``) is in the spread of the cycles
already: adding ``u95_j`` to an interval computed from them would count it twice. What is the
same in every cycle (the sensor's gain, ``u_sys_j``) is in no spread and no number of cycles
shrinks it: it stands beside the interval as a band of its own. (JCGM 100:2008, "GUM", 4.2 and
4.3: evaluation of Type A and Type B, and F.1.1.2 on influences that repeats share.)
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95


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
