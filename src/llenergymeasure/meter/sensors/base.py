"""What every sensor is to the recorder: who it is, and channels that can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llenergymeasure.errors import MeterError

if TYPE_CHECKING:  # An engine's process has no need of pyarrow.
    from llenergymeasure.meter.samples import Quantity, SensorInfo


class SensorError(MeterError):
    """A read failed; the message is the reason, for a row `unavailable`."""


class Value(NamedTuple):
    """One thing a read said.

    Attributes:
        quantity: what it is.
        value: in the unit of the quantity's name; null if the sensor had nothing to say.
        note: what else is to be known about it.
        span_ns: how far back the value reaches: the age of a counter at most, or the stretch a
            mean is over; null where the recorder finds out by following the value.
    """

    quantity: "Quantity"
    value: float | None
    note: str | None = None
    span_ns: int | None = None


@dataclass(frozen=True)
class Follow:
    """Read so that every renewal of the first value is placed to ``fine_s``.

    Attributes:
        fine_s: how finely.
        repeat_s: write an unchanged value again after this long; null: never.
        longest_s: never leave the value unread for longer, whatever its pace seems to be: where a
            renewal may bring the same value, a load's own steps look like a slow pace.
    """

    fine_s: float
    repeat_s: float | None = None
    longest_s: float | None = None


@dataclass(frozen=True)
class Every:
    """Read each ``period_s``.

    Attributes:
        period_s: how often.
        slow: the call may take long; it is made apart from the fast ones.
    """

    period_s: float
    slow: bool = True


@dataclass(frozen=True)
class Channel:
    """What one call reads from one device.

    Attributes:
        device: as in the samples.
        sensor: as in the samples.
        quantities: what it may give.
        read: the call; raises SensorError.
        pace: when to make it.
        ticks: whether its renewals are what windows are cut at.
    """

    device: str
    sensor: str
    quantities: tuple["Quantity", ...]
    read: Callable[[], Sequence[Value]]
    pace: Follow | Every
    ticks: bool = False


class Sensor(Protocol):
    """A source of energy or power readings."""

    def describe(self) -> list["SensorInfo"]:
        """Return what it can say about each device, and what it cannot and why."""
        ...

    def channels(self) -> list[Channel]:
        """Return what there is to read; nothing for what is unavailable."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...
