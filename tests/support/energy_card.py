"""A card in numbers: true power in, samples out, as the recorder would have written them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.recording.samples import Header, SampleRow, Samples, make_samples
from llenergymeasure.sensors.base import Quantity, SensorInfo
from llenergymeasure.units import Kind, Scope

T0_NS = 5_000_000_000
UUID = "GPU-1"
LIMIT_W = 500.0


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
            index = np.clip(np.searchsorted(edges, t_s, side="right") - 1, 0, None)
            return joules[index] + (t_s - edges[index]) * np.asarray(self.levels_w)[index]

        return up_to(np.asarray(end_s, float)) - up_to(np.asarray(start_s, float))


@dataclass(frozen=True)
class Sensor:
    """How the card shows its power. Times in s.

    Attributes:
        update_s, window_s, phase_s: of the instant readings.
        average_s: over what the average channel is a mean; None: there is none.
        counter_s, counter_phase_s: when the counter steps; None: there is none.
        counter_from: `true`, or `samples`: the sum of the instant readings, each held.
        gain, offset_w: of the power readings; counter_gain: of the counter.
        counter_lag_s: how late it counts.
        counter_resets_s: when it begins again at 0.
        counter_jumps: moments, and joules that it rises by.
        counter_stalls: stretches in which it stands still; then it catches up.
        zero_every: each so-manieth power reading is 0.
        call_s: how long a call takes.
        recorder_stops: when the recorder gets no time to run, and for how long, within a call too.
    """

    update_s: float = 0.1
    window_s: float = 0.1
    phase_s: float = 0.013
    average_s: float | None = None
    counter_s: float | None = 0.1
    counter_phase_s: float = 0.037
    counter_from: str = "true"
    gain: float = 1.0
    offset_w: float = 0.0
    counter_gain: float = 1.0
    counter_lag_s: float = 0.0
    counter_resets_s: Sequence[float] = ()
    counter_jumps: Sequence[tuple[float, float]] = ()
    counter_stalls: Sequence[tuple[float, float]] = ()
    zero_every: int = 0
    call_s: float = 0.0001
    recorder_stops: Sequence[tuple[float, float]] = ()

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What it gives."""
        counter = () if self.counter_s is None else ("energy_counter_j",)
        average = () if self.average_s is None else ("power_average_w",)
        return (*counter, "power_instant_w", *average)


H100 = Sensor(window_s=0.025, average_s=1.0)


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


def work(start_s: float, end_s: float, seed: int = 0, rest_w: float = 60.0) -> Power:
    """Rest, work of stretches of 10 to 400 ms at 100 to 450 W, and rest again."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.01, 0.4, int((end_s - start_s) / 0.2) + 20)
    edges = start_s + np.concatenate(([0.0], np.cumsum(lengths)))
    edges = edges[edges < end_s]
    return Power([-10.0, *edges, end_s], [rest_w, *rng.uniform(100, 450, len(edges)), rest_w])


def margins(start_s: float, end_s: float, length_s: float = 0.4) -> list[tuple[str, int, int]]:
    """The phases of rest next to a window."""
    return [
        ("margin_before", ns(start_s - length_s), ns(start_s)),
        ("margin_after", ns(end_s), ns(end_s + length_s)),
    ]


def rows_of(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[SampleRow]:
    """What a recorder writes of a card from 0 to `end_s`."""
    rows = power_rows(power, sensor, end_s, device)
    if sensor.counter_s is not None:
        rows += counter_rows(power, sensor, end_s, device)
    return rows


def counter_rows(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[SampleRow]:
    """The counter's steps, each between two reads, and a read at start and at stop."""
    ticks = np.arange(sensor.counter_phase_s - sensor.counter_s, end_s, sensor.counter_s)
    values = np.round(_counter_rows(power, sensor, ticks), 3)
    rows = _followed(ticks, values, end_s, 0.001, sensor, None, device, "energy_counter_j")
    last = SampleRow(ns(end_s), device, "nvml", "energy_counter_j", values[-1])
    return [*rows, last]


def power_rows(power: Power, sensor: Sensor, end_s: float, device: str = UUID) -> list[SampleRow]:
    """Rows at renewals, and now and then where the value stays."""
    rows: list[SampleRow] = []
    for quantity, window_s in (
        ("power_instant_w", sensor.window_s),
        ("power_average_w", sensor.average_s),
    ):
        if window_s is not None:
            updates, watts = _sensor_values(power, sensor, window_s, end_s)
            values = np.round(watts, 3)
            if sensor.zero_every:
                values[:: sensor.zero_every] = 0.0
            rows += _followed(updates, values, end_s, 0.0071, sensor, 0.1, device, quantity)
    return rows


