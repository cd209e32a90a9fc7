"""A power channel, integrated: each reading placed at the stretch of time that it is a mean of.

A reading shown from time u on is the mean power over the window (u - w, u], and is renewed every
update period p (arXiv 2312.02741). If w >= p the readings hold all the energy, smeared over w: the
smearing is undone. If w < p, they see the share w/p of the time: what the rest held is unknown,
and the integral is a straight line through the middles of the windows.
"""

from dataclasses import dataclass

import numpy as np

from llenergymeasure.meter.curve import EnergyCurve, PowerRange
from llenergymeasure.meter.renewals import Floats, find_period, pace, place, seconds
from llenergymeasure.meter.samples import Series

_LONGEST_REPEAT_S = 0.15
"""Longest time between two rows of a value that is read and stays the same."""

_AROUND = 10
"""How many readings to each side are looked at for their scatter."""

_SCATTER = 0.7
"""Energy off the line over (scatter of readings times their distance), where readings alternate."""

_NOT_WHOLE = 0.15
"""How far, relative, a window may be off a whole number of update periods to be undone."""


@dataclass(frozen=True)
class Readings:
    """A power channel's readings, one for each time the sensor renewed it.

    Attributes:
        origin_ns: CLOCK_MONOTONIC time that ``t_s`` counts from.
        t_s: when each reading was new, shape (n,).
        half_s: half width of what is unknown of that, shape (n,).
        power_w: the reading, shape (n,).
        period_s: the update period; null if none was found, and then every read stands as it is.
    """

    origin_ns: int
    t_s: Floats
    half_s: Floats
    power_w: Floats
    period_s: float | None

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def spacing_s(self) -> float:
        """Return the update period, or the usual distance of reads where it is not known."""
        if self.period_s is not None:
            return self.period_s
        return float(np.median(np.diff(self.t_s))) if len(self) > 1 else 0.0


def read_power(series: Series, origin_ns: int, period_s: float | None = None) -> Readings:
    """Find the renewals in a power channel's rows, those to the same value included.

    Args:
        series: the rows, one a read.
        origin_ns: what times count from.
        period_s: the update period where it is known from elsewhere.
    """
    known = ~np.isnan(series.value)
    t_s, value = seconds(series.t_ns[known], origin_ns), series.value[known]
    before_s = seconds(series.t_before_ns[known], origin_ns)
    changed = np.flatnonzero(np.diff(value) != 0) + 1
    low_s = np.where(before_s < t_s, before_s, np.roll(t_s, 1))[changed]
    high_s = t_s[changed]
    found_s = period_s or find_period(low_s, high_s)
    if found_s is None or len(changed) == 0:
        return Readings(origin_ns, t_s, np.zeros(len(t_s)), value, found_s)
    placed = place(low_s, high_s, found_s)
    found_s = pace(placed.t_s, found_s)
    return _fill(t_s, value, changed, placed.t_s, placed.half_s, found_s, origin_ns)


def _fill(
    read_s: Floats,
    value: Floats,
    changed: np.ndarray[tuple[int], np.dtype[np.int64]],
    new_s: Floats,
    half_s: Floats,
    period_s: float,
    origin_ns: int,
) -> Readings:
    """Put in the renewals that brought the same value again, where a read bears them out."""
    order = np.argsort(new_s, kind="stable")
    new_s, shown_w = new_s[order], value[changed]
    ends_s = np.append(new_s[1:], read_s[-1] + period_s / 2)
    counts = np.maximum(np.round((ends_s - new_s) / period_s), 1).astype(np.int64)
    before = max(int((new_s[0] - read_s[0]) / period_s), 0)
    lead_s = new_s[0] - period_s * np.arange(before, 0, -1)
    steps = np.concatenate([np.arange(count) for count in counts])
    first = np.repeat(np.arange(len(new_s)), counts)
    t_s = np.concatenate([lead_s, new_s[first] + steps * period_s])
    power_w = np.concatenate([np.full(before, value[0]), shown_w[first]])
    half = np.concatenate([np.full(before, half_s[0]), half_s[first]])
    # A reading that nobody looked at between its renewal and the next is not known.
    # Rows of a value that stays come somewhat more slowly than the shortest periods.
    wait_s = max(1.5 * period_s, _LONGEST_REPEAT_S)
    seen = np.searchsorted(read_s, t_s + wait_s) > np.searchsorted(read_s, t_s - period_s)
    return Readings(origin_ns, t_s[seen], half[seen], power_w[seen], period_s)


