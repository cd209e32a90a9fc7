"""The card's channels polled as fast as NVML answers, beside a load of known times.

Nothing of the project's stands between the card and the file: who doubts what the meter makes of
the sensor computes it from these.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpu_stages.card import ENTRY, Setting, nvml
from gpu_stages.keeping import Place

COLUMNS = (
    "a_ns",
    "b_ns",
    "c_ns",
    "counter_mj",
    "instant_mw",
    "average_mw",
    "usage_mw",
    "ts_instant_us",
    "ts_average_us",
)
"""The counter was asked for from a to b, the power from b to c (CLOCK_MONOTONIC)."""

_LONGEST_S = 110.0
_USAGE_EACH = 10


@contextmanager
def _load(pattern: str, marks: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process work and rest, and write down when."""
    command = [sys.executable, str(ENTRY), "--play", pattern, "--out", str(marks)]
    with subprocess.Popen(command) as load:
        try:
            yield load
        finally:
            load.kill()


def raw(place: Place) -> None:
    """Poll counter, instant, average and usage beside steps, a steady load and pulses."""
    api, card = nvml()
    fields = [api.NVML_FI_DEV_POWER_INSTANT, api.NVML_FI_DEV_POWER_AVERAGE]
    rows: list[tuple[int, ...]] = []
    end = time.monotonic() + _LONGEST_S * Setting.now().patience
    simulated = Setting.now().simulated
    with _load("all", place.kept / "marks.txt") as load:
        while load.poll() is None and time.monotonic() < end:
            a_ns = time.monotonic_ns()
            counter_mj = api.nvmlDeviceGetTotalEnergyConsumption(card)
            b_ns = time.monotonic_ns()
            one, two = api.nvmlDeviceGetFieldValues(card, fields)
            c_ns = time.monotonic_ns()
            ask = len(rows) % _USAGE_EACH == 0
            usage_mw = api.nvmlDeviceGetPowerUsage(card) if ask else 0
            power_mw = (one.value.uiVal, two.value.uiVal, usage_mw)
            rows.append((a_ns, b_ns, c_ns, counter_mj, *power_mw, one.timestamp, two.timestamp))
            if simulated:
                time.sleep(0.002)
    table = np.array(rows, dtype=np.int64)
    np.savez_compressed(place.kept / "raw.npz", rows=table, columns=np.array(COLUMNS))
    spent_s = (table[-1, 2] - table[0, 0]) / 1e9
    place.save(polls=len(rows), polls_per_s=round(len(rows) / spent_s, 1))
    place.save(line=f"{place.found['polls_per_s']} polls/s", load_ended=load.returncode)


def buffer(place: Place) -> None:
    """Take the driver's own buffer of power samples, and the counter, beside known steps.

    The buffer is asked for each 0.5 s, the counter each 10 ms.
    """
    api, card = nvml()
    try:
        _samples(api, card, 0)
    except Exception as error:
        place.save(unavailable=str(error), line=f"no buffer of power samples: {error}")
        return
    offset_ns = time.time_ns() - time.monotonic_ns()
    samples: dict[int, int] = {}
    counter: list[tuple[int, int, int]] = []
    newest_us, due = 0, 0.0
    end = time.monotonic() + _LONGEST_S
    with _load("all", place.kept / "marks.txt") as load:
        while load.poll() is None and time.monotonic() < end:
            a_ns = time.monotonic_ns()
            counter_mj = api.nvmlDeviceGetTotalEnergyConsumption(card)
            counter.append((a_ns, time.monotonic_ns(), counter_mj))
            if time.monotonic() >= due:
                due = time.monotonic() + 0.5
                with contextlib.suppress(api.NVMLError):
                    samples.update(_samples(api, card, newest_us))
                    newest_us = max(samples, default=0)
            time.sleep(0.01)
    np.savez_compressed(
        place.kept / "buffer.npz",
        samples=np.array(sorted(samples.items()), dtype=np.int64).reshape(-1, 2),
        counter=np.array(counter, dtype=np.int64),
        wall_minus_monotonic_ns=np.array(offset_ns),
    )
    place.save(samples=len(samples), line=f"{len(samples)} samples in the driver's buffer")


def _samples(api: Any, card: Any, after_us: int) -> dict[int, int]:
    """Return time in µs of the wall clock to power in mW."""
    found = api.nvmlDeviceGetSamples(card, api.NVML_TOTAL_POWER_SAMPLES, after_us)[1]
    return {int(one.timeStamp): int(one.sampleValue.uiVal) for one in found}
