"""Ending the rest before a run: from a terminal with Enter, or from anywhere with ``llem skip``.

Both leave a file in the run's folder that the run polls for, so it works into a container too.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llenergymeasure.measure.marks import read_marks
from llenergymeasure.plan import PlannedRun
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workflow.manifest import run_state

SETTLE = "settle"


@dataclass(frozen=True)
class Rest:
    """A run that rests before it begins.

    Attributes:
        run: which.
        folder: its folder.
        since_ns: when the rest began, CLOCK_MONOTONIC.
    """

    run: PlannedRun
    folder: RunFolder
    since_ns: int

    def told(self) -> str:
        """Return how long it has rested, out of how long at least."""
        rested_s = (time.monotonic_ns() - self.since_ns) / NS_PER_S
        left_s = self.run.gap_s - rested_s
        more = f"{left_s:.0f} s to go" if left_s > 0 else f"{rested_s:.0f} s, until it is steady"
        return f"Resting before {self.run.experiment} cycle {self.run.cycle}: {more}"

    def skip(self) -> None:
        """End the rest; it takes effect when the run looks next, within a second."""
        if self.folder.work.is_dir():
            self.folder.skip.touch()


def resting(runs: Iterable[PlannedRun], folder: StudyFolder) -> list[Rest]:
    """Return the runs that rest now and were not told yet to go on."""
    found = []
    for run in runs:
        place = folder.run(run.experiment, run.cycle)
        if not place.marks.is_file() or place.skip.exists():
            continue
        marks = read_marks(place.marks)
        if not marks or marks[-1][0] != SETTLE or marks[-1][2] is not None:
            continue
        if run_state(place)["status"] == "running":
            found.append(Rest(run, place, marks[-1][1]))
    return found


class Keyboard:
    """Shows at a terminal how long a run still rests, and ends the rest on Enter."""

    def __init__(self, folder: StudyFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._shown = ""

    def wait(self, timeout_s: float, runs: Sequence[PlannedRun]) -> None:
        """Wait so long, or until Enter ends the rest of those of ``runs`` that rest."""
        if not _person_in_front():
            time.sleep(timeout_s)
            return
        entered = bool(select.select([sys.stdin], [], [], timeout_s)[0])
        if entered and not os.read(sys.stdin.fileno(), 4096):
            time.sleep(timeout_s)  # Ctrl-D: from now on there is always something to read
            entered = False
        rests = resting(runs, self._folder)
        if entered:
            for rest in rests:
                rest.skip()
                self.say(f"Rest before {rest.run.experiment} cycle {rest.run.cycle} skipped.")
        elif rests:
            self._show(f"{rests[0].told()}; Enter skips it")
        else:
            self.clear()

    def say(self, line: str) -> None:
        """Say a line of its own."""
        self.clear()
        self._say(line)

    def clear(self) -> None:
        """Take the countdown away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""

    def _show(self, line: str) -> None:
        if line == self._shown or not sys.stderr.isatty():
            return
        self.clear()
        sys.stderr.write(line)
        sys.stderr.flush()
        self._shown = line


def _person_in_front() -> bool:
    """Return whether this process may read from a terminal (in the background it would halt)."""
    try:
        handle = sys.stdin.fileno()
        return os.isatty(handle) and os.tcgetpgrp(handle) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
