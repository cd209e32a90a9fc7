"""Whether a quantity followed the order of the runs: heat, neighbours or ageing leave a trend."""

from dataclasses import dataclass

import numpy as np

from llenergymeasure.analysis.blocks import Blocks, centred
from llenergymeasure.analysis.statistics import t_quantile

MIN_DEGREES_OF_FREEDOM = 2


@dataclass(frozen=True)
class Drift:
    """A straight trend over the order of the runs, common to all experiments.

    Attributes:
        per_run: relative change from one run to the next (0.01 is 1 %).
        ci95_low: lower end of its 95 % interval.
        ci95_high: upper end.
        runs: runs it rests on.
    """

    per_run: float
    ci95_low: float
    ci95_high: float
    runs: int

    @property
    def detected(self) -> bool:
        """Whether zero lies outside the interval."""
        return not self.ci95_low <= 0 <= self.ci95_high


def drift(data: Blocks) -> Drift | None:
    """Return the common trend along the order of the runs; None where they do not show it.

    Least squares on the logarithm with a level for each experiment and, where cycles hold more
    than one run, for each cycle (the "within" estimator of panel data: Wooldridge, Econometric
    Analysis of Cross Section and Panel Data, ch. 10). What all runs of a cycle share is no trend:
    without the cycles' levels, five cycles of a machine with moods would pass for as many
    independent runs as they hold. They do not show it where each experiment has the same place in
    every cycle, because then the levels follow any trend.
    """
    present = np.isfinite(data.logs)
    by_cycle = bool((present.sum(axis=1) > 1).any())
    levels = int(present.any(axis=0).sum())
    if by_cycle:
        levels += int(present.any(axis=1).sum()) - 1
    freedom = int(present.sum()) - levels - 1
    if freedom < MIN_DEGREES_OF_FREEDOM:
        return None
    places = np.where(present, data.places, np.nan)
    x, y = centred(places, by_cycle=by_cycle), centred(data.logs, by_cycle=by_cycle)
    spread = float(np.nansum(x * x))
    if spread <= 1e-9 * float(np.nansum((places - np.nanmean(places)) ** 2)):
        return None
    slope = float(np.nansum(x * y)) / spread
    residual = float(np.nansum((y - slope * x) ** 2))
    half_width = t_quantile(freedom) * float(np.sqrt(residual / freedom / spread))
    low, middle, high = np.expm1([slope - half_width, slope, slope + half_width])
    return Drift(float(middle), float(low), float(high), int(present.sum()))
