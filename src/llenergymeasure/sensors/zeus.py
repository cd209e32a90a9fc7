"""What Zeus sees: AMD GPUs, Apple and Jetson chips, and CPUs through its daemon.

Zeus' own device objects are asked, the ones its monitor uses; the monitor itself is not, for it
gives no GPU, no CPU and 0 J where it finds nothing. What answers zero, or a counter that stands
still, is unavailable here; a chip's may rest, for a part of it draws less than its step at times.
On an NVIDIA GPU, where asked for by name, it reads the same card next to NVML as a cross-check.
"""

import contextlib
import importlib.util
import io
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.sensors.base import (
    Channel,
    Follow,
    Quantity,
    Sensor,
    SensorError,
    SensorInfo,
    Value,
)
from llenergymeasure.sensors.nvml import counts_module
from llenergymeasure.units import Scope

NAME = "zeus"
_FINE = Follow(fine_s=0.005, repeat_s=0.1)
_COARSE = Follow(fine_s=0.1, speed="slow")
_STILL_TEST_S = 0.3
_SOC_PARTS: Mapping[str, tuple[str, Scope]] = {
    "cpu_total_mj": ("cpu", "cpu"),
    "dram_mj": ("dram", "dram"),
    "gpu_mj": ("gpu", "gpu"),
    "cpu_energy_mj": ("cpu", "cpu"),
    "gpu_energy_mj": ("gpu", "gpu"),
    "total_energy_mj": ("module", "module"),
}
"""Fields of Zeus' measurements of Apple and Jetson chips that stand for a whole part."""


@dataclass(frozen=True)
class _Reader:
    """One device, and whether its counter may rest."""

    info: SensorInfo
    read: Callable[[], Sequence[Value]]
    pace: Follow
    may_rest: bool = False


class ZeusSensor(Sensor):
    """All devices Zeus finds, apart from the NVIDIA GPUs that were not asked for."""

    def __init__(self, nvidia: Sequence[Gpu] = (), *, cpus: bool = True) -> None:
        """Probe."""
        readers: list[_Reader] = []
        reasons: list[str] = []
        remedy = "for AMD GPUs install amdsmi; for CPUs without root start its daemon zeusd"
        if importlib.util.find_spec("zeus") is None:
            reasons.append("the package zeus is not installed here")
            remedy = f"pip install zeus; {remedy}"
        else:
            if nvidia:
                # Zeus takes NVML's indices here, and no UUIDs.
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu.index) for gpu in nvidia)
            kinds = {"GPU": lambda: _gpus(nvidia), "CPU": _cpus, "system on a chip": _soc}
            with contextlib.redirect_stdout(io.StringIO()):
                for kind, find in kinds.items():
                    if cpus or kind != "CPU":
                        devices, reason = _probe(find)
                        readers += devices
                        reasons += [] if devices else [f"no {kind}: {reason}"]
        missing = SensorInfo(
            "gpu",
            "GPUs, CPUs and chips that Zeus knows",
            NAME,
            "measured",
            "gpu",
            unavailable="; ".join(reasons),
            remedy=remedy,
        )
        channels = [
            Channel(reader.info.device, NAME, reader.info.quantities, reader.read, reader.pace)
            for reader in readers
            if reader.info.unavailable is None
        ]
        missing_infos = [missing] if reasons and not channels else []
        super().__init__([*missing_infos, *(reader.info for reader in readers)], channels)


def _probe(find: Callable[[], list[_Reader]]) -> tuple[list[_Reader], str]:
    """Return what is there, the silent with the reason, and why nothing is where that is so."""
    try:
        readers = find()
    except Exception as error:  # whatever a third party's probing may raise
        return [], str(error)
    infos = [replace(reader.info, unavailable=_silence_reason(reader)) for reader in readers]
    checked = [replace(reader, info=info) for reader, info in zip(readers, infos, strict=True)]
    return checked, "none found"


def worth_trying() -> bool:
    """Whether this machine may have what only Zeus reads: AMD, Jetson, Apple, or its daemon."""
    signs = ("/dev/kfd", "/etc/nv_tegra_release", "/usr/lib/aarch64-linux-gnu/tegra")
    daemon = {"ZEUSD_SOCK_PATH", "ZEUSD_HOST_PORT"} & os.environ.keys()
    has_device = any(Path(sign).exists() for sign in signs)
    return importlib.util.find_spec("zeus") is not None and bool(
        has_device or daemon or sys.platform == "darwin"
    )


