"""The node's energy next to that of its devices: aligned by a step of the load, never added to it.

A meter of the whole machine has its own clock and is late: it averages, a BMC renews slowly, a log
is flushed. How late is found where the load steps: the shift at which its power follows that of
the devices best, and how far from it that still holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llenergymeasure.config.calibration import Calibration
from llenergymeasure.energy.channel import Channel
from llenergymeasure.energy.idle_power import PhaseSpan
from llenergymeasure.energy.knots import Floats, Knots
from llenergymeasure.energy.readings import (
    Source,
    blank_reading,
    disjoint,
    missing_reading,
    open_sources,
)
from llenergymeasure.recording.samples import Samples
from llenergymeasure.results.energy import NodeEnergy, Reading
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.units import NS_PER_S, Scope

SCOPE: Scope = "node"
EARLIEST_S, LATEST_S = -30.0, 60.0
"""Between these a meter's lag is looked for: its clock may be behind, or it may be slow."""

MIN_EXPLAINED = 0.5
"""Least share of the meter's variance that the devices must explain for a shift to count."""

_RIVAL_MARGIN = 0.1
_MIN_READINGS = 8
_GAP_SPACINGS = 2.5
_SLOW_WINDOWS = 10
"""A meter that gives fewer readings than this over a window is slow for it."""


class NotAlignedError(Exception):
    """Why a meter's time cannot be determined from the recording."""


@dataclass(frozen=True)
class Alignment:
    """How late a meter is against the devices, its clock and its own delay together.

    Attributes:
        lag_s: how long after the devices it shows a step; negative if its clock is behind.
        u95_s: half width of the 95 % interval of that.
    """

    lag_s: float
    u95_s: float


def align(meter: Knots, devices: Sequence[Knots], explained: float = MIN_EXPLAINED) -> Alignment:
    """Return how late a meter shows what devices draw.

    Raises:
        NotAlignedError: nothing steps that both see.
    """
    if len(meter) < _MIN_READINGS or not devices:
        raise NotAlignedError(f"{len(meter)} readings are too few to show how late it is")
    step_s = max(min(meter.spacing_s / 4, 0.5), 0.05)
    shifts_s = np.arange(EARLIEST_S, LATEST_S + step_s, step_s)
    unexplained = np.array([_unexplained_share(meter, devices, shift_s) for shift_s in shifts_s])
    if not np.isfinite(unexplained).any() or np.nanmin(unexplained) > 1 - explained:
        raise NotAlignedError(
            "no step of the load shows how late the meter is: its power does not follow the "
            f"devices' at any shift from {EARLIEST_S:g} to {LATEST_S:g} s (a wrong clock, another "
            "machine's meter, or an even load)"
        )
    best = int(np.nanargmin(unexplained))
    # Another shift that fits nearly as well makes it a guess which of them it is.
    least = unexplained[best]
    rivals_s = shifts_s[unexplained <= max(2 * least, least + _RIVAL_MARGIN)]
    if np.any(np.diff(rivals_s) > 2 * step_s):
        raise NotAlignedError("the load steps too regularly to show how late the meter is")
    fine_s = np.linspace(shifts_s[best] - step_s, shifts_s[best] + step_s, 41)
    fine_unexplained = np.array([_unexplained_share(meter, devices, shift_s) for shift_s in fine_s])
    lag_s = float(fine_s[int(np.nanargmin(fine_unexplained))])
    # Shifts that fit as well within the scatter (F distribution, two parameters; its residuals are
    # correlated over a step, so that steps count and not readings).
    middle_w = (float(meter.power_w.max()) + float(meter.power_w.min())) / 2
    steps = int(np.count_nonzero(np.diff(meter.power_w > middle_w)))
    limit = float(np.nanmin(fine_unexplained)) * (1 + 8 / max(steps, 4))
    fitting_s = shifts_s[unexplained <= limit]
    if len(fitting_s) and (fitting_s[0] <= EARLIEST_S or fitting_s[-1] >= LATEST_S - step_s):
        raise NotAlignedError("the load is too even, or steps too regularly, to show its lag")
    reach_s = float(np.max(np.abs(fitting_s - lag_s))) if len(fitting_s) else 0.0
    # Of readings further apart than they average, none need have seen when it stepped.
    return Alignment(lag_s, reach_s + meter.spacing_s / 2)


