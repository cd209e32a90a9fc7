"""NVIDIA GPUs through NVML: the energy counter, the power, and what explains them.

Both energy channels are read, always: ``nvmlDeviceGetTotalEnergyConsumption`` (mJ since the
driver was loaded; Volta and later) and power by ``nvmlDeviceGetFieldValues``, whose instant value
is the only one that means the same on all cards: ``nvmlDeviceGetPowerUsage`` is a mean over 1 s
on Ampere and later except GA100 (NVML API reference). On a Grace superchip the counter is that
of the whole module (seen on GH200 by the authors of Zeus, their pull request 172), so it is
given as such, apart from the GPU's own power.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from llenergymeasure.machine.gpus.inventory import Gpu, Inventory, handle
from llenergymeasure.sensors.base import (
    Channel,
    Every,
    Follow,
    Quantity,
    Sensor,
    SensorError,
    SensorInfo,
    Value,
)
from llenergymeasure.sensors.foreign_processes import RunProcesses, ask_nvml
from llenergymeasure.units import Scope

NAME = "nvml"
COUNTER_RESOLUTION_J = 1e-3
_COUNTER = Follow(fine_s=0.001, steady=True)
# 7 ms: under half of the shortest update period known (20 ms), and no common measure with any.
_POWER = Follow(fine_s=0.007, repeat_s=0.1)
_TELEMETRY = Every(0.5)
_STRANGERS = Every(1.0)
_NO_COUNTER = "no energy counter (it needs a Volta GPU or later)"


class NvmlSensor(Sensor):
    """The GPUs of the run read fast; all GPUs of the machine watched for strangers."""

    def __init__(
        self, inventory: Inventory, selected: Sequence[Gpu], run: RunProcesses | None
    ) -> None:
        """Take the machine's GPUs and those of the run."""
        self._is_open = bool(inventory.gpus)
        cards = [_Card(gpu) for gpu in selected]
        infos = [info for card in cards for info in card.describe()]
        if not inventory.gpus:
            reason, remedy = inventory.unavailable, inventory.remedy
            infos = [
                SensorInfo(
                    "gpu", "NVIDIA GPU", NAME, "measured", "gpu", unavailable=reason, remedy=remedy
                )
            ]
        channels = [channel for card in cards for channel in card.channels()]
        if run is not None:
            channels += [_process_channel(gpu, run) for gpu in inventory.gpus]
        super().__init__(infos, channels)

    def close(self) -> None:
        """Let NVML go."""
        import pynvml

        if self._is_open:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


@dataclass(frozen=True)
class _Domain:
    """One scope of a card, the GPU or the module it sits on, and which of its readings work."""

    device: str
    scope: Scope
    power: tuple[Quantity, ...] = ()
    counter: bool = False


