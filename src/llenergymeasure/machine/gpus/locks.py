"""One run a GPU: a lock for each card, held while a run uses it (standard library only).

The kernel keeps the locks (flock(2)): they go with the processes that hold them, also after
SIGKILL, and hold between users and containers that share the folder. What is written in a lock
file is for people, and means nothing once nobody holds the lock.
"""

import getpass
import os
import random
import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llenergymeasure.errors import LlemError, ResultsError
from llenergymeasure.files import lock_owner, open_file, sign_lock, try_lock
from llenergymeasure.machine.folders import shared_folder

POLL_S = 0.25


class GpuBusyError(LlemError):
    """Other runs hold GPUs, and did not let go of them in the time given."""


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class GpuLocks:
    """The locks of a run's GPUs; a context manager, or ``release`` when done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waited = False
        """Whether other runs held them when they were asked for."""
        self._handles: dict[str, int] = {}

    @property
    def uuids(self) -> tuple[str, ...]:
        """The cards, in the order in which they were asked for."""
        return tuple(self._handles)

    @property
    def handles(self) -> tuple[int, ...]:
        """The open files: a process that inherits them holds the locks too, until both let go."""
        return tuple(self._handles.values())

    def release(self) -> None:
        """Let go, as far as this process is concerned."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __enter__(self) -> "GpuLocks":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, uuids: Sequence[str], count: int, owner: str) -> dict[str, str]:
        """Lock the first ``count`` free cards, or fewer; return the busy ones and who has them."""
        busy = {}
        try:
            for uuid in uuids:
                if len(self._handles) == count:
                    break
                path = self.folder / f"gpu-{file_safe(uuid)}.lock"
                handle = _open_lock(path)
                if handle is None:
                    busy[uuid] = f"someone who left {path}, which is no lock; remove it"
                    continue
                self._handles[uuid] = handle
                if not try_lock(handle):
                    busy[uuid] = lock_owner(handle) or "another run"
                    os.close(self._handles.pop(uuid))
        except BaseException:
            self.release()
            raise
        for handle in self.handles:
            sign_lock(handle, f"{owner} (pid {os.getpid()}, user {_user()})")
        return busy


def lock_gpus(
    uuids: Sequence[str],
    owner: str,
    *,
    count: int | None = None,
    wait_s: float,
    folder: Path | None = None,
    interrupted: Callable[[float], bool] = _sleep,
) -> GpuLocks | None:
    """Hold the locks of ``count`` of the cards, the first that are free; while waiting, of none.

    Args:
        uuids: the cards; none gives locks that hold nothing.
        owner: who asks, in words, for whoever comes second.
        count: how many of them; all if not given.
        wait_s: longest wait for all of them together; 0 tries once.
        folder: where the locks are; the machine's shared folder if not given.
        interrupted: rests for so many seconds and returns whether to give up.

    Returns:
        The locks; None if ``interrupted`` said so.

    Raises:
        GpuBusyError: other runs hold too many of them.
    """
    locks = GpuLocks(shared_folder().path if folder is None else folder)
    needed = len(uuids) if count is None else count
    deadline = time.monotonic() + wait_s
    while True:
        busy = locks.take(uuids, needed, owner)
        if len(locks.uuids) == needed:
            return locks
        locks.release()
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise GpuBusyError(_busy_message(busy, needed, len(uuids), wait_s))
        locks.waited = True
        # At random, so that two that wait for several cards do not keep taking each other's.
        if interrupted(min(POLL_S * random.uniform(0.5, 1.5), remaining_s)):
            return None


def _busy_message(busy: dict[str, str], needed: int, usable: int, wait_s: float) -> str:
    waited = f" after {wait_s:g} s of waiting" if wait_s else ""
    holders = "; ".join(f"GPU {uuid} by {holder}" for uuid, holder in busy.items())
    return (
        f"{needed} of the {usable} GPUs that may be used {'is' if needed == 1 else 'are'} not "
        f"free{waited}. In use: {holders}; wait for it to end, or choose another GPU "
        "(CUDA_VISIBLE_DEVICES or gpu.devices)"
    )


def _open_lock(path: Path) -> int | None:
    """Open a lock file that any user may have made; None if what lies there is none.

    Without O_CREAT first: in a sticky folder the kernel refuses O_CREAT on another user's file
    (fs.protected_regular in proc_sys_fs(5)).
    """
    while True:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                return None
        try:
            return open_file(path, os.O_RDWR)
        except PermissionError:
            # Made under a strict umask: a lock needs no more than to read (flock(2)).
            with suppress(PermissionError, ResultsError):
                return open_file(path, os.O_RDONLY)
            return None
        except ResultsError:  # a hard link: what it says would stand elsewhere too
            return None
        except FileNotFoundError:
            pass
        try:
            handle = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        os.fchmod(handle, 0o666)
        return handle


def file_safe(uuid: str) -> str:
    """Return a card's name as it is in file names; a UUID is one already."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", uuid)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())
