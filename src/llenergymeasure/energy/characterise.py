"""How a card's channels behave, seen in a recording: what the counter counts, periods, windows.

The makers do not say what an energy counter is made from, nor over what time a reading is a mean,
and both differ between cards and drivers. A load that steps shows it (arXiv 2312.02741): a counter
that is the sum of the power readings rises by just what they show, and one that is independent of
them does not; readings take up a step over the time that they average; a lagging counter takes it
up late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from llenergymeasure.energy.knots import (
    Floats,
    Ints,
    Knots,
    Readings,
    after_pause,
    counter_knots,
    on_grid,
    power_readings,
)
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors.base import Quantity, SensorInfo
from llenergymeasure.sensors.known_behaviour import (
    POWER_QUANTITIES,
    Behaviour,
    CounterNature,
    PowerBehaviour,
    published_behaviour,
    with_published,
)
from llenergymeasure.units import NS_PER_S

_SUM_STRAY, _OWN_STRAY = 0.02, 0.06
"""A counter strays from the sum of the readings by less than the one, relative to how much they
change, or is not that sum if by more than the other; each at least so many times what the unsure
times of ticks and readings explain: """
_SUM_NOISES, _OWN_NOISES = 1.5, 3.0

_EARLY = 0.2
"""A counter that has the energy this many reading periods before the reading is no sum of them."""

_MIN_CHANGE = 0.03
"""Least change of power, relative, that says anything."""
_MIN_INTERVALS = 8
_MIN_STEPS = 12
"""Fewest changes of the readings that say more than the free choice of a delay hides."""
_MAX_COMPARED = 60

_STRAY_SHARE = 0.12
"""How far a reading may be off the share of a step that it should have taken up."""


def observe(
    knots: Knots,
    channels: Mapping[Quantity, Readings],
    info: SensorInfo,
    probed: Behaviour | None,
) -> Behaviour:
    """Return how a device's channels behave: by a probe, what is published, and this recording.

    A probe's word on the counter stands, unless this recording contradicts it: then nothing is
    taken as shown.

    Args:
        knots: the counter's ticks.
        channels: the device's power readings.
        info: which device and sensor.
        probed: what a probe has found; None without one.
    """
    behaviour = with_published(probed or Behaviour(), info)
    if info.sensor != "nvml" and not info.device.removeprefix("module:").startswith("GPU-"):
        # Hardware that accumulates (RAPL), or a library's own reading of it.
        return replace(behaviour, counter="independent")
    recorded_nature = counter_nature(knots, _possible_sources(channels, behaviour))
    nature = behaviour.counter
    if nature == "unverified":
        nature = recorded_nature
    elif recorded_nature not in ("unverified", nature):
        nature = "unverified"
    return replace(
        behaviour, counter=nature, counter_period_s=behaviour.counter_period_s or _period(knots)
    )


def characterise(
    samples: Samples, device: str, edges_ns: Sequence[int] = (), sensor: str = "nvml"
) -> Behaviour:
    """Find how a device's channels behave from a recording of a load that steps (a probe).

    Args:
        samples: the recording: the more and the sharper its steps, the better.
        device: as in the samples.
        edges_ns: when the load stepped, CLOCK_MONOTONIC; without them neither windows nor the
            counter's lag can be found.
        sensor: as in the samples.
    """
    origin_ns = samples.header.started_monotonic_ns
    (info,) = [i for i in samples.header.sensors if (i.device, i.sensor) == (device, sensor)]
    knots = counter_knots(samples.series(device, sensor, "energy_counter_j"), origin_ns)
    channels = power_channels(samples, info)
    edges_s = np.sort((np.asarray(edges_ns, dtype=np.float64) - origin_ns) / NS_PER_S)
    power = tuple(_probe(*channel, edges_s, info.name) for channel in channels.items())
    behaviour = Behaviour(power=power)
    nature = counter_nature(knots, _possible_sources(channels, behaviour))
    lag_s = counter_lag(knots, edges_s) if nature == "independent" else None
    return Behaviour(nature, _period(knots), lag_s, power)


def _probe(quantity: Quantity, readings: Readings, edges_s: Floats, name: str) -> PowerBehaviour:
    window_s = averaging_window(readings, edges_s)
    if window_s is None and (entry := published_behaviour(name, quantity)) is not None:
        period_s = reading_period(readings) or entry.update_period_s
        return replace(entry, update_period_s=period_s)
    return PowerBehaviour(quantity, reading_period(readings), window_s, "found")


def _place_renewals(channels: Mapping[Quantity, Readings]) -> dict[Quantity, Readings]:
    """Return readings with renewals that come evenly placed by all of them together."""
    channels_on_grid = dict(channels)
    for quantity, readings in channels.items():
        period_s, changed = reading_period(readings), readings.t_half_width_s > 0
        if period_s is not None:
            t_s, t_half_width_s = readings.t_s.copy(), readings.t_half_width_s.copy()
            early_s, late_s = (
                t_s[changed] - t_half_width_s[changed],
                t_s[changed] + t_half_width_s[changed],
            )
            t_s[changed], t_half_width_s[changed] = on_grid(early_s, late_s, period_s)
            # After a pause of the recorder nothing shows the renewals before the last one.
            t_half_width_s = np.where(
                after_pause(readings.t_half_width_s, period_s),
                readings.t_half_width_s,
                t_half_width_s,
            )
            channels_on_grid[quantity] = replace(readings, t_s=t_s, t_half_width_s=t_half_width_s)
    return channels_on_grid


def power_channels(samples: Samples, info: SensorInfo) -> dict[Quantity, Readings]:
    """Return the readings of each power channel of a device that has any."""
    channels: dict[Quantity, Readings] = {}
    for quantity in POWER_QUANTITIES:
        series = samples.series(info.device, info.sensor, quantity)
        readings = power_readings(series, samples.header.started_monotonic_ns)
        if len(readings) > 1:
            channels[quantity] = readings
    return _place_renewals(channels)


def _possible_sources(
    channels: Mapping[Quantity, Readings], behaviour: Behaviour
) -> list[tuple[Readings, float]]:
    """Return the readings that the counter could be the sum of, and how often they are renewed.

    Readings that average over many updates stray from any counter, and a counter made from them
    would miss nothing: they say nothing of it.
    """
    sources = []
    for quantity, readings in channels.items():
        power = behaviour.channel(quantity)
        window_s = None if power is None else power.window_s
        if window_s is None or window_s < 2 * max(readings.spacing_s, 0.01):
            period_s = None if power is None else power.update_period_s
            period_s = period_s or reading_period(readings) or readings.spacing_s
            sources.append((readings, period_s))
    return sources


def _period(knots: Knots) -> float | None:
    return knots.spacing_s if len(knots) > 2 else None


def reading_period(readings: Readings) -> float | None:
    """Return how often a channel is renewed, from its changes; None from too few.

    A renewal may bring the same value, so that some changes lie several periods apart.
    """
    gaps_s = np.diff(readings.t_s[readings.t_half_width_s > 0])
    if len(gaps_s) < _MIN_INTERVALS:
        return None
    short_s = gaps_s[gaps_s < 2.5 * float(np.quantile(gaps_s, 0.05))]
    middle_s = float(np.median(short_s))
    alike_s = short_s[(short_s > 0.6 * middle_s) & (short_s < 1.5 * middle_s)]
    return float(np.mean(alike_s)) if len(alike_s) else None


def counter_nature(knots: Knots, sources: Sequence[tuple[Readings, float]]) -> CounterNature:
    """Return what a counter is, held against each channel that it could have been made from.

    It is independent only if it strays from every one of them, by more than the unsure times of
    its ticks and of their readings explain.
    """
    natures = {_nature_against(knots, readings, period_s) for readings, period_s in sources}
    if "sum" in natures:
        return "sum"
    return "independent" if natures == {"independent"} else "unverified"


def adds_up_means(knots: Knots, readings: Readings) -> bool:
    """Return whether a counter is the sum of readings that are means over many updates."""
    is_mean = readings.window_s >= 2 * readings.spacing_s > 0
    return is_mean and _nature_against(knots, readings, readings.spacing_s) == "sum"


def _nature_against(knots: Knots, readings: Readings, spacing_s: float) -> CounterNature:
    if len(knots) < _MIN_INTERVALS or len(readings) < _MIN_INTERVALS:
        return "unverified"
    from_s, to_s = knots.t_s[:-1], knots.t_s[1:]
    margin_s = spacing_s + knots.spacing_s
    first = np.searchsorted(readings.t_s, from_s - spacing_s)
    last = np.searchsorted(readings.t_s, to_s + spacing_s)
    near_w = [readings.power_w[i:j] for i, j in zip(first, last, strict=True)]
    change_w = np.array([np.ptp(power_w) if len(power_w) else 0.0 for power_w in near_w])
    inside = (from_s > readings.t_s[0] + margin_s) & (to_s < readings.t_s[-1] - margin_s)
    if not inside.any():
        return "unverified"
    # Where readings change most a counter of its own strays from their sum most.
    least_w = max(_MIN_CHANGE * float(readings.power_w.mean()), 0.3 * float(change_w.max()))
    informative = np.flatnonzero(inside & (change_w > least_w))
    steps = int((np.abs(np.diff(readings.power_w)) > 0.1 * float(change_w.max())).sum())
    if len(informative) < _MIN_INTERVALS or steps < _MIN_STEPS:
        return "unverified"
    informative = informative[np.argsort(change_w[informative])[-_MAX_COMPARED:]]
    rise_j = np.diff(knots.energy_j)[informative]
    from_s, to_s = from_s[informative], to_s[informative]
    span_s = np.minimum(to_s - from_s, spacing_s)
    changes_j = float(np.sqrt(np.mean((change_w[informative] * span_s) ** 2)))
    timing_j = _timing_error(knots, readings, informative)
    residual_j, delay_s = _best_match(rise_j, from_s, to_s, readings, margin_s)
    stray, noise = residual_j / changes_j, timing_j / changes_j
    # A sum holds a reading from when it is shown on. A counter of its own has the energy before
    # that: a reading is a mean over the time before it, and is held for a period.
    late = delay_s / spacing_s
    if stray < max(_SUM_STRAY, _SUM_NOISES * noise) and noise < _OWN_STRAY and abs(late) < _EARLY:
        # Several readings a step leave so little unseen that any counter looks like their sum.
        return "sum" if spacing_s > 0.5 * knots.spacing_s else "unverified"
    independent = stray > max(_OWN_STRAY, _OWN_NOISES * noise) and late < -_EARLY
    return "independent" if independent else "unverified"


def _best_match(
    rise_j: Floats, from_s: Floats, to_s: Floats, readings: Readings, span_s: float
) -> tuple[float, float]:
    """Return what the sum of readings leaves of each interval, rms, and the delay it does so by.

    The delay is how long after a reading is shown it enters the counter.
    """
    held_j = np.concatenate(([0.0], np.cumsum(readings.power_w[:-1] * np.diff(readings.t_s))))

    def residual_j(delay_s: float) -> float:
        sums_j = np.interp(to_s - delay_s, readings.t_s, held_j)
        sums_j -= np.interp(from_s - delay_s, readings.t_s, held_j)
        scale = float(rise_j @ sums_j / (sums_j @ sums_j))
        return float(np.sqrt(np.mean((rise_j - scale * sums_j) ** 2)))

    delays_s = np.linspace(-span_s, span_s, 81)
    for _ in range(3):
        best_j, best_s = min((residual_j(delay_s), delay_s) for delay_s in delays_s.tolist())
        step_s = float(delays_s[1] - delays_s[0])
        delays_s = np.linspace(best_s - step_s, best_s + step_s, 21)
    return best_j, best_s


def _timing_error(knots: Knots, readings: Readings, intervals: Ints) -> float:
    """Return the energy, rms in J, by which unsure times let an interval stray from its sum."""
    jump_w = np.abs(np.diff(readings.power_w))
    squares = []
    for k in intervals:
        first, last = np.searchsorted(readings.t_s, (knots.t_s[k], knots.t_s[k + 1]))
        nearby = slice(max(int(first) - 1, 0), int(last) + 1)
        reading_j = jump_w[nearby] * readings.t_half_width_s[1:][nearby][: len(jump_w[nearby])]
        tick_j = jump_w[nearby].max(initial=0.0) * np.hypot(
            knots.t_half_width_s[k], knots.t_half_width_s[k + 1]
        )
        squares.append((float(np.sum(reading_j**2)) + float(tick_j) ** 2) / 3)
    return float(np.sqrt(np.mean(squares)))


def counter_lag(knots: Knots, edges_s: Floats) -> float | None:
    """Return how late a counter shows steps whose times are known, in s; None from too few clear.

    The energy of the knots around a step, against the power before and after it, shows when the
    counter saw it.
    """
    lags_s = []
    for edge_s, next_s in pairwise((*edges_s.tolist(), np.inf)):
        left = int(np.searchsorted(knots.t_s, edge_s)) - 1
        if left < 2 or left + 5 > len(knots) or knots.t_s[left + 4] > next_s:
            continue
        t, energy_j = knots.t_s, knots.energy_j
        before_w = (energy_j[left] - energy_j[left - 2]) / (t[left] - t[left - 2])
        after_w = (energy_j[left + 4] - energy_j[left + 2]) / (t[left + 4] - t[left + 2])
        if abs(after_w - before_w) < 0.15 * max(before_w, after_w):
            continue
        drawn_j = energy_j[left + 2] - energy_j[left]
        late_s = (before_w * (t[left + 2] - t[left]) - drawn_j) / (before_w - after_w)
        lags_s.append(float(t[left + 2] - late_s - edge_s))
    if len(lags_s) < _MIN_INTERVALS:
        return None
    return max(float(np.median(lags_s)), 0.0)


def averaging_window(readings: Readings, edges_s: Floats) -> float | None:
    """Return the time each reading is a mean over; None if the steps do not show it.

    A reading shown a time s after a step has taken up the share min(s/w, 1) of it.
    """
    lags_s, shares = _step_responses(readings, edges_s)
    if len(lags_s) < _MIN_INTERVALS:
        return None

    def deviation(window_s: float) -> Floats:
        return np.abs(shares - np.clip(lags_s / window_s, 0.0, 1.0))

    def misfit(window_s: float) -> float:
        # Bounded, so that steps that were none, such as those of a ramp, do not decide.
        return float(np.mean(np.minimum(deviation(window_s), _STRAY_SHARE) ** 2))

    windows_s = np.geomspace(1e-3, 3.0, 160)
    for _ in range(3):
        best_s = float(min(windows_s, key=misfit))
        windows_s = np.geomspace(best_s / 1.06, best_s * 1.06, 41)
    # Shares that nothing lies between 0 and 1 of give a bound, not a window.
    partial = (shares > 0.05) & (shares < 0.95) & (lags_s < 1.5 * best_s)
    close = deviation(best_s)[partial] < _STRAY_SHARE
    return best_s if close.sum() >= 3 and close.mean() > 0.6 else None


def _step_responses(readings: Readings, edges_s: Floats) -> tuple[Floats, Floats]:
    """Return, of all readings after clear steps, the time since the step and the share taken up."""
    lags_s, shares = [np.zeros(0)], [np.zeros(0)]
    for edge_s, next_s in pairwise((*edges_s.tolist(), np.inf)):
        first = int(np.searchsorted(readings.t_s, edge_s))
        last = int(np.searchsorted(readings.t_s, min(next_s, edge_s + 3.0)))
        if first < 2 or last - first < 3:
            continue
        before_w, settling_w, after_w = readings.power_w[[first - 1, last - 2, last - 1]]
        step_w = after_w - before_w
        if (
            abs(step_w) < 0.15 * max(before_w, after_w)
            or abs(settling_w - after_w) > 0.03 * abs(step_w)
            or abs(readings.power_w[first - 2] - before_w) > 0.03 * abs(step_w)
        ):
            continue
        lags_s.append(readings.t_s[first:last] - edge_s)
        shares.append((readings.power_w[first:last] - before_w) / step_w)
    return np.concatenate(lags_s), np.concatenate(shares)
