"""One device as one sensor saw it: both channels, ready to give the energy of any stretch."""

from dataclasses import dataclass, field, replace

import numpy as np

from llenergymeasure.meter.characterise import (
    Character,
    PowerCharacter,
    characterise,
    published,
)
from llenergymeasure.meter.characters import Known, reconciled
from llenergymeasure.meter.counter import Ticks, read_ticks
from llenergymeasure.meter.curve import EnergyCurve, PowerRange
from llenergymeasure.meter.power import Readings, middle_curve, read_power, undo_averaging
from llenergymeasure.meter.renewals import Floats
from llenergymeasure.meter.samples import Quantity, Samples, SensorInfo
from llenergymeasure.meter.uncertainty import Component, expanded

LEAST_SHARE = 0.25
"""Share of the time a power channel is taken to see where that is neither found nor published:
the least that arXiv 2312.02741 found on any card."""

_NEIGHBOURHOOD_S = 3.0

_TRIANGLE = 0.3
"""Energy off the line over (power off its mean times time between ticks): 1/4 for a square wave
with the ticks' period, a little more for what short readings show of it."""


@dataclass(frozen=True)
class Stretch:
    """The energy of a stretch by one channel, and what makes it uncertain.

    Attributes:
        energy_j: as indicated.
        components: the effects; their names are told to people.
    """

    energy_j: float
    components: tuple[Component, ...]

    @property
    def u95_j(self) -> float:
        """Return the half width of the 95 % interval."""
        return expanded(self.components)

    def without(self, *names: str) -> float:
        """Return the half width of the interval with some effects left out."""
        return expanded(part for part in self.components if part.name not in names)

    def joined(self, *more: Component) -> "Stretch":
        """Return the stretch with further effects."""
        return Stretch(self.energy_j, self.components + more)


UNSEEN = "time the sensor does not see"
DISAGREEMENT = "disagreement of the channels"


@dataclass(frozen=True)
class EnergyChannel:
    """One channel of one device: a curve and what is known of it.

    Attributes:
        name: ``counter``, ``power`` or ``model``.
        quantity: what was recorded.
        curve: the energy over time.
        share_seen: share of the time the channel sees; 1 for a counter that counts for itself.
        smear_s: the averaging that could not be undone.
        knot_j: standard uncertainty of every knot.
        scale: factor from the curve to the channel.
        share_known: whether the share was found or published, and not assumed.
        notes: what a reader of the numbers should know.
    """

    name: str
    quantity: Quantity
    curve: EnergyCurve
    share_seen: float = 1.0
    smear_s: float = 0.0
    knot_j: float = 0.0
    scale: float = 1.0
    share_known: bool = True
    notes: tuple[str, ...] = ()

    @property
    def undersampled(self) -> bool:
        """Return whether part of the time is not seen by this channel."""
        return self.share_seen < 1.0

    def at_rest(self, start_ns: int, end_ns: int) -> Stretch | None:
        """Return the energy of a stretch of rest; null if the channel does not cover it.

        At rest a device does not swing between its bounds: what lies between knots or is not seen
        is taken to stay within what was seen.
        """
        curve = self.curve
        first, last = np.searchsorted(curve.t_s, (curve.seconds(start_ns), curve.seconds(end_ns)))
        knots = slice(max(int(first) - 1, 0), int(last) + 1)
        power_w = np.diff(curve.energy_j[knots]) / np.diff(curve.t_s[knots])
        if len(power_w) == 0:
            return None
        seen = PowerRange(float(power_w.min()), float(power_w.max()))
        return replace(self, curve=replace(curve, power_range=seen)).stretch(start_ns, end_ns)

    def stretch(self, start_ns: int, end_ns: int) -> Stretch | None:
        """Return the energy of a stretch; null if the channel does not cover it."""
        start_s, end_s = self.curve.seconds(start_ns), self.curve.seconds(end_ns)
        if end_s <= start_s or not self.curve.covers(start_s, end_s):
            return None
        energy_j, *limits_j = self.curve.energy(start_s, end_s)
        span_s = end_s - start_s
        mean_w = energy_j / span_s
        reach = self.curve.power_range
        above_w, below_w = max(reach.high_w - mean_w, 0.0), max(mean_w - reach.low_w, 0.0)
        parts = [
            Component.bounded("start between two knots", limits_j[0]),
            Component.bounded("end between two knots", limits_j[1]),
        ]
        if self.knot_j > 0:
            parts.append(Component("averaging undone", self.knot_j * 2**0.5))
        if self.smear_s > 0:
            smear_j = above_w * below_w / max(reach.swing_w, 1e-9) * self.smear_s / 2
            parts += [
                Component.bounded(f"averaging at the {end}", smear_j) for end in ("start", "end")
            ]
        if self.undersampled:
            hidden_j = (1 - self.share_seen) * max(above_w, below_w) * span_s
            parts.append(Component.bounded(UNSEEN, hidden_j))
        scaled = tuple(
            Component(
                part.name,
                part.standard_j * self.scale,
                None if part.limit_j is None else part.limit_j * self.scale,
            )
            for part in parts
        )
        return Stretch(energy_j * self.scale, scaled)


