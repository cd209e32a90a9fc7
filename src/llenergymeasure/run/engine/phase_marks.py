"""Phase marks: which stretch of the run was what, on the recorder's clock.

A mark is one short line appended to a file, so it costs the engine microseconds and survives
its crash.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llenergymeasure.files import open_file, read_bytes


class Marks:
    """Writes the marks of one run."""

    def __init__(self, path: Path) -> None:
        self._handle = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _write(self, event: str, name: str, t_ns: int) -> None:
        line = json.dumps({"event": event, "phase": name, "t_ns": t_ns})
        os.write(self._handle, f"{line}\n".encode())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the block as phase ``name``; a phase that raises has a start and no end.

        The caller synchronises its devices before the block begins and ends.
        """
        self._write("start", name, time.monotonic_ns())
        yield
        self._write("end", name, time.monotonic_ns())


def read_marks(path: Path) -> list[tuple[str, int, int | None]]:
    """Return ``(phase, start_ns, end_ns)`` in order; ``end_ns`` is None for one cut short.

    A half-written last line, and lines that are no marks, are skipped.

    Raises:
        OSError: there is a file, and it cannot be read.
    """
    phases: list[tuple[str, int, int | None]] = []
    try:
        lines = read_bytes(path).splitlines()
    except FileNotFoundError:  # no phase has begun yet
        return phases
    except OSError:
        if path.is_file():
            raise
        return phases
    for line in lines:
        try:
            mark = json.loads(line)
            event, phase, t_ns = mark["event"], mark["phase"], int(mark["t_ns"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if event == "start":
            phases.append((phase, t_ns, None))
        elif phases:
            name, start_ns, _ = phases[-1]
            phases[-1] = (name, start_ns, t_ns)
    return phases


def current_phase(path: Path) -> tuple[str, int] | None:
    """Return the phase that is under way and when it began; None where none is seen now.

    A file system that fails at this moment may answer at the next look.
    """
    try:
        phases = read_marks(path)
    except OSError:
        return None
    if not phases or phases[-1][2] is not None:
        return None
    return phases[-1][0], phases[-1][1]
