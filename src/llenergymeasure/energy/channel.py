"""One channel of one device: its energy over any stretch, and all that makes it uncertain."""

import math
from dataclasses import dataclass, replace

import numpy as np

from llenergymeasure.energy.knots import Floats, Knots, PowerRange, Readings
from llenergymeasure.energy.window import (
    LAG_ALLOWANCE_S,
    Margin,
    StretchEnergy,
    quadrature_difference,
    window_energy,
)
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.known_behaviour import CounterNature
from llenergymeasure.units import COVERAGE_FACTOR

_LOCAL_S = 0.25
"""How long a stretch at an end says what power is drawn there."""

_MIN_READINGS = 8
"""Fewest independent readings whose scatter shows the error of their mean."""

CHANNEL_GATE = 0.02
"""Largest relative difference between counter and integrated power."""

_ENOUGH_READINGS = 2000
"""Readings that are enough to find a lag by."""

_GAP_SPACINGS, _GAP_S = 2.5, 0.25
"""Between readings further apart than so many times their usual distance some were missed, unless
one that stays the same is just not written again yet."""

MIN_COMPARED_S = 3.0
"""Shortest stretch over which two channels are held against each other."""


@dataclass(frozen=True)
class Channel:
    """Cumulative energy by one channel, and what is known of how it was made.

    Attributes:
        name: ``counter``, ``power`` or ``model``.
        quantity: what was recorded.
        knots: the energy.
        power_range: between which powers the device stays.
        nature: of a counter; None of power.
        late_s: how late the energy may be counted at most.
        early_s: how early, where the knots were moved by a mean delay.
        fine_readings: much shorter than the knots' distance: how power varies between knots.
        sampled_readings: those whose scatter is this channel's sampling error; None where it sees
            all of the time.
        delay_s: by how much it may be late.
        smear_s: the time over which energy is spread, by averaging or by holding a reading.
        blind_s: a counter made from readings cannot see pulses shorter than what these average.
        finest: the readings that show best what power does within a second; None without any.
        uses_rest: whether a rest next to a window says what was drawn up to its end. Readings that
            adjoin each other show it themselves, whether the marks are right or not.
    """

    name: str
    quantity: Quantity
    knots: Knots
    power_range: PowerRange
    nature: CounterNature | None = None
    late_s: float = LAG_ALLOWANCE_S
    early_s: float = 0.0
    fine_readings: tuple[Readings, ...] = ()
    sampled_readings: Readings | None = None
    delay_s: float = 0.0
    smear_s: float = 0.0
    blind_s: float = 0.0
    finest: Readings | None = None
    uses_rest: bool = True

    @property
    def share_seen(self) -> float:
        """Return the share of the time that is surely seen."""
        return 1.0 if self.sampled_readings is None else self.sampled_readings.share_seen

    def stretch(
        self,
        start_ns: int,
        end_ns: int,
        margins: tuple[Margin | None, Margin | None] = (None, None),
    ) -> StretchEnergy | None:
        """Return the energy of a stretch; None if the channel does not cover it."""
        start_s, end_s = self.knots.seconds(start_ns), self.knots.seconds(end_ns)
        if end_s <= start_s or not self.knots.covers(start_s, end_s):
            return None
        margins = margins if self.uses_rest else (None, None)
        stretch = self._window(0.0, start_s, end_s, margins)
        smears_j = self._smear_j(start_s, margins[0]), self._smear_j(end_s, margins[1])
        smear_j = sum(smears_j)
        delay_j = 0.0
        if self.delay_s > 0:
            delayed = self._window(self.delay_s, start_s, end_s, margins)
            delay_j = abs(delayed.energy_j - stretch.energy_j)
        span_s = end_s - start_s
        mean_w = stretch.energy_j / span_s
        power_range = self.power_range
        bound_j = stretch.bound_j + self.unseen_bound_j(stretch.energy_j, span_s) + smear_j
        bound_j += (self.smear_s / 4 + self.delay_s) * power_range.width_w
        blind_j = COVERAGE_FACTOR * power_range.excess(mean_w) * self.blind_s / math.sqrt(6)
        shifts_j = self._timing_shifts_j(start_s, end_s)
        gaps_s = self._gaps_s(start_s, end_s)
        bound_j += float(np.sum(shifts_j) + np.sum(gaps_s) * power_range.width_w)
        # What was drawn there and what next to it lie somewhere in the range, each by itself.
        gaps_j = gaps_s * self._range_w((start_s + end_s) / 2, span_s / 2) / math.sqrt(2)
        timing_j = COVERAGE_FACTOR * float(np.linalg.norm([*shifts_j, *gaps_j])) / math.sqrt(3)
        # From rest to work and back, what is late and what is smeared lose at both ends, and in
        # each repeat. Where a counter's end is that of a rest, nothing of it is smeared over it.
        shared_j = delay_j + sum(
            end_j
            for end_j, at_rest in zip(smears_j, stretch.at_rest, strict=True)
            if not (at_rest and self.name == "counter")
        )
        stretch = replace(
            stretch,
            random_j=math.hypot(
                stretch.random_j,
                quadrature_difference(smear_j + delay_j, shared_j),
                blind_j,
                timing_j,
            ),
            shared_ends_j=math.hypot(stretch.shared_ends_j, shared_j),
            unseen_j=self._sampling_error_j(start_s, end_s),
        )
        return replace(stretch, bound_j=max(bound_j, stretch.u95_j))

    def unseen_bound_j(self, energy_j: float, span_s: float) -> float:
        """Return what a load may draw at most beyond, or short of, an energy in time not seen."""
        hidden_w = self.power_range.farthest_w(energy_j / span_s)
        return (1 - self.share_seen) * hidden_w * span_s

    def _window(
        self,
        shift_s: float,
        start_s: float,
        end_s: float,
        margins: tuple[Margin | None, Margin | None],
    ) -> StretchEnergy:
        """Return ``window_energy`` if the channel is late by so much."""
        return window_energy(
            self.knots.earlier(shift_s),
            start_s,
            end_s,
            self.power_range,
            fine_readings=self.fine_readings,
            margins=margins,
            late_s=max(self.late_s - shift_s, 0.0),
            # If it is not late after all, the moved energy comes early.
            early_s=self.early_s + shift_s,
            delay_s=max(self.delay_s - shift_s, 0.0),
        )

    def _sampling_error_j(self, start_s: float, end_s: float) -> float:
        if self.sampled_readings is None:
            return 0.0
        power_w = self.sampled_readings.between(start_s, end_s).power_w
        if len(power_w) < 2:
            # One says nothing of how power varies: those next to it do.
            spare_s = 1.5 * self.sampled_readings.spacing_s
            power_w = self.sampled_readings.between(start_s - spare_s, end_s + spare_s).power_w
            if len(power_w) < 2:
                return 0.0
        standard_w = error_of_mean(power_w)
        u95_w = COVERAGE_FACTOR * standard_w
        # Readings that follow a slow beat say little of the mean: it may be any that was seen.
        independent = float(np.var(power_w)) / standard_w**2 if standard_w > 0 else len(power_w)
        if independent < _MIN_READINGS:
            u95_w = max(u95_w, float(np.max(np.abs(power_w - power_w.mean()))))
        # A step at an end falls between two readings by chance.
        steps_j = [
            self._range_w(t_s, _LOCAL_S) * self.sampled_readings.spacing_s / math.sqrt(12)
            for t_s in (start_s, end_s)
        ]
        return math.hypot(u95_w * (end_s - start_s), *(COVERAGE_FACTOR * j for j in steps_j))

    def _timing_shifts_j(self, start_s: float, end_s: float) -> Floats:
        """Return what each reading may take from its neighbours, as it may have been new sooner.

        A counter between its ends has none of it: it counts whatever the moments.
        """
        if self.name != "power":
            return np.zeros(0)
        knots = self.knots.select(slice(1, -1))
        shifts_j = np.abs(np.diff(self.knots.power_w)) * knots.t_half_width_s
        return np.asarray(shifts_j[(knots.t_s > start_s) & (knots.t_s < end_s)])

    def _gaps_s(self, start_s: float, end_s: float) -> Floats:
        """Return how long nothing was seen each time that the recorder got no time to run.

        A counter counts meanwhile; readings of part of the time have it in their sampling error.
        """
        if self.name != "power" or self.sampled_readings is not None:
            return np.zeros(0)
        knots, covered_s = self.knots, max(self.smear_s, self.knots.spacing_s)
        apart_s = np.diff(np.clip(knots.t_s + knots.t_half_width_s, start_s, end_s))
        gaps = apart_s > max(_GAP_SPACINGS * knots.spacing_s, _GAP_S)
        return np.asarray(np.maximum(apart_s - covered_s, 0.0)[gaps])

    def _smear_j(self, t_s: float, margin: Margin | None) -> float:
        """Return the energy that is spread over an end at most, by a step near it."""
        if self.smear_s == 0.0:
            return 0.0
        # Of a rest that is shorter than what readings average they show but a part.
        hidden = margin is not None and 0 < margin.end_s - margin.start_s < self.smear_s
        low_w = self.power_range.low_w if hidden and self.name == "power" else math.inf
        return self._range_w(t_s, max(1.5 * self.smear_s, _LOCAL_S), low_w) * self.smear_s / 8

    def _range_w(self, t_s: float, around_s: float, floor_w: float = math.inf) -> float:
        """Return the range of power around a moment, from a power at least that may be there."""
        near = np.abs(self.knots.t_s - t_s) <= around_s + self.knots.spacing_s
        powers_w = [np.diff(self.knots.energy_j[near]) / np.diff(self.knots.t_s[near])]
        if self.finest is not None:
            powers_w.append(self.finest.power_w[np.abs(self.finest.t_s - t_s) <= around_s])
        ranges_w = (float(w.max() - min(w.min(), floor_w)) for w in powers_w if len(w))
        return max(ranges_w, default=0.0)


