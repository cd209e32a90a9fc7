"""Running a person's command as if they had started it themselves.

Signals sent to us go on to the command's process group, and its exit code comes back as a shell
would give it.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llenergymeasure.processes import END_SIGNALS, exit_code

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
_TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
"""On a terminal its driver sends these to the command itself."""


@dataclass(frozen=True)
class CommandResult:
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


def run_command(command: Sequence[str]) -> CommandResult:
    """Run a command to its end.

    On a terminal it shares our process group, so that the terminal's keys reach it as ever;
    elsewhere it leads one of its own, which gets what signals we get, but those that we were
    started to ignore (``nohup``), as it does too. Signals to end that come once it has ended are
    ignored from then on: what it took is still to be said.
    """
    has_own_group = not _on_terminal()
    process: subprocess.Popen[bytes] | None = None
    early_signals: list[int] = []

    def send(number: int) -> None:
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if has_own_group else os.kill)(process.pid, number)

    def forward(number: int, _frame: Any) -> None:
        if not has_own_group and number in _TERMINAL_SIGNALS:
            return
        if process is None:
            early_signals.append(number)
        else:
            send(number)

    previous_handlers = {
        number: signal.signal(number, forward)
        for number in _FORWARDED
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    started_ns = time.monotonic_ns()
    try:
        process = subprocess.Popen(command, process_group=0 if has_own_group else None)
        while early_signals:
            send(early_signals.pop(0))
        status = process.wait()
        ended_ns = time.monotonic_ns()
    except OSError as error:
        # A folder of PATH that may not be read gives "permission denied" for what is nowhere.
        absent = isinstance(error, FileNotFoundError) or _is_not_on_path(command[0])
        code = EXIT_NOT_FOUND if absent else EXIT_NOT_EXECUTABLE
        reason = os.strerror(errno.ENOENT) if absent else error.strerror
        return CommandResult(code, started_ns, time.monotonic_ns(), f"{command[0]}: {reason}")
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, signal.SIG_IGN if number in END_SIGNALS else handler)
    return CommandResult(exit_code(status), started_ns, ended_ns)


def _is_not_on_path(name: str) -> bool:
    """Return whether no folder of PATH has a file of this name, as far as they may be read."""
    return "/" not in name and shutil.which(name, mode=os.F_OK) is None


def _on_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:
        return False
