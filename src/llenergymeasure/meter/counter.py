"""An energy counter, read at its ticks.

A counter that counts every joule is still seen only when it steps (NVML's about every 100 ms,
though its unit is 1 mJ). At a tick the energy is known without error of interpolation; a stretch
that begins and ends on ticks has no end-point error.
"""

from dataclasses import dataclass

import numpy as np

from llenergymeasure.meter.curve import EnergyCurve, PowerRange
from llenergymeasure.meter.renewals import Floats, find_period, place, seconds
from llenergymeasure.meter.samples import Series
from llenergymeasure.units import NS_PER_S


@dataclass(frozen=True)
class Ticks:
    """A counter's ticks in time order.

    Attributes:
        origin_ns: CLOCK_MONOTONIC time that ``t_s`` counts from.
        t_s: when the counter stepped, shape (n,).
        half_s: half width of what is unknown of that, shape (n,).
        energy_j: what it showed from then on, shape (n,).
        period_s: how often it steps; null where it keeps no pace.
    """

    origin_ns: int
    t_s: Floats
    half_s: Floats
    energy_j: Floats
    period_s: float | None

    def __len__(self) -> int:
        return len(self.t_s)

    def curve(self, power_range: PowerRange, open_j: Floats | None = None) -> EnergyCurve:
        """Return the energy over time with the ticks as knots."""
        return EnergyCurve(
            self.origin_ns, self.t_s, self.energy_j, self.half_s, power_range, open_j
        )

    def nearest(self, t_ns: int) -> int:
        """Return the time of the tick nearest to a moment, in CLOCK_MONOTONIC ns."""
        moment_s = (t_ns - self.origin_ns) / NS_PER_S
        nearest_s = self.t_s[int(np.argmin(np.abs(self.t_s - moment_s)))]
        return self.origin_ns + round(float(nearest_s) * NS_PER_S)


def read_ticks(series: Series, origin_ns: int) -> Ticks:
    """Find the ticks in a counter's rows.

    The rows at start and stop are reads between ticks and are left out. After a step backwards,
    as when a driver is loaded anew, counting goes on from the new value: what the counter missed
    meanwhile is lost, so no energy is made up for it.
    """
    known = ~np.isnan(series.value)
    t_ns, before_ns = series.t_ns[known], series.t_before_ns[known]
    value = series.value[known]
    stepped = np.flatnonzero((before_ns < t_ns) & (np.diff(value, prepend=np.inf) != 0))
    low_s, high_s = seconds(before_ns[stepped], origin_ns), seconds(t_ns[stepped], origin_ns)
    period_s = find_period(low_s, high_s)
    placed = place(low_s, high_s, period_s)
    rise_j = np.maximum(np.diff(value[stepped], prepend=value[stepped][:1]), 0.0)
    order = np.argsort(placed.t_s, kind="stable")
    return Ticks(origin_ns, placed.t_s[order], placed.half_s, np.cumsum(rise_j), period_s)


def went_back(series: Series, start_ns: int, end_ns: int) -> bool:
    """Return whether a counter ran backwards within a stretch."""
    inside = (series.t_ns >= start_ns) & (series.t_ns <= end_ns)
    return bool(np.any(np.diff(series.value[inside]) < 0))
