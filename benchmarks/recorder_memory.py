"""The recorder's memory over an hour's worth of samples, on a simulated card and its clock.

    make nvml-sim && python benchmarks/recorder_memory.py [--seconds 3600] [--json FILE]

The recorder's own loops and writer run here, in one thread, with a clock that jumps to whenever
something is due: every read of the hour is made, and every row is written, as in real time. The
card's power and temperature change all the time. Resident memory is read from the kernel.
"""

import argparse
import ctypes
import gc
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from meter_recording import SteppedClock

from llenergymeasure.recording import recorder, sampler
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.sensors.registry import open_sensors
from nvml_sim import sim

LOOKS = 60
"""How often memory is looked at."""


class Clock(SteppedClock):
    """The simulated time, in place of the module ``time`` in the recorder's modules."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        super().__init__(path, np.random.default_rng(1))

    def sleep(self, seconds: float) -> None:
        """Pass the time; nobody waits."""
        self.wake(self.now_ns + int(seconds * 1e9))

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def clock_gettime(self, _clock: int) -> float:
        """Return the boot's clock: the machine is never suspended."""
        return self.now_ns / 1e9

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_ns / 1e9

    def process_time(self) -> float:
        """Return the CPU time that this process has really used."""
        return time.process_time()


def main(arguments: list[str] | None = None) -> int:
    """Record, and print the memory at start, middle and end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="simulated time to record")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    library, reason = sim.library_or_reason()
    if library is None:
        print(f"no simulated card: {reason}", file=sys.stderr)
        return 1
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        looks = list(record(Path(folder), options.seconds))
        stream = Path(folder) / "samples.arrows"
        size = stream.stat().st_size
        rows = len(read_samples(stream).table)
    first, middle, last = looks[1], looks[len(looks) // 2], looks[-1]
    growth = (last[1] - first[1]) / 2**20
    for name, (at_s, rss) in (("start", first), ("middle", middle), ("end", last)):
        print(f"{name:7}{at_s:8.0f} s  {rss / 2**20:7.1f} MiB resident")
    print(f"{rows} rows, {size / 2**20:.1f} MiB written, in {time.monotonic() - began:.0f} s")
    print(f"growth from start to end: {growth:+.1f} MiB")
    if options.json is not None:
        figures = {"looks": looks, "rows": rows, "bytes": size, "growth_mib": growth}
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def record(folder: Path, seconds: float) -> Iterator[tuple[float, int]]:
    """Record a card for so long; yield time and resident bytes as it goes on."""
    clock = _card(folder)
    for module in (sampler, recorder):
        vars(module)["time"] = clock
    recording = recorder.Recording(
        open_sensors("nvml", run_pid=os.getpid()), folder / "samples.arrows"
    )
    start_ns, flush_ns = clock.now_ns, int(recorder.FLUSH_S * 1e9)
    recording.begin()
    due_ns = [clock.now_ns] * len(recording.loops)
    next_flush_ns = start_ns + flush_ns
    next_look_ns = start_ns
    while clock.now_ns - start_ns < seconds * 1e9:
        place = min(range(len(due_ns)), key=due_ns.__getitem__)
        clock.wake(due_ns[place])
        due_ns[place] = recording.loops[place].step() or clock.now_ns
        if clock.now_ns >= next_flush_ns:
            recording.flush()
            next_flush_ns += flush_ns
        if clock.now_ns >= next_look_ns:
            yield (clock.now_ns - start_ns) / 1e9, _resident_bytes()
            next_look_ns += int(seconds / LOOKS * 1e9)
    for loop in recording.loops:
        loop.finish()
    recording.end()
    yield (clock.now_ns - start_ns) / 1e9, _resident_bytes()


def _card(folder: Path) -> Clock:
    """Make a card whose readings change all the time, and its clock."""
    steps = [(0.7 * number, 100.0 + 137 * number % 500) for number in range(6000)]
    warming = [(60.0 * number, 40.0 + 7 * number % 40) for number in range(70)]
    device = sim.Device(power_w=steps, sensor=sim.Sensor(), keys={"temperature_c": warming})
    clock = Clock(folder / "clock")
    os.environ.update(
        NVML_SIM_TRACE=str(sim.Trace([device]).write(folder)),
        NVML_SIM_CLOCK=str(folder / "clock"),
        NVML_SIM_T0=str(struct.unpack("<q", (folder / "clock").read_bytes())[0]),
    )
    return clock


def _resident_bytes() -> int:
    """Return this process's resident memory (proc(5), statm), rubbish taken out."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
