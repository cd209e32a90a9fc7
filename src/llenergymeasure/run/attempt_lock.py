"""The right to write into a run's folder (standard library only)."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llenergymeasure.errors import LlemError
from llenergymeasure.files import make_folder, open_file, try_lock
from llenergymeasure.results.layout import RunFolder

LOCK_POLL_S = 0.25
LOCK_WAIT_S = 900.0
"""Longer than computing a result may take, which an earlier attempt is let do."""


class EarlierAttemptError(LlemError):
    """An earlier attempt at the same run did not end in time."""


class AttemptLock:
    """The right to write into a run's folder; it goes with the process that holds it.

    A workflow that is killed and called again at once finds its earlier run still ending: putting
    limits back, or computing a result. Both would write into one folder.
    """

    def __init__(self, handle: int, *, waited: bool) -> None:
        """Take an open, locked file; use ``take``."""
        self._handle = handle
        self.waited = waited
        """Whether another attempt was running when this one asked."""

    @classmethod
    def take(
        cls, folder: RunFolder, interrupted: Callable[[float], bool], wait_s: float = LOCK_WAIT_S
    ) -> "AttemptLock | None":
        """Wait for an earlier attempt to end; return None if ``interrupted`` said so first.

        The lock is on the list of attempts, which every attempt writes to and nobody removes.

        Raises:
            EarlierAttemptError: it did not end in time.
        """
        make_folder(folder.path)
        handle = open_file(folder.attempts, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + wait_s
        waited = False
        while not try_lock(handle):
            waited = True
            if interrupted(LOCK_POLL_S):
                os.close(handle)
                return None
            if time.monotonic() > deadline:
                os.close(handle)
                raise EarlierAttemptError(
                    f"an earlier attempt at {folder.path} still runs after {wait_s:g} s"
                )
        return cls(handle, waited=waited)


@contextmanager
def unattended(folder: RunFolder) -> Iterator[bool]:
    """Hold a run's folder while no attempt is running in it; yield whether it is held."""
    try:
        handle = open_file(folder.attempts, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:  # no folder
        yield False
        return
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)
