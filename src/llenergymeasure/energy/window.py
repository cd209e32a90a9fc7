"""The energy of a window: the one function of the meter that a reader has to understand.

A channel knows the cumulative energy at its knots (a counter's ticks, a power reading's middle).
The energy of a window is the difference of that at its two ends, and an end lies between two knots.
What it draws there is known in one of two ways:

- next to rest: where the caller left the device without work next to the end (a margin), the energy
  at the end is that of a knot in the margin, less or plus the margin's own power up to the end. At
  the closing end the knot is taken late enough for a counter that lags;
- elsewhere it is interpolated. How far the truth may lie off the curve is estimated from how far
  it lies off at knots and readings around the end, and bounded by the range of the device's power.
  Where work begins or ends, what it draws next to the end is held against the curve as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from llenergymeasure.energy.knots import Floats, Knots, PowerRange, Readings, possible_energies
from llenergymeasure.units import COVERAGE_FACTOR

LAG_ALLOWANCE_S = 0.1
"""How late a counter of unknown lag may count: one update period of all cards seen so far."""

_NEARBY_KNOTS = 5
"""How many knots on either side of an end show what power does there."""
_CURVE_ERROR = 0.45
"""Energy off the curve between two knots over (rms deviation of power times knot distance), in the
middle between them: 1/4 for a square wave of the knots' period, more for what comes in bursts."""

_MAX_REST_RANGE = 0.15
"""A margin in which power varies by more than this share of its mean is not at rest."""
_FLAT_SHARE = 0.05
"""Nor is one that does not lie below all that the window draws, by the share above, unless it is
flat next to the window: its range at most this share of the window's, and in that one's lower half.
Nothing else distinguishes it from work that goes on."""


@dataclass(frozen=True)
class Margin:
    """A stretch without work next to a window's end, in s on the knots' scale."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class End:
    """The energy at one end of a window.

    Attributes:
        energy_j: cumulative, from the knots' zero.
        standard_j: its standard uncertainty.
        bound_j: what no load within the power range exceeds.
        common_error_j: how far it is off at most, at both ends the same way, where work begins or
            ends.
        lag_explained_j: of that, what there would be of a counter too that is late and counts all
            of it.
        at_rest: whether it is that of a rest next to the window.
    """

    energy_j: float
    standard_j: float
    bound_j: float
    common_error_j: float = 0.0
    lag_explained_j: float = 0.0
    at_rest: bool = False


class RestMismatch(NamedTuple):
    """How far off an end is at most where the work contradicts the rest; how much a lag explains.

    The lag is that of a counter that is as late as this one may be.
    """

    error_j: float
    lag_explained_j: float


@dataclass(frozen=True)
class StretchEnergy:
    """The energy of a stretch, as indicated, and what makes it uncertain.

    Attributes:
        energy_j: the energy.
        random_j: half width of the 95 % interval from what differs from stretch to stretch: where
            its ends lie between two knots.
        shared_ends_j: from what moves the ends of stretches alike that are cut in the same way:
            work that contradicts its marks, energy that is smeared over an end, or counted late.
        bound_j: what no load within the device's power range exceeds.
        at_rest: whether its start and its end are those of a rest next to it.
        unseen_j: from time that is not seen, and disagreement of the channels.
    """

    energy_j: float
    random_j: float
    shared_ends_j: float
    bound_j: float
    at_rest: tuple[bool, bool] = (False, False)
    unseen_j: float = 0.0

    @property
    def ends_j(self) -> float:
        """Return the half width of the 95 % interval from the stretch's ends."""
        return math.hypot(self.random_j, self.shared_ends_j)

    @property
    def shared_j(self) -> float:
        """Return the half width from what repeats share: their mean is off by it as each is."""
        return math.hypot(self.shared_ends_j, self.unseen_j)

    @property
    def u95_j(self) -> float:
        """Return the half width of the 95 % interval."""
        return math.hypot(self.random_j, self.shared_ends_j, self.unseen_j)


