"""Moments at which the energy drawn so far is known, from a counter or from power readings."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from llenergymeasure.recording.samples import Series
from llenergymeasure.sensors.known_behaviour import PowerBehaviour
from llenergymeasure.units import NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


_GRID_TICKS = 40
"""How many ticks are placed together: some seconds, over which a sensor's clock does not drift."""

_LONGEST_PERIOD_S = 0.25
"""No card that is known renews its readings so rarely: a longer period is that of a load."""
_PAUSE_PERIODS, _PAUSE_TIMES = 0.75, 2.0
"""A reading that may be so many periods older or younger was read after a pause, if that is so many
times what is usual for the recording: where calls are slow, all readings are as unsure."""
_LONGEST_HELD_S = 0.35
"""A value that stays is written again sooner, unless the recorder got no time to run."""


@dataclass(frozen=True)
class PowerRange:
    """Between which powers a device stays: the least that was seen, and its limit."""

    low_w: float
    high_w: float

    @property
    def width_w(self) -> float:
        """Return how far apart the two are."""
        return self.high_w - self.low_w

    def farthest_w(self, power_w: float) -> float:
        """Return how far the device may be from a power at most."""
        return max(self.high_w - power_w, power_w - self.low_w, 0.0)

    def excess(self, mean_w: float) -> float:
        """Return the largest deviation, in W, of a square wave of this range from its mean.

        The energy of pulses of a period T runs off their mean by at most this times T.
        """
        above_w, below_w = max(self.high_w - mean_w, 0.0), max(mean_w - self.low_w, 0.0)
        return above_w * below_w / max(self.width_w, 1e-9)


@dataclass(frozen=True)
class Knots:
    """Cumulative energy of one device by one channel, at the moments where it is known.

    Attributes:
        origin_ns: CLOCK_MONOTONIC time that ``t_s`` counts from.
        t_s: the moments, shape (n,), rising.
        energy_j: energy up to each from an arbitrary zero, shape (n,).
        t_half_width_s: half width of what is unknown of each moment, shape (n,).
    """

    origin_ns: int
    t_s: Floats
    energy_j: Floats
    t_half_width_s: Floats

    def __len__(self) -> int:
        return len(self.t_s)

    @cached_property
    def spacing_s(self) -> float:
        """Return the usual distance of two knots; 0 for fewer than two."""
        return float(np.median(np.diff(self.t_s))) if len(self) > 1 else 0.0

    @cached_property
    def power_w(self) -> Floats:
        """Return the mean power between each two knots, shape (n - 1,)."""
        return np.diff(self.energy_j) / np.diff(self.t_s)

    def seconds(self, t_ns: int) -> float:
        """Return a CLOCK_MONOTONIC time on the knots' own scale."""
        return (t_ns - self.origin_ns) / NS_PER_S

    def at(self, t_s: "float | Floats") -> Floats:
        """Return the energy at moments; beyond the ends the power holds.

        Where the power between two knots lies between the powers before and after, it is taken to
        step once from the one to the other, at the moment that the energy shows (subcell
        resolution: Harten 1989, J. Comput. Phys. 83, 148). Elsewhere it is taken as even.
        """
        moments = np.asarray(t_s, dtype=np.float64)
        right = np.clip(np.searchsorted(self.t_s, moments, side="right"), 1, len(self) - 1)
        left, power_w = right - 1, self.power_w
        before_w = power_w[np.maximum(left - 1, 0)]
        here_w = power_w[left]
        after_w = power_w[np.minimum(left + 1, len(power_w) - 1)]
        even_j = self.energy_j[left] + here_w * (moments - self.t_s[left])
        early_j = self.energy_j[left] + before_w * (moments - self.t_s[left])
        late_j = self.energy_j[right] - after_w * (self.t_s[right] - moments)
        lines_j = np.maximum(early_j, late_j), np.minimum(early_j, late_j)
        steps = (here_w - before_w) * (after_w - here_w) > 0
        return np.asarray(np.where(steps, np.where(after_w > before_w, *lines_j), even_j))

    def select(self, places: slice) -> "Knots":
        """Return some of the knots."""
        return Knots(
            self.origin_ns, self.t_s[places], self.energy_j[places], self.t_half_width_s[places]
        )

    def covers(self, start_s: float, end_s: float) -> bool:
        """Return whether the knots enclose a stretch, but for a knot distance at its ends."""
        slack_s = 2 * self.spacing_s
        return len(self) > 1 and bool(
            start_s >= self.t_s[0] - slack_s and end_s <= self.t_s[-1] + slack_s
        )

    def earlier(self, lag_s: float) -> "Knots":
        """Return the knots of a counter that shows energy so long after it was drawn."""
        return self if lag_s == 0 else replace(self, t_s=self.t_s - lag_s)


