"""How a GPU is set and how it is doing: everything NVML reports that can change an energy."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from llenergymeasure.machine.gpus import inventory
from llenergymeasure.machine.gpus.inventory import Gpu, nvml_value

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

HARDWARE_SLOWDOWNS = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)
"""Reasons that no setting of ours explains: heat, or a power supply in trouble."""

CLOCK_REDUCTIONS = HARDWARE_SLOWDOWNS | {"sw_power_cap"}
"""Reasons for which a card runs below the clocks that are set: these, or its power limit."""


def gpu_state(gpu: Gpu) -> dict[str, Any]:
    """Return a card's identity, settings and condition as plain values.

    What the card or driver does not say is None. Clocks in MHz, power in W, memory in bytes.
    NVML has no way to ask for locked clocks: ``sm_clock_mhz`` is the one at this moment.
    """
    import pynvml

    try:
        handle = inventory.handle(gpu)
    except pynvml.NVMLError as error:
        return {"uuid": gpu.uuid, "name": gpu.name, "unavailable": str(error)}
    memory = nvml_value("nvmlDeviceGetMemoryInfo", handle)
    return {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "index": gpu.index,
        "pci_bus_id": gpu.pci_bus_id or None,
        "vbios": nvml_value("nvmlDeviceGetVbiosVersion", handle),
        "driver_version": gpu.driver,
        "compute_capability": _version_text(gpu.compute_capability),
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_used_bytes": None if memory is None else int(memory.used),
        "power_limit_w": power_limit_w(handle),
        "power_limits_w": dict(inventory.power_limits_w(handle)),
        "sm_clock_mhz": nvml_value("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": nvml_value("nvmlDeviceGetMaxClockInfo", handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": nvml_value("nvmlDeviceGetClockInfo", handle, pynvml.NVML_CLOCK_MEM),
        "application_clocks_mhz": _clocks("nvmlDeviceGetApplicationsClock", handle),
        "application_clocks_default_mhz": _clocks("nvmlDeviceGetDefaultApplicationsClock", handle),
        "throttle_reasons": throttle_reasons(handle),
        "temperature_celsius": nvml_value(
            "nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        "persistence_mode": _flag(nvml_value("nvmlDeviceGetPersistenceMode", handle)),
        "ecc": _current_and_pending(nvml_value("nvmlDeviceGetEccMode", handle)),
        "mig": _current_and_pending(nvml_value("nvmlDeviceGetMigMode", handle)),
    }


def unusual_settings(state: dict[str, Any], requested_w: float | None = None) -> Iterator[str]:
    """Yield in what a card is not as it was delivered, or not fit to be measured."""
    if state["mig"] is not None and state["mig"]["current"]:
        yield (
            "is partitioned (MIG): its sensor sees the whole card, so that the energy of "
            "one part cannot be separated from the others'"
        )
    if state["persistence_mode"] is False:
        yield (
            "is not in persistence mode: the driver may unload between runs, which changes "
            "idle power and start-up; nvidia-smi -pm 1, as root"
        )
    limit_w, default_w = state["power_limit_w"], state["power_limits_w"].get("default")
    if None not in (limit_w, default_w) and limit_w not in (default_w, requested_w):
        yield (
            f"has a power limit of {limit_w:g} W, its default is {default_w:g} W: results "
            "will differ from those of a card as delivered"
        )
    clocks, default = state["application_clocks_mhz"], state["application_clocks_default_mhz"]
    if None not in (clocks, default) and clocks != default:
        yield (
            f"has its application clocks at {megahertz(clocks)}, not at its default "
            f"{megahertz(default)}"
        )
    reasons = sorted(HARDWARE_SLOWDOWNS & set(state["throttle_reasons"] or ()))
    if reasons:
        yield f"is slowed down before the run begins: {', '.join(reasons)}"
    ecc = state["ecc"]
    if ecc is not None and not ecc["current"]:
        yield "has ECC off: memory is larger and faster than with it"
    if ecc is not None and ecc["current"] != ecc["pending"]:
        after = "on" if ecc["pending"] else "off"
        yield f"will have ECC {after} after its next reset: cycles may then differ"


def power_limit_w(handle: Any) -> float | None:
    """Return the power limit that is set; None where NVML does not say."""
    limit_mw = nvml_value("nvmlDeviceGetPowerManagementLimit", handle)
    return None if limit_mw is None else limit_mw / 1000


def throttle_reasons(handle: Any) -> list[str] | None:
    """Return why the clocks are where they are now; None where NVML does not say."""
    bits = nvml_value("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if bits is None:
        bits = nvml_value("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return None if bits is None else reasons_of_bits(bits)


def reasons_of_bits(bits: int) -> list[str]:
    """Return NVML's reasons by name."""
    return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]


def busy_gpus_except(own_uuids: Collection[str]) -> list[dict[str, Any]]:
    """Return each GPU but the run's own that has a compute process now, and how many it has.

    Only those that the scheduler or container lets this process see; none where NVML is not there.
    """
    counts = _compute_process_counts()
    return [
        {"uuid": uuid, "processes": count}
        for uuid, count in counts.items()
        if uuid not in own_uuids and count
    ]


def compute_process_counts(uuids: Collection[str]) -> dict[str, int]:
    """Return how many compute processes each of these GPUs has now, of those that can say it."""
    return {uuid: count for uuid, count in _compute_process_counts().items() if uuid in uuids}


def _compute_process_counts() -> dict[str, int]:
    import pynvml

    counts = {}
    for gpu in inventory.discover().gpus:
        if gpu.unavailable is None:
            with suppress(pynvml.NVMLError):
                counts[gpu.uuid] = len(inventory.compute_processes(gpu))
    return counts


def cuda_driver_version() -> str | None:
    """Return the newest CUDA the driver can run, such as ``12.8``."""
    import pynvml

    try:
        number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    except pynvml.NVMLError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


def _clocks(function: str, handle: Any) -> dict[str, int] | None:
    import pynvml

    clocks = {
        "memory": nvml_value(function, handle, pynvml.NVML_CLOCK_MEM),
        "graphics": nvml_value(function, handle, pynvml.NVML_CLOCK_GRAPHICS),
    }
    return {domain: mhz for domain, mhz in clocks.items() if mhz is not None} or None


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _current_and_pending(modes: Any) -> dict[str, bool] | None:
    return None if modes is None else {"current": bool(modes[0]), "pending": bool(modes[1])}


def _version_text(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


def megahertz(clocks: dict[str, int]) -> str:
    """Return a pair of clocks in words."""
    return " and ".join(f"{mhz} MHz ({domain})" for domain, mhz in sorted(clocks.items()))
