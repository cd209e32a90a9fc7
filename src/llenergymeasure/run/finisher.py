"""What computes a run's result, kept ready while the engine works (standard library only)."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MODULE = "llenergymeasure.run.result.build_result"
POLL_S = 0.01

Start = Callable[[list[str]], "subprocess.Popen[bytes]"]
"""Starts a command with a pipe for its standard input."""


class Finisher:
    """The finishing process: started early, so that its imports cost the run no time."""

    def __init__(self, start: Start, folder: Path) -> None:
        """Take what starts a process, and the run's folder."""
        self._start = start
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def started(self) -> bool:
        """Whether it was."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Its process id; null if it was not started."""
        return None if self._process is None else self._process.pid

    def ready(self) -> None:
        """Start it; it gets ready and waits."""
        command = [sys.executable, "-m", MODULE, "--out", str(self._folder), "--wait"]
        self._process = self._start(command)

    def begin(self) -> "subprocess.Popen[bytes]":
        """Let it compute the result; one that is gone, or was never there, is started."""
        if self._process is None or self._process.poll() is not None:
            self.dismiss()
            self.ready()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone; its code says so
            process.stdin.write(b"\n")
            process.stdin.flush()
        return process

    def dismiss(self) -> None:
        """Close its input: one that was not told to begin ends."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None


def wait(
    process: "subprocess.Popen[bytes]", limit_s: float, interrupted: Callable[[float], bool]
) -> int | None:
    """Return a process's code when it ends; null after so long, or if it was interrupted."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None:
        if interrupted(POLL_S) or time.monotonic() > deadline:
            return None
    return process.wait()