def counter_knots(series: Series, origin_ns: int) -> Knots:
    """Return the moments at which a counter stepped.

    A tick lies between the last read that saw the old value and the first that saw the new one; a
    counter that gives its value with an age is known at every read. A counter that fell has lost
    what it had counted (a reset): energy goes on from there, and ``fell`` finds the place.
    """
    is_step = (series.t_before_ns < series.t_ns) & ~np.isnan(series.value)
    late_s = np.asarray((series.t_ns[is_step] - origin_ns) / NS_PER_S)
    early_s = np.asarray((series.t_before_ns[is_step] - origin_ns) / NS_PER_S)
    t_s, t_half_width_s = on_grid(early_s, late_s)
    return Knots(
        origin_ns, t_s, np.asarray(series.value[is_step], dtype=np.float64), t_half_width_s
    )


def on_grid(
    early_s: Floats, late_s: Floats, period_s: float | None = None
) -> tuple[Floats, Floats]:
    """Return when ticks were and how unsure that is, from the earliest and latest time of each.

    A sensor's ticks come at even distances, so that many together place each of them better than
    its own two reads, which a slow call sets far apart. Where they do not come evenly, each keeps
    its own: how far the even ones miss their reads is taken as how unsure they are.
    """
    t_s, t_half_width_s = (late_s + early_s) / 2, (late_s - early_s) / 2
    for first in range(0, len(t_s) - _GRID_TICKS + 1, _GRID_TICKS):
        last = first + _GRID_TICKS if first + 2 * _GRID_TICKS <= len(t_s) else len(t_s)
        here = slice(first, last)
        t_s[here], t_half_width_s[here] = _place_ticks(early_s[here], late_s[here], period_s)
    return t_s, t_half_width_s


def _place_ticks(early_s: Floats, late_s: Floats, period_s: float | None) -> tuple[Floats, Floats]:
    """Return when some ticks were that may come evenly, and how unsure that is."""
    middle_s, t_half_width_s = (late_s + early_s) / 2, (late_s - early_s) / 2
    # Those that were seen soon show the pace; the others may have been any time before.
    sharp = t_half_width_s <= 1.5 * np.median(t_half_width_s)
    usual_s = period_s or float(np.median(np.diff(middle_s)))
    pace_s, phase_s = np.polyfit(_tick_numbers(middle_s[sharp], usual_s), middle_s[sharp], 1)
    even_s = phase_s + pace_s * np.round((middle_s[sharp] - phase_s) / pace_s)
    # The phases that their reads allow, from the latest lower to the earliest upper bound.
    low_s = float(np.quantile(early_s[sharp] - even_s, 0.95))
    high_s = float(np.quantile(late_s[sharp] - even_s, 0.05))
    even_s += (low_s + high_s) / 2
    missed_s = np.maximum(np.maximum(early_s[sharp] - even_s, even_s - late_s[sharp]), 0.0)
    unsure_s = max(abs(high_s - low_s) / 2, float(np.quantile(missed_s, 0.95)))
    phase_s += (low_s + high_s) / 2
    # What a read sees after a long pause is what the last tick before it has left.
    last_before = np.floor((late_s - phase_s) / pace_s)
    nearest = np.round((middle_s - phase_s) / pace_s)
    even_s = phase_s + pace_s * np.where(t_half_width_s > 0.4 * pace_s, last_before, nearest)
    missed_s = np.maximum(np.maximum(early_s - even_s, even_s - late_s), 0.0)
    better = (unsure_s < t_half_width_s) & (missed_s <= unsure_s)
    placed_s = np.where(better, np.clip(even_s, early_s, late_s), middle_s)
    # Two ticks at one time are ticks that do not come evenly.
    is_double = np.diff(placed_s) < 0.3 * pace_s
    better &= ~(np.append(is_double, False) | np.append(False, is_double))
    return np.where(better, placed_s, middle_s), np.where(better, unsure_s, t_half_width_s)


