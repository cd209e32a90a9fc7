"""What NVML answers on this card, and how long each call takes."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpu_stages.card import nvml
from gpu_stages.keeping import Place

_CALLS = 60


def inventory(place: Place) -> None:
    """Take down calls, fields, limits, packages and ``nvidia-smi -q``."""
    with (
        (place.kept / "nvidia-smi-q.txt").open("w") as file,
        contextlib.suppress(OSError, subprocess.TimeoutExpired),
    ):
        subprocess.run(["nvidia-smi", "-q"], stdout=file, stderr=file, timeout=20, check=False)
    if not (place.kept / "nvidia-smi-q.txt").stat().st_size:
        (place.kept / "nvidia-smi-q.txt").unlink()
    api, card = nvml()
    place.save(nvml={name: timed(call) for name, call in _calls(api, card).items()})
    place.save(fields=_fields(api, card), cards=[_identity(api, card)])
    with (place.kept / "pip.txt").open("w") as file:
        pip = [sys.executable, "-m", "pip", "list", "--disable-pip-version-check"]
        subprocess.run(pip, stdout=file, stderr=subprocess.DEVNULL, timeout=30, check=False)
    took = {name: each.get("median_ms") for name, each in place.found["nvml"].items()}
    place.save(line=f"ms a call: {took}")


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
        "power_samples": lambda: len(
            api.nvmlDeviceGetSamples(card, api.NVML_TOTAL_POWER_SAMPLES, 0)[1]
        ),
    }


def _fields(api: Any, card: Any) -> dict[str, list[int]]:
    """Return status, value and stamp in µs of each field about power and energy."""
    names = [name for name in dir(api) if name.startswith("NVML_FI_DEV_")]
    found = {}
    for name in names:
        if "POWER" not in name and "ENERGY" not in name:
            continue
        with contextlib.suppress(Exception):
            one = api.nvmlDeviceGetFieldValues(card, [getattr(api, name)])[0]
            found[name] = [one.nvmlReturn, one.value.ullVal, one.timestamp]
    return found


def _identity(api: Any, card: Any) -> dict[str, Any]:
    asked = {
        "name": lambda: api.nvmlDeviceGetName(card),
        "driver_version": api.nvmlSystemGetDriverVersion,
        "vbios": lambda: api.nvmlDeviceGetVbiosVersion(card),
        "power_limit_w": lambda: api.nvmlDeviceGetEnforcedPowerLimit(card) / 1e3,
        "persistence_mode": lambda: bool(api.nvmlDeviceGetPersistenceMode(card)),
        "memory_total_bytes": lambda: api.nvmlDeviceGetMemoryInfo(card).total,
        "sm_clock_max_mhz": lambda: api.nvmlDeviceGetMaxClockInfo(card, api.NVML_CLOCK_SM),
    }
    found: dict[str, Any] = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except Exception as error:
            found[name] = f"unavailable: {error}" if name == "name" else None
    return found
