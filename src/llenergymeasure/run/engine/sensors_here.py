"""The sensors that the recorder has opened for a run, and how long a window they need."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llenergymeasure.errors import MeterError
from llenergymeasure.results.layout import RunFolder

RECORDER_WAIT_S = 90.0


def wait_for_sensors(folder: RunFolder) -> list[dict[str, Any]]:
    """Return what the recorder's sensors are, once it samples.

    Raises:
        MeterError: it did not start.
    """
    deadline = time.monotonic() + RECORDER_WAIT_S
    while not folder.recorder.is_file():
        if time.monotonic() > deadline:
            raise MeterError(f"the recorder was not ready within {RECORDER_WAIT_S:g} s")
        time.sleep(0.005)
    ready = json.loads(folder.recorder.read_text())
    if not ready.get("ready"):
        raise MeterError(f"the recorder did not start: {ready.get('error')}")
    sensors: list[dict[str, Any]] = ready["sensors"]
    return sensors


def device_is_measured(sensors: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a device is measured; the whole node's meter is never the headline."""
    return any(
        each.get("unavailable") is None and each["kind"] == "measured" and each["scope"] != "node"
        for each in sensors
    )


def sensors_need_s(
    sensors: Sequence[Mapping[str, Any]], devices: Collection[str], precision: float
) -> float | None:
    """Return the shortest window that reaches a precision on all cards; None if none is known.

    Args:
        sensors: what the recorder says of each sensor, with the ``resolution`` of those it knows.
        devices: UUIDs of the cards in use.
        precision: relative half width of the energy's interval.
    """
    known = [
        sensor["resolution"]
        for sensor in sensors
        if sensor["device"] in devices and sensor.get("resolution") is not None
    ]
    needs_s = [max(each["ends_s"] / precision, each["least_s"]) for each in known]
    return max(needs_s, default=None)