def _followed(t_s, values, end_s, fine_s, sensor, repeat_s, device, quantity) -> list[SampleRow]:
    """What following a value that is renewed at given times writes."""
    pace_s = max(fine_s, 3 * sensor.call_s) + sensor.call_s
    rng = np.random.default_rng(round(1e4 * pace_s))
    # A sleep ends a little late: reads do not stay in step with what they read.
    begins = np.cumsum(pace_s * rng.uniform(1.0, 1.05, int(end_s / pace_s))) - pace_s
    begins = begins[(begins >= 0) & (begins < end_s - sensor.call_s)]
    latched = begins + sensor.call_s * rng.uniform(0, 1, len(begins))
    begins, latched, ends = (
        _stopped(sensor, moments) for moments in (begins, latched, begins + sensor.call_s)
    )
    latched_values = values[np.searchsorted(t_s, latched, side="right") - 1]
    rows, written_s = [], -np.inf
    changed = np.concatenate(([False], np.diff(latched_values) != 0))
    for i in np.flatnonzero(changed) if repeat_s is None else range(len(begins)):
        if not rows and repeat_s is None:
            rows.append(
                SampleRow(ns(begins[0]), device, "nvml", quantity, float(latched_values[0]))
            )
        end_of_call_s = ends[i]
        if changed[i] or end_of_call_s - written_s > (repeat_s or np.inf):
            before = ns(begins[i - 1]) if changed[i] else None
            rows.append(
                SampleRow(
                    ns(end_of_call_s), device, "nvml", quantity, float(latched_values[i]), before
                )
            )
            written_s = end_of_call_s
    return rows


def _stopped(sensor: Sensor, moments_s):
    """Moments of a recorder that its stops delay."""
    for from_s, for_s in sensor.recorder_stops:
        moments_s = np.where(moments_s >= from_s, moments_s + for_s, moments_s)
    return moments_s


def _counter_rows(power: Power, sensor: Sensor, ticks):
    drawn_s = ticks - sensor.counter_lag_s
    for from_s, to_s in sensor.counter_stalls:
        drawn_s = np.where((drawn_s > from_s) & (drawn_s < to_s), from_s, drawn_s)
    if sensor.counter_from == "true":
        joules = power.energy(-5.0, drawn_s)
    else:
        updates, watts = _sensor_values(power, sensor, sensor.window_s, ticks[-1] + 1)
        energies_j = np.concatenate(([0.0], np.cumsum(watts[:-1] * np.diff(updates))))
        joules = np.interp(drawn_s, updates, energies_j)
    joules = 1000.0 + sensor.counter_gain * joules
    for at_s, jump_j in sensor.counter_jumps:
        joules = joules + jump_j * (ticks >= at_s)
    for at_s in sensor.counter_resets_s:
        joules = joules - np.where(ticks >= at_s, np.interp(at_s, ticks, joules), 0.0)
    return joules


def _sensor_values(power: Power, sensor: Sensor, window_s: float, end_s: float):
    updates = (
        -4.0 + sensor.phase_s + sensor.update_s * np.arange(int((end_s + 4) / sensor.update_s))
    )
    mean = power.energy(updates - window_s, updates) / window_s
    return updates, sensor.gain * mean + sensor.offset_w


def info(
    device: str = UUID,
    sensor: str = "nvml",
    kind: Kind = "measured",
    scope: Scope = "gpu",
    **fields,
) -> SensorInfo:
    """A sensor's entry in the header."""
    limits = {"enforced": LIMIT_W} if scope == "gpu" else None
    if sensor == "nvml":
        fields.setdefault("quantities", Sensor().quantities)
    return SensorInfo(
        device, fields.pop("name", "Simulated"), sensor, kind, scope, power_limit_w=limits, **fields
    )


def recording(rows: list[SampleRow], *infos: SensorInfo, complete: bool = True) -> Samples:
    """A recording in memory."""
    header = Header(None, None, "host", T0_NS, "2026-01-01T00:00:00+00:00", infos or (info(),))
    return make_samples(rows, header, complete=complete)


def record(
    power: Power, sensor: Sensor | None = None, end_s: float = 60.0, **card: object
) -> Samples:
    """One card, recorded; `card` is what `info` takes."""
    sensor = sensor or Sensor()
    mine = info(**{"quantities": sensor.quantities, **card})
    return recording(rows_of(power, sensor, end_s, mine.device), mine)