def _tick_numbers(t_s: Floats, about_s: float) -> Floats:
    """Return which tick of an even pace each is, the pace being known to a tenth.

    Slow reads show a single distance only roughly: the pace taken is the one that most ticks keep.
    """
    since_s = t_s - t_s[0]
    fine = 0.2 * about_s / float(since_s[-1])
    periods_s = about_s * (1 + np.arange(-0.1, 0.1 + fine, fine))
    phasors = np.exp(2j * np.pi * since_s / periods_s[:, None]).mean(axis=1)
    best = int(np.argmax(np.abs(phasors)))
    return np.asarray(np.round(since_s / periods_s[best] - np.angle(phasors[best]) / (2 * np.pi)))


UNKNOWN_BEHAVIOUR = PowerBehaviour("power_instant_w", None, None, "unknown")


@dataclass(frozen=True)
class Readings:
    """The readings of one power channel, each where it became new.

    Attributes:
        origin_ns: as of ``Knots``.
        t_s: when each was first shown, shape (n,), rising.
        t_half_width_s: half width of what is unknown of that, shape (n,).
        power_w: what it shows, shape (n,).
        zeros: readings of 0 W or less that were left out: no powered device draws nothing.
        behaviour: which channel's they are, and how it averages.
    """

    origin_ns: int
    t_s: Floats
    t_half_width_s: Floats
    power_w: Floats
    zeros: int = 0
    behaviour: PowerBehaviour = UNKNOWN_BEHAVIOUR

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def window_s(self) -> float:
        """Return the time each is a mean over; 0 if that is not known."""
        return self.behaviour.window_s or 0.0

    @property
    def share_seen(self) -> float:
        """Return the share of the time that is surely seen."""
        return self.behaviour.share_seen or 0.0

    @cached_property
    def spacing_s(self) -> float:
        """Return the usual distance of two readings."""
        return float(np.median(np.diff(self.t_s))) if len(self) > 1 else 0.0

    @property
    def is_adjoining(self) -> bool:
        """Return whether each is a mean over just the time since the one before."""
        period_s = self.behaviour.update_period_s or self.spacing_s
        return self.share_seen == 1.0 and self.window_s < 1.2 * period_s

    def with_renewals(self) -> "Readings":
        """Return them with the same value again where it was renewed: periods before it changed.

        A row that shows a value again is written at any time, or not at all: the value would be
        taken to change from then on, and not within the period before the change.
        """
        period_s, repeated = self.behaviour.update_period_s, self.t_half_width_s == 0.0
        if period_s is None or period_s > _LONGEST_PERIOD_S:
            return self
        changes_s = np.append(self.t_s[~repeated], np.inf)
        next_s = changes_s[np.searchsorted(changes_s, self.t_s)]
        changes_later = repeated & np.isfinite(next_s)
        periods = np.maximum(np.round((next_s - self.t_s)[changes_later] / period_s), 1)
        t_s, t_half_width_s = self.t_s.copy(), self.t_half_width_s.copy()
        t_s[changes_later] = next_s[changes_later] - periods * period_s
        t_half_width_s[changes_later] = self.t_half_width_s[
            np.searchsorted(self.t_s, next_s[changes_later])
        ]
        keep = ~changes_later | (np.diff(t_s, prepend=-np.inf) > period_s / 2)
        t_s, t_half_width_s, power_w = t_s[keep], t_half_width_s[keep], self.power_w[keep]
        gaps_s = np.diff(t_s, prepend=np.inf)
        held = (t_half_width_s > 0) & (gaps_s > 1.5 * period_s) & (gaps_s < _LONGEST_HELD_S)
        held = np.flatnonzero(held & ~after_pause(t_half_width_s, period_s))
        return replace(
            self,
            t_s=np.insert(t_s, held, t_s[held] - period_s),
            t_half_width_s=np.insert(t_half_width_s, held, t_half_width_s[held]),
            power_w=np.insert(power_w, held, power_w[held - 1]),
        )

    def between(self, low_s: float, high_s: float) -> "Readings":
        """Return those that were first shown in a stretch of time."""
        here = (self.t_s >= low_s) & (self.t_s <= high_s)
        return replace(
            self,
            t_s=self.t_s[here],
            t_half_width_s=self.t_half_width_s[here],
            power_w=self.power_w[here],
        )


