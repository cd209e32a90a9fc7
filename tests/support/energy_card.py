"""A card in numbers: true power in, samples out, as the recorder would have written them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.recording.samples import Header, Row, Samples, make_samples
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.units import Kind, Scope

T0_NS = 5_000_000_000
UUID = "GPU-1"


def ns(t_s: float) -> int:
    """A moment in seconds from the recording's start as CLOCK_MONOTONIC."""
    return T0_NS + round(t_s * 1e9)


@dataclass(frozen=True)
class Power:
    """Steps of power: `levels_w[i]` from `edges_s[i]` on."""

    edges_s: Sequence[float]
    levels_w: Sequence[float]

    def energy(self, start_s, end_s):
        """Integral over [start_s, end_s]; arrays welcome."""
        edges = np.asarray(self.edges_s, float)
        joules = np.concatenate(([0.0], np.cumsum(np.diff(edges) * np.asarray(self.levels_w)[:-1])))

        def up_to(t_s):
            place = np.clip(np.searchsorted(edges, t_s, side="right") - 1, 0, None)
            return joules[place] + (t_s - edges[place]) * np.asarray(self.levels_w)[place]

        return up_to(np.asarray(end_s, float)) - up_to(np.asarray(start_s, float))


@dataclass(frozen=True)
class Sensor:
    """How the card shows its power. Times in s."""

    update_s: float = 0.1
    window_s: float = 0.1
    counter_s: float | None = 0.1
    counter_from: str = "true"
    gain: float = 1.0
    offset_w: float = 0.0
    look_s: float = 0.0071


def constant(power_w: float) -> Power:
    """The same power for ever."""
    return Power([-10.0], [power_w])


def square(period_s: float, low_w: float, high_w: float, end_s: float, duty: float = 0.5) -> Power:
    """Pulses from -5 s on."""
    begins = np.arange(-5.0, end_s + 1, period_s)
    edges = np.column_stack((begins, begins + duty * period_s)).ravel()
    return Power([-10.0, *edges], [low_w, *np.tile([high_w, low_w], len(begins))])


def steps(end_s: float, seed: int = 0, low_w: float = 60.0, high_w: float = 400.0) -> Power:
    """Load on and off at irregular times."""
    rng = np.random.default_rng(seed)
    edges = 2.0 + np.cumsum(rng.uniform(1.35, 1.75, int(end_s / 1.3)))
    levels = np.where(np.arange(len(edges)) % 2 == 0, high_w, low_w)
    return Power([-10.0, *edges], [low_w, *levels])


def rows_of(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[Row]:
    """What a recorder writes of a card from 0 to `end_s`."""
    rows = power_rows(power, sensor, end_s, device)
    if sensor.counter_s is not None:
        rows += counter_rows(power, sensor, end_s, device)
    return rows


def counter_rows(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[Row]:
    """Ticks, each seen up to 1 ms late, and a read at start and at stop."""
    phase_s = 0.037
    ticks = phase_s + sensor.counter_s * np.arange(int((end_s - phase_s) / sensor.counter_s))
    values = _counted(power, sensor, ticks)
    before = np.round(ticks - 0.0004, 6)
    rows = [
        Row(ns(b + 0.001), device, "nvml", "energy_counter_j", round(v, 3), ns(b))
        for b, v in zip(before, values, strict=True)
    ]
    first = Row(ns(0.0), device, "nvml", "energy_counter_j", round(values[0] - 7.0, 3))
    last = Row(ns(end_s), device, "nvml", "energy_counter_j", round(values[-1], 3))
    return [first, *rows, last]


def _counted(power: Power, sensor: Sensor, ticks):
    if sensor.counter_from == "true":
        return power.energy(0.0, ticks) + 1000.0
    updates, shown = _shown(power, sensor, ticks[-1] + 1)
    held = np.concatenate(([0.0], np.cumsum(shown[:-1] * np.diff(updates))))
    return np.interp(ticks, updates, held) + 1000.0


def _shown(power: Power, sensor: Sensor, end_s: float):
    updates = -1.0 + 0.013 + sensor.update_s * np.arange(int((end_s + 1) / sensor.update_s))
    mean = power.energy(updates - sensor.window_s, updates) / sensor.window_s
    return updates, sensor.gain * mean + sensor.offset_w


def power_rows(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[Row]:
    """Rows at renewals, and now and then where the value stays."""
    updates, shown = _shown(power, sensor, end_s)
    looks = np.arange(0.0, end_s, sensor.look_s)
    place = np.searchsorted(updates, looks, side="right") - 1
    values = np.round(shown[place], 3)
    rows, written = [], -1.0
    for i, (look, value) in enumerate(zip(looks, values, strict=True)):
        new = i > 0 and value != values[i - 1]
        if new or look - written > 0.1:
            back = ns(looks[i - 1]) if new else None
            rows.append(Row(ns(look), device, "nvml", "power_instant_w", value, back))
            written = look
    return rows


def info(
    device: str = UUID,
    sensor: str = "nvml",
    kind: Kind = "measured",
    scope: Scope = "gpu",
    **more,
) -> SensorInfo:
    """A sensor's entry in the header."""
    limits = {"enforced": 500.0} if scope == "gpu" else None
    return SensorInfo(
        device, more.pop("name", "Simulated"), sensor, kind, scope, power_limit_w=limits, **more
    )


def recording(rows: list[Row], *infos: SensorInfo, complete: bool = True) -> Samples:
    """A recording in memory."""
    header = Header(None, None, "host", T0_NS, "2026-01-01T00:00:00+00:00", infos or (info(),))
    return make_samples(rows, header, complete=complete)


def record(power: Power, sensor: Sensor | None = None, end_s: float = 60.0) -> Samples:
    """One card, recorded."""
    return recording(rows_of(power, sensor or Sensor(), end_s))
