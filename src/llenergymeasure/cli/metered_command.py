"""Running a person's command as if they had started it themselves.

Signals sent to us go on to the command's process group, and its exit code comes back as a shell
would give it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: its own; 128 + n after signal n; 126 or 127 if it could not be started.
        started_ns: CLOCK_MONOTONIC before it was started.
        ended_ns: CLOCK_MONOTONIC when its end was seen.
        error: why it could not be started.
    """

    exit_code: int
    started_ns: int
    ended_ns: int
    error: str | None = None


def run_command(command: Sequence[str]) -> Ended:
    """Run a command to its end.

    On a terminal it shares our process group, so that the terminal's keys reach it as ever;
    elsewhere it leads one of its own, which gets what signals we get.
    """
    with _Forwarding(own_group=not _on_terminal()) as forwarding:
        started_ns = time.monotonic_ns()
        try:
            process = subprocess.Popen(command, process_group=forwarding.process_group)
        except FileNotFoundError as error:
            return _not_started(EXIT_NOT_FOUND, started_ns, command, error)
        except OSError as error:
            return _not_started(EXIT_NOT_EXECUTABLE, started_ns, command, error)
        forwarding.to(process)
        status = process.wait()
        ended_ns = time.monotonic_ns()
    return Ended(status if status >= 0 else 128 - status, started_ns, ended_ns)


def _on_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:
        return False


def _not_started(code: int, started_ns: int, command: Sequence[str], error: OSError) -> Ended:
    return Ended(code, started_ns, time.monotonic_ns(), f"{command[0]}: {error.strerror}")


class _Forwarding:
    """Sends our signals on to a command, also those that come before it has begun."""

    def __init__(self, *, own_group: bool) -> None:
        self._own_group = own_group
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: dict[int, Any] = {}

    @property
    def process_group(self) -> int | None:
        """What ``subprocess`` gets: 0 for a group of the command's own."""
        return 0 if self._own_group else None

    def __enter__(self) -> "_Forwarding":
        self._before = {number: signal.signal(number, self._take) for number in _FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def to(self, process: "subprocess.Popen[bytes]") -> None:
        """Name the command, now that it has begun."""
        self._process = process
        while self._early:
            self._send(self._early.pop(0))

    def _take(self, number: int, _: object) -> None:
        from_keys = not self._own_group and number in (signal.SIGINT, signal.SIGQUIT)
        if from_keys:
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        send = os.killpg if self._own_group else os.kill
        try:
            send(self._process.pid, number)
        except ProcessLookupError:
            return
