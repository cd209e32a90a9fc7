"""What a card's channels are, found from samples of a load: periods, windows, independence.

The makers do not say how often a reading is renewed nor over what time it is a mean, and both
differ between cards and drivers. They are found here as arXiv 2312.02741 does, from how readings
follow steps of power, but with the steps' times taken from the energy counter where it is
independent of the readings, so that an ordinary run with a load in it is enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.meter.counter import Ticks, read_ticks
from llenergymeasure.meter.power import Readings, read_power
from llenergymeasure.meter.renewals import Floats, seconds
from llenergymeasure.meter.samples import Quantity, Samples

POWER_QUANTITIES: tuple[Quantity, ...] = ("power_instant_w", "power_usage_w", "power_average_w")

_SAME = 0.02
"""A counter that strays from the sum of the readings by less than this share is that sum."""

_APART = 0.06
"""One that strays by more than this share counts for itself."""

_EARLIEST = 0.25
"""How much earlier than it is shown, in update periods, a reading may enter a sum of readings."""

_UNREST = 0.03
"""Least change of power, relative, that tells anything."""

_MIN_CHANGES = 8
_MIN_STEPS = 12
"""Fewest changes of the readings that tell more than the free choice of a delay hides."""

_UNSURE = 0.1
"""How unsure readings' times may be, in update periods, for a counter to be held against them."""

_MOST_COMPARED = 60
_MIN_CLIMBS = 4
_MIN_PARTIAL = 3

_STRAY_SHARE = 0.12
"""How far a reading may be off the share of a step it should have taken up."""


@dataclass(frozen=True)
class PowerCharacter:
    """How a power channel averages.

    Attributes:
        quantity: which channel.
        update_period_s: how often a reading is renewed; null if not found.
        window_s: the time each reading is a mean over; null if not found.
        source: ``found`` from the samples, ``kept`` from earlier ones, or ``published`` for that
            card.
    """

    quantity: Quantity
    update_period_s: float | None
    window_s: float | None
    source: str

    @property
    def share_seen(self) -> float | None:
        """Return the share of the time that the readings see, at most 1."""
        if self.update_period_s is None or self.window_s is None:
            return None
        share = self.window_s / self.update_period_s
        # The two are found to some percent each: a window of one period sees all.
        return 1.0 if share > 0.9 else share


@dataclass(frozen=True)
class Character:
    """How one sensor's channels on one device behave.

    Attributes:
        counter_period_s: how often the energy counter steps; null if there is none.
        counter_independent: whether the counter sees what the power readings do not: False if it
            is the sum of readings, null if power changed too little to tell.
        counter_scale: energy by the counter over energy by the readings it is the sum of.
        counter_delay_s: how long after a reading is shown the counter begins to add it.
        power: the power channels found.
    """

    counter_period_s: float | None
    counter_independent: bool | None
    counter_scale: float
    counter_delay_s: float
    power: tuple[PowerCharacter, ...]


@dataclass(frozen=True)
class Published:
    """Update period and window of a card's channels as others have measured them."""

    update_period_s: float
    instant_window_s: float
    average_window_s: float


PUBLISHED: dict[str, Published] = {
    "A100": Published(0.1, 0.025, 0.025),
    "H100": Published(0.1, 0.025, 1.0),
    "V100": Published(0.02, 0.01, 0.01),
    "RTX 3090": Published(0.1, 0.1, 1.0),
}
"""By part of the card's name: arXiv 2312.02741, tables of the GPU_Power_Benchmark data."""


def published(name: str, quantity: Quantity) -> PowerCharacter | None:
    """Return what is published of a card's channel, if anything."""
    for part, card in PUBLISHED.items():
        if part in name:
            instant = quantity == "power_instant_w"
            window_s = card.instant_window_s if instant else card.average_window_s
            return PowerCharacter(quantity, card.update_period_s, window_s, "published")
    return None


