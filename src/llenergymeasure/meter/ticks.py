"""The recorder's latest counter ticks, in memory shared with the process at work.

A window cut at ticks of the energy counter has no end-point error, so the engine's process waits
for one before it opens or closes a window. It must not pay for that with reads of the sensor:
the recorder writes each tick to a small mapped file, and this module reads it (standard library
only, some microseconds a look). Every record carries a checksum, so a torn read is seen and
made again, whatever the processor's memory order.
"""

import mmap
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_MAGIC = b"llemtick"
_HEAD = struct.Struct("<8sII")
_NAME = struct.Struct("<96s")
_BEAT = struct.Struct("<q")
_TICK = struct.Struct("<Qqq")
_SUM = struct.Struct("<I")
_BEAT_SIZE = _BEAT.size + _SUM.size
_SLOT_SIZE = _NAME.size + _TICK.size + _SUM.size
_VERSION = 1
_TRIES = 1000
_NEAR_NS = 3_000_000
_LOOK_S = 0.0005


@dataclass(frozen=True)
class Tick:
    """One renewal of an energy counter.

    Attributes:
        number: counts the ticks the recorder saw, from 1.
        t_ns: when it was seen, CLOCK_MONOTONIC; the renewal was at most about 1 ms before.
        period_ns: the counter's period; 0 until it is learned.
    """

    number: int
    t_ns: int
    period_ns: int


class TickBoard:
    """The writing side, held by the recorder."""

    def __init__(self, path: Path, devices: list[str]) -> None:
        """Make the file, with a place for each device that has a counter."""
        self._places = {device: index for index, device in enumerate(devices)}
        self._numbers = dict.fromkeys(devices, 0)
        content = bytearray(_HEAD.size + _BEAT_SIZE + len(devices) * _SLOT_SIZE)
        _HEAD.pack_into(content, 0, _MAGIC, _VERSION, len(devices))
        _seal(content, _HEAD.size, _BEAT.pack(0))
        for device, index in self._places.items():
            at = _slot(index)
            _NAME.pack_into(content, at, device.encode()[: _NAME.size])
            _seal(content, at + _NAME.size, _TICK.pack(0, 0, 0))
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_bytes(content)
        with temporary.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        temporary.replace(path)

    def tick(self, device: str, t_ns: int, period_ns: int | None) -> None:
        """Publish a tick."""
        self._numbers[device] += 1
        record = _TICK.pack(self._numbers[device], t_ns, period_ns or 0)
        _seal(self._memory, _slot(self._places[device]) + _NAME.size, record)

    def beat(self, t_ns: int) -> None:
        """Publish that the recorder lives."""
        _seal(self._memory, _HEAD.size, _BEAT.pack(t_ns))

    def close(self) -> None:
        """Let go of the memory; the file stays."""
        self._memory.close()


class TickClock:
    """The reading side, for whoever wants to act at a tick.

    A recorder without a counter leaves no ticks: then every wait ends at once with null.
    """

    def __init__(self, path: Path) -> None:
        """Open the recorder's file.

        Raises:
            FileNotFoundError: the recorder has not made it.
            ValueError: it is not one of this version.
        """
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, count = _HEAD.unpack_from(self._memory, 0)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"{path}: not a tick file of version {_VERSION}")
        names = [_NAME.unpack_from(self._memory, _slot(index))[0] for index in range(count)]
        self._places = {name.rstrip(b"\0").decode(): at for at, name in enumerate(names)}

    @property
    def devices(self) -> list[str]:
        """Devices that have a counter."""
        return list(self._places)

    def last(self, device: str | None = None) -> Tick | None:
        """Return the latest tick; null before the first, or if there is no counter.

        Args:
            device: whose counter; the first one's if not given.
        """
        if device is None:
            device = next(iter(self._places), None)
        place = None if device is None else self._places.get(device)
        if place is None:
            return None
        record = self._read(_slot(place) + _NAME.size, _TICK.size)
        tick = None if record is None else Tick(*_TICK.unpack(record))
        return tick if tick is not None and tick.number > 0 else None

    def period_s(self, device: str | None = None) -> float:
        """Return the counter's period; 0 while it is not known."""
        tick = self.last(device)
        return 0.0 if tick is None else tick.period_ns / 1e9

    def heartbeat_ns(self) -> int | None:
        """Return when the recorder last said that it lives; null before it did."""
        record = self._read(_HEAD.size, _BEAT.size)
        t_ns = 0 if record is None else int(_BEAT.unpack(record)[0])
        return t_ns or None

    def wait_next(self, timeout_s: float, device: str | None = None) -> int | None:
        """Wait for the next tick; return its time, or null if none came in time."""
        if not self._places:
            return None
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        seen = self.last(device)
        number = 0 if seen is None else seen.number
        while True:
            tick = self.last(device)
            if tick is not None and tick.number > number:
                return tick.t_ns
            now_ns = time.monotonic_ns()
            if now_ns >= deadline_ns:
                return None
            time.sleep(min(_pause_s(tick, now_ns), (deadline_ns - now_ns) / 1e9))

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()

    def __enter__(self) -> "TickClock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, at: int, size: int) -> bytes | None:
        for _ in range(_TRIES):
            record = self._memory[at : at + size + _SUM.size]
            if zlib.crc32(record[:size]) == _SUM.unpack_from(record, size)[0]:
                return record[:size]
        return None


def _pause_s(tick: Tick | None, now_ns: int) -> float:
    """Sleep through most of the period, then look often."""
    if tick is None or tick.period_ns == 0:
        return _LOOK_S
    left_ns = tick.t_ns + tick.period_ns - _NEAR_NS - now_ns
    return max(_LOOK_S, left_ns / 1e9)


def _slot(index: int) -> int:
    return _HEAD.size + _BEAT_SIZE + index * _SLOT_SIZE


def _seal(memory: "mmap.mmap | bytearray", at: int, record: bytes) -> None:
    memory[at : at + len(record) + _SUM.size] = record + _SUM.pack(zlib.crc32(record))
