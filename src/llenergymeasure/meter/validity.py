"""Reasons to doubt a run's energy, as codes with an explanation each.

Those in ``units.DISQUALIFYING`` keep the run out of the means, those in ``units.MARKING`` stand
beside it. A fault never makes an energy zero: it makes it unknown, wider, or doubted.
"""

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from llenergymeasure.meter.device import UNSEEN, EnergyChannel, Stretch
from llenergymeasure.meter.samples import Samples
from llenergymeasure.meter.uncertainty import COVERAGE_FACTOR
from llenergymeasure.units import NS_PER_S

CHANNEL_GATE = 0.02
"""Largest relative difference between counter and integrated power."""

GAP_PERIODS = 10
"""A channel silent for more update periods than this has a gap (InferenceX' gate: 3 s)."""
GAP_FLOOR_S = 0.5

DRIFT_CELSIUS = 3.0
"""Largest change of temperature over the window."""

_SLOWED = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""NVML's clock event reasons that slow a card against its load (nvmlClocksEventReasons)."""

Span = tuple[int, int]


def channel_mismatch(
    counter: Stretch, power: Stretch, power_channel: EnergyChannel, window: Span
) -> str | None:
    """Judge the two channels of a device against each other.

    They are held to the gate, and to what their ends and the scatter of the readings explain: a
    short window is not blamed for its ends. What a sensor might fail to see is no excuse here, or
    nothing would ever be caught where it sees little.
    """
    apart_j = abs(counter.energy_j - power.energy_j)
    if apart_j <= CHANNEL_GATE * abs(counter.energy_j):
        return None
    sampling_j = COVERAGE_FACTOR * sampling_error(power_channel, window)
    explained_j = float(
        np.sqrt(counter.without(UNSEEN) ** 2 + power.without(UNSEEN) ** 2 + sampling_j**2)
    )
    if apart_j <= explained_j:
        return None
    share = apart_j / abs(counter.energy_j) if counter.energy_j else float("inf")
    return (
        f"counter {counter.energy_j:.1f} J and integrated power {power.energy_j:.1f} J differ by "
        f"{share:.1%}, more than {CHANNEL_GATE:.0%} and than the {explained_j:.1f} J explained by "
        "the window's ends and the readings' scatter"
    )


def sampling_error(channel: EnergyChannel, window: Span) -> float:
    """Return the standard error, in J, of an integral of readings that see part of the time.

    The standard error of the mean of a correlated series: its variance over n, times one plus
    twice the autocorrelations up to the first negative one (Geyer 1992, Statist. Sci. 7, 473).
    """
    curve = channel.curve
    if not channel.undersampled or curve.power_w is None:
        return 0.0
    inside = (curve.t_s >= curve.seconds(window[0])) & (curve.t_s <= curve.seconds(window[1]))
    off_w = curve.power_w[inside] - np.mean(curve.power_w[inside]) if inside.any() else np.zeros(0)
    count = len(off_w)
    if count < 4 or not np.any(off_w):
        return 0.0
    variance = float(off_w @ off_w) / count
    inflation = 1.0
    for lag in range(1, count - 1):
        correlation = float(off_w[lag:] @ off_w[:-lag]) / count / variance
        if correlation < 0:
            break
        inflation += 2 * correlation
    span_s = (window[1] - window[0]) / NS_PER_S
    return float(np.sqrt(variance * inflation / count)) * span_s


def sample_gap(
    samples: Samples, channel: EnergyChannel, window: Span, device: str, sensor: str
) -> str | None:
    """Return whether a channel was silent within the window for longer than its pace allows."""
    t_ns = samples.series(device, sensor, channel.quantity).t_ns
    inside = t_ns[(t_ns > window[0]) & (t_ns < window[1])]
    longest_s = (
        float(np.max(np.diff(np.concatenate(([window[0]], inside, [window[1]]))))) / NS_PER_S
    )
    allowed_s = max(GAP_PERIODS * channel.curve.spacing_s, GAP_FLOOR_S)
    if longest_s <= allowed_s:
        return None
    return (
        f"{device}: no {channel.quantity} for {longest_s:.2f} s within the window; "
        f"at its pace {allowed_s:.2f} s is the most"
    )


def other_process(samples: Samples, devices: Collection[str], window: Span) -> str | None:
    """Return which processes not of the run used a device within the window."""
    found = []
    for device in sorted(devices):
        rows = _rows(samples, device, "stranger_pid", window)
        names = dict(zip(rows["value"].to_pylist(), rows["note"].to_pylist(), strict=True))
        found += [
            f"{int(pid)} ({name or 'name unknown'}) on {device}" for pid, name in names.items()
        ]
    return f"other processes used the GPU: {', '.join(found)}" if found else None


def throttled(samples: Samples, sensor: str, devices: Collection[str], window: Span) -> str | None:
    """Return why a device slowed its clocks within the window, and for how much of it."""
    found = []
    for device in sorted(devices):
        series = samples.series(device, sensor, "throttle_reasons")
        inside = (series.t_ns >= window[0]) & (series.t_ns <= window[1]) & ~np.isnan(series.value)
        masks = series.value[inside].astype(np.int64)
        found += [
            f"{reason} in {np.mean(masks & bit != 0):.0%} of the looks at {device}"
            for bit, reason in _SLOWED.items()
            if np.any(masks & bit)
        ]
    return "; ".join(found) or None


def temperature_drift(
    samples: Samples, sensor: str, devices: Collection[str], window: Span
) -> str | None:
    """Return by how much a device warmed or cooled within the window."""
    found = []
    for device in sorted(devices):
        series = samples.series(device, sensor, "temperature_celsius")
        inside = (series.t_ns >= window[0]) & (series.t_ns <= window[1]) & ~np.isnan(series.value)
        celsius = series.value[inside]
        if len(celsius) < 2:
            continue
        tenth = max(1, len(celsius) // 10)
        first, last = float(np.mean(celsius[:tenth])), float(np.mean(celsius[-tenth:]))
        if abs(last - first) > DRIFT_CELSIUS:
            found.append(f"{device} went from {first:.0f} to {last:.0f} °C")
    return "; ".join(found) or None


def _rows(samples: Samples, device: str, quantity: str, window: Span) -> pa.Table:
    """Return the rows of a quantity within a window."""
    import pyarrow.compute as pc

    table = samples.table
    same = pc.and_(pc.equal(table["device"], device), pc.equal(table["quantity"], quantity))
    t_ns = table["t_ns"]
    inside = pc.and_(pc.greater_equal(t_ns, window[0]), pc.less_equal(t_ns, window[1]))
    return table.filter(pc.and_(same, inside))