@dataclass(frozen=True)
class DeviceChannels:
    """Both channels of a device by one sensor.

    Attributes:
        info: which device and sensor.
        counter: the energy counter; null if there is none.
        power: the integral of power; null if there is none.
        character: how the channels behave.
        ticks: the counter's ticks.
        power_range: between which powers the device stays.
        notes: where the recording contradicts what was known of the device.
    """

    info: SensorInfo
    counter: EnergyChannel | None
    power: EnergyChannel | None
    character: Character
    ticks: Ticks
    power_range: PowerRange = field(default=PowerRange(0.0, 0.0))
    notes: tuple[str, ...] = ()


def open_device(samples: Samples, info: SensorInfo, known: Known | None = None) -> DeviceChannels:
    """Prepare a device's channels.

    Args:
        samples: the whole recording: what the window cannot tell, the load before it may.
        info: which device and sensor.
        known: how the channels behave, as far as it was found before.
    """
    origin_ns = samples.header.started_monotonic_ns
    notes: tuple[str, ...] = ()
    character = characterise(samples, info.device, info.sensor)
    if known is not None:
        character, notes = reconciled(known, character)
    ticks = read_ticks(samples.series(info.device, info.sensor, "energy_counter_j"), origin_ns)
    readings = {
        part.quantity: read_power(
            samples.series(info.device, info.sensor, part.quantity),
            origin_ns,
            part.update_period_s,
        )
        for part in character.power
    }
    reach = _power_range(info, ticks, readings)
    channels = [
        _power_channel(readings[part.quantity], _known(part, info), reach)
        for part in character.power
        if len(readings[part.quantity]) > 1
    ]
    power = max(channels, key=lambda channel: channel.share_seen, default=None)
    counter = _counter_channel(ticks, power, readings, character, reach)
    return DeviceChannels(info, counter, power, character, ticks, reach, notes)


def _known(part: PowerCharacter, info: SensorInfo) -> PowerCharacter:
    """Fill in what is published of the card where nothing was found."""
    public = published(info.name, part.quantity)
    if part.window_s is not None or public is None:
        return part
    return PowerCharacter(
        part.quantity, part.update_period_s or public.update_period_s, public.window_s, "published"
    )


def _power_range(info: SensorInfo, ticks: Ticks, readings: dict[Quantity, Readings]) -> PowerRange:
    """Return the powers the card stays between: the least seen and its limit."""
    seen = [part.power_w for part in readings.values() if len(part)]
    if not seen and len(ticks) > 1:
        seen = [np.diff(ticks.energy_j) / np.diff(ticks.t_s)]
    if not seen:
        return PowerRange(0.0, 0.0)
    least_w, most_w = min(float(w.min()) for w in seen), max(float(w.max()) for w in seen)
    limits_w = info.power_limit_w or {}
    limit_w = limits_w.get("enforced") or limits_w.get("max")
    high_w = max(limit_w, most_w) if limit_w else 1.5 * most_w
    return PowerRange(max(least_w, 0.0), high_w)


