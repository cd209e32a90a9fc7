"""What every sensor is to the recorder: what it can say of which device, and how it is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from llenergymeasure.errors import MeterError
from llenergymeasure.units import Kind, Scope

Quantity = Literal[
    "energy_counter_j",
    "power_instant_w",
    "power_average_w",
    "power_usage_w",
    "power_model_w",
    "temperature_celsius",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "memory_used_bytes",
    "utilization_gpu_percent",
    "utilization_memory_percent",
    "throttle_reasons",
    "power_limit_w",
    "stranger_pid",
    "graphics_pid",
    "cpu_total_s",
    "cpu_busy_s",
    "cpu_steal_s",
    "cpu_own_s",
    "machine_total_s",
    "machine_busy_s",
    "cpu_pressure_s",
    "quota_periods",
    "quota_throttled",
    "stopped_pid",
    "heartbeat",
    "recorder_cpu_s",
    "read_s",
    "unavailable",
]
"""What a row's value is.

- ``energy_counter_j``: a counter, written when its value changes, and once at start and at stop.
- ``power_instant_w``, ``power_average_w``: NVML's field values; ``power_usage_w``: its older
  call, used where the fields are missing. A row when the value changes, with ``t_before_ns``
  as for a counter, and one each 0.1 s where it does not.
- ``power_model_w``: the guess of a model, the mean over (``t_before_ns``, ``t_ns``].
- ``throttle_reasons``: NVML's bit mask. ``stranger_pid``: a compute process that is not of the
  run, its name in the note; ``graphics_pid``: one that draws on the card.
- ``cpu_*``, ``machine_*``, ``quota_*``, ``stopped_pid``: see :mod:`.host_cpu`.
- ``heartbeat``: the recorder lives; the last one, noted ``stopped``, says that it ended well. Its
  value is by how much CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, in s: it rises by a suspension.
- ``recorder_cpu_s``: CPU time the recorder has used so far; ``read_s``: the mean time an energy
  or power read of that sensor and device took since the row before.
- ``unavailable``: that sensor does not answer (any more) for that device; the note is
  ``quantity, quantity: reason``. Repeated each second until it answers again.
"""
ENERGY_QUANTITIES: frozenset[Quantity] = frozenset(
    {
        "energy_counter_j",
        "power_instant_w",
        "power_average_w",
        "power_usage_w",
        "power_model_w",
    }
)
"""Those that energy is computed from; the others explain it."""


@dataclass(frozen=True)
class SensorInfo:
    """One sensor's view of one device: what it can say there, or why it cannot.

    Attributes:
        device: GPU UUID, ``cpu:package-0``, ``dram:package-0``, ``host``, …
        name: the device in words.
        sensor: which sensor reads it.
        kind: whether the sensor sees the energy or a model guesses it.
        scope: what the energy covers.
        quantities: the energy and power quantities it gives, best first.
        update_period_s: how often the value changes, where that is known beforehand.
        counter_resolution_j: the counter's unit, if there is a counter.
        unavailable: why nothing can be read; None if it can.
        remedy: what a person can do about it.
        power_limit_w: ``enforced``, ``min``, ``max`` and ``default`` limits, where known.
        driver: the driver's version, where there is one.
        mig: whether the card is cut into slices (MIG), whose energy is only known together.
        note: what else a reader of the numbers must know, such as the model behind an estimate.
    """

    device: str
    name: str
    sensor: str
    kind: Kind
    scope: Scope
    quantities: tuple[Quantity, ...] = ()
    update_period_s: float | None = None
    counter_resolution_j: float | None = None
    unavailable: str | None = None
    remedy: str | None = None
    power_limit_w: Mapping[str, float] | None = None
    driver: str | None = None
    mig: bool = False
    note: str | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SensorInfo":
        """Build from the parsed JSON; keys of later versions are passed over."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        values["quantities"] = tuple(values.get("quantities", ()))
        return cls(**values)


class SensorError(MeterError):
    """A read failed; the message is the reason, for a row `unavailable`."""


class Value(NamedTuple):
    """One thing a read said.

    Attributes:
        quantity: what it is.
        value: in the unit of the quantity's name; None if the sensor had nothing to say.
        note: what else is to be known about it.
        span_ns: how far back the value reaches: the age of a counter at most, or the stretch a
            mean is over; None where the recorder finds out by following the value.
        at_ns: when it was so, CLOCK_MONOTONIC, where the source has a clock of its own.
    """

    quantity: Quantity
    value: float | None
    note: str | None = None
    span_ns: int | None = None
    at_ns: int | None = None


Speed = Literal["fast", "slow", "remote"]
"""How long a call may take: less than a counter's step, longer, or seconds. Calls of one speed are
made apart from the others."""


@dataclass(frozen=True)
class Follow:
    """Read so that every renewal of each value is placed to ``fine_s``.

    Attributes:
        fine_s: how finely.
        repeat_s: write an unchanged value again after this long; None: never.
        steady: renewals that all change the value come at an even pace, and between them nothing
            needs to be read. Not so where a renewal may bring the same value: there a load's own
            steps would look like a slow pace.
        speed: how long the call may take.
    """

    fine_s: float
    repeat_s: float | None = None
    steady: bool = False
    speed: Speed = "fast"


@dataclass(frozen=True)
class Every:
    """Read each ``period_s``.

    Attributes:
        period_s: how often.
        speed: how long the call may take.
    """

    period_s: float
    speed: Speed = "slow"


@dataclass(frozen=True)
class Channel:
    """What one call reads from one device.

    Attributes:
        device: as in the samples.
        sensor: as in the samples.
        quantities: what it may give.
        read: the call; raises SensorError.
        pace: when to make it.
    """

    device: str
    sensor: str
    quantities: tuple[Quantity, ...]
    read: Callable[[], Sequence[Value]]
    pace: Follow | Every


class Sensor:
    """A source of energy or power readings: opening it finds out all that it can say."""

    def __init__(self, infos: Sequence[SensorInfo], channels: Sequence[Channel] = ()) -> None:
        """Take what is to be said of each device, and what there is to read."""
        self._infos, self._channels = list(infos), list(channels)

    def describe(self) -> list[SensorInfo]:
        """Return what it can say about each device, and what it cannot and why."""
        return list(self._infos)

    def channels(self) -> list[Channel]:
        """Return what there is to read; nothing for what is unavailable."""
        return list(self._channels)

    def close(self) -> None:
        """Let go of what it holds."""
