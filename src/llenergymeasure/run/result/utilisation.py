"""The GPUs' utilisation, memory, clocks and power inside the window, from the samples."""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from llenergymeasure.machine.gpus.nvml_limits import CLOCK_STEP_MHZ
from llenergymeasure.machine.gpus.state import (
    CLOCK_REDUCTIONS,
    HARDWARE_SLOWDOWNS,
    THROTTLE_REASONS,
    reasons_of_bits,
)
from llenergymeasure.recording.samples import Samples, Series
from llenergymeasure.results.record import Clocks
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.units import NS_PER_S

Reals: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

SENSOR = "nvml"
MAX_HISTORY = 1000
_MEANS: dict[str, Quantity] = {
    "gpu_utilization_percent": "utilization_gpu_percent",
    "memory_utilization_percent": "utilization_memory_percent",
}
MIN_FREE_SAMPLES = 4
"""With fewer looks, all may fall in the time in which the clock rises after a throttle."""
_IDLE = 0x1
_LOWERED_BITS = {name: bit for bit, name in THROTTLE_REASONS.items() if name in CLOCK_REDUCTIONS}
_ROUNDED_W = 1.0
"""The limit that a card enforces may differ by this much from the one that was set."""
_POWERS: tuple[Quantity, ...] = ("power_instant_w", "power_average_w", "power_usage_w")


def utilisation(
    samples: Samples, window: tuple[int, int], devices: Collection[str]
) -> dict[str, Any]:
    """Return means over the samples of all devices inside the window, or why there are none.

    NVML's utilisation is the share of time in which any kernel ran (or memory was read or
    written), however few of the multiprocessors it kept busy (NVML API, nvmlUtilization_t).

    Args:
        samples: the recording.
        window: start and end, CLOCK_MONOTONIC in ns.
        devices: UUIDs of the cards that compute.

    Returns:
        ``gpu_utilization_percent``, ``memory_utilization_percent``: means;
        ``device_memory_used_max_bytes``: the most in use on each card, summed,
        whoever used it; ``utilization_unavailable``: why they are None.
    """
    if not devices:
        return {"utilization_unavailable": "no GPU does the work"}
    record: dict[str, Any] = {}
    for name, quantity in _MEANS.items():
        series = [_values_inside(samples, window, device, quantity)[1] for device in devices]
        values = np.concatenate(series)
        record[name] = float(values.mean()) if len(values) else None
    used = [_values_inside(samples, window, device, "memory_used_bytes")[1] for device in devices]
    maxima = [values.max() for values in used if len(values)]
    record["device_memory_used_max_bytes"] = int(sum(maxima)) if maxima else None
    if record["gpu_utilization_percent"] is None:
        record["utilization_unavailable"] = "the window holds no sample of it"
    return record


def clock_state(
    samples: Samples, window: tuple[int, int], devices: Collection[str]
) -> Clocks | None:
    """Return the clocks inside the window; None if no GPU works, or none was sampled.

    An idle card does not show its working clocks: samples that NVML calls idle are left out. If a
    card gives no throttle reasons all samples count, and what slowed it is not known.
    """
    sm: list[Reals] = []
    free: list[Reals] = []
    memory: list[Reals] = []
    shares: dict[str, list[float]] = {}
    for device in devices:
        masks = samples.series(device, SENSOR, "throttle_reasons")
        t_ns, mhz = _values_inside(samples, window, device, "sm_clock_mhz")
        mask = _mask_at(masks, t_ns)
        sm.append(mhz[(mask & _IDLE) == 0])
        if len(masks):
            free.append(mhz[(mask & (_IDLE | _bits(CLOCK_REDUCTIONS))) == 0])
        t_ns, mhz = _values_inside(samples, window, device, "memory_clock_mhz")
        memory.append(mhz[(_mask_at(masks, t_ns) & _IDLE) == 0])
        mask = _values_inside(samples, window, device, "throttle_reasons")[1].astype(np.int64)
        for name, bits in {
            "": _bits(CLOCK_REDUCTIONS),
            "heat": _bits(HARDWARE_SLOWDOWNS),
            **_LOWERED_BITS,
        }.items():
            if len(mask):
                shares.setdefault(name, []).append(float(np.mean(mask & bits != 0)))
    if not any(map(len, (*sm, *memory))):
        return None
    free_mhz = np.concatenate(free) if free else np.zeros(0)
    return Clocks(
        **_clock_range("sm_clock", np.concatenate(sm)),
        **_clock_range("memory_clock", np.concatenate(memory)),
        sm_clock_free_mhz=float(free_mhz.max()) if len(free_mhz) >= MIN_FREE_SAMPLES else None,
        slowed_share=max(shares[""]) if shares else None,
        slowed_by_heat_share=max(shares["heat"]) if shares else None,
        slowed_by=[name for name in _LOWERED_BITS if any(shares[name])] if shares else None,
    )


