"""One device as one sensor saw it: its energy counter, its power, and what is known of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llenergymeasure.energy.channel import (
    Channel,
    Disagreement,
    disagreement,
    lag_behind,
)
from llenergymeasure.energy.characterise import observed, power_channels, reading_period
from llenergymeasure.energy.knots import (
    Floats,
    Knots,
    PowerRange,
    Readings,
    counter_knots,
    power_knots,
)
from llenergymeasure.recording.samples import Samples, Series
from llenergymeasure.sensors.base import Quantity, SensorInfo
from llenergymeasure.sensors.behaviour import Behaviour, PowerBehaviour
from llenergymeasure.units import NS_PER_S

IMPOSSIBLE = 1.5
"""What says more than this many times the power limit has not measured."""
MOST_W = 5000.0
"""No device whose limit is not known draws more."""
_UNKNOWN = PowerRange(0.0, MOST_W)
_STOOD_STILL = 0.5
"""Nor has one that, over a gap, rose by less than this share of the least power that was read."""

USUAL_LAG_S = 0.01
"""By how much a channel may be late that nothing shows the lag of: what an H100's counter is."""

_SMOOTH = 0.2
"""Readings that change at once by more than this share of the power range are no means over a
second that are renewed ten times in it."""


@dataclass(frozen=True)
class Device:
    """One device by one sensor.

    Attributes:
        info: which device and sensor.
        behaviour: how the channels behave: probed, published, or seen in this recording.
        counter: the energy counter; None if there is none, or it stood still or ran backwards.
        power: integrated power, which may be another sensor's; None if there is none.
        resets_s: when the counter fell, on the knots' scale.
        jumps_s: when it rose by more than the device can draw, or by less while it was read.
        averages: the readings that see all of the time.
        notes: what a reader of the numbers should know.
    """

    info: SensorInfo
    behaviour: Behaviour
    counter: Channel | None
    power: Channel | None
    resets_s: Floats
    jumps_s: Floats
    averages: Readings | None
    notes: tuple[str, ...] = ()

    def channels(self, start_ns: int, end_ns: int) -> list[Channel]:
        """Return the channels there are, the one first that shows more of a window.

        That is the counter, unless it is the sum of readings that miss part of the time and clearly
        missed too much of it: then readings that see everything.
        """
        given = self.info.quantities
        found = [
            each
            for each in (self.counter, self.power)
            if each is not None and (not given or each.quantity in given)
        ]
        if self.counter is None or self.counter.nature != "sum" or self.averages is None:
            return found
        apart = self.disagreement(start_ns, end_ns)
        return found[::-1] if apart is not None and apart.mismatch else found

    def disagreement(self, start_ns: int, end_ns: int) -> Disagreement | None:
        """Return how the counter stands to the power readings; None where that says nothing.

        Best against readings that see all of the time. Without any, readings that see some of it
        are held against a counter of which nothing is shown: one that is independent of them has
        every right to differ, and one that is their sum cannot.
        """
        if self.counter is None:
            return None
        knots = self.counter.knots
        if self.averages is not None:
            span_s = knots.seconds(start_ns), knots.seconds(end_ns)
            return disagreement(knots, self.averages, *span_s)
        if self.power is None or self.counter.nature != "unverified":
            return None
        counted = self.counter.stretch(start_ns, end_ns)
        seen = self.power.stretch(start_ns, end_ns)
        if counted is None or seen is None or counted.energy_j <= 0:
            return None
        u95_j = math.hypot(counted.ends_j, seen.u95_j)
        return Disagreement(seen.energy_j / counted.energy_j - 1, u95_j / counted.energy_j)


