"""Whether energy followed the order of the runs: heat, neighbours or ageing leave such a trend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.analysis.statistics import t_quantile

MIN_DEGREES_OF_FREEDOM = 2


@dataclass(frozen=True)
class Drift:
    """A straight trend over the order of the runs, common to all experiments.

    Attributes:
        per_run: relative change of energy from one run to the next (0.01 is 1 %).
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


def drift(
    experiments: Sequence[str], positions: Sequence[float], energies_j: Sequence[float]
) -> Drift | None:
    """Return the common trend of energy along the order; None if the runs cannot tell.

    Least squares on energy relative to its experiment's mean, with a level for each experiment
    (the "within" estimator of panel data: Wooldridge, Econometric Analysis of Cross Section and
    Panel Data, ch. 10.5), so that differences between experiments are no trend.

    Args:
        experiments: the experiment of each run.
        positions: its place in the order in which runs began.
        energies_j: its energy, for one unit of work.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for experiment, position, energy_j in zip(experiments, positions, energies_j, strict=True):
        groups.setdefault(experiment, []).append((position, energy_j))
    pairs: list[tuple[float, float]] = []
    levels = 0
    for members in groups.values():
        mean_x = sum(x for x, _ in members) / len(members)
        mean_y = sum(y for _, y in members) / len(members)
        if len(members) < 2 or mean_y <= 0:
            continue
        levels += 1
        pairs.extend((x - mean_x, y / mean_y - 1) for x, y in members)
    freedom = len(pairs) - levels - 1
    spread = math.fsum(x * x for x, _ in pairs)
    if freedom < MIN_DEGREES_OF_FREEDOM or spread == 0:
        return None
    slope = math.fsum(x * y for x, y in pairs) / spread
    residual = math.fsum((y - slope * x) ** 2 for x, y in pairs)
    half_width = t_quantile(freedom) * math.sqrt(residual / freedom / spread)
    return Drift(slope, slope - half_width, slope + half_width, len(pairs))
