"""How busy the GPUs were inside the window, how full, and what they drew: from the samples."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from llenergymeasure.machine.gpus.state import THROTTLE_REASONS
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.units import NS_PER_S

SENSOR = "nvml"
HISTORY_MOST = 1000
_MEANS: dict[str, Quantity] = {
    "gpu_utilization_percent": "utilization_gpu_percent",
    "memory_utilization_percent": "utilization_memory_percent",
}
_POWERS: tuple[Quantity, ...] = ("power_instant_w", "power_average_w", "power_usage_w")


def utilisation(
    samples: Samples, window: tuple[int, int], devices: Collection[str], *, on_gpu: bool
) -> dict[str, Any]:
    """Return means over the samples of all devices inside the window, or why there are none.

    NVML's utilisation is the share of time in which any kernel ran (or memory was read or
    written), however few of the multiprocessors it kept busy (NVML API, nvmlUtilization_t).

    Args:
        samples: the recording.
        window: start and end, CLOCK_MONOTONIC in ns.
        devices: UUIDs of the cards at work.
        on_gpu: whether those cards compute.

    Returns:
        ``gpu_utilization_percent``, ``memory_utilization_percent``: means;
        ``device_memory_used_max_bytes``: the most in use on each card, summed,
        whoever used it; ``utilization_unavailable``: why they are null.
    """
    if not on_gpu or not devices:
        return {"utilization_unavailable": "no GPU does the work"}
    found: dict[str, Any] = {
        name: _mean(_inside(samples, window, devices, quantity))
        for name, quantity in _MEANS.items()
    }
    used = _inside(samples, window, devices, "memory_used_bytes")
    most = [values.max() for values in used if len(values)]
    found["device_memory_used_max_bytes"] = int(sum(most)) if most else None
    if found["gpu_utilization_percent"] is None:
        found["utilization_unavailable"] = "the window holds no sample of it"
    return found


def throttle_history(samples: Samples, device: str) -> list[dict[str, Any]] | None:
    """Return when a card's reasons to slow its clocks changed over the recording, and to which.

    Returns:
        ``t_monotonic_ns`` and ``reasons`` (NVML's, by name) of each change, the first reading
        included, at most the first :data:`HISTORY_MOST`; null where the card does not say.
    """
    series = samples.series(device, SENSOR, "throttle_reasons")
    known = ~np.isnan(series.value)
    times_ns, masks = series.t_ns[known], series.value[known].astype(np.int64)
    if not len(masks):
        return None
    changed = np.concatenate(([True], masks[1:] != masks[:-1]))
    return [
        {
            "t_monotonic_ns": int(t_ns),
            "reasons": [name for bit, name in THROTTLE_REASONS.items() if int(mask) & bit],
        }
        for t_ns, mask in zip(times_ns[changed], masks[changed], strict=True)
    ][:HISTORY_MOST]


def power_inside(
    samples: Samples, window: tuple[int, int], devices: Collection[str]
) -> tuple[list[float], list[float]] | None:
    """Return times in s and the power in W of all devices together, at the first one's samples.

    Null where a card's power was not measured inside the window.
    """
    times_ns: npt.NDArray[np.int64] | None = None
    total: npt.NDArray[np.float64] | None = None
    for device in devices:
        t_ns, watts = _power_of(samples, window, device)
        if not len(t_ns):
            return None
        if times_ns is None or total is None:
            times_ns, total = t_ns, watts
        else:
            total = total + np.interp(times_ns, t_ns, watts)
    if times_ns is None or total is None:
        return None
    return (times_ns / NS_PER_S).tolist(), total.tolist()


def _power_of(
    samples: Samples, window: tuple[int, int], device: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the best of a card's series of power inside the window; empty if there is none."""
    for quantity in _POWERS:
        series = samples.series(device, SENSOR, quantity)
        known = (series.t_ns >= window[0]) & (series.t_ns <= window[1]) & ~np.isnan(series.value)
        if known.any():
            break
    return series.t_ns[known], series.value[known]


def _inside(
    samples: Samples, window: tuple[int, int], devices: Collection[str], quantity: Quantity
) -> list[npt.NDArray[np.float64]]:
    """Return each card's values inside the window."""
    found = []
    for device in devices:
        series = samples.series(device, SENSOR, quantity)
        inside = (series.t_ns >= window[0]) & (series.t_ns <= window[1])
        values = series.value[inside]
        found.append(values[~np.isnan(values)])
    return found


def _mean(values: list[npt.NDArray[np.float64]]) -> float | None:
    together = np.concatenate(values)
    return float(together.mean()) if len(together) else None