def _unexplained_share(meter: Knots, devices: Sequence[Knots], shift_s: float) -> float:
    """Return the share of the meter's variance that devices leave, so long before; NaN if unknown.

    It is not known where too few of its readings lie within their recording.
    """
    drawn_j = np.zeros(len(meter))
    for knots in devices:
        at_s = meter.t_s - shift_s + (meter.origin_ns - knots.origin_ns) / NS_PER_S
        inside = (at_s >= knots.t_s[0]) & (at_s <= knots.t_s[-1])
        drawn_j += np.where(inside, knots.at(at_s), np.nan)
    x, y = np.diff(drawn_j) / np.diff(meter.t_s), meter.power_w
    valid = np.isfinite(x)
    if valid.sum() < max(_MIN_READINGS, 0.5 * len(y)):
        return math.nan
    x, y = x[valid] - x[valid].mean(), y[valid] - y[valid].mean()
    if not (np.any(x) and np.any(y)):
        return math.nan
    slope = float(x @ y) / float(x @ x)
    # Power that falls when the devices draw more is not theirs.
    return 1.0 if slope <= 0 else 1 - float(x @ y) ** 2 / float(x @ x) / float(y @ y)


def node_energy(
    samples: Samples,
    info: SensorInfo,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    measured: Sequence[Source],
    calibration: Calibration,
) -> tuple[list[Reading], NodeEnergy]:
    """Return the node's readings over a window, and how they stand to the devices'.

    Args:
        samples: the recording.
        info: the node's meter.
        window: in CLOCK_MONOTONIC ns.
        phases: those of the run.
        measured: the devices' sources, the better of each device first.
        calibration: of the node's meter too, by the device ``node``.
    """
    sources, _ = open_sources(samples, info, window, phases, calibration, None)
    devices = disjoint([source for source in measured if source.info.kind == "measured"], window)
    if not sources:
        missing = missing_reading(samples, info)
        return [missing], NodeEnergy(unavailable=missing.unavailable)
    readings, aligned = [], []
    for source in sources:
        try:
            alignment = align(source.channel.knots, [device.channel.knots for device in devices])
        except NotAlignedError as error:
            blank = blank_reading(info, source.channel.name, headline=False)
            readings.append(blank.model_copy(update={"unavailable": str(error)}))
            continue
        reading = _reading(source, window, phases, alignment)
        readings.append(reading)
        if reading.gross_j is not None:
            aligned.append((source, reading, alignment))
    if not aligned:
        return readings, NodeEnergy(unavailable=readings[0].unavailable)
    source, reading, alignment = min(aligned, key=lambda entry: entry[1].gross_u95_j or 0.0)
    record = NodeEnergy(
        gross_j=reading.gross_j,
        gross_u95_j=reading.gross_u95_j,
        u_sys_j=reading.u_sys_j,
        lag_s=alignment.lag_s,
        lag_u95_s=alignment.u95_s,
        notes=list(_notes(source.channel, window, alignment)),
    )
    return readings, _with_ratio(record, [part.reading(*window, headline=True) for part in devices])


