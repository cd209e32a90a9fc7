"""Cumulative energy over time, known at knots, and what lies between them.

A knot is a moment at which the energy up to then is known: a tick of a counter, or a point of an
integrated power channel. Between two knots only their difference is known, and that power stays
between what the card draws at rest and its limit: this bounds the energy at every moment between.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llenergymeasure.units import NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SPANS_S = (2.0, 1.0)
"""Half widths, in seconds, of the stretch around an end that a straight line is tried on.

Long ones only: what is straight over seconds to within the little that pulses faster than the
knots can explain does not wander, and what wanders is followed from knot to knot.
"""

_MIN_KNOTS = 6
"""Fewest knots that such a stretch must hold."""

_CLEAR_STEP = 0.15
"""Least change of power, relative to the higher one, that is taken as a step."""

_LEVEL = 0.03
"""How level power must be before and after a step, relative to the step."""

_GAUSS_POINTS = np.array([-(0.6**0.5), 0.0, 0.6**0.5])
_GAUSS_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18

_MEMORY = 0.1
"""How fast the load's phase at a knot is forgotten, in knot distances."""


@dataclass(frozen=True)
class PowerRange:
    """Between which powers the device stays: at rest and at its limit."""

    low_w: float
    high_w: float

    @property
    def swing_w(self) -> float:
        """Return the widest change of power possible."""
        return self.high_w - self.low_w


