"""How a GPU is set and how it is doing: everything NVML tells that can change an energy."""

from typing import Any

from llenergymeasure.machine.gpus import inventory
from llenergymeasure.machine.gpus.inventory import Gpu

THROTTLE_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""``nvmlClocksEventReasons`` in nvml.h."""

SLOWED = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)
"""Reasons that no setting of ours explains: heat, or a power supply in trouble."""


def gpu_state(gpu: Gpu) -> dict[str, Any]:
    """Return a card's identity, settings and condition as plain values.

    What the card or driver does not tell is null. Clocks in MHz, power in W, memory in bytes.
    NVML has no way to ask for locked clocks: ``sm_clock_mhz`` is the one at this moment.
    """
    import pynvml

    try:
        handle = inventory.handle(gpu)
    except pynvml.NVMLError as error:
        return {"uuid": gpu.uuid, "name": gpu.name, "unavailable": str(error)}
    return {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "index": gpu.index,
        "pci_bus_id": gpu.pci_bus_id or None,
        "vbios": _ask("nvmlDeviceGetVbiosVersion", handle),
        "driver_version": gpu.driver,
        "compute_capability": _dotted(gpu.compute_capability),
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_used_bytes": _memory_used(handle),
        "power_limit_w": power_limit_w(handle),
        "power_limits_w": dict(inventory.power_limits_w(handle)),
        "sm_clock_mhz": _clock("nvmlDeviceGetClockInfo", handle),
        "sm_clock_max_mhz": _clock("nvmlDeviceGetMaxClockInfo", handle),
        "memory_clock_mhz": _ask("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_MEM),
        "application_clocks_mhz": _pair("nvmlDeviceGetApplicationsClock", handle),
        "application_clocks_default_mhz": _pair("nvmlDeviceGetDefaultApplicationsClock", handle),
        "throttle_reasons": throttle_reasons(handle),
        "temperature_celsius": _temperature(handle),
        "persistence_mode": _flag(_ask("nvmlDeviceGetPersistenceMode", handle)),
        "ecc": _current_and_pending(_ask("nvmlDeviceGetEccMode", handle)),
        "mig": _current_and_pending(_ask("nvmlDeviceGetMigMode", handle)),
    }


def power_limit_w(handle: Any) -> float | None:
    """Return the power limit that is set; null where NVML does not say."""
    limit_mw = _ask("nvmlDeviceGetPowerManagementLimit", handle)
    return None if limit_mw is None else limit_mw / 1000


def throttle_reasons(handle: Any) -> list[str] | None:
    """Return why the clocks are where they are now; null where NVML does not say."""
    bits = _ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if bits is None:
        bits = _ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    if bits is None:
        return None
    return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]


def cuda_driver_version() -> str | None:
    """Return the newest CUDA the driver can run, such as ``12.8``."""
    import pynvml

    try:
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    except pynvml.NVMLError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


def _ask(function: str, *arguments: Any) -> Any:
    import pynvml

    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError:
        return None


def _clock(function: str, handle: Any) -> int | None:
    import pynvml

    value: int | None = _ask(function, handle, pynvml.NVML_CLOCK_SM)
    return value


def _pair(function: str, handle: Any) -> dict[str, int] | None:
    import pynvml

    found = {
        "memory": _ask(function, handle, pynvml.NVML_CLOCK_MEM),
        "graphics": _ask(function, handle, pynvml.NVML_CLOCK_GRAPHICS),
    }
    known = {name: value for name, value in found.items() if value is not None}
    return known or None


def _temperature(handle: Any) -> int | None:
    import pynvml

    value: int | None = _ask("nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    return value


def _memory_used(handle: Any) -> int | None:
    memory = _ask("nvmlDeviceGetMemoryInfo", handle)
    return None if memory is None else int(memory.used)


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _current_and_pending(modes: Any) -> dict[str, bool] | None:
    return None if modes is None else {"current": bool(modes[0]), "pending": bool(modes[1])}


def _dotted(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"
