"""Which sensors are used here: those asked for by name, or all that add something."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.machine.gpus.inventory import (
    Inventory,
    Selection,
    discover,
    select_gpus,
    visible_gpus,
)
from llenergymeasure.sensors import node as node_sensor
from llenergymeasure.sensors import zeus as zeus_sensor
from llenergymeasure.sensors.base import Channel, Sensor, SensorInfo
from llenergymeasure.sensors.codecarbon import CodecarbonSensor
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.node import NodeSensor
from llenergymeasure.sensors.nvml import NvmlSensor
from llenergymeasure.sensors.rapl import RaplSensor
from llenergymeasure.sensors.zeus import ZeusSensor
from llenergymeasure.units import SensorName

AUTO = "auto"
NO_DEVICE = "none"
NAMES: tuple[SensorName, ...] = get_args(SensorName)


@dataclass
class OpenSensors:
    """The sensors in use, in order of preference.

    Attributes:
        sensors: each may have several devices, or only reasons.
        selection: the GPUs whose energy counts.
    """

    sensors: list[Sensor]
    selection: Selection

    @property
    def infos(self) -> list[SensorInfo]:
        """Return what all of them can say, the unavailable too."""
        return [info for sensor in self.sensors for info in sensor.describe()]

    def channels(self) -> list[Channel]:
        """Return everything there is to read."""
        return [channel for sensor in self.sensors for channel in sensor.channels()]

    def close(self) -> None:
        """Close all."""
        for sensor in self.sensors:
            sensor.close()


def open_sensors(
    sensor_names: str, devices: str | None = None, run: RunProcesses | None = None
) -> OpenSensors:
    """Open sensors; a machine without any gives only reasons.

    ``auto`` takes NVML and RAPL, the node's meter if one is named, Zeus where the machine has what
    only Zeus reads, and CodeCarbon where no CPU counter can be read.

    Args:
        sensor_names: ``auto``, or names joined by commas; ``auto,zeus`` adds to the automatic.
        devices: GPUs by UUID or NVML index joined by commas, or ``none``; those that a CUDA
            process would see if not given.
        run: what knows the run's processes, to find strangers on the GPUs.

    Raises:
        ConfigurationError: a name is not that of a sensor or of a GPU.
    """
    names = _names(sensor_names)
    auto = AUTO in names
    inventory = discover()
    selection = _select_gpus(devices, inventory)
    sensors: list[Sensor] = []
    if auto or "nvml" in names:
        sensors.append(NvmlSensor(inventory, selection.gpus, run))
    if auto or "rapl" in names:
        sensors.append(RaplSensor())
    if "zeus" in names or (auto and zeus_sensor.worth_trying()):
        nvidia = selection.gpus if "zeus" in names else ()
        sensors.append(ZeusSensor(nvidia, cpus=not _sees_cpu(sensors)))
    if "node" in names or (auto and os.environ.get(node_sensor.VARIABLE)):
        sensors.append(NodeSensor())
    if "codecarbon" in names or (auto and not _sees_cpu(sensors)):
        sensors.append(CodecarbonSensor())
    return OpenSensors(sensors, selection)


def _names(joined: str) -> set[str]:
    names = {name.strip() for name in joined.split(",") if name.strip()}
    unknown = sorted(names - {AUTO, *NAMES})
    if unknown or not names:
        raise ConfigurationError(
            Problem(
                f"sensors are {AUTO}, {', '.join(NAMES)}",
                key="sensors",
                found=", ".join(unknown) or "nothing",
            )
        )
    return names


def _select_gpus(devices: str | None, inventory: Inventory) -> Selection:
    if devices is None or devices == "all":
        return visible_gpus(inventory, None if devices is None else {})
    if devices == NO_DEVICE:
        return Selection((), "--devices")
    return select_gpus([name.strip() for name in devices.split(",") if name.strip()], inventory)


def _sees_cpu(sensors: Sequence[Sensor]) -> bool:
    return any(
        info.scope == "cpu" and info.unavailable is None
        for sensor in sensors
        for info in sensor.describe()
    )