def error_of_mean(values: Floats) -> float:
    """Return the standard error of the mean of a correlated series.

    Its variance over n, times one plus twice the autocorrelations up to the first negative one
    (Geyer 1992, Statist. Sci. 7, 473).
    """
    count = len(values)
    deviations = values - np.mean(values) if count else values
    if count < 4 or not np.any(deviations):
        return 0.0
    variance = float(deviations @ deviations) / count
    # All at once: one after the other they take minutes over an hour's readings that drift.
    spectrum = np.abs(np.fft.rfft(deviations, 2 * count)) ** 2
    correlations = np.fft.irfft(spectrum)[1 : count - 1] / count / variance
    first_negative = np.argmax(np.append(correlations, -1.0) < -1e-12)  # one of 0 is rounded
    return math.sqrt(variance * (1 + 2 * float(np.sum(correlations[:first_negative]))) / count)


@dataclass(frozen=True)
class Disagreement:
    """How a counter stands to a power channel of the same device, relative to its energy.

    Attributes:
        relative: power channel over counter, less one.
        u95: half width of the 95 % interval of that.
        ends: how far the two may differ at the window's own ends, in addition: half width at 95 %.
        timing_effect: what a lag between the two, as a counter may have, does to the first.
    """

    relative: float
    u95: float
    ends: float = 0.0
    timing_effect: float = 0.0

    @property
    def is_clear(self) -> bool:
        """Return whether the two differ by more than their unsure times explain."""
        return abs(self.relative) > self.u95

    @property
    def largest(self) -> float:
        """Return how far apart the two energies may be."""
        return abs(self.relative) + math.hypot(self.u95, self.ends)

    @property
    def is_mismatch(self) -> bool:
        """Return whether they clearly differ by more than two sensors of one card should."""
        return self.is_clear and abs(self.relative) - self.timing_effect > CHANNEL_GATE