def window_energy(
    knots: Knots,
    start_s: float,
    end_s: float,
    power_range: PowerRange,
    *,
    fine_readings: Sequence[Readings] = (),
    margins: tuple[Margin | None, Margin | None] = (None, None),
    late_s: float = LAG_ALLOWANCE_S,
    early_s: float = 0.0,
    delay_s: float = 0.0,
) -> StretchEnergy:
    """Return the energy of a window with its interval, the parts of that, and its bound.

    Args:
        knots: where the energy is known; they must cover the window.
        start_s: its start on the knots' scale.
        end_s: its end.
        power_range: between which powers the device stays.
        fine_readings: power readings that are means over less than half of the knots' distance:
            they show how power varies between knots.
        margins: stretches without work before the start and after the end, however short; None
            where work goes on.
        late_s: how late the energy may be counted at most.
        early_s: how early, where the knots were moved by a mean delay.
        delay_s: how late it may be that nothing else shows the lag of.
    """
    estimator = _EndEstimator(knots, power_range, tuple(fine_readings), delay_s)
    work_w = knots.power_w[(knots.t_s[:-1] >= start_s) & (knots.t_s[1:] <= end_s)]
    if len(work_w) == 0:
        work_w = np.diff(knots.at(np.array([start_s, end_s]))) / max(end_s - start_s, 1e-9)
    start = estimator.at_end(start_s, end_s, margins[0], early_s, work_w)
    end = estimator.at_end(end_s, start_s, margins[1], late_s, work_w)
    # The ends are independent (GUM 5.1.2), and never further off than their bounds.
    bound_j = start.bound_j + end.bound_j
    u95_j = COVERAGE_FACTOR * math.hypot(start.standard_j, end.standard_j)
    # From rest to work and back both ends are off the same way: that adds, and repeats share it,
    # but for what a counter shows that is merely late.
    common_error_j = start.common_error_j + end.common_error_j
    u95_j = min(u95_j + common_error_j, bound_j)
    shared_ends_j = min(common_error_j - start.lag_explained_j - end.lag_explained_j, u95_j)
    stretch = StretchEnergy(
        end.energy_j - start.energy_j,
        quadrature_difference(u95_j, shared_ends_j),
        shared_ends_j,
        bound_j,
        (start.at_rest, end.at_rest),
    )
    return replace(stretch, bound_j=max(bound_j, stretch.u95_j))


