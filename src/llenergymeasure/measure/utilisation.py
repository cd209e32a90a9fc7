"""How busy the GPUs were inside the window, and how full: from the recorder's samples."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.meter.samples import Samples

_MEANS = {
    "gpu_utilization_percent": "utilization_gpu_percent",
    "memory_utilization_percent": "utilization_memory_percent",
}


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
    if not on_gpu:
        return {"utilization_unavailable": "no GPU does the work"}
    table = samples.table
    at_work = pc.is_in(table["device"].cast(pa.string()), pa.array(sorted(devices), pa.string()))
    after = pc.greater_equal(table["t_ns"], window[0])
    before = pc.less_equal(table["t_ns"], window[1])
    inside = pc.and_(at_work, pc.and_(after, before))
    part = table.filter(inside)
    found: dict[str, Any] = {
        name: _mean(_values(part, quantity)) for name, quantity in _MEANS.items()
    }
    found["device_memory_used_max_bytes"] = _fullest(part)
    if found["gpu_utilization_percent"] is None:
        found["utilization_unavailable"] = "the window holds no sample of it"
    return found


def _values(table: pa.Table, quantity: str) -> pa.Table:
    chosen = pc.equal(table["quantity"].cast(pa.string()), quantity)
    return table.filter(pc.and_(chosen, pc.is_valid(table["value"])))


def _mean(rows: pa.Table) -> float | None:
    values = rows["value"].to_numpy()
    return float(np.mean(values)) if len(values) else None


def _fullest(table: pa.Table) -> int | None:
    """Return the sum of each card's most used memory inside the window."""
    rows = _values(table, "memory_used_bytes")
    most: dict[str, float] = {}
    for device, value in zip(rows["device"].to_pylist(), rows["value"].to_pylist(), strict=True):
        most[device] = max(value, most.get(device, 0.0))
    return int(sum(most.values())) if most else None