def characterise(
    samples: Samples, device: str, sensor: str, edges_ns: Sequence[int] = ()
) -> Character:
    """Find how a sensor's channels behave from samples of a changing load.

    Args:
        samples: a recording with a load in it: the more and the sharper its steps, the better.
        device: as in the samples.
        sensor: as in the samples.
        edges_ns: when power stepped, where the load's maker knows; else the steps are found from
            an independent counter, or from the readings where they average over many updates.
    """
    origin_ns = samples.header.started_monotonic_ns
    ticks = read_ticks(samples.series(device, sensor, "energy_counter_j"), origin_ns)
    channels = {
        quantity: read_power(series, origin_ns)
        for quantity in POWER_QUANTITIES
        if len(series := samples.series(device, sensor, quantity)) > 1
    }
    edges_s = seconds(np.asarray(edges_ns, dtype=np.int64), origin_ns)
    return _character(ticks, channels, edges_s)


def _character(ticks: Ticks, channels: dict[Quantity, Readings], edges_s: Floats) -> Character:
    independent, sum_of = None, Match(0.0, 1.0, 0.0)
    for readings in channels.values():
        match = match_counter(ticks, readings)
        if match is None:
            continue
        if match.stray < _SAME:
            # A sum cannot hold a reading before it was shown: one that does tells nothing.
            if match.delay_s > -_EARLIEST * readings.spacing_s:
                independent, sum_of = False, match
                break
            continue
        # Readings whose times are not known stray from any counter.
        if match.stray > _APART and readings.period_s is not None:
            independent = True
    if len(edges_s) == 0 and independent:
        edges_s = counter_edges(ticks)
    power = tuple(
        PowerCharacter(quantity, readings.period_s, averaging_window(readings, edges_s), "found")
        for quantity, readings in channels.items()
    )
    return Character(ticks.period_s, independent, sum_of.scale, sum_of.delay_s, power)


@dataclass(frozen=True)
class Match:
    """How well a counter is the sum of a power channel's readings.

    Attributes:
        stray: root mean square of what the sum leaves over, relative to that of the energy by
            which single readings differ.
        scale: counter over sum.
        delay_s: how long after a reading is shown it enters the counter.
    """

    stray: float
    scale: float
    delay_s: float


def match_counter(ticks: Ticks, readings: Readings) -> Match | None:
    """Return how well a counter is the sum of the readings; null if power changed too little.

    The readings, each held until the next, are summed between ticks, moved in time as fits best.
    Looked at is where readings change most: there a counter of its own strays from the sum by what
    happened between readings, and a sum by the little that the readings' times are not known.
    """
    if len(ticks) < _MIN_CHANGES or len(readings) < _MIN_CHANGES:
        return None
    rise_j, from_s, to_s = np.diff(ticks.energy_j), ticks.t_s[:-1], ticks.t_s[1:]
    span_s = readings.spacing_s + float(np.median(to_s - from_s))
    unrest_w = _unrest(readings, from_s - readings.spacing_s, to_s + readings.spacing_s)
    inside = (from_s > readings.t_s[0] + span_s) & (to_s < readings.t_s[-1] - span_s)
    least_w = max(_UNREST * float(np.mean(readings.power_w)), 0.3 * float(np.max(unrest_w)))
    sharp = _unsure(readings, from_s - span_s, to_s + span_s) < _UNSURE * readings.spacing_s
    # Where power changes evenly, a delay makes any counter look like a sum: only bends tell.
    bend_w = _bends(readings, from_s - span_s, to_s + span_s)
    telling = np.flatnonzero(inside & (unrest_w > least_w) & sharp & (bend_w > 0.5 * unrest_w))
    steps = np.abs(np.diff(readings.power_w)) > 0.1 * float(np.max(unrest_w))
    if len(telling) < _MIN_CHANGES or steps.sum() < _MIN_STEPS:
        return None
    telling = telling[np.argsort(unrest_w[telling])[-_MOST_COMPARED:]]
    rise_j, from_s, to_s = rise_j[telling], from_s[telling], to_s[telling]
    one_s = np.minimum(to_s - from_s, readings.spacing_s)
    changes_j = float(np.sqrt(np.mean((unrest_w[telling] * one_s) ** 2)))
    held_j = np.concatenate(([0.0], np.cumsum(readings.power_w[:-1] * np.diff(readings.t_s))))

    def match(delay_s: float) -> Match:
        sums_j = np.interp(to_s - delay_s, readings.t_s, held_j)
        sums_j -= np.interp(from_s - delay_s, readings.t_s, held_j)
        scale = float(rise_j @ sums_j / (sums_j @ sums_j))
        left_j = float(np.sqrt(np.mean((rise_j - scale * sums_j) ** 2)))
        return Match(left_j / changes_j, scale, delay_s)

    delays_s = np.linspace(-span_s, span_s, 81)
    for _ in range(3):
        best = min((match(float(delay_s)) for delay_s in delays_s), key=lambda each: each.stray)
        step_s = float(delays_s[1] - delays_s[0])
        delays_s = np.linspace(best.delay_s - step_s, best.delay_s + step_s, 21)
    # The ratio of the whole is far better known than that of the changes.
    whole_s = np.clip(ticks.t_s[[0, -1]] - best.delay_s, readings.t_s[0], readings.t_s[-1])
    sum_j = np.diff(np.interp(whole_s, readings.t_s, held_j))
    counted_j = np.diff(np.interp(whole_s + best.delay_s, ticks.t_s, ticks.energy_j))
    return Match(best.stray, float(counted_j[0] / sum_j[0]), best.delay_s)


