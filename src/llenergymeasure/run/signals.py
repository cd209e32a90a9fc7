"""Signals as something to poll for, so that no handler runs amid other work."""

import os
import select
import signal
from typing import Any


class SignalPipe:
    """Catches SIGINT, SIGTERM and SIGHUP from when it is made."""

    def __init__(self) -> None:
        self.handle, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _ignore)

    def wait(self, timeout_s: float) -> bool:
        """Return whether a signal has come within ``timeout_s``."""
        return bool(select.select([self.handle], [], [], timeout_s)[0])

    def take(self) -> int:
        """Return the number of the signal that came first."""
        return os.read(self.handle, 1)[0]


def _ignore(_number: int, _frame: Any) -> None:
    """Do nothing: the wake-up pipe carries the signal."""