def _reading(
    source: Source, window: tuple[int, int], phases: Sequence[PhaseSpan], alignment: Alignment
) -> Reading:
    """Return the reading of a window by a meter that is late.

    What a delay blurs is at most a mean over twice its length; what is unknown of the delay moves
    both ends alike, over the range that power has around each.
    """
    lag_ns = round(alignment.lag_s * NS_PER_S)
    late = [(name, start_ns + lag_ns, end_ns + lag_ns) for name, start_ns, end_ns in phases]
    channel = source.channel
    smeared_channel = replace(channel, smear_s=max(channel.smear_s, 2 * alignment.lag_s))
    window = (window[0] + lag_ns, window[1] + lag_ns)
    reading = replace(source, channel=smeared_channel).reading(*window, late, headline=False)
    if reading.gross_j is None:
        return reading
    knots = channel.knots
    ends_w = [0.0]
    for edge_ns in window:
        around_s = np.abs(knots.t_s[1:] - knots.seconds(edge_ns))
        near_w = knots.power_w[around_s <= alignment.u95_s + 2 * knots.spacing_s]
        ends_w.append(float(np.ptp(near_w)) if len(near_w) else 0.0)
    # Missing readings may hide any power that was seen, over half of each gap.
    unread_j = float(np.ptp(knots.power_w)) * float(np.sum(_gaps_s(knots, window))) / 2
    gain = 1.0 if source.gain is None else source.gain.gain
    extra_u95_j = math.hypot(alignment.u95_s * max(ends_w), unread_j) / gain
    update: dict[str, float | None] = {"bound_j": (reading.bound_j or 0.0) + extra_u95_j}
    for name in ("u95_j", "gross_u95_j", "net_u95_j", "shared_u95_j"):
        value = getattr(reading, name)
        update[name] = None if value is None else math.hypot(value, extra_u95_j)
    return reading.model_copy(update=update)


def _gaps_s(knots: Knots, window: tuple[int, int]) -> Floats:
    """Return the lengths of the stretches inside a window over which readings are missing."""
    start_s, end_s = knots.seconds(window[0]), knots.seconds(window[1])
    gaps = np.diff(knots.t_s) > _GAP_SPACINGS * knots.spacing_s
    within_s = np.diff(np.clip(knots.t_s, start_s, end_s))
    return np.asarray(within_s[gaps & (within_s > 0)])


def _notes(channel: Channel, window: tuple[int, int], alignment: Alignment) -> list[str]:
    """Return what a reader must know of the meter, a sentence each."""
    knots, notes = channel.knots, []
    lag_ns = round(alignment.lag_s * NS_PER_S)
    gaps_s = _gaps_s(knots, (window[0] + lag_ns, window[1] + lag_ns))
    if len(gaps_s):
        notes.append(
            f"readings are missing over {float(np.sum(gaps_s)):.1f} s of the window; the interval "
            "holds what they may have been"
        )
    changed = np.flatnonzero(np.diff(knots.power_w) != 0) + 1
    places = np.concatenate(([0], changed, [len(knots) - 1]))
    renewed_s = float(np.median(np.diff(knots.t_s[places]))) if len(knots) > 3 else 0.0
    window_s = (window[1] - window[0]) / NS_PER_S
    if renewed_s * _SLOW_WINDOWS > window_s:
        notes.append(f"the meter is slow: updated every {renewed_s:.3g} s, for {window_s:.3g} s")
    if alignment.lag_s < -alignment.u95_s:
        notes.append(f"the meter's clock is behind by {-alignment.lag_s:.2f} s at least")
    return notes


def _with_ratio(record: NodeEnergy, devices: Sequence[Reading]) -> NodeEnergy:
    """Return the node's record with its ratio to the devices' energy, each end at its worst."""
    if not devices or any(device.gross_j is None for device in devices):
        return record.model_copy(update={"ratio_unavailable": "no device's energy was measured"})
    devices_j = math.fsum(device.gross_j or 0.0 for device in devices)
    devices_u95_j = math.fsum(
        math.hypot(device.gross_u95_j or 0.0, device.u_sys_j or 0.0) for device in devices
    )
    node_j = record.gross_j or 0.0
    node_u95_j = math.hypot(record.gross_u95_j or 0.0, record.u_sys_j or 0.0)
    names = [device.device for device in devices]
    update: dict[str, Any] = {"devices_j": devices_j, "devices": names}
    if devices_j <= devices_u95_j:
        update["ratio_unavailable"] = "the devices' energy is unsure by all of it"
        return record.model_copy(update=update)
    high = (node_j + node_u95_j) / (devices_j - devices_u95_j)
    if high < 1:
        update["notes"] = [
            *record.notes,
            f"the node's meter shows less than its devices ({high:.2f} times at most): one of them "
            "is wrong, or it is another machine's",
        ]
    update["ratio"] = node_j / devices_j
    update["ratio_low"] = max(node_j - node_u95_j, 0.0) / (devices_j + devices_u95_j)
    update["ratio_high"] = high
    return record.model_copy(update=update)
