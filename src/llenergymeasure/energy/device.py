"""One device as one sensor saw it: its energy counter, its power, and what is known of them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llenergymeasure.energy.channel import (
    Channel,
    Disagreement,
    disagreement,
    lag_behind,
)
from llenergymeasure.energy.characterise import (
    adds_up_means,
    observe,
    power_channels,
    reading_period,
)
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
from llenergymeasure.sensors.known_behaviour import Behaviour, PowerBehaviour
from llenergymeasure.units import NS_PER_S

IMPOSSIBLE_FACTOR = 1.5
"""What says more than this many times the power limit has not measured."""
MAX_POWER_W = 5000.0
"""No device whose limit is not known draws more."""
_ANY_POWER = PowerRange(0.0, MAX_POWER_W)
_STOOD_STILL = 0.5
"""Nor has one that, over a gap, rose by less than this share of the least power that was read."""

USUAL_LAG_S = 0.01
"""By how much a channel may be late that nothing shows the lag of: what an H100's counter is."""

_SMOOTH_SHARE = 0.2
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
        adds_up_means: whether the counter is the sum, and so later, of means over many updates that
            the sensor shows too.
        notes: what a reader of the numbers should know.
    """

    info: SensorInfo
    behaviour: Behaviour
    counter: Channel | None
    power: Channel | None
    resets_s: Floats
    jumps_s: Floats
    averages: Readings | None
    adds_up_means: bool = False
    notes: tuple[str, ...] = ()

    def channels(self, start_ns: int, end_ns: int) -> list[Channel]:
        """Return the channels there are, the one first that shows more of a window.

        That is the counter, unless it is the sum of readings that are later than the load, or that
        miss part of the time and clearly missed too much of it: then readings that see everything.
        """
        quantities = self.info.quantities
        channels = [
            channel
            for channel in (self.counter, self.power)
            if channel is not None and (not quantities or channel.quantity in quantities)
        ]
        if self.adds_up_means:
            return channels[::-1]
        if self.counter is None or self.counter.nature != "sum" or self.averages is None:
            return channels
        disagreement = self.disagreement(start_ns, end_ns)
        return channels[::-1] if disagreement is not None and disagreement.is_mismatch else channels

    def disagreement(self, start_ns: int, end_ns: int) -> Disagreement | None:
        """Return how the counter stands to the power readings; None where that says nothing.

        Best against readings that see all of the time. Without any, readings that see some of it
        are held against a counter of which nothing is shown: one that is independent of them has
        every right to differ, and one that is their sum cannot.
        """
        if self.counter is None or self.adds_up_means:
            return None
        knots = self.counter.knots
        if self.averages is not None:
            span_s = knots.seconds(start_ns), knots.seconds(end_ns)
            return disagreement(knots, self.averages, *span_s)
        if self.power is None or self.counter.nature != "unverified":
            return None
        counted = self.counter.stretch(start_ns, end_ns)
        integrated = self.power.stretch(start_ns, end_ns)
        if counted is None or integrated is None or counted.energy_j <= 0:
            return None
        u95_j = math.hypot(counted.ends_j, integrated.u95_j)
        return Disagreement(integrated.energy_j / counted.energy_j - 1, u95_j / counted.energy_j)


def open_device(samples: Samples, info: SensorInfo, probed: Behaviour | None = None) -> Device:
    """Prepare a device's channels from a whole recording."""
    origin_ns = samples.header.started_monotonic_ns
    card = _nvml_info(samples, info)
    by_quantity = power_channels(samples, card)
    series = samples.series(info.device, info.sensor, "energy_counter_j")
    raw = counter_knots(series, origin_ns)
    knots, resets_s = _continue_resets(raw)
    power_range = _power_range(card, knots, by_quantity.values())
    least_w = min((float(readings.power_w.min()) for readings in by_quantity.values()), default=0.0)
    jumps_s = _jumps(series, origin_ns, power_range if card.power_limit_w else _ANY_POWER, least_w)
    # A counter that lost or made up energy shows nothing of what it counts otherwise.
    faulty = len(resets_s) + len(jumps_s) > 0
    behaviour = observe(raw, {} if faulty else by_quantity, card, probed)
    channels = [
        _with_behaviour(readings, behaviour, quantity, power_range).with_renewals()
        for quantity, readings in by_quantity.items()
    ]
    averages = max(
        (readings for readings in channels if readings.share_seen == 1.0),
        key=lambda readings: readings.window_s,
        default=None,
    )
    finest = min(channels, key=lambda readings: readings.window_s, default=None)
    best = max(channels, key=lambda readings: readings.share_seen, default=None)
    # Zeus shows the counter alone: readings of NVML's judge it, and are no energy of Zeus'.
    own_channels = [
        readings
        for readings in channels
        if not info.quantities or readings.behaviour.quantity in info.quantities
    ]
    notes = tuple(
        f"{readings.zeros} readings of 0 W or less by {readings.behaviour.quantity} were left out"
        for readings in channels
        if readings.zeros
    )
    return Device(
        replace(info, power_limit_w=card.power_limit_w, driver=card.driver, mig=card.mig),
        behaviour,
        _counter_channel(knots, behaviour, channels, averages, power_range, finest),
        None if best is None else _power_channel(best, power_range, finest),
        resets_s,
        jumps_s,
        averages,
        not faulty and any(adds_up_means(raw, readings) for readings in own_channels),
        notes,
    )


