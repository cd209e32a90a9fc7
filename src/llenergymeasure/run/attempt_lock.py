"""One attempt at a run at a time (standard library only).

A workflow that is killed and started anew at once finds its earlier run still ending: the run has
fifteen seconds to put limits back and to write its outcome, and a result that was being computed
is finished. Both would write into one folder.
"""

import fcntl
import os
import time
from collections.abc import Callable

from llenergymeasure.errors import LlemError
from llenergymeasure.results.layout import RunFolder

POLL_S = 0.25
WAIT_S = 900.0
"""Longer than computing a result may take, which an earlier attempt is let do."""


class StillAtWorkError(LlemError):
    """An earlier attempt at the same run did not end in time."""


class AttemptLock:
    """The right to write into a run's folder; it goes with the process that holds it."""

    def __init__(self, handle: int, *, waited: bool) -> None:
        """Take an open, locked file; use ``take``."""
        self._handle = handle
        self.waited = waited
        """Whether another attempt was at work when this one asked."""

    @classmethod
    def take(
        cls, folder: RunFolder, interrupted: Callable[[float], bool], wait_s: float = WAIT_S
    ) -> "AttemptLock | None":
        """Wait for an earlier attempt to end; null if ``interrupted`` said so first.

        The lock is on the list of attempts, which every attempt writes to and nobody removes.

        Raises:
            StillAtWorkError: it did not end in time.
        """
        folder.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.attempts, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + wait_s
        waited = False
        while not _taken(handle):
            waited = True
            if interrupted(POLL_S):
                os.close(handle)
                return None
            if time.monotonic() > deadline:
                os.close(handle)
                raise StillAtWorkError(
                    f"an earlier attempt at {folder.path} is still at work after {wait_s:g} s"
                )
        return cls(handle, waited=waited)

    def release(self) -> None:
        """Let the next attempt begin."""
        os.close(self._handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