class _Card:
    """One card: which of its readings work is tried out once."""

    def __init__(self, gpu: Gpu) -> None:
        import pynvml

        self._gpu = gpu
        self._domains: list[_Domain] = []
        self._reason: str | None = gpu.unavailable
        if self._reason is not None:
            return
        try:
            self._handle = handle(gpu)
        except pynvml.NVMLError as error:
            self._reason = str(error)
            return
        self._domains = self._find_domains()
        if not any(domain.counter or domain.power for domain in self._domains):
            self._reason = "the card gives neither an energy counter nor power"

    def describe(self) -> list[SensorInfo]:
        if self._reason is not None:
            return [self._info(_Domain(self._gpu.uuid, "gpu"), self._reason)]
        return [self._info(domain, None) for domain in self._domains]

    def channels(self) -> list[Channel]:
        if self._reason is not None:
            return []
        channels: list[Channel] = []
        for domain in self._domains:
            if domain.counter:
                quantity: Quantity = "energy_counter_j"
                channels.append(
                    Channel(domain.device, NAME, (quantity,), self._read_counter, _COUNTER)
                )
            if domain.power:
                channels.append(
                    Channel(domain.device, NAME, domain.power, self._power_reader(domain), _POWER)
                )
        return channels + self._telemetry()

    def _info(self, domain: _Domain, reason: str | None) -> SensorInfo:
        counter: tuple[Quantity, ...] = ("energy_counter_j",) if domain.counter else ()
        notes = []
        if domain.power and not domain.counter:
            notes.append(_NO_COUNTER if len(self._domains) == 1 else "the counter is the module's")
        if self._gpu.mig_enabled:
            notes.append("MIG is on: readings are those of the whole card")
        return SensorInfo(
            device=domain.device,
            name=self._gpu.name,
            sensor=NAME,
            kind="measured",
            scope=domain.scope,
            quantities=counter + domain.power,
            counter_resolution_j=COUNTER_RESOLUTION_J if domain.counter else None,
            unavailable=reason,
            remedy=None if reason is None else "see what nvidia-smi says of this GPU",
            power_limit_w=dict(self._gpu.power_limit_w) or None,
            driver=self._gpu.driver,
            mig=bool(self._gpu.mig_enabled),
            note="; ".join(notes) or None,
        )

    def _find_domains(self) -> list[_Domain]:
        device, power = self._gpu.uuid, self._power_quantities("gpu")
        module_power = self._power_quantities("module") if _works(self._is_superchip) else ()
        counter = _works(self._read_counter)
        if not module_power:
            return [_Domain(device, "gpu", power, counter)]
        module = _Domain(f"module:{device}", "module", module_power, counter)
        return [_Domain(device, "gpu", power), module]

    def _is_superchip(self) -> None:
        import pynvml

        if not pynvml.nvmlDeviceGetC2cModeInfoV(self._handle).isC2cEnabled:
            raise SensorError("not a superchip")

    def _power_quantities(self, scope: Scope) -> tuple[Quantity, ...]:
        quantities = tuple(
            quantity
            for quantity, number in _power_fields().items()
            if _works(partial(self._fields, [number], scope))
        )
        if "power_instant_w" in quantities or scope != "gpu":
            return quantities
        usage: tuple[Quantity, ...] = ("power_usage_w",) if _works(self._read_usage) else ()
        return usage + quantities

    def _power_reader(self, domain: _Domain) -> Callable[[], Sequence[Value]]:
        numbers = {
            quantity: number
            for quantity, number in _power_fields().items()
            if quantity in domain.power
        }
        reads_usage = "power_usage_w" in domain.power

        def read() -> list[Value]:
            values = list(self._read_usage()) if reads_usage else []
            if numbers:
                watts = self._fields(list(numbers.values()), domain.scope)
                values += [Value(*pair) for pair in zip(numbers, watts, strict=True)]
            return values

        return read

    def _read_counter(self) -> tuple[Value, ...]:
        import pynvml

        millijoules = ask_nvml(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return (Value("energy_counter_j", millijoules / 1000),)

    def _read_usage(self) -> tuple[Value, ...]:
        import pynvml

        milliwatts = ask_nvml(lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle))
        return (Value("power_usage_w", milliwatts / 1000),)

    def _fields(self, numbers: Sequence[int], scope: Scope) -> list[float]:
        """Return field values in W; NVML's own time stamps are wall clock and not used."""
        import pynvml

        module = scope == "module"
        nvml_scope = pynvml.NVML_POWER_SCOPE_MODULE if module else pynvml.NVML_POWER_SCOPE_GPU
        requests = [(number, nvml_scope) for number in numbers]
        answers = ask_nvml(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, requests))
        for answer in answers:
            if answer.nvmlReturn != pynvml.NVML_SUCCESS:
                raise SensorError(str(pynvml.NVMLError(answer.nvmlReturn)))
        return [answer.value.uiVal / 1000 for answer in answers]

    def _telemetry(self) -> list[Channel]:
        import pynvml

        card = self._handle
        calls: dict[Quantity, Callable[[], float]] = {
            "temperature_celsius": lambda: pynvml.nvmlDeviceGetTemperature(
                card, pynvml.NVML_TEMPERATURE_GPU
            ),
            "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_MEM),
            "memory_used_bytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(card).used,
            "utilization_gpu_percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(card).gpu,
            "utilization_memory_percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(card).memory,
            "throttle_reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card),
            "power_limit_w": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000,
        }

        def read(quantity: Quantity) -> tuple[Value, ...]:
            return (Value(quantity, float(ask_nvml(calls[quantity]))),)

        return [
            Channel(self._gpu.uuid, NAME, (quantity,), partial(read, quantity), _TELEMETRY)
            for quantity in calls
            if _works(partial(read, quantity))
        ]


def counts_module(gpu: Gpu) -> bool:
    """Return whether a card's counter is that of the whole superchip that it is a part of."""
    return any(domain.scope == "module" for domain in _Card(gpu)._domains)


def _power_fields() -> dict[Quantity, int]:
    import pynvml

    return {
        "power_instant_w": pynvml.NVML_FI_DEV_POWER_INSTANT,
        "power_average_w": pynvml.NVML_FI_DEV_POWER_AVERAGE,
    }


def _process_channel(gpu: Gpu, run: RunProcesses) -> Channel:
    def read() -> list[Value]:
        computing = [
            Value("stranger_pid", float(p.pid), p.name) for p in run.foreign_processes(gpu)
        ]
        drawing = [
            Value("graphics_pid", float(p.pid), p.name) for p in run.foreign_graphics_processes(gpu)
        ]
        return computing + drawing

    return Channel(gpu.uuid, NAME, ("stranger_pid", "graphics_pid"), read, _STRANGERS)


def _works(read: Callable[[], object]) -> bool:
    import pynvml

    try:
        read()
    except (SensorError, pynvml.NVMLError):
        return False
    return True
