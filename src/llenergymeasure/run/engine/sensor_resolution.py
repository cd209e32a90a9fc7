"""How long a window the run's sensors need, by what was known of them before it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any


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
