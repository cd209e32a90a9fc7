"""What a card's limits were before a run changed them, on disk before anything is changed.

A guard puts limits back. If it is killed itself its record is left, and the next run's start
mends what the record tells. Whoever works on a record holds its lock (flock(2)), so that a
record without a holder is one whose guard is dead, also when that was in another container.
"""

import fcntl
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class LimitRecord:
    """One card's limits before and as they were set.

    Attributes:
        uuid: the card.
        power_limit_before_w: null if the power limit is not changed.
        power_limit_set_w: null likewise.
        sm_clock_set_mhz: the clock that is locked; null if it is not changed.
        boot_id: the kernel's id of this boot; limits do not outlive one.
    """

    uuid: str
    power_limit_before_w: float | None
    power_limit_set_w: float | None
    sm_clock_set_mhz: int | None
    boot_id: str


def boot_id() -> str:
    """Return the kernel's id of this boot (random(4))."""
    return _BOOT_ID.read_text().strip()


class RecordFile:
    """A record's file, locked as long as this object is open."""

    def __init__(self, path: Path, handle: int) -> None:
        """Take a locked file; use :func:`claim` or :func:`left`."""
        self._path = path
        self._handle = handle

    def write(self, record: LimitRecord) -> None:
        """Write ``record`` and wait until it is on the disk."""
        content = json.dumps({"format": _FORMAT, **asdict(record)}).encode()
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, content, 0)
        os.fsync(self._handle)

    def read(self) -> LimitRecord | None:
        """Return the record; null if it is not whole: then nothing had been set yet."""
        try:
            content: dict[str, Any] = json.loads(os.pread(self._handle, 65536, 0))
            if content.pop("format") != _FORMAT:
                return None
            return LimitRecord(**content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def remove(self) -> None:
        """Delete the record: all is as it was."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave the record for a later repair."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def claim(folder: Path, uuid: str) -> RecordFile | None:
    """Return a card's record file, locked; null if a living guard of this user has it."""
    name = re.sub(r"[^A-Za-z0-9.-]", "_", uuid)
    return _locked(folder / f"{_prefix()}{name}.json", os.O_CREAT)


def left(folder: Path) -> list[RecordFile]:
    """Return the records that dead guards of this user left, locked.

    Other users' are passed over: what stands in them could make root set anything.
    """
    found = (_locked(path, 0) for path in left_paths(folder))
    return [record for record in found if record is not None]


def left_paths(folder: Path) -> list[Path]:
    """Return this user's record files, those of living guards included."""
    try:
        return sorted(folder.glob(f"{_prefix()}*.json"))
    except OSError:
        return []


def _prefix() -> str:
    return f"limits-{os.geteuid()}-"


def _locked(path: Path, flags: int) -> RecordFile | None:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        if not _is_own(handle):
            os.close(handle)
            raise PermissionError(f"{path} belongs to somebody else; delete it")
        if _is_at(path, handle):
            return RecordFile(path, handle)
        os.close(handle)
        if not flags:
            return None


def _is_own(handle: int) -> bool:
    found = os.fstat(handle)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _is_at(path: Path, handle: int) -> bool:
    """Whether the file was not deleted between opening and locking it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