def _nvml_info(samples: Samples, info: SensorInfo) -> SensorInfo:
    """Return a card as NVML sees it, whose counter others read too: they know no more of it."""
    if "energy_counter_j" in info.quantities:
        for other in samples.header.sensors:
            if (other.device, other.sensor, other.unavailable) == (info.device, "nvml", None):
                return other
    return info


def model_channel(samples: Samples, info: SensorInfo) -> Channel | None:
    """Return a model's power integrated: each row is the mean since the one before."""
    origin_ns = samples.header.started_monotonic_ns
    series = samples.series(info.device, info.sensor, "power_model_w")
    valid = ~np.isnan(series.value)
    if valid.sum() < 2:
        return None
    t_s = (series.t_ns[valid] - origin_ns) / 1e9
    power_w = series.value[valid]
    first_s = min(float(series.t_before_ns[valid][0] - origin_ns) / 1e9, float(t_s[0]))
    times_s = np.concatenate(([first_s], t_s)) if first_s < t_s[0] else t_s
    spans_s = np.diff(times_s)
    energy_j = np.concatenate(([0.0], np.cumsum(power_w[-len(spans_s) :] * spans_s)))
    knots = Knots(origin_ns, times_s, energy_j, np.zeros(len(times_s)))
    power_range = PowerRange(float(power_w.min()), float(power_w.max()))
    return Channel("model", "power_model_w", knots, power_range)


def _with_behaviour(
    readings: Readings, behaviour: Behaviour, quantity: Quantity, power_range: PowerRange
) -> Readings:
    known, period_s = behaviour.channel(quantity), reading_period(readings)
    largest_w = float(np.max(np.abs(np.diff(readings.power_w))))
    is_smooth = largest_w <= _SMOOTH_SHARE * power_range.width_w
    if known is None or (known.source == "documented" and not is_smooth):
        known = PowerBehaviour(quantity, period_s, None, "seen")
    elif known.update_period_s is None:
        known = replace(known, update_period_s=period_s or readings.spacing_s)
    return replace(readings, behaviour=known)


def _continue_resets(knots: Knots) -> tuple[Knots, Floats]:
    """Let a counter that fell go on from where it was; return when it did, too."""
    rises_j = np.diff(knots.energy_j)
    fell = rises_j < 0
    if not fell.any():
        return knots, np.zeros(0)
    continued_j = np.concatenate(([0.0], np.cumsum(np.maximum(rises_j, 0.0))))
    return replace(knots, energy_j=knots.energy_j[0] + continued_j), knots.t_s[1:][fell]


def _jumps(series: Series, origin_ns: int, power_range: PowerRange, least_w: float) -> Floats:
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
    is_seen_again = np.append(early_s[2:] > late_s[1:-1], False)[: len(stood_s)]
    blind_s = np.where(is_seen_again, late_s[1:] - early_s[1:] - usual_s, 0.0)
    shortest_s = np.maximum(stood_s, blind_s)
    rose = rises_j > IMPOSSIBLE_FACTOR * power_range.high_w * longest_s
    stood = (shortest_s > 3 * usual_s) & (rises_j < _STOOD_STILL * least_w * shortest_s)
    return np.asarray(late_s[1:][rose | (stood & (rises_j >= 0))])