def open_device(samples: Samples, info: SensorInfo, known: Behaviour | None = None) -> Device:
    """Prepare a device's channels from a whole recording."""
    origin_ns = samples.header.started_monotonic_ns
    card = _whose_counter(samples, info)
    readings = power_channels(samples, card)
    series = samples.series(info.device, info.sensor, "energy_counter_j")
    raw = counter_knots(series, origin_ns)
    knots, resets_s = _without_resets(raw)
    reach = _power_range(card, knots, readings)
    least_w = min((float(each.power_w.min()) for each in readings.values()), default=0.0)
    jumps_s = _jumps(series, origin_ns, reach if card.power_limit_w else _UNKNOWN, least_w)
    # A counter that lost or made up energy shows nothing of what it counts otherwise.
    faulty = len(resets_s) + len(jumps_s) > 0
    behaviour = observed(raw, {} if faulty else readings, card, known)
    parts = [
        replace(each, behaviour=_behaviour_of(behaviour, quantity, each, reach)).renewed()
        for quantity, each in readings.items()
    ]
    averages = max(
        (each for each in parts if each.share_seen == 1.0),
        key=lambda each: each.window_s,
        default=None,
    )
    finest = min(parts, key=lambda each: each.window_s, default=None)
    best = max(parts, key=lambda each: each.share_seen, default=None)
    notes = tuple(
        f"{each.zeros} readings of 0 W or less by {each.behaviour.quantity} were left out"
        for each in parts
        if each.zeros
    )
    return Device(
        replace(info, power_limit_w=card.power_limit_w, driver=card.driver, mig=card.mig),
        behaviour,
        _counter_channel(knots, behaviour, parts, averages, reach, finest),
        None if best is None else _power_channel(best, reach, finest),
        resets_s,
        jumps_s,
        averages,
        notes,
    )


def _whose_counter(samples: Samples, info: SensorInfo) -> SensorInfo:
    """Return a card as NVML sees it, whose counter others read too: they know no more of it."""
    same = [
        each
        for each in samples.header.sensors
        if (each.device, each.sensor) == (info.device, "nvml") and each.unavailable is None
    ]
    return same[0] if same and "energy_counter_j" in info.quantities else info


def model_channel(samples: Samples, info: SensorInfo) -> Channel | None:
    """Return a model's power integrated: each row is the mean since the one before."""
    origin_ns = samples.header.started_monotonic_ns
    series = samples.series(info.device, info.sensor, "power_model_w")
    known = ~np.isnan(series.value)
    if known.sum() < 2:
        return None
    t_s = (series.t_ns[known] - origin_ns) / 1e9
    power_w = series.value[known]
    first_s = min(float(series.t_before_ns[known][0] - origin_ns) / 1e9, float(t_s[0]))
    times_s = np.concatenate(([first_s], t_s)) if first_s < t_s[0] else t_s
    spans_s = np.diff(times_s)
    energy_j = np.concatenate(([0.0], np.cumsum(power_w[-len(spans_s) :] * spans_s)))
    knots = Knots(origin_ns, times_s, energy_j, np.zeros(len(times_s)))
    reach = PowerRange(float(power_w.min()), float(power_w.max()))
    return Channel("model", "power_model_w", knots, reach)


def _behaviour_of(
    behaviour: Behaviour, quantity: Quantity, readings: Readings, reach: PowerRange
) -> PowerBehaviour:
    known = behaviour.of(quantity)
    if known is None or (known.source == "documented" and not _smooth(readings, reach)):
        return PowerBehaviour(quantity, reading_period(readings), None, "seen")
    if known.update_period_s is not None:
        return known
    return replace(known, update_period_s=reading_period(readings) or readings.spacing_s)


def _smooth(readings: Readings, reach: PowerRange) -> bool:
    """Return whether readings may be means over a second: none changes by much at once."""
    most_w = _SMOOTH * (reach.high_w - reach.low_w)
    return float(np.max(np.abs(np.diff(readings.power_w)))) <= most_w


def _without_resets(knots: Knots) -> tuple[Knots, Floats]:
    """Let a counter that fell go on from where it was; return when it did, too."""
    rises_j = np.diff(knots.energy_j)
    fell = rises_j < 0
    if not fell.any():
        return knots, np.zeros(0)
    whole_j = np.concatenate(([0.0], np.cumsum(np.maximum(rises_j, 0.0))))
    return replace(knots, energy_j=knots.energy_j[0] + whole_j), knots.t_s[1:][fell]


def _jumps(series: Series, origin_ns: int, reach: PowerRange, least_w: float) -> Floats:
    """Return when a counter rose by more than the device can draw, or by less while it was read.

    Only what the reads surely show counts: a value was new at some time after the last read that
    saw the old one and before the end of the first that saw it. Where nothing was read for a while,
    and a value that a later read saw again rose by less than must have been drawn meanwhile, the
    counter has lost it. A recorder that got no time to run knows less, and finds no fault.
    """
    new = (series.t_before_ns < series.t_ns) & ~np.isnan(series.value)
    early_s = (series.t_before_ns[new] - origin_ns) / NS_PER_S
    late_s = (series.t_ns[new] - origin_ns) / NS_PER_S
    rises_j = np.diff(series.value[new])
    usual_s = float(np.median(np.diff(late_s))) if len(late_s) > 1 else 0.0
    stood_s, longest_s = early_s[1:] - late_s[:-1], late_s[1:] - early_s[:-1]
    # A value that is seen again was the counter's once the read that noted it was over; one that
    # is not may be as old as the begin of a read that took long.
    seen_again = np.append(early_s[2:] > late_s[1:-1], False)[: len(stood_s)]
    blind_s = np.where(seen_again, late_s[1:] - early_s[1:] - usual_s, 0.0)
    shortest_s = np.maximum(stood_s, blind_s)
    rose = rises_j > IMPOSSIBLE * reach.high_w * longest_s
    stood = (shortest_s > 3 * usual_s) & (rises_j < _STOOD_STILL * least_w * shortest_s)
    return np.asarray(late_s[1:][rose | (stood & (rises_j >= 0))])