def _gpus(nvidia: Sequence[Gpu]) -> list[_Reader]:
    from zeus.device import get_gpus

    gpus = get_gpus()
    if type(gpus).__name__ == "NVIDIAGPUs":
        return [
            # Zeus takes each chip with C2C for a module, or none, by version (its 242).
            _gpu(gpus, number, gpu.uuid, gpu.name, module=counts_module(gpu))
            for number, gpu in enumerate(nvidia)
        ]
    readers = []
    for number, card in enumerate(gpus.gpus):
        reader = _gpu(gpus, number, f"amd:{card.gpu_index}", str(gpus.get_name(number)))
        readers.append(replace(reader, info=replace(reader.info, mig=_is_slice(card.handle))))
    return readers


def _is_slice(handle: Any) -> bool:
    """Return whether an AMD GPU is a part of a card (MI300): each shows the power of all of it."""
    with contextlib.suppress(Exception):  # that it cannot be cut, versions say in their own ways
        import amdsmi

        return amdsmi.amdsmi_get_gpu_compute_partition(handle) not in ("SPX", "N/A", "")
    return False


def _gpu(gpus: Any, number: int, device: str, name: str, *, module: bool = False) -> _Reader:
    """Return the counter of a GPU, or where Zeus says it has none, its power."""
    if gpus.supports_get_total_energy_consumption(number):
        quantity: Quantity = "energy_counter_j"
        call = partial(gpus.get_total_energy_consumption, number)
    else:
        quantity = "power_instant_w"
        call = partial(gpus.get_instant_power_usage, number)
    info = SensorInfo(
        device=f"module:{device}" if module else device,
        name=name,
        sensor=NAME,
        kind="measured",
        scope="module" if module else "gpu",
        quantities=(quantity,),
        counter_resolution_j=1e-3 if quantity == "energy_counter_j" else None,
    )
    return _Reader(info, _milli_reader(quantity, call), _FINE)


def _cpus() -> list[_Reader]:
    from zeus.device.cpu import get_cpus

    cpus = get_cpus()
    readers = []
    for number, cpu in enumerate(cpus.cpus):
        package = f"package-{cpu.cpu_index}"
        read_energy = partial(cpus.get_total_energy_consumption, number)
        readers.append(_counter(f"cpu:{package}", "cpu", read_energy, "cpu_mj"))
        if cpus.supports_get_dram_energy_consumption(number):
            readers.append(_counter(f"dram:{package}", "dram", read_energy, "dram_mj"))
    return readers


def _soc() -> list[_Reader]:
    from zeus.device.soc import get_soc

    chip = get_soc()
    parts = chip.get_available_metrics() & _SOC_PARTS.keys()
    read_energy = chip.get_total_energy_consumption
    counters = [_counter(*_SOC_PARTS[part], read_energy, part) for part in sorted(parts)]
    return [replace(counter, may_rest=True) for counter in counters]


def _counter(device: str, scope: Scope, read_energy: Callable[[], Any], part: str) -> _Reader:
    info = SensorInfo(
        device=device,
        name=device,
        sensor=NAME,
        kind="measured",
        scope=scope,
        quantities=("energy_counter_j",),
        counter_resolution_j=1e-3,
    )
    return _Reader(
        info, _milli_reader("energy_counter_j", lambda: getattr(read_energy(), part)), _COARSE
    )


def _milli_reader(
    quantity: Quantity, call: Callable[[], float | None]
) -> Callable[[], Sequence[Value]]:
    def read() -> tuple[Value, ...]:
        try:
            value = call()
        except Exception as error:  # Zeus' errors share no base across vendors
            raise SensorError(f"zeus: {error}") from error
        if value is None or not math.isfinite(value):
            raise SensorError("zeus has no value for it")
        return (Value(quantity, value / 1000),)

    return read


def _silence_reason(reader: _Reader) -> str | None:
    """Return why it gives nothing; None if it has power, or a counter that counts or may rest."""
    counts = "energy_counter_j" in reader.info.quantities and not reader.may_rest
    end_s = time.monotonic() + _STILL_TEST_S
    try:
        first = now = reader.read()
        while not now[0].value or (counts and now == first):
            if time.monotonic() > end_s:
                return f"it stands still at {now[0].value:g}"
            time.sleep(0.01)
            now = reader.read()
    except SensorError as error:
        return str(error)
    return None