def _unrest(readings: Readings, from_s: Floats, to_s: Floats) -> Floats:
    """Return the range of the readings in each stretch."""
    first = np.searchsorted(readings.t_s, from_s)
    last = np.searchsorted(readings.t_s, to_s)
    return np.array(
        [np.ptp(readings.power_w[i:j]) if j > i else 0.0 for i, j in zip(first, last, strict=True)]
    )


def _bends(readings: Readings, from_s: Floats, to_s: Floats) -> Floats:
    """Return the range of the changes from reading to reading in each stretch; 0 on a ramp."""
    change_w = np.diff(readings.power_w)
    first = np.searchsorted(readings.t_s, from_s)
    last = np.searchsorted(readings.t_s, to_s) - 1
    return np.array(
        [np.ptp(change_w[i:j]) if j > i else 0.0 for i, j in zip(first, last, strict=True)]
    )


def _unsure(readings: Readings, from_s: Floats, to_s: Floats) -> Floats:
    """Return how unsure, in s, the readings' times are in each stretch; a hole is its length."""
    holes_s = np.append(np.diff(readings.t_s) - readings.spacing_s, 0.0)
    unsure_s = np.maximum(readings.half_s, holes_s)
    first = np.searchsorted(readings.t_s, from_s)
    last = np.searchsorted(readings.t_s, to_s)
    return np.array(
        [unsure_s[i:j].max() if j > i else np.inf for i, j in zip(first, last, strict=True)]
    )


def counter_edges(ticks: Ticks) -> Floats:
    """Return when power stepped from one plateau to another, from an independent counter.

    Where two intervals before and two after are level, the energy of the one between divides its
    time between the two powers.
    """
    spans_s = np.diff(ticks.t_s)
    power_w = np.diff(ticks.energy_j) / spans_s
    if len(power_w) < 5:
        return np.zeros(0)
    before_w, after_w = power_w[1:-3], power_w[3:-1]
    step_w = after_w - before_w
    level_w = 0.03 * np.abs(step_w)
    clear = (
        (np.abs(step_w) > 0.15 * np.maximum(before_w, after_w))
        & (np.abs(power_w[:-4] - before_w) < level_w)
        & (np.abs(power_w[4:] - after_w) < level_w)
    )
    between = np.flatnonzero(clear) + 2
    before_w, after_w = power_w[between - 1], power_w[between + 1]
    late_s = (power_w[between] - before_w) / (after_w - before_w) * spans_s[between]
    edges_s = ticks.t_s[between + 1] - np.clip(late_s, 0.0, spans_s[between])
    return np.asarray(edges_s, dtype=np.float64)


