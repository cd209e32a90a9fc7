"""``llem sensors``: what can be measured on this machine, how well, and what is missing and why."""

import tempfile
import time
from pathlib import Path
from typing import Any

from llenergymeasure.meter.client import RecorderProcess

ALL = "nvml,rapl,zeus,codecarbon"
_READY_S = 60.0
_STOP_S = 10.0
_WATCH_S = 2.0


def sensors_report(devices: str | None = None) -> dict[str, Any]:
    """Try every sensor, watch those that answer for two seconds, and say what was seen.

    Args:
        devices: GPUs by UUID or NVML index joined by commas; those a CUDA process would see if
            not given.

    Returns:
        ``{"sensors": [SensorInfo as mappings, each with "observed"], "selected_by", "warnings"}``.

    Raises:
        MeterError: the recorder did not start.
    """
    from llenergymeasure.meter.samples import read_samples

    with tempfile.TemporaryDirectory(prefix="llem-sensors-") as name:
        stream = Path(name) / "samples.arrows"
        recorder = RecorderProcess.start(stream, devices=devices, sensors=ALL)
        try:
            ready = recorder.wait_ready(_READY_S)
            if any(sensor["unavailable"] is None for sensor in ready["sensors"]):
                time.sleep(_WATCH_S)
        finally:
            recorder.stop(_STOP_S)
        samples = read_samples(stream)
    sensors = [{**sensor, "observed": _observed(samples, sensor)} for sensor in ready["sensors"]]
    return {
        "sensors": sensors,
        "selected_by": ready["selected_by"],
        "warnings": ready["warnings"],
    }


def sensors_text(report: dict[str, Any]) -> str:
    """Return the report for a person."""
    lines = []
    for sensor in report["sensors"]:
        lines += _lines(sensor)
    lines += [f"note: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)


def _observed(samples: Any, sensor: dict[str, Any]) -> dict[str, float | None]:
    """Return the update period seen of each quantity, and the mean time of a read, in s."""
    import numpy as np

    seen: dict[str, float | None] = {}
    for quantity in sensor["quantities"]:
        series = samples.series(sensor["device"], sensor["sensor"], quantity)
        renewed = series.t_ns[series.t_before_ns < series.t_ns]
        period_s = float(np.median(np.diff(renewed))) / 1e9 if len(renewed) > 2 else None
        seen[f"{quantity}_period_s"] = period_s
    reads = samples.series(sensor["device"], sensor["sensor"], "read_s")
    seen["read_s"] = float(np.mean(reads.value)) if len(reads) else None
    return seen


def _lines(sensor: dict[str, Any]) -> list[str]:
    head = f"{sensor['sensor']:<11} {sensor['device']}"
    if sensor["unavailable"] is not None:
        lines = [f"✗ {head}  unavailable: {sensor['unavailable']}"]
        return lines + ([f"    {sensor['remedy']}"] if sensor["remedy"] else [])
    lines = [f"✓ {head}  {sensor['name']}: {sensor['kind']}, scope {sensor['scope']}"]
    lines += [f"    {quantity}{_pace(sensor, quantity)}" for quantity in sensor["quantities"]]
    if sensor["note"]:
        lines.append(f"    {sensor['note']}")
    return lines


def _pace(sensor: dict[str, Any], quantity: str) -> str:
    period_s = sensor["update_period_s"] or sensor["observed"].get(f"{quantity}_period_s")
    parts = []
    if period_s is not None:
        parts.append(f"renewed each {period_s * 1000:.3g} ms")
    if quantity == "energy_counter_j" and sensor["counter_resolution_j"]:
        parts.append(f"in steps of {sensor['counter_resolution_j']:g} J")
    return f" ({', '.join(parts)})" if parts else ""
