"""A recording of minutes, as fast as its reads can be made."""

import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.machine.gpus.inventory import Selection
from llenergymeasure.recording import recorder, sampler
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.sensors.base import Channel, Follow, Quantity, Sensor, Value
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import HostCpu
from llenergymeasure.sensors.registry import OpenSensors
from support.memory import resident_bytes
from support.recording import uuid

START_NS = 10**12
PERIOD_NS = 100_000_000


class _JumpingClock:
    """Stands for the module ``time``, and each look at it takes 20 µs."""

    now_ns = START_NS

    def monotonic_ns(self) -> int:
        self.now_ns += 20_000
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _changing(clock: _JumpingClock) -> list[Channel]:
    """A card's counter and power, each new every 100 ms."""

    def read(quantity: Quantity, scale: float) -> Callable[[], list[Value]]:
        return lambda: [Value(quantity, scale * (clock.now_ns // PERIOD_NS))]

    return [
        Channel(uuid(1), "nvml", (quantity,), read(quantity, scale), Follow(0.001, steady=True))
        for quantity, scale in (("energy_counter_j", 30.0), ("power_instant_w", 0.5))
    ]


def _resident_bytes_by_minute(folder: Path) -> list[int]:
    """Record ten minutes, every read of them made, by a clock that jumps to what is due next."""
    clock = _JumpingClock()
    sampler.time = recorder.time = clock  # type: ignore[assignment]
    opened = OpenSensors([Sensor([], _changing(clock))], Selection((), "none"))
    host = HostCpu(RunProcesses(os.getpid()))
    recording = recorder.Recording(opened, folder / "samples.arrows", host)
    recording.begin()
    due_ns = [clock.now_ns] * len(recording.loops)
    resident = []
    for minute in range(1, 11):
        flush_ns = clock.now_ns
        while clock.now_ns < START_NS + minute * 60 * 10**9:
            place = due_ns.index(min(due_ns))
            clock.now_ns = max(clock.now_ns, due_ns[place])
            due_ns[place] = recording.loops[place].step() or clock.now_ns
            if clock.now_ns >= flush_ns:
                recording.flush()
                flush_ns += int(recorder.FLUSH_S * 1e9)
        gc.collect()
        resident.append(resident_bytes())
    recording.end()
    assert len(read_samples(folder / "samples.arrows").table) > 10_000
    return resident


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """In a process of its own: what tests before it have left running takes memory as well."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        resident = process.submit(_resident_bytes_by_minute, tmp_path).result()
    assert max(resident[2:]) - resident[2] < 2 * 2**20
