"""Recording the simulated card faster than real time, with the recorder's own reading code.

Time is a number in a file that the card's library maps: it stands still while a read is made and
is moved on by what a read and a waking cost. The sensor and the readers are those of the
recorder; only the clock they look at, and the loop that waits for it, are this module's.
"""

import ctypes
import heapq
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llenergymeasure.machine.gpus.inventory import Inventory, discover
from llenergymeasure.recording import sampler
from llenergymeasure.recording.samples import (
    HOST_DEVICE,
    RECORDER,
    STOPPED,
    Header,
    Row,
    Samples,
    make_samples,
)
from llenergymeasure.sensors.base import Channel, SensorInfo
from llenergymeasure.sensors.nvml import NvmlSensor

Floats = npt.NDArray[np.float64]

T0_NS = 1_000_000_000_000
"""Time zero of every trace, CLOCK_MONOTONIC."""


class SteppedClock:
    """The card's clock, also given to the readers in place of the module ``time``."""

    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        path.write_bytes(struct.pack("<q", T0_NS))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.now_ns = T0_NS
        # A read costs some tens of microseconds, now and then far more.
        costs_ns = rng.gamma(4.0, 6_000.0, 1 << 16)
        costs_ns[rng.random(len(costs_ns)) < 0.002] = 1_500_000
        self._costs_ns = costs_ns.astype(np.int64).tolist()
        # A waking comes late by about 60 us, one in 200 by milliseconds.
        late_ns = rng.exponential(60_000.0, 1 << 16)
        late_ns[rng.random(len(late_ns)) < 0.005] += 4_000_000
        self._late_ns = late_ns.astype(np.int64).tolist()
        self._turn = 0

    def set(self, now_ns: int) -> None:
        """Put the clock."""
        self.now_ns = now_ns
        self._memory[:] = struct.pack("<q", now_ns)

    def wake(self, due_ns: int) -> None:
        """Move on to when a sleeper until ``due_ns`` would wake."""
        self._turn += 1
        late_ns = self._late_ns[self._turn & 0xFFFF]
        self.set(max(self.now_ns, due_ns + late_ns))

    def monotonic_ns(self) -> int:
        """Return the time, and let the cost of half a read pass."""
        self._turn += 1
        now_ns = self.now_ns
        self.set(now_ns + self._costs_ns[self._turn & 0xFFFF])
        return now_ns


def load_library(path: Path) -> None:
    """Load the simulated card's library, so that nvidia-ml-py and Zeus find it by its name."""
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def open_cards(trace: Path, clock_file: Path) -> Inventory:
    """Start NVML on a trace; any use of an earlier one must have been shut down."""
    os.environ["NVML_SIM_TRACE"] = str(trace)
    os.environ["NVML_SIM_CLOCK"] = str(clock_file)
    os.environ["NVML_SIM_T0"] = str(T0_NS)
    return discover()


def close_cards() -> None:
    """End NVML, however often it was started."""
    import pynvml

    while True:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return


def record(inventory: Inventory, index: int, clock: SteppedClock, end_s: float) -> Samples:
    """Record one card from time zero to ``end_s``."""
    clock.set(T0_NS)
    sensor = NvmlSensor(inventory, [inventory.gpus[index]])
    return record_channels(sensor.channels(), sensor.describe(), clock, end_s)