def _power_channel(readings: Readings, part: PowerCharacter, reach: PowerRange) -> EnergyChannel:
    window_s, share = part.window_s, part.share_seen
    notes = []
    if window_s is not None and share == 1.0:
        undone = undo_averaging(readings, window_s, reach)
        if undone is not None:
            return EnergyChannel("power", part.quantity, undone.curve, knot_j=undone.ripple_j)
        notes.append(f"readings are means over {window_s:.3g} s that could not be undone")
    share_known = share is not None
    if share is None:
        share = LEAST_SHARE
        notes.append(
            f"the averaging window is not known: taken to see {LEAST_SHARE:.0%} of the time"
        )
    curve = middle_curve(readings, window_s, reach)
    smear_s = window_s if window_s is not None and share == 1.0 else 0.0
    return EnergyChannel(
        "power",
        part.quantity,
        curve,
        share,
        smear_s,
        share_known=share_known,
        notes=tuple(notes),
    )


def _counter_channel(
    ticks: Ticks,
    power: EnergyChannel | None,
    readings: dict[Quantity, Readings],
    character: Character,
    reach: PowerRange,
) -> EnergyChannel | None:
    if len(ticks) < 2:
        return None
    quantity: Quantity = "energy_counter_j"
    if power is None or character.counter_independent:
        open_j = None if power is None else _open(ticks, readings, character)
        return EnergyChannel("counter", quantity, ticks.curve(reach, open_j))
    if character.counter_independent is False:
        notes = ("the counter is the sum of the power readings", *power.notes)
        channel = replace(power, name="counter", quantity=quantity, notes=notes)
        if power.undersampled and not _finer(readings[power.quantity], ticks):
            return replace(channel, curve=_summed(ticks, power, character, reach))
        return replace(channel, scale=character.counter_scale)
    # Nothing shows what the counter counts: it is taken at its word, unless it is known that the
    # readings, which it may be the sum of, miss part of the time.
    notes = ("power changed too little to tell whether the counter sees more than the readings",)
    share = power.share_seen if power.share_known else 1.0
    return EnergyChannel("counter", quantity, ticks.curve(reach), share, notes=notes)


def _finer(readings: Readings, ticks: Ticks) -> bool:
    """Return whether the readings, without a hole, tell more than the ticks that sum them."""
    if readings.period_s is None or ticks.period_s is None:
        return False
    whole = float(np.max(np.diff(readings.t_s))) < 3 * readings.period_s
    return whole and readings.period_s < 0.5 * ticks.period_s


def _summed(
    ticks: Ticks, power: EnergyChannel, character: Character, reach: PowerRange
) -> EnergyCurve:
    """Return the energy from a counter that is the sum of readings, each put back in time.

    A reading enters the counter while it is shown, on average half a period after it was new, and
    stands for the middle of its window before that.
    """
    part = next(part for part in character.power if part.quantity == power.quantity)
    period_s, window_s = part.update_period_s or 0.0, part.window_s or 0.0
    late_s = character.counter_delay_s + (period_s + window_s) / 2
    spans_s = np.diff(ticks.t_s)
    sums = Readings(
        ticks.origin_ns,
        ticks.t_s[1:] - spans_s / 2 - late_s,
        ticks.half_s[1:],
        np.diff(ticks.energy_j) / spans_s,
        ticks.period_s,
    )
    return middle_curve(sums, None, reach)


def _open(ticks: Ticks, readings: dict[Quantity, Readings], character: Character) -> Floats | None:
    """Return how far the energy runs off the line between ticks, from readings shorter than one."""
    for part in character.power:
        window_s = part.window_s
        if window_s is None or ticks.period_s is None or window_s > 0.5 * ticks.period_s:
            continue
        mine = readings[part.quantity]
        end_j = np.interp(mine.t_s, ticks.t_s, ticks.energy_j)
        start_j = np.interp(mine.t_s - window_s, ticks.t_s, ticks.energy_j)
        off_w = np.abs(mine.power_w - (end_j - start_j) / window_s)
        first = np.searchsorted(mine.t_s, ticks.t_s[:-1] - _NEIGHBOURHOOD_S)
        last = np.searchsorted(mine.t_s, ticks.t_s[1:] + _NEIGHBOURHOOD_S)
        usual_w = [
            np.median(off_w[i:j]) if j > i else 0.0 for i, j in zip(first, last, strict=True)
        ]
        return _TRIANGLE * np.array(usual_w) * np.diff(ticks.t_s)
    return None