def disagreement(
    counter: Knots, readings: Readings, start_s: float, end_s: float
) -> Disagreement | None:
    """Hold a counter against readings that are means over a known time; None from too few.

    Like is held against like: each reading against the counter's own mean over the time that the
    reading covers. So the ends of a window, which averaging smears, do not enter. A short window
    is judged by what is around it.
    """
    window_s = readings.window_s
    spare_s = max(MIN_COMPARED_S - (end_s - start_s), 0.0) / 2
    low_s = max(start_s - spare_s + window_s / 2, counter.t_s[0] + window_s)
    high_s = min(end_s + spare_s + window_s / 2, counter.t_s[-1])
    common = readings.between(low_s, high_s)
    if len(common) < 8 or high_s - low_s < 1.5 * window_s:
        return None
    counted_j = counter.at(common.t_s) - counter.at(common.t_s - window_s)
    mean_j = float(np.mean(counted_j))
    if mean_j <= 0:
        return None
    difference_j = common.power_w * window_s - counted_j
    standard_j = _error_of_difference(counter, common, difference_j)
    # At either end readings reach over it, less and less: what differs there counts in part. If it
    # differs by chance, that leaves a sixth of the variance of one reading.
    # Nor is a short window all of the stretch that it is judged by.
    span_s = max(end_s - start_s, 1e-9)
    unshared_variance = span_s / window_s * (1 - span_s / max(span_s, MIN_COMPARED_S))
    ends_j = float(np.std(difference_j)) * math.sqrt(1 / 6 + unshared_variance)
    window_j = mean_j * span_s / window_s
    # A lag that a counter may have is no difference of energies: it moves what is drawn at an end.
    shifted_j = [
        abs(float(np.mean(counter.at(t_s) - counter.at(t_s - window_s))) - mean_j)
        for t_s in (common.t_s - LAG_ALLOWANCE_S, common.t_s + LAG_ALLOWANCE_S)
    ]
    return Disagreement(
        float(np.mean(difference_j)) / mean_j,
        COVERAGE_FACTOR * standard_j / mean_j,
        COVERAGE_FACTOR * ends_j / window_j,
        max(shifted_j) / mean_j,
    )