@dataclass(frozen=True)
class EnergyCurve:
    """Cumulative energy of one device as one channel tells it.

    Attributes:
        origin_ns: CLOCK_MONOTONIC time that ``t_s`` counts from.
        t_s: the knots' times, shape (n,), rising.
        energy_j: energy up to each knot from an arbitrary zero, shape (n,).
        half_s: half width of what is unknown of each knot's time, shape (n,).
        power_range: between which powers the device stays.
        open_j: how far the energy runs off the line between each two knots, shape (n - 1,), where
            something shows it; null where only the power range bounds it.
        power_w: power at each knot, shape (n,), if power is taken as linear between knots; null
            if only the energy between knots is known.
        blur_s: the energy at a moment is the mean of that from so long before to so long after:
            where knots are chance samples of power, an end rests better on several.
    """

    origin_ns: int
    t_s: Floats
    energy_j: Floats
    half_s: Floats
    power_range: PowerRange
    open_j: Floats | None = None
    power_w: Floats | None = None
    blur_s: float = 0.0
    _spacing_s: float = field(init=False)

    def __post_init__(self) -> None:
        gaps_s = np.diff(self.t_s)
        object.__setattr__(self, "_spacing_s", float(np.median(gaps_s)) if len(gaps_s) else 0.0)

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def spacing_s(self) -> float:
        """Return the usual distance of two knots."""
        return self._spacing_s

    def seconds(self, t_ns: int) -> float:
        """Return a CLOCK_MONOTONIC time on the curve's own scale."""
        return (t_ns - self.origin_ns) / NS_PER_S

    def covers(self, start_s: float, end_s: float) -> bool:
        """Return whether the knots enclose a stretch, but for a knot distance at its ends."""
        slack_s = 2 * self.spacing_s
        return bool(
            len(self) >= 2 and start_s >= self.t_s[0] - slack_s and end_s <= self.t_s[-1] + slack_s
        )

    def at(self, t_s: float) -> tuple[float, float]:
        """Return the energy at a moment, and the largest error that the knots leave open.

        At a knot the energy is the knot's. Between two it is plain interpolation, with two
        exceptions. Where the power is level before and level after, it steps in between, at the
        time that the energy between the knots tells. And where the knots around lie on a
        straight line to within what interpolation cannot tell anyway, it is that line: a load
        that pulses faster than the knots come gives each knot the chance phase of its pulse,
        and the line through many is then the better guess than the line through two.
        """
        right = int(np.clip(np.searchsorted(self.t_s, t_s, side="right"), 1, len(self) - 1))
        left = right - 1
        low_j, high_j = self._bounds(left, right, t_s)
        plain_j = self._blurred(t_s) if self.blur_s else self._between(left, right, t_s)
        better_j = self._step(left, t_s)
        if better_j is None:
            better_j = self._line(left, right, t_s, plain_j)
        guess_j = float(np.clip(plain_j if better_j is None else better_j, low_j, high_j))
        return guess_j, max(high_j - guess_j, guess_j - low_j)

    def energy(self, start_s: float, end_s: float) -> tuple[float, float, float]:
        """Return the energy of a stretch and the error bounds of its start and of its end."""
        start_j, start_limit_j = self.at(start_s)
        end_j, end_limit_j = self.at(end_s)
        return end_j - start_j, start_limit_j, end_limit_j

    def _between(self, left: int, right: int, t_s: float) -> float:
        """Interpolate between two knots, or go on beyond the outermost at the same power."""
        t0, t1 = self.t_s[left], self.t_s[right]
        e0, e1 = self.energy_j[left], self.energy_j[right]
        x_s = t_s - t0
        if self.power_w is None:
            return float(e0 + (e1 - e0) * x_s / (t1 - t0))
        p0, p1 = self.power_w[left], self.power_w[right]
        inside_s = float(np.clip(x_s, 0.0, t1 - t0))
        slope = (p1 - p0) / (t1 - t0)
        beyond_j = (x_s - inside_s) * (p1 if x_s > inside_s else p0)
        return float(e0 + p0 * inside_s + slope * inside_s**2 / 2 + beyond_j)

    def _blurred(self, t_s: float) -> float:
        """Return the mean over ``blur_s`` to both sides, by three-point Gauss quadrature."""
        blur_s = min(self.blur_s, t_s - float(self.t_s[0]), float(self.t_s[-1]) - t_s)
        moments_s = t_s + max(blur_s, 0.0) * _GAUSS_POINTS
        rights = np.clip(np.searchsorted(self.t_s, moments_s, side="right"), 1, len(self) - 1)
        values_j = [
            self._between(int(right) - 1, int(right), float(moment_s))
            for right, moment_s in zip(rights, moments_s, strict=True)
        ]
        return float(_GAUSS_WEIGHTS @ np.array(values_j))

    def _bounds(self, left: int, right: int, t_s: float) -> tuple[float, float]:
        """Return the least and the most energy possible at a moment."""
        reach = self.power_range
        half0, half1 = self.half_s[left], self.half_s[right]
        after_s = t_s - self.t_s[left]
        before_s = self.t_s[right] - t_s
        e0, e1 = float(self.energy_j[left]), float(self.energy_j[right])
        from_left = _reach(after_s, half0, reach)
        to_right = _reach(before_s, half1, reach)
        if after_s < 0:
            least_j, most_j = _reach(-after_s, half0, reach)
            return e0 - most_j, e0 - least_j
        if before_s < 0:
            least_j, most_j = _reach(-before_s, half1, reach)
            return e1 + least_j, e1 + most_j
        low_j = max(e0 + from_left[0], e1 - to_right[1])
        high_j = min(e0 + from_left[1], e1 - to_right[0])
        if low_j > high_j:
            # The knots say more or less than the card can draw: only their own line is left.
            plain_j = self._between(left, right, t_s)
            return min(plain_j, high_j), max(plain_j, low_j)
        return low_j, high_j

    def _step(self, left: int, t_s: float) -> float | None:
        """Return the energy where power steps between two knots, or null if it does not."""
        if self.power_w is not None or left < 2 or left + 4 > len(self) or t_s < self.t_s[left]:
            return None
        around = slice(left - 2, left + 4)
        powers_w = np.diff(self.energy_j[around]) / np.diff(self.t_s[around])
        older_w, before_w, here_w, after_w, newer_w = (float(power_w) for power_w in powers_w)
        step_w = after_w - before_w
        level_w = _LEVEL * abs(step_w)
        if (
            abs(step_w) < _CLEAR_STEP * max(before_w, after_w)
            or max(abs(older_w - before_w), abs(newer_w - after_w)) > level_w
            or not 0.0 <= (here_w - before_w) / step_w <= 1.0
        ):
            return None
        start_s, end_s = float(self.t_s[left]), float(self.t_s[left + 1])
        step_s = end_s - (here_w - before_w) / step_w * (end_s - start_s)
        if t_s <= step_s:
            return float(self.energy_j[left]) + before_w * (t_s - start_s)
        return float(self.energy_j[left + 1]) - after_w * (end_s - t_s)

    def _line(self, left: int, right: int, t_s: float, plain_j: float) -> float | None:
        """Return the energy by the longest line that fits, or null if none does."""
        tolerance_j = self._open_j(left, right)
        if tolerance_j <= 0:
            return None
        for span_s in _SPANS_S:
            first, last = np.searchsorted(self.t_s, (t_s - span_s, t_s + span_s))
            if last - first < _MIN_KNOTS or not first <= left < right < last:
                continue
            x_s = self.t_s[first:last] - t_s
            if x_s[0] > -0.7 * span_s or x_s[-1] < 0.7 * span_s:
                continue
            y_j = self.energy_j[first:last] - plain_j
            slope, offset = _fit_line(x_s, y_j)
            residual_j = y_j - (offset + slope * x_s)
            if float(np.max(np.abs(residual_j))) > tolerance_j:
                continue
            memory = np.exp(-np.abs(x_s) / (_MEMORY * self.spacing_s))
            return float(plain_j + offset + memory @ residual_j)
        return None

    def _open_j(self, left: int, right: int) -> float:
        """Return how far the energy between two knots is likely to run off their line at most.

        With nothing but the power range to go by: what pulses of full swing can do that are no
        longer than half the knots' distance.
        """
        if self.open_j is not None:
            return float(self.open_j[left])
        reach = self.power_range
        span_s = float(self.t_s[right] - self.t_s[left])
        mean_w = float(self.energy_j[right] - self.energy_j[left]) / span_s
        above_w = max(reach.high_w - mean_w, 0.0)
        below_w = max(mean_w - reach.low_w, 0.0)
        return above_w * below_w / max(reach.swing_w, 1e-9) * span_s / 4


def _reach(span_s: float, half_s: float, reach: PowerRange) -> tuple[float, float]:
    """Return the least and the most energy drawn in a span whose length is known to ±half."""
    return (
        reach.low_w * (span_s - half_s if span_s > half_s else 0.0)
        - reach.high_w * max(half_s - span_s, 0.0),
        reach.high_w * (span_s + half_s),
    )


def _fit_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and offset of the least-squares line."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    centred = x - mean_x
    slope = float(centred @ (y - mean_y) / (centred @ centred))
    return slope, mean_y - slope * mean_x
