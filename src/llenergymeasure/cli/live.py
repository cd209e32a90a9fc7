"""What a person sees of a study at work: a changing line at a terminal, plain ones in a pipe."""

import os
import select
import shutil
import sys
import time

from llenergymeasure.cli.talk import Level, level, note
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import steer
from llenergymeasure.workflow.progress import Progress
from llenergymeasure.workflow.skip import resting

REFRESH_S = 1.0
"""A look at the runs costs a little of the machine that is being measured."""


class Live:
    """Says each run's end; at a terminal a last line shows how far it is, and Enter ends a rest."""

    def __init__(self, folder: StudyFolder) -> None:
        """Take the folder of the study at work."""
        self._folder = folder
        self._shown = ""
        self._looked_at = 0.0

    def say(self, line: str) -> None:
        """Say a line of its own."""
        self.clear()
        note(line)

    def wait(self, timeout_s: float, progress: Progress) -> None:
        """Wait so long, show how far it is, and let Enter end the rest of a run that rests."""
        if _enter(timeout_s):
            for rest in resting(progress.next_runs(), self._folder):
                rest.skip()
                self.say(f"Rest before {rest.run.experiment} cycle {rest.run.cycle} skipped.")
        if level() == Level.QUIET or not sys.stderr.isatty():
            return
        if time.monotonic() - self._looked_at >= REFRESH_S:
            self._looked_at = time.monotonic()
            self._show(self._status(progress))

    def clear(self) -> None:
        """Take the last line away."""
        if self._shown:
            steer("\r\x1b[K")
            self._shown = ""

    def _status(self, progress: Progress) -> str:
        rests = resting(progress.next_runs(), self._folder)
        if not rests:
            return progress.line()
        skips = "; Enter skips it" if _person_in_front() else ""
        return f"{rests[0].told()}{skips}"

    def _show(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        if line == self._shown:
            return
        self.clear()
        sys.stderr.write(line)
        sys.stderr.flush()
        self._shown = line


def _enter(timeout_s: float) -> bool:
    """Wait so long, or until a person presses Enter; return whether one did."""
    if not _person_in_front():
        time.sleep(timeout_s)
        return False
    if not select.select([sys.stdin], [], [], timeout_s)[0]:
        return False
    if os.read(sys.stdin.fileno(), 4096):
        return True
    time.sleep(timeout_s)  # Ctrl-D: from now on there is always something to read
    return False


def _person_in_front() -> bool:
    """Return whether this process may read from a terminal (in the background it would halt)."""
    try:
        handle = sys.stdin.fileno()
        return os.isatty(handle) and os.tcgetpgrp(handle) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