def record_channels(
    channels: Sequence[Channel], sensors: Sequence[SensorInfo], clock: SteppedClock, end_s: float
) -> Samples:
    """Record sensors' channels until ``end_s``, from the time that the clock shows."""
    vars(sampler)["time"] = clock
    started_ns = clock.now_ns
    rows: list[Row] = []
    readers = [
        sampler.Reader(channel, rows.append)
        for channel in channels
        if channel.quantities[0] not in ("memory_used_bytes", "sm_clock_mhz", "memory_clock_mhz")
    ]
    due = [(reader.read(), number) for number, reader in enumerate(readers)]
    heapq.heapify(due)
    end_ns = nanoseconds(end_s)
    while due and due[0][0] < end_ns:
        due_ns, number = due[0]
        clock.wake(due_ns)
        heapq.heapreplace(due, (readers[number].read(), number))
    for reader in readers:
        reader.read(last=True)
    rows.append(Row(clock.now_ns, HOST_DEVICE, RECORDER, "heartbeat", note=STOPPED))
    header = Header(
        boot_id=None,
        time_namespace=None,
        host="simulated",
        started_monotonic_ns=started_ns,
        started_at="1970-01-01T00:00:00+00:00",
        sensors=tuple(sensors),
    )
    return make_samples(rows, header)


def nanoseconds(moment_s: float) -> int:
    """Return a time of the trace as CLOCK_MONOTONIC ns."""
    return T0_NS + round(float(moment_s) * 1e9)


class Shown:
    """What power.draw shows at any moment: read once in every update period.

    Between renewals the card shows the same, so one read a period tells all; that this is so is
    checked with reads at random moments.
    """

    def __init__(
        self,
        index: int,
        sensor: dict[str, Any],
        clock: SteppedClock,
        end_s: float,
        rng: np.random.Generator,
    ) -> None:
        """Read the card; raises RuntimeError if a check fails."""
        import pynvml

        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._clock = clock
        self._period_s = sensor["update_ms"] / 1000
        self._phase_s = sensor["phase_ms"] / 1000
        count = int((end_s - self._phase_s) / self._period_s) + 1
        middles_s = self._phase_s + (np.arange(count) + 0.5) * self._period_s
        self._watts = np.array([self._read(moment_s) for moment_s in middles_s])
        checks_s = rng.uniform(self._phase_s, end_s, 500)
        read = np.array([self._read(moment_s) for moment_s in checks_s])
        if not np.array_equal(read, self.at(checks_s)):
            raise RuntimeError("power.draw changed between its renewals")

    def at(self, moments_s: Floats) -> Floats:
        """Return the watts shown at moments."""
        place = np.floor((moments_s - self._phase_s) / self._period_s + 1e-9).astype(np.int64)
        watts: Floats = self._watts[place]
        return watts

    def _read(self, moment_s: float) -> float:
        import pynvml

        self._clock.set(nanoseconds(moment_s))
        return float(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000


def counter_differences(
    index: int, clock: SteppedClock, starts_s: Floats, ends_s: Floats
) -> Floats:
    """Return the counter's difference between two reads, at the ends of stretches, in joules."""
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    moments_s = np.concatenate((starts_s, ends_s))
    joules = np.empty(len(moments_s))
    for place in np.argsort(moments_s):
        clock.set(nanoseconds(moments_s[place]))
        joules[place] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    return joules[len(starts_s) :] - joules[: len(starts_s)]


def zeus_energies(
    indices: list[int], clock: SteppedClock, starts_s: Floats, ends_s: Floats
) -> Floats:
    """Measure stretches with the real Zeus, all open at once, each begun and ended at its time.

    Returns:
        Joules, shape (stretches, cards).
    """
    import warnings

    import zeus.device.gpu
    from zeus.monitor import ZeusMonitor

    zeus.device.gpu._gpus = None
    monitor = ZeusMonitor(gpu_indices=indices, cpu_indices=[])
    moments = [(float(t), 0, i) for i, t in enumerate(starts_s)]
    moments += [(float(t), 1, i) for i, t in enumerate(ends_s)]
    energies = np.empty((len(starts_s), len(indices)))
    for moment_s, ends, number in sorted(moments):
        clock.set(nanoseconds(moment_s))
        if not ends:
            monitor.begin_window(str(number), sync_execution=False)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = monitor.end_window(str(number), sync_execution=False)
        energies[number] = [measured.gpu_energy[index] for index in indices]
    return energies