@dataclass(frozen=True)
class _EndEstimator:
    """What there is to determine the energy at an end from; see ``window_energy``.

    The methods take an end, and where that matters the window's other one, on the knots' scale.
    """

    knots: Knots
    power_range: PowerRange
    fine_readings: tuple[Readings, ...]
    delay_s: float

    def at_end(
        self,
        end_s: float,
        other_end_s: float,
        margin: Margin | None,
        timing_slack_s: float,
        work_w: Floats,
    ) -> End:
        """Return the energy at an end, from the rest next to it where there is one."""
        knots = self.knots
        if margin is None:
            return self.between_knots(end_s)
        is_start = end_s < other_end_s
        from_s = margin.start_s if is_start else end_s + timing_slack_s
        to_s = end_s - timing_slack_s if is_start else margin.end_s
        inside = np.flatnonzero((knots.t_s >= from_s) & (knots.t_s <= to_s))
        if len(inside) < 2:
            return self.at_unresolved_pause(end_s, other_end_s)
        if not self.is_at_rest(from_s, to_s, work_w):
            return self.between_knots(end_s)
        t_s, energy_j = knots.t_s[inside], knots.energy_j[inside]
        levels_w = np.diff(energy_j) / np.diff(t_s)
        nearest = -1 if is_start else 0
        level_w = float(levels_w[nearest])
        gap_s = float(end_s - t_s[nearest])
        # One level is known as well as its two moments are; several show how steady the rest is.
        spread_w = float(np.ptp(levels_w)) if len(levels_w) > 1 else 0.05 * abs(level_w)
        t_half_width_s = float(knots.t_half_width_s[inside].mean())
        timing_w = abs(level_w) * t_half_width_s / float(np.diff(t_s)[nearest])
        # Power that strays by chance does so more over a shorter gap, and the level itself does.
        extrapolation_s = math.sqrt(abs(gap_s) * (abs(gap_s) + float(np.diff(t_s)[nearest])))
        standard_j = math.hypot(spread_w * extrapolation_s, timing_w * gap_s)
        standard_j += level_w * t_half_width_s / math.sqrt(3)
        rest_j = float(energy_j[nearest]) + level_w * gap_s
        farthest_w = self.power_range.farthest_w(level_w)
        mismatch = self.rest_mismatch(end_s, other_end_s, rest_j, level_w)
        return End(
            rest_j,
            standard_j,
            farthest_w * abs(gap_s),
            common_error_j=mismatch.error_j,
            lag_explained_j=mismatch.lag_explained_j,
            at_rest=True,
        )

    def is_at_rest(self, low_s: float, high_s: float, work_w: Floats) -> bool:
        """Return whether a stretch is at rest: work that goes on there makes it none."""
        inside = (self.knots.t_s >= low_s) & (self.knots.t_s <= high_s)
        parts_w = [np.diff(self.knots.energy_j[inside]) / np.diff(self.knots.t_s[inside])]
        for readings in self.fine_readings:
            # A reading is one of the margin if all that it may be a mean over lies there.
            inside_margin = readings.t_s - readings.t_half_width_s >= low_s + readings.window_s
            inside_margin &= readings.t_s + readings.t_half_width_s <= high_s
            parts_w.append(readings.power_w[inside_margin])
        powers_w = np.concatenate(parts_w)
        if len(powers_w) == 0:
            return False
        level_w, range_w = float(np.mean(powers_w)), float(np.ptp(powers_w))
        least_w, most_w = float(work_w.min()), float(work_w.max())
        is_below = level_w <= (1 - _MAX_REST_RANGE) * least_w
        is_flat = range_w <= _FLAT_SHARE * (most_w - least_w) and level_w <= (least_w + most_w) / 2
        return range_w <= _MAX_REST_RANGE * level_w and (is_below or is_flat)

    def rest_mismatch(
        self, end_s: float, other_end_s: float, rest_j: float, level_w: float
    ) -> RestMismatch:
        """Return how far off an end may be where the work contradicts the rest; 0 where not.

        It does where more was drawn between the work's next knot and the rest than the most power
        seen next to the end explains: then work began early or went on in the margin, or was
        counted late. How much of that is not the window's, the least power seen there shows.
        """
        work = self.work_next_to(end_s, other_end_s, _NEARBY_KNOTS)
        if work is None:
            return RestMismatch(0.0, 0.0)
        nearest_knot, powers_w = work
        gap_to_knot_s = abs(float(self.knots.t_s[nearest_knot]) - end_s)
        drawn_j = abs(float(self.knots.energy_j[nearest_knot]) - rest_j)
        most_w = float(powers_w.max())

        def is_explained(late_s: float) -> bool:
            # Pulses shorter than what was seen may have been above it.
            spacing_s = self.knots.spacing_s
            unseen_j = self.undersampling_error_j(most_w, spacing_s, gap_to_knot_s + late_s)
            timing_j = most_w * float(self.knots.t_half_width_s[nearest_knot])
            most_j = most_w * gap_to_knot_s + (most_w - level_w) * late_s
            return drawn_j <= most_j + COVERAGE_FACTOR * unseen_j + timing_j

        # Work ends late in a counter that is late, and begins late.
        explained_on_time = is_explained(0.0)
        explained_if_late = is_explained(self.delay_s if end_s > other_end_s else 0.0)
        error_j = 0.0 if explained_on_time else drawn_j - float(powers_w.min()) * gap_to_knot_s
        return RestMismatch(error_j, error_j if explained_if_late else 0.0)

    def at_unresolved_pause(self, end_s: float, other_end_s: float) -> End:
        """Return the energy at an end of work next to a pause too short to show itself.

        The curve through the knots smears what changes there. What the work may have drawn between
        the end and its next knot is what it was seen to draw there, from the least to the most.
        """
        curve = self.between_knots(end_s)
        work = self.work_next_to(end_s, other_end_s, 2)
        if work is None:
            return replace(curve, common_error_j=curve.bound_j)
        nearest_knot, powers_w = work
        gap_to_knot_s = abs(float(self.knots.t_s[nearest_knot]) - end_s)
        possible_j = np.array([powers_w.min(), powers_w.max()]) * gap_to_knot_s
        by_curve_j = abs(curve.energy_j - float(self.knots.energy_j[nearest_knot]))
        return replace(curve, common_error_j=float(np.max(np.abs(possible_j - by_curve_j))))

    def work_next_to(
        self, end_s: float, other_end_s: float, stretches: int
    ) -> tuple[int, Floats] | None:
        """Return the nearest knot within the window, and the powers seen next to the end.

        They are of so many stretches between knots, and of the readings there. None if there are
        not two knots in the window.
        """
        knots, is_start = self.knots, end_s < other_end_s
        low_s, high_s = min(end_s, other_end_s), max(end_s, other_end_s)
        places = np.flatnonzero((knots.t_s >= low_s) & (knots.t_s <= high_s))
        places = places[: stretches + 1] if is_start else places[-stretches - 1 :]
        if len(places) < 2:
            return None
        first_s, last_s = knots.t_s[places[[0, -1]]]
        low_s, high_s = (end_s, last_s) if is_start else (first_s, end_s)
        parts_w = [np.diff(knots.energy_j[places]) / np.diff(knots.t_s[places])]
        parts_w += [
            readings.power_w[(readings.t_s - readings.window_s >= low_s) & (readings.t_s <= high_s)]
            for readings in self.fine_readings
        ]
        return int(places[0] if is_start else places[-1]), np.concatenate(parts_w)

    def between_knots(self, t_s: float) -> End:
        """Return the energy at a moment between two knots, or a little beyond the outermost."""
        knots = self.knots
        right = int(np.clip(np.searchsorted(knots.t_s, t_s, side="right"), 1, len(knots) - 1))
        left = right - 1
        low_j, high_j = possible_energies(knots, left, right, t_s, self.power_range)
        guess_j = float(np.clip(knots.at(t_s), low_j, high_j))
        bound_j = max(high_j - guess_j, guess_j - low_j)
        span_s = float(knots.t_s[right] - knots.t_s[left])
        fraction = float(np.clip((t_s - knots.t_s[left]) / span_s, 0.0, 1.0))
        # Off by nothing at a knot and most between two, as a bridge is: its square by 4x(1-x).
        nearest = left if fraction < 0.5 else right
        distance_s = abs(t_s - float(knots.t_s[nearest]))
        bridge = math.sqrt(4 * fraction * (1 - fraction))
        curve_error_s = min(_CURVE_ERROR * span_s * bridge, 2 * distance_s)
        curve_error_j = curve_error_s * self.variation_w(left)
        mean_w = abs(float(knots.energy_j[right] - knots.energy_j[left])) / span_s
        timing_j = mean_w * float(knots.t_half_width_s[nearest]) / math.sqrt(3)
        beyond_j = 0.0 if knots.t_s[0] <= t_s <= knots.t_s[-1] else bound_j / math.sqrt(3)
        unseen_j = self.undersampling_error_j(mean_w, span_s, distance_s)
        standard_j = math.sqrt(curve_error_j**2 + unseen_j**2 + timing_j**2 + beyond_j**2)
        return End(guess_j, min(standard_j, bound_j / math.sqrt(3)), bound_j)

    def undersampling_error_j(self, mean_w: float, span_s: float, distance_s: float) -> float:
        """Return how far pulses that nothing shows take the energy off, a standard uncertainty.

        The knots do not show pulses shorter than their distance, nor readings those shorter than
        their window. Over all of the power range they let the energy run off its mean by
        ``excess`` times their period, evenly spread over that: a variance of a twelfth of the
        square (GUM 4.3.7), once for the end and once for the knots that it lies between. Next to a
        knot only the time to it is left.

        Where readings show what is longer, how high pulses are that they do not show is anything
        between none and all of the range: the mean square of that share is a third. Without any
        nothing speaks against all of it.
        """
        blind_s = min((span_s, *(readings.window_s for readings in self.fine_readings)))
        pulses_j = self.power_range.excess(mean_w) * blind_s / math.sqrt(6)
        next_j = self.power_range.farthest_w(mean_w) * distance_s / math.sqrt(3)
        return min(pulses_j, next_j) / (math.sqrt(3) if self.fine_readings else 1.0)

    def variation_w(self, left: int) -> float:
        """Return how far power strays from the curve through the knots around a place, in W.

        Each knot shows it against the curve through every other one, and readings between knots
        do, root mean square. What is drawn between the two knots beyond what is on either side of
        them is a pulse, which may have been anywhere between.
        """
        local = self.knots.select(slice(max(left - _NEARBY_KNOTS, 0), left + _NEARBY_KNOTS + 2))
        deviations_w: list[Floats] = []
        for parity in (0, 1) if len(local) > 3 else ():
            coarse = local.select(slice(parity, None, 2))
            between = local.select(slice(1 - parity, None, 2))
            inner = (between.t_s > coarse.t_s[0]) & (between.t_s < coarse.t_s[-1])
            deviations_j = (between.energy_j - coarse.at(between.t_s))[inner]
            deviations_w.append(deviations_j / local.spacing_s)
        for readings in self.fine_readings:
            inside = (readings.t_s - readings.window_s >= local.t_s[0]) & (
                readings.t_s <= local.t_s[-1]
            )
            t_s = readings.t_s[inside]
            mean_w = (local.at(t_s) - local.at(t_s - readings.window_s)) / readings.window_s
            deviations_w.append(readings.power_w[inside] - mean_w)
        mean_squares = [float(np.mean(part_w**2)) for part_w in deviations_w if len(part_w)]
        variation_w = math.sqrt(max(mean_squares, default=0.0))
        if left < 1 or left + 2 >= len(self.knots):
            return variation_w
        before_w, here_w, after_w = self.knots.select(slice(left - 1, left + 3)).power_w.tolist()
        pulse_w = max(here_w - max(before_w, after_w), min(before_w, after_w) - here_w)
        return max(variation_w, float(pulse_w))


def quadrature_difference(total_j: float, part_j: float) -> float:
    """Return a half width less one that was added to it in quadrature."""
    return math.sqrt(max(total_j**2 - part_j**2, 0.0))