def _error_of_difference(counter: Knots, readings: Readings, difference_j: Floats) -> float:
    """Return the standard error of the mean by which readings differ from a counter.

    What is not known is the counter's energy between two of its ticks: none at a tick, and most in
    the middle. Where a reading begins to cover the time that another one ends to cover, both err by
    the same, in opposite senses. So of a whole row of readings only the errors of the first begins
    and the last ends are left, however far each reading is off: a counter and a mean that both see
    everything cannot run apart. How large the errors are, the scatter of the readings shows.
    """
    count = len(readings)
    moments_s = np.concatenate((readings.t_s, readings.t_s - readings.window_s))
    senses = np.repeat([1.0, -1.0], count)
    left = np.clip(np.searchsorted(counter.t_s, moments_s, side="right") - 1, 0, len(counter) - 2)
    span_s = counter.t_s[left + 1] - counter.t_s[left]
    x = np.clip((moments_s - counter.t_s[left]) / span_s, 0.0, 1.0)
    timing_s = np.tile(readings.t_half_width_s, 2) + counter.t_half_width_s[left]
    sizes = np.maximum(np.sqrt(4 * x * (1 - x)), np.minimum(timing_s / span_s, 1.0))
    size = math.sqrt(2 * float(np.mean(sizes**2)))
    if size == 0.0:
        return float(np.std(difference_j)) / math.sqrt(count)
    # Between the same two ticks all err alike.
    remaining = np.bincount(left, weights=senses * sizes)
    correlated_j = float(np.std(difference_j)) / size * float(np.linalg.norm(remaining)) / count
    if span_s.max() < readings.window_s / 2:
        return correlated_j
    # Between two ticks so far apart moments err each in its own way.
    recorded_s = float(readings.t_s[-1] - readings.t_s[0])
    independent = min(recorded_s / readings.window_s + 1, count)
    return max(correlated_j, float(np.std(difference_j)) / math.sqrt(independent))


def lag_behind(counter: Knots, readings: Readings) -> float:
    """Return how late a counter follows readings that are means over a known time; 0 if early.

    A counter that is late has the energy of the readings' own time later. The lag is the one with
    which it follows them best, up to ``LAG_ALLOWANCE_S``.
    """
    common = readings.between(counter.t_s[0] + readings.window_s, counter.t_s[-1] - LAG_ALLOWANCE_S)
    if len(common) < _MIN_READINGS:
        return 0.0
    every_nth = slice(None, None, 1 + len(common) // _ENOUGH_READINGS)
    t_s, power_w = common.t_s[every_nth], common.power_w[every_nth]

    def stray_w(lag_s: float, window_s: float) -> float:
        counted_j = counter.at(t_s + lag_s) - counter.at(t_s + lag_s - window_s)
        return float(np.std(power_w - counted_j / window_s))

    # A window that is not quite what is published moves a mean's middle: that is no lag.
    fits = [
        (stray_w(lag_s, scale * common.window_s), lag_s)
        for lag_s in np.linspace(0.0, LAG_ALLOWANCE_S, 26)
        for scale in np.linspace(0.7, 1.3, 13)
    ]
    least_w, lag_s = min(fits)
    # Power that hardly changes shows no lag: all fit alike.
    return float(lag_s) if least_w < 0.9 * min(w for w, lag in fits if lag == 0.0) else 0.0