def middle_curve(
    readings: Readings, window_s: float | None, power_range: PowerRange
) -> EnergyCurve:
    """Integrate along straight lines through the middles of the readings' windows.

    With an unknown window a reading is taken as of the moment it was new. Each end of a stretch
    rests on the readings of one period to both sides: a single one shows the chance phase of a
    fast load.
    """
    t_s = readings.t_s - (window_s or 0.0) / 2
    steps_j = np.diff(t_s) * (readings.power_w[1:] + readings.power_w[:-1]) / 2
    energy_j = np.concatenate(([0.0], np.cumsum(steps_j)))
    return EnergyCurve(
        readings.origin_ns,
        t_s,
        energy_j,
        readings.half_s,
        power_range,
        open_j=_SCATTER * _scatter(readings.power_w) * np.diff(t_s),
        power_w=readings.power_w,
        blur_s=readings.spacing_s,
    )


def _scatter(power_w: Floats) -> Floats:
    """Return how far readings lie off the middle of their neighbours, as usual around each gap."""
    if len(power_w) < 3:
        return np.zeros(max(len(power_w) - 1, 0))
    off_w = np.abs(power_w[1:-1] - (power_w[:-2] + power_w[2:]) / 2)
    padded = np.pad(off_w, (_AROUND + 1, _AROUND), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1)
    usual: Floats = np.median(views, axis=1)
    return usual[: len(power_w) - 1]


@dataclass(frozen=True)
class Undone:
    """Cumulative energy with a channel's averaging undone.

    Attributes:
        curve: the energy, with a knot at each renewal.
        ripple_j: standard uncertainty of a knot from how well the start is known.
    """

    curve: EnergyCurve
    ripple_j: float


def undo_averaging(readings: Readings, window_s: float, power_range: PowerRange) -> Undone | None:
    """Undo the averaging of a channel whose window spans whole update periods.

    A mean over the window w = m·p says ``E(u) - E(u - w) = w·P(u)``: m interleaved chains of exact
    differences. Their m starting values are not told by the channel: they follow from the course
    between the chains being smooth wherever power is steady.

    Returns:
        The energy; null where it cannot be had: the window is no whole number of periods, readings
        are missing, or the result asks for powers the device cannot draw.
    """
    if readings.period_s is None:
        return None
    chains = round(window_s / readings.period_s)
    if chains < 1 or abs(window_s / readings.period_s / chains - 1) > _NOT_WHOLE:
        return None
    steps = np.round(np.diff(readings.t_s) / readings.period_s)
    if len(readings) < 4 * chains or np.any(steps != 1):
        return None
    window_s = chains * readings.period_s
    energy_j = _chain(readings, window_s, chains, power_range)
    energy_j, ripple_j = _join_chains(energy_j, readings.power_w, chains)
    drawn_w = np.diff(energy_j) / readings.period_s
    slack_w = 0.1 * power_range.swing_w
    possible = (drawn_w > power_range.low_w - slack_w) & (drawn_w < power_range.high_w + slack_w)
    if possible.mean() < 0.99:
        return None
    curve = EnergyCurve(readings.origin_ns, readings.t_s, energy_j, readings.half_s, power_range)
    return Undone(curve, ripple_j)


def _chain(readings: Readings, window_s: float, chains: int, power_range: PowerRange) -> Floats:
    """Sum each chain from a first guess of its start, its readings taken as of their middles."""
    start = middle_curve(readings, window_s, power_range)
    energy_j = np.array([start.at(t_s)[0] for t_s in readings.t_s[:chains]])
    energy_j = np.concatenate((energy_j, np.zeros(len(readings) - chains)))
    for chain in range(chains):
        rise_j = window_s * readings.power_w[chains + chain :: chains]
        energy_j[chain::chains] = energy_j[chain] + np.concatenate(([0.0], np.cumsum(rise_j)))
    return energy_j


def _join_chains(energy_j: Floats, power_w: Floats, chains: int) -> tuple[Floats, float]:
    """Shift each chain so that, where power is steady, it lies on the course of all of them."""
    if chains == 1:
        return energy_j, 0.0
    width = chains + 1 - chains % 2
    kernel = np.full(width, 1 / chains)
    if chains % 2 == 0:
        kernel[[0, -1]] /= 2
    margin = width // 2
    middle = slice(margin, len(energy_j) - margin)
    off_j = energy_j[middle] - np.convolve(energy_j, kernel, mode="valid")
    views = np.lib.stride_tricks.sliding_window_view(power_w, width)
    unrest_w = views.max(axis=1) - views.min(axis=1)
    # Steady stretches decide; the floor keeps a perfectly flat one from being divided by nothing.
    weight = 1 / (unrest_w + 1e-3 * float(np.mean(power_w)) + 1e-9) ** 2
    which = (np.arange(len(off_j)) + margin) % chains
    shift_j, spread_j = np.zeros(chains), 0.0
    for chain in range(chains):
        mine = which == chain
        shift_j[chain] = np.average(off_j[mine], weights=weight[mine])
        variance = np.average((off_j[mine] - shift_j[chain]) ** 2, weights=weight[mine])
        effective = weight[mine].sum() ** 2 / (weight[mine] ** 2).sum()
        spread_j = max(spread_j, float(np.sqrt(variance / effective)))
    return energy_j - shift_j[np.arange(len(energy_j)) % chains], spread_j