def lifted_limits(
    samples: Samples, window: tuple[int, int], gpu: Mapping[str, Any], set_limits: Mapping[str, Any]
) -> dict[str, str]:
    """Return the validity code and reason if a limit was higher in the window than the run had set.

    A card may enforce a lower limit by itself; that shows as a throttle reason.

    Args:
        samples: the recording.
        window: start and end, CLOCK_MONOTONIC in ns.
        gpu: what the experiment asks for.
        set_limits: what was read of each card once it was set, by UUID.
    """
    lifted = []
    for device, limits in set_limits.items():
        requested_w, requested_mhz = gpu.get("power_limit_w"), gpu.get("sm_clock_mhz")
        max_w = _values_inside(samples, window, device, "power_limit_w")[1].max(initial=0.0)
        held_w = max(requested_w or 0.0, limits.get("enforced_power_limit_w") or 0.0)
        if requested_w is not None and max_w > held_w + _ROUNDED_W:
            lifted.append(f"{device}: {max_w:g} W in place of {requested_w:g} W")
        max_mhz = _values_inside(samples, window, device, "sm_clock_mhz")[1].max(initial=0.0)
        if requested_mhz is not None and max_mhz > requested_mhz + CLOCK_STEP_MHZ:
            lifted.append(f"{device}: {max_mhz:g} MHz in place of {requested_mhz} MHz")
    return {"limit_lifted": "; ".join(lifted)} if lifted else {}


def throttle_history(samples: Samples, device: str) -> list[dict[str, Any]] | None:
    """Return when a card's throttle reasons changed over the recording, and to which.

    Returns:
        ``t_monotonic_ns`` and ``reasons`` (NVML's, by name) of each change, the first reading
        included, at most the first :data:`MAX_HISTORY`; None where the card does not say.
    """
    series = samples.series(device, SENSOR, "throttle_reasons")
    is_known = ~np.isnan(series.value)
    times_ns, masks = series.t_ns[is_known], series.value[is_known].astype(np.int64)
    if not len(masks):
        return None
    changed = np.concatenate(([True], masks[1:] != masks[:-1]))
    return [
        {"t_monotonic_ns": int(t_ns), "reasons": reasons_of_bits(int(mask))}
        for t_ns, mask in zip(times_ns[changed], masks[changed], strict=True)
    ][:MAX_HISTORY]


def power_inside(
    samples: Samples, window: tuple[int, int], devices: Collection[str]
) -> tuple[list[float], list[float]] | None:
    """Return times in s and the power in W of all devices together, at the first one's samples.

    None where a card's power was not measured inside the window.
    """
    series = [_card_power(samples, window, device) for device in devices]
    if not series or not all(len(times_ns) for times_ns, _ in series):
        return None
    first_ns = series[0][0]
    total_w = np.sum([np.interp(first_ns, times_ns, watts) for times_ns, watts in series], axis=0)
    return (first_ns / NS_PER_S).tolist(), total_w.tolist()


def _card_power(samples: Samples, window: tuple[int, int], device: str) -> tuple[Integers, Reals]:
    """Return the best of a card's series of power inside the window; empty if there is none."""
    for quantity in _POWERS:
        times_ns, watts = _values_inside(samples, window, device, quantity)
        if len(times_ns):
            break
    return times_ns, watts


def _values_inside(
    samples: Samples, window: tuple[int, int], device: str, quantity: Quantity
) -> tuple[Integers, Reals]:
    """Return the times and values of a card's quantity inside the window."""
    series = samples.series(device, SENSOR, quantity)
    inside = (series.t_ns >= window[0]) & (series.t_ns <= window[1]) & ~np.isnan(series.value)
    return series.t_ns[inside], series.value[inside]


def _mask_at(masks: Series, t_ns: Integers) -> Integers:
    """Return the reasons in force at moments, by the last look before each; 0 without looks."""
    is_known = ~np.isnan(masks.value)
    if not is_known.any():
        return np.zeros(len(t_ns), dtype=np.int64)
    position = np.searchsorted(masks.t_ns[is_known], t_ns, side="right") - 1
    return masks.value[is_known][np.maximum(position, 0)].astype(np.int64)


def _bits(names: Collection[str]) -> int:
    return sum(bit for bit, name in THROTTLE_REASONS.items() if name in names)


def _clock_range(clock: str, mhz: Reals) -> dict[str, float | None]:
    if not len(mhz):
        return {}
    return {
        f"{clock}_median_mhz": float(np.median(mhz)),
        f"{clock}_min_mhz": float(mhz.min()),
        f"{clock}_max_mhz": float(mhz.max()),
    }
