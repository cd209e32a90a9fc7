"""What NVML answers and how fast, and the card's channels polled flat out beside a known load.

Nothing of the project's stands between the card and the polled file: who doubts what the meter
makes of the sensor computes it from these.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpu_stages.card import ENTRY, MARKS, Setting
from gpu_stages.keeping import Place
from llenergymeasure.files import replacing
from llenergymeasure.machine.environment import gpus

COLUMNS = ["a_ns", "b_ns", "c_ns", "counter_mj", "instant_mw", "average_mw", "usage_mw"]
COLUMNS += ["ts_instant_us", "ts_average_us"]
"""The counter was asked for from a to b, the power from b to c (CLOCK_MONOTONIC)."""

_CALLS = 60
_USAGE_EACH = 10
_BUFFER_EACH_S = 0.5
_LONGEST_S = 110.0


def _nvml() -> tuple[Any, Any]:
    """Return NVML, started, and the first card."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)


def inventory(place: Place) -> None:
    """Take down calls, fields, limits, packages and ``nvidia-smi -q``."""
    _keep_output(place, "nvidia-smi-q.txt", ["nvidia-smi", "-q"])
    api, card = _nvml()
    place.save(nvml={name: timed(call) for name, call in _calls(api, card).items()})
    place.save(fields=_fields(api, card))
    place.save(cards=gpus())
    _keep_output(place, "pip.txt", [sys.executable, "-m", "pip", "list"])
    medians_ms = {name: figures.get("median_ms") for name, figures in place.figures["nvml"].items()}
    place.save(line=f"ms a call: {medians_ms}")


def _keep_output(place: Place, name: str, command: list[str]) -> None:
    """Keep what a command prints, where there is such a command."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, timeout=20, check=False)
        (place.output / name).write_bytes(result.stdout)


def timed(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call answers and how many ms it takes, or why it does not answer."""
    times_ms, value = [], None
    try:
        for _ in range(_CALLS):
            before_ns = time.perf_counter_ns()
            value = call()
            times_ms.append((time.perf_counter_ns() - before_ns) / 1e6)
    except Exception as error:
        return {"unavailable": str(error)}
    times_ms.sort()
    return {
        "value": value,
        "median_ms": round(statistics.median(times_ms), 3),
        "p95_ms": round(times_ms[int(0.95 * _CALLS) - 1], 3),
    }


def _calls(api: Any, card: Any) -> Mapping[str, Callable[[], Any]]:
    instant = [api.NVML_FI_DEV_POWER_INSTANT]
    both = [*instant, api.NVML_FI_DEV_POWER_AVERAGE]
    return {
        "counter": lambda: api.nvmlDeviceGetTotalEnergyConsumption(card),
        "usage": lambda: api.nvmlDeviceGetPowerUsage(card),
        "instant": lambda: api.nvmlDeviceGetFieldValues(card, instant)[0].value.uiVal,
        "instant+average": lambda: api.nvmlDeviceGetFieldValues(card, both)[1].value.uiVal,
        "temperature": lambda: api.nvmlDeviceGetTemperature(card, api.NVML_TEMPERATURE_GPU),
        "sm_clock": lambda: api.nvmlDeviceGetClockInfo(card, api.NVML_CLOCK_SM),
        "memory": lambda: api.nvmlDeviceGetMemoryInfo(card).used,
        "utilization": lambda: api.nvmlDeviceGetUtilizationRates(card).gpu,
        "processes": lambda: len(api.nvmlDeviceGetComputeRunningProcesses(card)),
        "throttle": lambda: api.nvmlDeviceGetCurrentClocksThrottleReasons(card),
        "enforced_limit": lambda: api.nvmlDeviceGetEnforcedPowerLimit(card),
        "power_samples": lambda: len(_buffered(api, card, 0)),
    }


def _fields(api: Any, card: Any) -> dict[str, list[int]]:
    """Return status, value and stamp in µs of each field about power and energy."""
    values = {}
    for name in dir(api):
        if name.startswith("NVML_FI_DEV_") and ("POWER" in name or "ENERGY" in name):
            with contextlib.suppress(Exception):
                field = api.nvmlDeviceGetFieldValues(card, [getattr(api, name)])[0]
                values[name] = [field.nvmlReturn, field.value.ullVal, field.timestamp]
    return values


def _buffered(api: Any, card: Any, after_us: int) -> dict[int, int]:
    """Return the driver's own samples of power: time in µs of the wall clock to mW."""
    samples = api.nvmlDeviceGetSamples(card, api.NVML_TOTAL_POWER_SAMPLES, after_us)[1]
    return {int(sample.timeStamp): int(sample.sampleValue.uiVal) for sample in samples}


def raw(place: Place) -> None:
    """Poll all channels beside steps, a steady load and pulses; take the driver's buffer too.

    Whatever ends it, what was polled is kept.
    """
    rows: list[tuple[int, ...]] = []
    samples: dict[int, int] = {}
    offset_ns = time.time_ns() - time.monotonic_ns()
    os.environ[MARKS] = str(place.output / "marks.txt")
    load = subprocess.Popen([sys.executable, str(ENTRY), "--play", "known"])
    try:
        _poll(load, rows, samples)
    finally:
        load.kill()
        _keep_polls(place, rows, samples, offset_ns)
    place.save(load_ended=load.wait())


def _poll(
    load: subprocess.Popen[bytes], rows: list[tuple[int, ...]], samples: dict[int, int]
) -> None:
    """Poll as fast as NVML answers until the load ends, and the buffer each 0.5 s."""
    api, card = _nvml()
    fields = [api.NVML_FI_DEV_POWER_INSTANT, api.NVML_FI_DEV_POWER_AVERAGE]
    setting, due_s = Setting.now(), 0.0
    end_s = time.monotonic() + _LONGEST_S * setting.patience
    while load.poll() is None and time.monotonic() < end_s:
        a_ns = time.monotonic_ns()
        counter_mj = api.nvmlDeviceGetTotalEnergyConsumption(card)
        b_ns = time.monotonic_ns()
        one, two = api.nvmlDeviceGetFieldValues(card, fields)
        c_ns = time.monotonic_ns()
        usage_mw = api.nvmlDeviceGetPowerUsage(card) if len(rows) % _USAGE_EACH == 0 else 0
        power_mw = (one.value.uiVal, two.value.uiVal, usage_mw)
        rows.append((a_ns, b_ns, c_ns, counter_mj, *power_mw, one.timestamp, two.timestamp))
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + _BUFFER_EACH_S
            with contextlib.suppress(api.NVMLError):
                samples.update(_buffered(api, card, max(samples, default=0)))
        if setting.simulated:
            time.sleep(0.002)


def _keep_polls(
    place: Place, rows: list[tuple[int, ...]], samples: dict[int, int], offset_ns: int
) -> None:
    if not rows:
        return
    table = np.array(rows, dtype=np.int64)
    _keep_arrays(place, "raw.npz", rows=table, columns=np.array(COLUMNS))
    if samples:
        _keep_arrays(
            place,
            "buffer.npz",
            samples=np.array(sorted(samples.items()), dtype=np.int64),
            counter=table[:, [0, 1, 3]],
            wall_minus_monotonic_ns=np.array(offset_ns),
        )
    rate = round(len(rows) / ((table[-1, 2] - table[0, 0]) / 1e9), 1)
    place.save(polls=len(rows), polls_per_s=rate, samples=len(samples))
    place.save(line=f"{rate} polls/s, {len(samples)} samples in the driver's buffer")


def _keep_arrays(place: Place, name: str, **arrays: Any) -> None:
    with replacing(place.output / name) as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)
