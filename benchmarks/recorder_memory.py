"""The recorder's memory over an hour's worth of samples, on a simulated card and its clock.

    make nvml-sim && python benchmarks/recorder_memory.py [--seconds 3600] [--json FILE]

The recorder's own loops and writer run here, in one thread, with a clock that jumps to whenever
something is due: every read of the hour is made, and every row is written, as in real time. The
card's power and temperature change all the time. Resident memory is read from the kernel.
"""

import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
import meter_recording
import numpy as np

from llenergymeasure.recording import recorder, sampler
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.registry import open_sensors
from nvml_sim import sim

LOOKS = 60
"""How often memory is looked at."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Record, and print the memory at start, middle and end."""
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="simulated time to record")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = harness.begin(parser, arguments)
    meter_recording.load_library(harness.card_library())
    steps = [(0.7 * number, 100.0 + 137 * number % 500) for number in range(6000)]
    warming = [(60.0 * number, 40.0 + 7 * number % 40) for number in range(70)]
    card = sim.Device(power_w=steps, keys={"temperature_c": warming})
    began_s = time.monotonic()
    with (
        meter_recording.opened([card], np.random.default_rng(1)) as (_, clock),
        tempfile.TemporaryDirectory() as folder,
    ):
        stream = Path(folder) / "samples.arrows"
        looks = list(record(clock, stream, options.seconds))
        size, rows = stream.stat().st_size, len(read_samples(stream).table)
    first, middle, last = looks[1], looks[len(looks) // 2], looks[-1]
    growth = (last[1] - first[1]) / 2**20
    for name, (at_s, rss) in (("start", first), ("middle", middle), ("end", last)):
        print(f"{name:7}{at_s:8.0f} s  {rss / 2**20:7.1f} MiB resident")
    print(f"{rows} rows, {size / 2**20:.1f} MiB written, in {time.monotonic() - began_s:.0f} s")
    print(f"growth from start to end: {growth:+.1f} MiB")
    if options.json is not None:
        figures = {"looks": looks, "rows": rows, "bytes": size, "growth_mib": growth}
        options.json.write_text(json.dumps(figures) + "\n")


def record(
    clock: meter_recording.SteppedClock, stream: Path, seconds: float
) -> Iterator[tuple[float, int]]:
    """Record a card for so long; yield time and resident bytes as it goes on."""
    for module in (sampler, recorder):
        vars(module)["time"] = clock
    recording = recorder.Recording(open_sensors("nvml", run=RunProcesses(os.getpid())), stream)
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


def _resident_bytes() -> int:
    """Return this process's resident memory (proc(5), statm), rubbish taken out."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