def averaging_window(readings: Readings, edges_s: Floats) -> float | None:
    """Return the time each reading is a mean over; null if the steps do not tell.

    A reading renewed a time s after a step has taken up the share min(s/w, 1) of it.
    """
    if len(edges_s) == 0:
        return _window_of_climbs(readings)
    lags_s, shares = _taken_up(readings, np.sort(edges_s))
    if len(lags_s) < _MIN_CHANGES:
        return None

    def off(window_s: float) -> Floats:
        return np.abs(shares - np.clip(lags_s / window_s, 0.0, 1.0))

    def misfit(window_s: float) -> float:
        # Bounded, so that steps that were none, such as those of a ramp, do not decide.
        return float(np.mean(np.minimum(off(window_s), _STRAY_SHARE) ** 2))

    windows_s = np.geomspace(1e-3, 3.0, 160)
    for _ in range(3):
        best_s = float(min(windows_s, key=misfit))
        windows_s = np.geomspace(best_s / 1.06, best_s * 1.06, 41)
    # Shares that nothing lies between 0 and 1 of give a bound, not a window.
    part = (shares > 0.05) & (shares < 0.95) & (lags_s < 1.5 * best_s)
    agree = off(best_s)[part] < _STRAY_SHARE
    return best_s if agree.sum() >= _MIN_PARTIAL and agree.mean() > 0.6 else None


def _taken_up(readings: Readings, edges_s: Floats) -> tuple[Floats, Floats]:
    """Return, of all readings after clear steps, the time since the step and the share taken up."""
    lags_s, shares = [], []
    for edge_s, next_s in zip(edges_s, np.append(edges_s[1:], np.inf), strict=True):
        first = int(np.searchsorted(readings.t_s, edge_s))
        last = int(np.searchsorted(readings.t_s, min(next_s, edge_s + 3.0)))
        if first < 2 or last - first < 3:
            continue
        before_w, settling_w, after_w = readings.power_w[[first - 1, last - 2, last - 1]]
        step_w = after_w - before_w
        level_w = 0.03 * abs(step_w)
        if (
            abs(step_w) < 0.15 * max(before_w, after_w)
            or abs(settling_w - after_w) > level_w
            or abs(readings.power_w[first - 2] - before_w) > level_w
        ):
            continue
        lags_s.append(readings.t_s[first:last] - edge_s)
        shares.append((readings.power_w[first:last] - before_w) / step_w)
    if not lags_s:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(lags_s), np.concatenate(shares)


def _window_of_climbs(readings: Readings) -> float | None:
    """Return the window from how steeply the readings climb between plateaus, where it is long.

    A short window that aliases a fast periodic load makes the same picture, but at even distances:
    only climbs that agree and come irregularly are believed.
    """
    change_w = np.diff(readings.power_w)
    swing_w = float(np.ptp(readings.power_w))
    moving = np.abs(change_w) > 0.01 * swing_w
    bounds = np.flatnonzero(np.diff(np.concatenate(([0], moving.astype(np.int8), [0]))))
    windows_s, rises = [], []
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        step_w = readings.power_w[end] - readings.power_w[start]
        inner_w = change_w[start + 1 : end - 1]
        if len(inner_w) < 3 or abs(step_w) < 0.15 * swing_w:
            continue
        climb_w = float(np.median(inner_w))
        if float(np.max(np.abs(inner_w - climb_w))) > 0.05 * abs(climb_w):
            continue
        windows_s.append(step_w / climb_w * readings.spacing_s)
        if step_w > 0:
            rises.append(start)
    if len(rises) < _MIN_CLIMBS:
        return None
    agree = float(np.std(windows_s)) < 0.03 * float(np.mean(windows_s))
    distances = np.diff(rises)
    irregular = float(np.std(distances)) > 1 + 0.02 * float(np.mean(distances))
    return float(np.median(windows_s)) if agree and irregular else None
