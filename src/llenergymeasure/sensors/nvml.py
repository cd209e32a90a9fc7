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
from llenergymeasure.sensors.foreign_processes import RunProcesses, answered
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
        self, inventory: Inventory, selected: Sequence[Gpu], run: RunProcesses | None = None
    ) -> None:
        """Take the machine's GPUs and those of the run."""
        self._shut = bool(inventory.gpus)
        cards = [_Card(gpu) for gpu in selected]
        infos = [info for card in cards for info in card.describe()]
        if not inventory.gpus:
            why, remedy = inventory.unavailable, inventory.remedy
            infos = [
                SensorInfo(
                    "gpu", "NVIDIA GPU", NAME, "measured", "gpu", unavailable=why, remedy=remedy
                )
            ]
        channels = [channel for card in cards for channel in card.channels()]
        if run is not None:
            channels += [_watch(gpu, run) for gpu in inventory.gpus]
        super().__init__(infos, channels)

    def close(self) -> None:
        """Let NVML go."""
        import pynvml

        if self._shut:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


@dataclass(frozen=True)
class _Face:
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
        self._faces: list[_Face] = []
        self._reason: str | None = gpu.unavailable
        if self._reason is not None:
            return
        try:
            self._handle = handle(gpu)
        except pynvml.NVMLError as error:
            self._reason = str(error)
            return
        self._faces = self._find_faces()
        if not any(face.counter or face.power for face in self._faces):
            self._reason = "the card gives neither an energy counter nor power"

    def describe(self) -> list[SensorInfo]:
        if self._reason is not None:
            return [self._info(_Face(self._gpu.uuid, "gpu"), self._reason)]
        return [self._info(face, None) for face in self._faces]

    def channels(self) -> list[Channel]:
        if self._reason is not None:
            return []
        channels: list[Channel] = []
        for face in self._faces:
            if face.counter:
                quantity: Quantity = "energy_counter_j"
                channels.append(
                    Channel(face.device, NAME, (quantity,), self._read_counter, _COUNTER)
                )
            if face.power:
                channels.append(
                    Channel(face.device, NAME, face.power, self._power_reader(face), _POWER)
                )
        return channels + self._telemetry()

    def _info(self, face: _Face, reason: str | None) -> SensorInfo:
        counter: tuple[Quantity, ...] = ("energy_counter_j",) if face.counter else ()
        notes = []
        if face.power and not face.counter:
            notes.append(_NO_COUNTER if len(self._faces) == 1 else "the counter is the module's")
        if self._gpu.mig_enabled:
            notes.append("MIG is on: readings are those of the whole card")
        return SensorInfo(
            device=face.device,
            name=self._gpu.name,
            sensor=NAME,
            kind="measured",
            scope=face.scope,
            quantities=counter + face.power,
            counter_resolution_j=COUNTER_RESOLUTION_J if face.counter else None,
            unavailable=reason,
            remedy=None if reason is None else "see what nvidia-smi says of this GPU",
            power_limit_w=dict(self._gpu.power_limit_w) or None,
            driver=self._gpu.driver,
            mig=bool(self._gpu.mig_enabled),
            note="; ".join(notes) or None,
        )

    def _find_faces(self) -> list[_Face]:
        device, power = self._gpu.uuid, self._power_quantities("gpu")
        of_module = self._power_quantities("module") if _works(self._is_superchip) else ()
        counter = _works(self._read_counter)
        if not of_module:
            return [_Face(device, "gpu", power, counter)]
        module = _Face(f"module:{device}", "module", of_module, counter)
        return [_Face(device, "gpu", power), module]

    def _is_superchip(self) -> None:
        import pynvml

        if not pynvml.nvmlDeviceGetC2cModeInfoV(self._handle).isC2cEnabled:
            raise SensorError("not a superchip")

    def _power_quantities(self, scope: Scope) -> tuple[Quantity, ...]:
        found = tuple(
            quantity
            for quantity, number in _power_fields().items()
            if _works(partial(self._fields, [number], scope))
        )
        if "power_instant_w" in found or scope != "gpu":
            return found
        older: tuple[Quantity, ...] = ("power_usage_w",) if _works(self._read_usage) else ()
        return older + found

    def _power_reader(self, face: _Face) -> Callable[[], Sequence[Value]]:
        numbers = {
            quantity: number
            for quantity, number in _power_fields().items()
            if quantity in face.power
        }
        older = "power_usage_w" in face.power

        def read() -> list[Value]:
            values = list(self._read_usage()) if older else []
            if numbers:
                watts = self._fields(list(numbers.values()), face.scope)
                values += [Value(*pair) for pair in zip(numbers, watts, strict=True)]
            return values

        return read

    def _read_counter(self) -> tuple[Value, ...]:
        import pynvml

        millijoules = answered(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return (Value("energy_counter_j", millijoules / 1000),)

    def _read_usage(self) -> tuple[Value, ...]:
        import pynvml

        milliwatts = answered(lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle))
        return (Value("power_usage_w", milliwatts / 1000),)

    def _fields(self, numbers: Sequence[int], scope: Scope) -> list[float]:
        """Return field values in W; NVML's own time stamps are wall clock and not used."""
        import pynvml

        module = scope == "module"
        nvml_scope = pynvml.NVML_POWER_SCOPE_MODULE if module else pynvml.NVML_POWER_SCOPE_GPU
        asked = [(number, nvml_scope) for number in numbers]
        answers = answered(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, asked))
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
            return (Value(quantity, float(answered(calls[quantity]))),)

        return [
            Channel(self._gpu.uuid, NAME, (quantity,), partial(read, quantity), _TELEMETRY)
            for quantity in calls
            if _works(partial(read, quantity))
        ]


def counts_module(gpu: Gpu) -> bool:
    """Return whether a card's counter is that of the whole superchip that it is a part of."""
    return any(face.scope == "module" for face in _Card(gpu)._faces)


def _power_fields() -> dict[Quantity, int]:
    import pynvml

    return {
        "power_instant_w": pynvml.NVML_FI_DEV_POWER_INSTANT,
        "power_average_w": pynvml.NVML_FI_DEV_POWER_AVERAGE,
    }


def _watch(gpu: Gpu, run: RunProcesses) -> Channel:
    def read() -> list[Value]:
        return [
            Value("stranger_pid", float(stranger.pid), stranger.name)
            for stranger in run.strangers(gpu)
        ] + [
            Value("graphics_pid", float(drawing.pid), drawing.name) for drawing in run.drawing(gpu)
        ]

    return Channel(gpu.uuid, NAME, ("stranger_pid", "graphics_pid"), read, _STRANGERS)


def _works(read: Callable[[], object]) -> bool:
    import pynvml

    try:
        read()
    except (SensorError, pynvml.NVMLError):
        return False
    return True
