"""``llem sensors``: what can be measured on this machine, how well, and what is missing and why."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.recording.samples import Samples, read_samples
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import (
    PRECISION,
    Characterisation,
    PowerBehaviour,
    load_characterised,
    resolution,
)
from llenergymeasure.sensors.registry import NAMES

_READY_S = 60.0
_STOP_S = 10.0
_WATCH_S = 2.0


def sensors_report(devices: str | None = None) -> dict[str, Any]:
    """Try every sensor, watch those that answer for two seconds, and say what was seen.

    Args:
        devices: GPUs by UUID or NVML index joined by commas; those a CUDA process would see if
            not given.

    Returns:
        ``{"sensors": [SensorInfo as mappings, each with "observed" and "known"], "selected_by",
        "warnings"}``; ``known`` is what was found of a card's channels before, or None.

    Raises:
        MeterError: the recorder did not start.
    """
    with tempfile.TemporaryDirectory(prefix="llem-sensors-") as name:
        stream = Path(name) / "samples.arrows"
        recorder = RecorderProcess.start(stream, devices=devices, sensors=",".join(NAMES))
        try:
            ready = recorder.wait_ready(_READY_S)
            if any(sensor["unavailable"] is None for sensor in ready["sensors"]):
                time.sleep(_WATCH_S)
        finally:
            recorder.stop(_STOP_S)
        samples = read_samples(stream)
    characterised = load_characterised(samples.header.sensors)
    sensors = []
    for info in samples.header.sensors:
        card = characterised.get((info.sensor, info.device))
        known = None if card is None else channel_report(info, card)
        sensors.append({**asdict(info), "observed": _observed(samples, info), "known": known})
    return {"sensors": sensors, **{name: ready[name] for name in ("selected_by", "warnings")}}


def has_measuring_sensor(sensors: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether one of them measures; the machine's own meter at its plug does not count."""
    return any(
        sensor["kind"] == "measured" and sensor["scope"] != "node" and sensor["unavailable"] is None
        for sensor in sensors
    )


def sensors_text(report: dict[str, Any]) -> str:
    """Return the report for a person."""
    lines = [line for sensor in report["sensors"] for line in _sensor_lines(sensor)]
    return "\n".join([*lines, *(f"note: {warning}" for warning in report["warnings"])])


def _observed(samples: Samples, info: SensorInfo) -> dict[str, float | None]:
    """Return the update period seen of each quantity, and the mean time of a read, in s."""
    observed: dict[str, float | None] = {}
    for quantity in info.quantities:
        series = samples.series(info.device, info.sensor, quantity)
        renewed = series.t_ns[series.t_before_ns < series.t_ns]
        period_s = float(np.median(np.diff(renewed))) / 1e9 if len(renewed) > 2 else None
        observed[f"{quantity}_period_s"] = period_s
    reads = samples.series(info.device, info.sensor, "read_s")
    observed["read_s"] = float(np.mean(reads.value)) if len(reads) else None
    return observed


def channel_report(info: SensorInfo, characterised: Characterisation) -> dict[str, Any]:
    """Return what a probe found of a card's channels, and the shortest window that follows."""
    resolved = resolution(info, characterised.behaviour)
    window_s = None if resolved is None else resolved.window_s(PRECISION)
    return {**asdict(characterised), "shortest_window_s": window_s, "precision": PRECISION}


def _sensor_lines(sensor: dict[str, Any]) -> list[str]:
    head = f"{sensor['sensor']:<11} {sensor['device']}"
    if sensor["unavailable"] is not None:
        lines = [f"✗ {head}  unavailable: {sensor['unavailable']}"]
        return lines + ([f"    to fix: {sensor['remedy']}"] if sensor["remedy"] else [])
    lines = [f"✓ {head}  {sensor['name']}: {sensor['kind']}, scope {sensor['scope']}"]
    lines += [f"    {quantity}{_pace_text(sensor, quantity)}" for quantity in sensor["quantities"]]
    if sensor["note"]:
        lines.append(f"    {sensor['note']}")
    if sensor["known"] is not None:
        lines += channel_lines(sensor["known"])
    elif sensor["sensor"] == "nvml" and any("power" in name for name in sensor["quantities"]):
        lines.append("    not characterised under this driver yet: llem sensors --characterise")
    return lines


def channel_lines(known: dict[str, Any]) -> list[str]:
    """Return what a probe has found of a card's channels for a person."""
    lines = [f"    characterised by a probe, {known['found_at']}, driver {known['driver']}:"]
    behaviour = known["behaviour"]
    if behaviour["counter_period_s"] is not None:
        lag_s = behaviour["counter_lag_s"]
        lag_text = "" if lag_s is None else f"; it counts {_ms(lag_s)} late"
        lines.append(
            f"      counter: a step every {_ms(behaviour['counter_period_s'])}; "
            f"{_COUNTERS[behaviour['counter']]}{lag_text}"
        )
    for power in behaviour["power"]:
        pace = f"updated every {_ms(power['update_period_s'])}"
        lines.append(f"      {power['quantity']}: {pace}, {_averaging_text(power)}")
    if known["shortest_window_s"] is not None:
        lines.append(
            f"      windows of {known['shortest_window_s']:.1f} s and longer reach "
            f"{100 * known['precision']:.0f} %"
        )
    return lines


_COUNTERS = {
    "independent": "it counts what the power readings do not see",
    "sum": "it is the sum of the power readings",
    "unverified": "nothing has shown yet what it counts",
}


def _averaging_text(power: dict[str, Any]) -> str:
    window_s, period_s = power["window_s"], power["update_period_s"]
    if window_s is None:
        return "averaging window not found"
    share = PowerBehaviour(power["quantity"], period_s, window_s, power["source"]).share_seen
    share_text = "" if share is None else f": it sees {100 * share:.0f} % of the time"
    return f"a mean over {_ms(window_s)}{share_text}"


def _ms(period_s: float | None) -> str:
    return "an unknown time" if period_s is None else f"{period_s * 1000:.3g} ms"


def _pace_text(sensor: dict[str, Any], quantity: str) -> str:
    period_s = sensor["update_period_s"] or sensor["observed"].get(f"{quantity}_period_s")
    parts = [] if period_s is None else [f"updated every {_ms(period_s)}"]
    if quantity == "energy_counter_j" and sensor["counter_resolution_j"]:
        parts.append(f"in steps of {sensor['counter_resolution_j']:g} J")
    return f" ({', '.join(parts)})" if parts else ""
