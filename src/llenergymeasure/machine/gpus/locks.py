"""One run a GPU: a lock for each card, held while a run uses it (standard library only).

The kernel keeps the locks (flock(2)): they go with the processes that hold them, also after
SIGKILL, and hold between users and containers that share the folder. What is written in a lock
file is for people, and means nothing once nobody holds the lock.
"""

import errno
import fcntl
import getpass
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llenergymeasure.errors import LlemError
from llenergymeasure.machine.shared_folder import shared_folder

POLL_S = 0.25


class GpuBusyError(LlemError):
    """Another run holds a GPU, and did not let go of it in the time given."""


class GpuLocks:
    """The locks of a run's GPUs; a context manager, or ``release`` when done."""

    def __init__(self, uuids: Sequence[str], handles: Sequence[int]) -> None:
        """Take held locks; use :func:`lock_gpus`."""
        self.uuids = tuple(uuids)
        self._handles = list(handles)

    @property
    def handles(self) -> tuple[int, ...]:
        """The open files: a process that inherits them holds the locks too, until both let go."""
        return tuple(self._handles)

    def release(self) -> None:
        """Let go, as far as this process is concerned."""
        while self._handles:
            os.close(self._handles.pop())

    def __enter__(self) -> "GpuLocks":
        """Return the locks."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of them."""
        self.release()


def lock_gpus(
    uuids: Sequence[str],
    owner: str,
    *,
    wait_s: float,
    folder: Path | None = None,
    interrupted: Callable[[float], bool] | None = None,
) -> GpuLocks | None:
    """Hold the lock of every card named, or none of them.

    They are taken in the order of their names, so that two runs never wait for each other.

    Args:
        uuids: the cards; none gives locks that hold nothing.
        owner: who asks, in words, for whoever comes second.
        wait_s: longest wait for all of them together; 0 tries once.
        folder: where the locks are; the machine's shared folder if not given.
        interrupted: rests for so many seconds and returns whether to give up.

    Returns:
        The locks; null if ``interrupted`` said so.

    Raises:
        GpuBusyError: another run holds one of them.
    """
    place = shared_folder().path if folder is None else folder
    rest = _sleep if interrupted is None else interrupted
    deadline = time.monotonic() + wait_s
    locks = GpuLocks((), ())
    try:
        for uuid in sorted(set(uuids)):
            handle = _lock_one(place / _file_name(uuid), uuid, owner, deadline, wait_s, rest)
            if handle is None:
                locks.release()
                return None
            locks = GpuLocks((*locks.uuids, uuid), (*locks.handles, handle))
    except BaseException:
        locks.release()
        raise
    return locks


def _lock_one(
    path: Path,
    uuid: str,
    owner: str,
    deadline: float,
    wait_s: float,
    rest: Callable[[float], bool],
) -> int | None:
    handle = _open(path)
    try:
        if _wait(handle, uuid, deadline, wait_s, rest):
            _write(handle, f"{owner} (pid {os.getpid()}, user {_user()})")
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _wait(
    handle: int, uuid: str, deadline: float, wait_s: float, rest: Callable[[float], bool]
) -> bool:
    """Return whether the lock is ours; false if waiting was interrupted."""
    while not _taken(handle):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            waited = f" after {wait_s:g} s of waiting" if wait_s else ""
            raise GpuBusyError(
                f"GPU {uuid} is in use{waited} by {_written(handle)}; wait for it to end, or "
                "choose another GPU (CUDA_VISIBLE_DEVICES or gpu.devices)"
            )
        if rest(min(POLL_S, left_s)):
            return False
    return True


def _open(path: Path) -> int:
    """Open a lock file that any user may have made.

    Without O_CREAT first: in a sticky folder the kernel refuses O_CREAT on another user's file
    (fs.protected_regular in proc_sys_fs(5)).
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags)
        except PermissionError:
            # Made under a strict umask: a lock needs no more than to read (flock(2)).
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        os.fchmod(handle, 0o666)
        return handle


def _taken(handle: int) -> bool:
    """Try once; whether the lock is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(handle: int, text: str) -> None:
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{text}\n".encode(), 0)
    except OSError as error:
        # Read-only, or a full disk: the lock holds all the same.
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSPC, errno.EDQUOT):
            raise


def _written(handle: int) -> str:
    text = os.pread(handle, 400, 0).decode(errors="replace").strip()
    return "".join(sign for sign in text if sign.isprintable()) or "another run"


def _file_name(uuid: str) -> str:
    return f"gpu-{re.sub(r'[^A-Za-z0-9.-]', '_', uuid)}.lock"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