def after_pause(half_widths_s: Floats, period_s: float) -> npt.NDArray[np.bool_]:
    """Return which readings, each as unsure, were read after a pause of the recorder."""
    changes_s = half_widths_s[half_widths_s > 0]
    usual_s = float(np.median(changes_s)) if len(changes_s) else 0.0
    return np.asarray(half_widths_s > max(_PAUSE_PERIODS * period_s, _PAUSE_TIMES * usual_s))


def power_readings(series: Series, origin_ns: int) -> Readings:
    """Return a power channel's readings.

    A row is a change of the value (between ``t_before_ns`` and ``t_ns``), or the same value again
    after 0.1 s without one: then the card may have renewed it or not, and its energy is the same.
    """
    valid = ~np.isnan(series.value)
    zero = valid & (series.value <= 0.0)
    used = valid & ~zero
    late_s = (series.t_ns[used] - origin_ns) / NS_PER_S
    early_s = (series.t_before_ns[used] - origin_ns) / NS_PER_S
    t_s = (late_s + early_s) / 2
    rising = np.concatenate(([True], np.diff(t_s) > 0)) if len(t_s) else np.zeros(0, dtype=bool)
    return Readings(
        origin_ns,
        np.asarray(t_s[rising]),
        np.asarray((late_s - early_s)[rising] / 2),
        np.asarray(series.value[used][rising], dtype=np.float64),
        int(zero.sum()),
    )


def power_knots(readings: Readings) -> Knots:
    """Return the integral of power readings, each a mean over the window before it was shown.

    Power is taken as linear between the middles of the windows. Of windows that adjoin each other a
    reading is the energy since the one before, and only what lies between the two is linear.
    """
    gaps_s, power_w = np.diff(readings.t_s), readings.power_w
    mean_s = readings.window_s if readings.is_adjoining else 0.0
    rise_j = mean_s * power_w[1:] + (gaps_s - mean_s) * (power_w[1:] + power_w[:-1]) / 2
    energy_j = np.concatenate(([0.0], np.cumsum(rise_j)))
    t_s = readings.t_s - (0.0 if readings.is_adjoining else readings.window_s / 2)
    return Knots(readings.origin_ns, t_s, energy_j, readings.t_half_width_s)


def possible_energies(
    knots: Knots, left: int, right: int, t_s: float, power_range: PowerRange
) -> tuple[float, float]:
    """Return the least and the most energy possible at a moment between two knots.

    Args:
        knots: where the energy is known.
        left: place of the knot before the moment.
        right: place of the one after it.
        t_s: the moment, on the knots' scale.
        power_range: between which powers the device stays.
    """
    low_w, high_w = power_range.low_w, power_range.high_w
    left_j, right_j = float(knots.energy_j[left]), float(knots.energy_j[right])
    left_half_width_s = float(knots.t_half_width_s[left])
    right_half_width_s = float(knots.t_half_width_s[right])
    since_s, until_s = t_s - float(knots.t_s[left]), float(knots.t_s[right]) - t_s

    def least_j(span_s: float) -> float:
        return min(low_w * span_s, high_w * span_s)

    low_j = max(
        left_j + least_j(since_s - left_half_width_s),
        right_j - high_w * max(until_s + right_half_width_s, 0.0),
    )
    high_j = min(
        left_j + high_w * max(since_s + left_half_width_s, 0.0),
        right_j - least_j(until_s - right_half_width_s),
    )
    curve_j = float(knots.at(t_s))
    # Knots that show more or less than the device can draw leave only their own line.
    return min(low_j, curve_j), max(high_j, curve_j)
