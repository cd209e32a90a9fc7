"""What a reading is made from: one channel of one device, its gain, and its rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llenergymeasure.config.calibration import Calibration, Gain
from llenergymeasure.meter.characters import KnownCards
from llenergymeasure.meter.curve import EnergyCurve, PowerRange
from llenergymeasure.meter.device import (
    DISAGREEMENT,
    DeviceChannels,
    EnergyChannel,
    Stretch,
    open_device,
)
from llenergymeasure.meter.idle import IdlePower, PhaseSpan, idle_power, rests
from llenergymeasure.meter.renewals import seconds
from llenergymeasure.meter.samples import Samples, SensorInfo
from llenergymeasure.meter.uncertainty import Component
from llenergymeasure.results.record import Reading
from llenergymeasure.units import NS_PER_S


@dataclass(frozen=True)
class Source:
    """One channel of one device by one sensor, ready to give readings.

    Attributes:
        info: which device and sensor.
        channel: the energy.
        gain: how indicated stands to true energy; null for an estimate.
        idle: the rest to take off; null if none was measured.
        beside: the device's other channel, if it has one.
    """

    info: SensorInfo
    channel: EnergyChannel
    gain: Gain | None
    idle: IdlePower | None
    beside: EnergyChannel | None

    def stretch(self, start_ns: int, end_ns: int) -> Stretch | None:
        """Return the stretch's energy with the channels' disagreement in its uncertainty."""
        mine = self.channel.stretch(start_ns, end_ns)
        other = self.beside.stretch(start_ns, end_ns) if self.beside is not None else None
        if mine is None or other is None:
            return mine
        explained_j = float(np.hypot(mine.u95_j, other.u95_j))
        excess_j = abs(mine.energy_j - other.energy_j) - explained_j
        return mine.joined(Component.bounded(DISAGREEMENT, excess_j)) if excess_j > 0 else mine

    def reading(self, start_ns: int, end_ns: int, *, headline: bool) -> Reading:
        """Return the reading of a stretch."""
        blank = blank_reading(self.info, self.channel.name, headline=headline)
        stretch = self.stretch(start_ns, end_ns)
        if stretch is None:
            return blank.model_copy(update={"unavailable": "the recording does not cover it"})
        if self.gain is None:
            return blank.model_copy(update=self._estimate(stretch, start_ns, end_ns))
        idle_j = None
        if self.idle is not None:
            span_s = (end_ns - start_ns) / NS_PER_S
            idle_j = self.idle.power_w * span_s / self.gain.gain
            stretch = stretch.joined(*self.idle.components(span_s))
        gross_j = stretch.energy_j / self.gain.gain
        return blank.model_copy(
            update={
                "gross_j": gross_j,
                "idle_j": idle_j,
                "net_j": None if idle_j is None else gross_j - idle_j,
                "u95_j": stretch.u95_j / self.gain.gain,
                "u_sys_j": abs(gross_j) * self.gain.band,
            }
        )

    def _estimate(self, stretch: Stretch, start_ns: int, end_ns: int) -> dict[str, Any]:
        """A model's own output does not tell how far off it is: no interval is given."""
        idle_j = None
        if self.idle is not None:
            idle_j = self.idle.power_w * (end_ns - start_ns) / NS_PER_S
        net_j = None if idle_j is None else stretch.energy_j - idle_j
        return {"gross_j": stretch.energy_j, "idle_j": idle_j, "net_j": net_j}


def open_sources(
    samples: Samples,
    info: SensorInfo,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    calibration: Calibration,
    known: KnownCards | None,
) -> tuple[list[Source], DeviceChannels | None]:
    """Open a sensor's view of a device: its channels, none if it gave nothing."""
    if info.unavailable is not None:
        return [], None
    if info.kind == "estimated":
        model = _model(samples, info)
        if model is None:
            return [], None
        return [Source(info, model, None, idle_power(rests(model, phases, window)), None)], None
    channels = open_device(samples, info, (known or {}).get((info.sensor, info.device)))
    gain = calibration.of(info.device, info.name)
    pairs = ((channels.counter, channels.power), (channels.power, channels.counter))
    sources = [
        Source(info, one, gain, idle_power(rests(one, phases, window)), other)
        for one, other in pairs
        if one is not None
    ]
    return sources, channels


def _model(samples: Samples, info: SensorInfo) -> EnergyChannel | None:
    """Return a model's power integrated: each row is the mean since the one before."""
    series = samples.series(info.device, info.sensor, "power_model_w")
    known = ~np.isnan(series.value)
    if known.sum() < 2:
        return None
    origin_ns = samples.header.started_monotonic_ns
    t_s, power_w = seconds(series.t_ns[known], origin_ns), series.value[known]
    first_s = min(float(seconds(series.t_before_ns[known][:1], origin_ns)[0]), t_s[0])
    span_s = np.diff(t_s, prepend=first_s)
    begun = span_s[0] > 0
    t_s = np.concatenate(([first_s], t_s)) if begun else t_s
    rise_j = power_w * span_s if begun else (power_w * span_s)[1:]
    curve = EnergyCurve(
        origin_ns,
        t_s,
        np.concatenate(([0.0], np.cumsum(rise_j))),
        np.zeros(len(t_s)),
        PowerRange(float(power_w.min()), float(power_w.max())),
        open_j=np.zeros(len(t_s) - 1),
    )
    return EnergyChannel("model", "power_model_w", curve)


def blank_reading(info: SensorInfo, channel: str, *, headline: bool) -> Reading:
    """Return a reading without an energy."""
    return Reading(
        device=info.device,
        sensor=info.sensor,
        kind=info.kind,
        scope=info.scope,
        channel=channel,
        headline=headline,
        gross_j=None,
    )


def failure(samples: Samples, info: SensorInfo) -> str | None:
    """Return why a sensor stopped answering, as the recorder noted it last."""
    rows = samples.table.select(["device", "sensor", "quantity", "note"]).to_pylist()
    reasons = [
        row["note"]
        for row in rows
        if row["quantity"] == "unavailable"
        and (row["device"], row["sensor"]) == (info.device, info.sensor)
    ]
    return reasons[-1] if reasons else None
