"""Recording the simulated card faster than real time, with the recorder's own reading code.

Time is a number in a file that the card's library maps: it stands still while a read is made and
is moved on by what a read and a waking cost. The sensor and the readers are those of the
recorder; only the clock they look at, and the loop that waits for it, are this module's. Zeus and
plain readers of the same card stand beside them.
"""

import ctypes
import heapq
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from llenergymeasure.machine.gpus.inventory import Inventory, discover
from llenergymeasure.recording import sampler
from llenergymeasure.recording.samples import (
    HOST_DEVICE,
    RECORDER,
    STOPPED,
    Header,
    SampleRow,
    Samples,
    make_samples,
)
from llenergymeasure.sensors.base import Channel, SensorInfo
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.nvml import NvmlSensor
from nvml_sim import sim

T0_NS = 1_000_000_000_000
"""Time zero of every trace, CLOCK_MONOTONIC."""
POLL_S = 0.1


class CostlyClock(sim.SteppedClock):
    """The card's clock, given to the recorder's modules in place of the module ``time``.

    It is moved on by what a read and a waking cost.
    """

    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        super().__init__(path, T0_NS)
        # A read costs some tens of microseconds, now and then far more.
        costs_ns = rng.gamma(4.0, 6_000.0, 1 << 16)
        costs_ns[rng.random(len(costs_ns)) < 0.002] = 1_500_000
        self._costs_ns = costs_ns.astype(np.int64).tolist()
        # A waking comes late by about 60 us, one in 200 by milliseconds.
        late_ns = rng.exponential(60_000.0, 1 << 16)
        late_ns[rng.random(len(late_ns)) < 0.005] += 4_000_000
        self._late_ns = late_ns.astype(np.int64).tolist()
        self._turn = 0

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

    def sleep(self, seconds: float) -> None:
        """Pass the time; nobody waits."""
        self.wake(self.now_ns + int(seconds * 1e9))

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_ns / 1e9


def load_library(path: Path) -> None:
    """Load the simulated card's library, so that nvidia-ml-py and Zeus find it by its name."""
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@contextmanager
def opened(
    devices: Sequence[sim.Device], rng: np.random.Generator, latency_s: float = 0.0
) -> Iterator[tuple[Inventory, CostlyClock]]:
    """Start NVML on some simulated cards, under a stepped clock; end it, however often started.

    The calls that give energy and power take ``latency_s``.
    """
    import pynvml

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        clock = CostlyClock(folder / "clock", rng)
        os.environ["NVML_SIM_TRACE"] = str(sim.Trace(devices).write(folder))
        os.environ["NVML_SIM_CLOCK"] = str(folder / "clock")
        os.environ["NVML_SIM_T0"] = str(T0_NS)
        for call in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"):
            delayed = _delayed_call(getattr(pynvml, call), latency_s, clock)
            stack.enter_context(patch.object(pynvml, call, delayed))
        yield discover(), clock
        with suppress(pynvml.NVMLError):
            while True:
                pynvml.nvmlShutdown()


def _delayed_call(
    call: Callable[..., Any], latency_s: float, clock: CostlyClock
) -> Callable[..., Any]:
    """Have time pass while NVML is asked: under a stepped clock the card itself cannot wait."""

    def delayed(*arguments: Any) -> Any:
        clock.set(clock.now_ns + round(latency_s * 0.5e9))
        answer = call(*arguments)
        clock.set(clock.now_ns + round(latency_s * 0.5e9))
        return answer

    return delayed


def record(
    inventory: Inventory,
    indices: Sequence[int],
    clock: CostlyClock,
    end_s: float,
    run_pid: int | None = None,
) -> Samples:
    """Record cards from time zero; with a run's process number, watch for other processes."""
    clock.set(T0_NS)
    cards = [inventory.gpus[index] for index in indices]
    run = None if run_pid is None else RunProcesses(run_pid)
    sensor = NvmlSensor(inventory, cards, run)
    return record_channels(sensor.channels(), sensor.describe(), clock, end_s)


def record_channels(
    channels: Sequence[Channel], sensors: Sequence[SensorInfo], clock: CostlyClock, end_s: float
) -> Samples:
    """Record sensors' channels until ``end_s``, from the time that the clock shows."""
    vars(sampler)["time"] = clock
    started_ns = clock.now_ns
    rows: list[SampleRow] = []
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
    rows.append(SampleRow(clock.now_ns, HOST_DEVICE, RECORDER, "heartbeat", note=STOPPED))
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


def counter_difference_j(index: int, clock: CostlyClock, start_s: float, end_s: float) -> float:
    """Return the counter's difference between two reads: what a reader of the counter has."""
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    clock.set(nanoseconds(start_s))
    start_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    clock.set(nanoseconds(end_s))
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 - start_j)


def polled_energy_j(index: int, clock: CostlyClock, start_s: float, end_s: float) -> float:
    """Return the energy by nvmlDeviceGetPowerUsage each 100 ms and at the end, by trapezoids."""
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    moments_s = np.append(np.arange(start_s, end_s, POLL_S), end_s)
    watts = np.empty(len(moments_s))
    for number, moment_s in enumerate(moments_s):
        clock.set(nanoseconds(moment_s))
        watts[number] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    return float(np.trapezoid(watts, moments_s))


def zeus_energies_j(
    count: int, clock: CostlyClock, start_s: float, end_s: float
) -> dict[int, float]:
    """Measure one stretch of the first ``count`` cards with the real Zeus; joules of each."""
    import warnings

    import zeus.device.gpu
    from zeus.monitor import ZeusMonitor

    zeus.device.gpu._gpus = None
    monitor = ZeusMonitor(gpu_indices=list(range(count)), cpu_indices=[])
    clock.set(nanoseconds(start_s))
    monitor.begin_window("all", sync_execution=False)
    clock.set(nanoseconds(end_s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energies_j: dict[int, float] = monitor.end_window("all", sync_execution=False).gpu_energy
    return energies_j