def _power_range(info: SensorInfo, knots: Knots, readings: dict[Quantity, Readings]) -> PowerRange:
    """Return the powers the device stays between: the least seen, and its limit."""
    seen = [each.power_w for each in readings.values()]
    if len(knots) > 2:
        seen.append(knots.power_w)
    if not seen:
        return PowerRange(0.0, 0.0)
    least_w, most_w = min(float(w.min()) for w in seen), max(float(w.max()) for w in seen)
    limits_w = info.power_limit_w or {}
    limit_w = limits_w.get("enforced") or limits_w.get("max")
    measured_w = max((float(each.power_w.max()) for each in readings.values()), default=most_w)
    high_w = max(limit_w, measured_w) if limit_w else 1.5 * most_w
    return PowerRange(max(least_w, 0.0), high_w)


def _power_channel(readings: Readings, reach: PowerRange, finest: Readings | None) -> Channel:
    share, all_seen = readings.share_seen, readings.share_seen == 1.0
    exact = readings.adjoining
    return Channel(
        "power",
        readings.behaviour.quantity,
        power_knots(readings),
        reach,
        sampled=None if all_seen else readings,
        smear_s=readings.window_s if all_seen and not exact else 0.0,
        delay_s=USUAL_LAG_S if exact else 0.0,
        by_rest=not exact,
        short=finest,
        within=(readings,) if 0 < share < 1 else (),
    )


def _counter_channel(
    knots: Knots,
    behaviour: Behaviour,
    parts: Sequence[Readings],
    averages: Readings | None,
    reach: PowerRange,
    finest: Readings | None,
) -> Channel | None:
    if len(knots) < 2 or knots.energy_j[-1] <= knots.energy_j[0]:
        return None
    channel = Channel(
        "counter",
        "energy_counter_j",
        knots,
        reach,
        nature=behaviour.counter,
        within=tuple(each for each in parts if 0 < each.window_s < 0.5 * knots.spacing_s),
        short=finest,
    )
    if behaviour.counter == "independent":
        lag_s = behaviour.counter_lag_s
        if lag_s is None:
            # Of two channels that are apart in time either may be the late one.
            seen_s = 0.0 if averages is None else lag_behind(knots, averages)
            return replace(channel, delay_s=max(USUAL_LAG_S, seen_s))
        return replace(channel, knots=knots.earlier(lag_s), late_s=0.0)
    # What it may be, or is, the sum of: readings that do not see all, the finest of them. Of some
    # that are not recorded its own steps are the sums.
    parts = parts or [Readings(knots.origin_ns, knots.t_s[1:], knots.half_s[1:], knots.power_w)]
    sources = [each for each in parts if each.share_seen < 1.0]
    sources = sources or [each for each in parts if each.window_s < 0.5]
    if not sources:
        return channel
    source = min(sources, key=lambda each: each.window_s)
    all_seen = source.share_seen == 1.0
    # A reading is held for a period after it was a mean over its window.
    period_s = source.behaviour.update_period_s or source.spacing_s
    delay_s = (period_s + source.window_s) / 2
    channel = replace(
        channel,
        sampled=None if all_seen else source,
        # A reading that holds half a step is held for a period: a quarter of that at worst. Where
        # readings see but part of the time their sampling error has it.
        smear_s=2 * period_s if all_seen else period_s,
        blind_s=source.window_s,
    )
    if behaviour.counter == "sum":
        # Its readings, held until the next, are steps of their own: they do not show what lies
        # between the counter's.
        moved = knots.earlier(delay_s)
        return replace(channel, knots=moved, within=(), late_s=delay_s, early_s=delay_s)
    return replace(channel, delay_s=delay_s, late_s=max(channel.late_s, 2 * delay_s))