def _power_range(info: SensorInfo, knots: Knots, channels: Collection[Readings]) -> PowerRange:
    """Return the powers the device stays between: the least seen, and its limit."""
    powers_w = [readings.power_w for readings in channels]
    steps_w = [knots.power_w] if len(knots) > 2 else []
    if not powers_w and not steps_w:
        return PowerRange(0.0, 0.0)
    seen_w = np.concatenate(powers_w + steps_w)
    limits_w = info.power_limit_w or {}
    limit_w = limits_w.get("enforced") or limits_w.get("max")
    high_w = 1.5 * float(seen_w.max())
    if limit_w:
        # A counter's steps may show more than was drawn: readings alone raise the limit.
        high_w = max(limit_w, float(np.concatenate(powers_w or steps_w).max()))
    return PowerRange(max(float(seen_w.min()), 0.0), high_w)


def _power_channel(readings: Readings, power_range: PowerRange, finest: Readings | None) -> Channel:
    share, sees_all_time = readings.share_seen, readings.share_seen == 1.0
    exact = readings.is_adjoining
    return Channel(
        "power",
        readings.behaviour.quantity,
        power_knots(readings),
        power_range,
        sampled_readings=None if sees_all_time else readings,
        smear_s=readings.window_s if sees_all_time and not exact else 0.0,
        delay_s=USUAL_LAG_S if exact else 0.0,
        uses_rest=not exact,
        finest=finest,
        fine_readings=(readings,) if 0 < share < 1 else (),
    )


def _counter_channel(
    knots: Knots,
    behaviour: Behaviour,
    channels: Sequence[Readings],
    averages: Readings | None,
    power_range: PowerRange,
    finest: Readings | None,
) -> Channel | None:
    if len(knots) < 2 or knots.energy_j[-1] <= knots.energy_j[0]:
        return None
    channel = Channel(
        "counter",
        "energy_counter_j",
        knots,
        power_range,
        nature=behaviour.counter,
        fine_readings=tuple(fine for fine in channels if 0 < fine.window_s < knots.spacing_s / 2),
        finest=finest,
    )
    if behaviour.counter == "independent":
        lag_s = behaviour.counter_lag_s
        if lag_s is None:
            # Of two channels that are apart in time either may be the late one.
            readings_lag_s = 0.0 if averages is None else lag_behind(knots, averages)
            return replace(channel, delay_s=max(USUAL_LAG_S, readings_lag_s))
        return replace(channel, knots=knots.earlier(lag_s), late_s=0.0)
    # What it may be, or is, the sum of: readings that do not see all, the finest of them. Of some
    # that are not recorded its own steps are the sums.
    if not channels:
        channels = [
            Readings(knots.origin_ns, knots.t_s[1:], knots.t_half_width_s[1:], knots.power_w)
        ]
    sources = [readings for readings in channels if readings.share_seen < 1.0]
    sources = sources or [readings for readings in channels if readings.window_s < 0.5]
    if not sources:
        return channel
    source = min(sources, key=lambda readings: readings.window_s)
    sees_all_time = source.share_seen == 1.0
    # A reading is held for a period after it was a mean over its window.
    period_s = source.behaviour.update_period_s or source.spacing_s
    delay_s = (period_s + source.window_s) / 2
    channel = replace(
        channel,
        sampled_readings=None if sees_all_time else source,
        # A reading that holds half a step is held for a period: a quarter of that at worst. Where
        # readings see but part of the time their sampling error has it.
        smear_s=2 * period_s if sees_all_time else period_s,
        blind_s=source.window_s,
    )
    if behaviour.counter == "sum":
        # Its readings, held until the next, are steps of their own: they do not show what lies
        # between the counter's.
        shifted = knots.earlier(delay_s)
        return replace(channel, knots=shifted, fine_readings=(), late_s=delay_s, early_s=delay_s)
    return replace(channel, delay_s=delay_s, late_s=max(channel.late_s, 2 * delay_s))
