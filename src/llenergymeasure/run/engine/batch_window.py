"""The window: the batch plan repeated until it is long enough, between two short rests.

Its length, and whether rests are needed, depend on the sensors that the recorder has opened.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.energy.idle_margins import MARGIN_S, MARGINS
from llenergymeasure.errors import MeterError
from llenergymeasure.files import load_json
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.requests import Request

RECORDER_WAIT_S = 90.0


def wait_for_sensors(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the recorder's sensors, once it samples.

    Raises:
        MeterError: it did not start.
    """
    deadline = time.monotonic() + RECORDER_WAIT_S
    while not folder.recorder.is_file():
        if time.monotonic() > deadline:
            raise MeterError(f"the recorder was not ready within {RECORDER_WAIT_S:g} s")
        time.sleep(0.005)
    ready = load_json(folder.recorder)
    if not ready.get("ready"):
        raise MeterError(f"the recorder did not start: {ready.get('error')}")
    sensors: list[dict[str, Any]] = ready["sensors"]
    return sensors


def device_is_measured(sensors: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a device is measured; the whole node's meter is never the headline."""
    return any(
        sensor.get("unavailable") is None
        and sensor["kind"] == "measured"
        and sensor["scope"] != "node"
        for sensor in sensors
    )


def shortest_window_s(
    sensors: Sequence[Mapping[str, Any]], devices: Collection[str], precision: float
) -> float | None:
    """Return the shortest window that reaches a precision on all cards; None if none is known.

    Args:
        sensors: what the recorder says of each sensor, with the ``resolution`` of those it knows.
        devices: UUIDs of the cards in use.
        precision: relative half width of the energy's interval.
    """
    resolutions = [
        sensor["resolution"]
        for sensor in sensors
        if sensor["device"] in devices and sensor.get("resolution") is not None
    ]
    windows_s = [
        max(resolution["ends_s"] / precision, resolution["least_s"]) for resolution in resolutions
    ]
    return max(windows_s, default=None)


@dataclass
class Window:
    """What happened inside the window.

    Attributes:
        start_ns: the first batch's start; CLOCK_MONOTONIC.
        end_ns: the last one's end.
        batches: how many were generated; always whole passes over the batch plan.
        completions: one a request, in the order they were made.
        batch_of_request: the batch of each, from 0.
    """

    start_ns: int = 0
    end_ns: int = 0
    batches: int = 0
    completions: list[Completion] = field(default_factory=list)
    batch_of_request: list[int] = field(default_factory=list)

    @property
    def work_s(self) -> float:
        """Return how long the work took: the window holds nothing else."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "work_s": self.work_s}


def cut_batches(requests: Sequence[Request], batch_size: int | None) -> list[Sequence[Request]]:
    """Return the batch plan: the requests in order, ``batch_size`` at a time; all at once if None.

    The last batch is smaller where the count does not divide.
    """
    size = batch_size or len(requests)
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def measure_window(
    engine: Engine,
    batches: Sequence[Sequence[Request]],
    protocol: ProtocolSettings,
    marks: Marks,
    *,
    margins: bool,
) -> Window:
    """Run the batch plan between two short rests; the work is the window.

    Whole passes over the batch plan are made until both ``window_min_s`` and ``min_batches``
    are reached, so that every run of an experiment does the same work.

    Args:
        engine: loaded and warm.
        batches: the batch plan.
        protocol: how long and how many.
        marks: gets the phases ``margin_before``, ``measure`` and ``margin_after``.
        margins: whether to rest, for sensors whose values come in steps.
    """
    window = Window()
    if margins:
        _rest(engine, marks, MARGINS[0])
    with marks.phase("measure"):
        window.start_ns = time.monotonic_ns()
        shortest_ns = protocol.window_min_s * NS_PER_S
        while True:
            for batch in batches:
                window.completions += engine.generate(batch)
                window.batch_of_request += [window.batches] * len(batch)
                window.batches += 1
            window.end_ns = time.monotonic_ns()
            long_enough = window.end_ns - window.start_ns >= shortest_ns
            if long_enough and window.batches >= protocol.min_batches:
                break
    if margins:
        _rest(engine, marks, MARGINS[1])
    return window


def _rest(engine: Engine, marks: Marks, phase: str) -> None:
    engine.synchronize()
    with marks.phase(phase):
        time.sleep(MARGIN_S)
