"""Reasons to doubt a window's energy: every code of the meter, each decided here.

What each code means, and whether it keeps a run out of the means, is in
``validity_codes.VALIDITY``. A fault never makes an energy zero: it makes it None, wider, or
doubted.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llenergymeasure.energy.channel import CHANNEL_GATE, Channel
from llenergymeasure.energy.device import IMPOSSIBLE_FACTOR, MAX_POWER_W, Device
from llenergymeasure.energy.idle_power import IdlePower
from llenergymeasure.energy.knots import Floats, Ints
from llenergymeasure.energy.window import StretchEnergy
from llenergymeasure.machine.gpus.state import CLOCK_REDUCTIONS, THROTTLE_REASONS
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.known_behaviour import SHORTEST_PERIODS
from llenergymeasure.units import NS_PER_S, percent

WindowNs = tuple[int, int]
"""Start and end of a window, in CLOCK_MONOTONIC ns."""

GAP_PERIODS = 10
"""A power channel silent for more update periods than this has a gap (InferenceX' gate: 3 s)."""
GAP_FLOOR_S = 0.5

FROZEN_S = 10.0
"""Nor does any power stay the same, to a sensor's last digit, for longer than this."""

_COARSE_W = 0.1
"""But a card at its limit may, as a sensor shows it that knows no smaller steps."""

_MIN_LIMIT_SHARE = 0.003
"""What says that a card draws less than this share of its limit counts in another unit."""

DRIFT_CELSIUS = 3.0
"""Largest change of temperature over the window."""


class Doubt(NamedTuple):
    """Why a window's energy may not be what it seems."""

    code: str
    reason: str


def device_doubts(
    samples: Samples,
    device: Device,
    channel: Channel,
    stretch: StretchEnergy | None,
    window: WindowNs,
    precision: float,
) -> Iterator[Doubt]:
    """Yield what speaks against one device's headline reading.

    Args:
        samples: the recording.
        device: the device.
        channel: the channel that its headline reading is from.
        stretch: the window by that channel, with the channels' disagreement in it.
        window: the one that is judged.
        precision: relative half width that the window is expected to reach.
    """
    name = device.info.device
    if device.info.mig:
        yield Doubt(
            "mig_slice",
            f"{name}: cut into parts, and the energy is that of the whole card",
        )
    impossible = [] if stretch is None else [*_power_doubts(device, stretch, window)]
    yield from impossible
    # The end is that of a step beyond it, the later the later the counter may be.
    largest_shift_s = max(channel.early_s, channel.delay_s, device.behaviour.counter_lag_s or 0.0)
    start_s = channel.knots.seconds(window[0]) - channel.early_s
    end_s = (
        channel.knots.seconds(window[1])
        + channel.late_s
        + largest_shift_s
        + channel.knots.spacing_s
    )
    for code, moments_s, what in (
        ("counter_reset", device.resets_s, "started over, or may have while it was not read,"),
        ("counter_jump", device.jumps_s, "rose by more than the device can draw, or by less"),
    ):
        inside = (moments_s >= start_s) & (moments_s <= end_s)
        # Where no limit is known and most steps say more than any device draws, that is said once.
        knots_s, count = channel.knots.t_s, int(inside.sum())
        is_usual = 2 * count > int(np.sum((knots_s >= start_s) & (knots_s <= end_s)))
        limit_unknown = not device.info.power_limit_w
        if code == "counter_jump" and is_usual and impossible and limit_unknown:
            continue
        if channel.name == "counter" and count:
            yield Doubt(code, f"{name}: the energy counter {what} {count} times in the window")
    if channel.name == "power":
        yield from _gap_doubts(samples, device, channel, window)
    if stretch is None:
        return
    yield from _nature_doubts(device, channel, stretch, window)
    yield from _mismatch_doubts(device, window)
    yield from _length_doubts(device, channel, stretch, window, precision)


def _power_doubts(device: Device, stretch: StretchEnergy, window: WindowNs) -> Iterator[Doubt]:
    """Yield a doubt where a sensor says what no such device draws: some drivers do."""
    limits_w = device.info.power_limit_w or {}
    limit_w = max(limits_w.values(), default=0.0)
    least_w = _MIN_LIMIT_SHARE * (limits_w.get("enforced") or limit_w)
    mean_w = stretch.energy_j / ((window[1] - window[0]) / NS_PER_S)
    if mean_w > IMPOSSIBLE_FACTOR * (limit_w or MAX_POWER_W) or mean_w < least_w:
        limit = f"{limit_w:.0f} W" if limit_w else "not known"
        name = device.info.device
        yield Doubt(
            "impossible_power", f"{name}: {mean_w:.4g} W in the mean, and its limit is {limit}"
        )


def _nature_doubts(
    device: Device, channel: Channel, stretch: StretchEnergy, window: WindowNs
) -> Iterator[Doubt]:
    aliasing_note = ""
    is_audited = device.averages is not None and device.disagreement(*window) is not None
    if channel.sampled_readings is not None and not is_audited and stretch.energy_j > 0:
        bound = percent(stretch.bound_j / stretch.energy_j)
        aliasing_note = (
            f"; a load in step with its readings may be off by up to ±{bound}, beyond u95"
        )
    if channel.nature == "unverified":
        yield Doubt(
            "counter_unverified",
            f"{device.info.device}: nothing shows what the energy counter counts: "
            f"llem sensors --characterise can{aliasing_note}",
        )
    elif channel.sampled_readings is not None:
        share = f"{100 * channel.share_seen:.0f} %" if channel.share_seen else "an unknown share"
        yield Doubt(
            "undersampled",
            f"{device.info.device}: the sensor sees {share} of the time{aliasing_note}",
        )


def _mismatch_doubts(device: Device, window: WindowNs) -> Iterator[Doubt]:
    disagreement = device.disagreement(*window)
    if disagreement is not None and disagreement.is_mismatch:
        yield Doubt(
            "channel_mismatch",
            f"{device.info.device}: power readings and energy counter differ by "
            f"{100 * disagreement.relative:+.1f} ± {100 * disagreement.u95:.1f} %, "
            f"more than {100 * CHANNEL_GATE:.0f} %",
        )


def _length_doubts(
    device: Device, channel: Channel, stretch: StretchEnergy, window: WindowNs, precision: float
) -> Iterator[Doubt]:
    """Yield a doubt where the ends alone are less sure than the precision asked for."""
    span_s = (window[1] - window[0]) / NS_PER_S
    least_s = SHORTEST_PERIODS * channel.knots.spacing_s
    ends_too_uncertain = stretch.ends_j > precision * abs(stretch.energy_j)
    if span_s < least_s or ends_too_uncertain:
        ends = abs(stretch.ends_j / stretch.energy_j) if stretch.energy_j else float("inf")
        yield Doubt(
            "short_window",
            f"{device.info.device}: {span_s:.2f} s are short for this sensor, whose values are "
            f"{channel.knots.spacing_s:.3g} s apart: the ends are unsure by {100 * ends:.1f} %",
        )


def _gap_doubts(
    samples: Samples, device: Device, channel: Channel, window: WindowNs
) -> Iterator[Doubt]:
    """Yield a doubt where integrated power was silent for too long, or said nothing new."""
    info = device.info
    series = samples.series(info.device, info.sensor, channel.quantity)
    t_ns = series.t_ns
    utilisation = samples.series(info.device, info.sensor, "utilization_gpu_percent").value
    frozen_s = _frozen_s(t_ns, series.value, window, utilisation)
    if frozen_s > FROZEN_S:
        same = f"{channel.quantity} stayed the same for {frozen_s:.0f} s"
        yield Doubt("sample_gap", f"{info.device}: {same}, as that of a sensor that is frozen")
    inside_ns = t_ns[(t_ns > window[0]) & (t_ns < window[1])]
    edges = np.concatenate(([window[0]], inside_ns, [window[1]]))
    longest_s = float(np.max(np.diff(edges))) / NS_PER_S
    allowed_s = max(GAP_PERIODS * channel.knots.spacing_s, GAP_FLOOR_S)
    if longest_s > allowed_s:
        yield Doubt(
            "sample_gap",
            f"{info.device}: no {channel.quantity} for {longest_s:.2f} s within the window; "
            f"at its pace {allowed_s:.2f} s is the most",
        )


def recorder_doubts(samples: Samples, window: WindowNs, *, lost: bool) -> Iterator[Doubt]:
    """Yield a doubt where the recording ends before the window does."""
    last_ns = int(samples.table["t_ns"][-1].as_py()) if len(samples.table) else 0
    if last_ns < window[1]:
        early_s = (window[1] - last_ns) / NS_PER_S
        how = "the recorder was lost: the recording" if lost else "the recording"
        yield Doubt("recorder_lost", f"{how} ends {early_s:.2f} s before the window does")


def idle_doubts(idle_by_device: Sequence[tuple[str, IdlePower]]) -> Iterator[Doubt]:
    """Yield which devices' rests were not steady: their net energy is as unsure."""
    for device, idle in idle_by_device:
        if not idle.is_steady:
            phases, mean = ", ".join(idle.phases), f"mean of {idle.power_w:.1f} W"
            how = f"seconds of {phases} differ from their {mean} by up to {idle.deviation_w:.1f} W"
            if idle.work_drew_less:
                how = f"the work drew {idle.deviation_w:.1f} W less than {phases} with their {mean}"
            yield Doubt("rest_not_steady", f"{device}: {how}; net energy is as unsure")


def surrounding_doubts(
    samples: Samples, devices: Collection[str], window: WindowNs
) -> Iterator[Doubt]:
    """Yield what else the cards went through within the window."""
    for device in sorted(devices):
        for quantity, code, what in (
            ("stranger_pid", "other_process", "computed on"),
            ("graphics_pid", "graphics_process", "drew on"),
        ):
            names = {
                row["value"]: row["note"]
                for row in samples.rows(device=device, quantity=quantity).to_pylist()
                if window[0] <= row["t_ns"] <= window[1]
            }
            if names:
                who = ", ".join(f"{int(pid)} ({name or 'unknown'})" for pid, name in names.items())
                yield Doubt(code, f"other processes {what} {device}: {who}")
        yield from _throttle_doubts(samples, device, window)
        yield from _temperature_doubts(samples, device, window)


def _throttle_doubts(samples: Samples, device: str, window: WindowNs) -> Iterator[Doubt]:
    masks = _values_within(samples, device, "throttle_reasons", window).astype(np.int64)
    for bit, name in THROTTLE_REASONS.items():
        if name in CLOCK_REDUCTIONS and np.any(masks & bit):
            reason = name.replace("sw_", "software ").replace("hw_", "hardware ").replace("_", " ")
            yield Doubt(
                "throttled",
                f"{reason} in {100 * np.mean(masks & bit != 0):.0f} % of the looks at {device}",
            )


def _temperature_doubts(samples: Samples, device: str, window: WindowNs) -> Iterator[Doubt]:
    celsius = _values_within(samples, device, "temperature_celsius", window)
    if len(celsius) < 2:
        return
    tenth = max(1, len(celsius) // 10)
    first, last = float(np.mean(celsius[:tenth])), float(np.mean(celsius[-tenth:]))
    if abs(last - first) > DRIFT_CELSIUS:
        yield Doubt("temperature_drift", f"{device} went from {first:.0f} to {last:.0f} °C")


def _values_within(samples: Samples, device: str, quantity: Quantity, window: WindowNs) -> Floats:
    """Return the values of a quantity within a window; NVML alone gives such."""
    series = samples.series(device, "nvml", quantity)
    inside = (series.t_ns >= window[0]) & (series.t_ns <= window[1]) & ~np.isnan(series.value)
    return series.value[inside]


def _frozen_s(t_ns: Ints, power_w: Floats, window: WindowNs, utilisation: Floats) -> float:
    """Return for how long power stayed the same: in a window, or at rest and under load alike.

    ``utilisation`` is the device's utilisation over the recording, empty where that is not known.
    """
    shown_w = np.unique(power_w)
    if len(shown_w) < 2:
        worked_and_rested = len(utilisation) and np.ptp(utilisation) > 0
        return float(np.ptp(t_ns)) / NS_PER_S if worked_and_rested else 0.0
    if np.diff(shown_w).min() >= _COARSE_W:
        return 0.0
    changed_ns = np.concatenate((t_ns[:1], t_ns[1:][np.diff(power_w) != 0], t_ns[-1:]))
    return float(np.max(np.diff(np.clip(changed_ns, *window)))) / NS_PER_S
