"""What a person sees of a running study: a changing line at a terminal, plain ones in a pipe."""

import os
import select
import shutil
import sys
import time

from llenergymeasure.cli.output import Level, level, note
from llenergymeasure.report.wording import shortened
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import steer
from llenergymeasure.workflow.drive import Listener
from llenergymeasure.workflow.progress import Progress, resting

_LEAST_DOING = 16
"""Signs of what a run does that are shown, however narrow the terminal is."""


class Live(Listener):
    """Says each run's end; at a terminal a last line shows how far it is, and Enter ends a rest."""

    def __init__(self, folder: StudyFolder) -> None:
        """Take the folder of the running study."""
        super().__init__(note)
        self._folder = folder
        self._shown = ""

    def say(self, line: str) -> None:
        """Say a line of its own."""
        self.clear()
        note(line)

    def wait(self, timeout_s: float, progress: Progress) -> None:
        """Wait so long, show how far it is, and let Enter end the rest of a run that rests."""
        if _enter(timeout_s):
            for rest in resting(progress.plan, self._folder, progress.next_runs()):
                self.say(rest.skip())
        if level() == Level.QUIET or not self.is_due():
            return
        if not sys.stderr.isatty():
            self.say_phases(progress)
            return
        line = progress.line(self.ending, self.queue)
        for rest in resting(progress.plan, self._folder, progress.next_runs())[:1]:
            line = f"{'Enter skips it; ' if _person_in_front() else ''}{rest}"
        self._show(line)

    def clear(self) -> None:
        """Take the last line away."""
        if self._shown:
            steer("\r\x1b[K")
            self._shown = ""

    def _show(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        head, mark, doing = line.rpartition("; ")
        # What a run does is cut before the time left and the counts are.
        doing = shortened(doing, max(width - len(head + mark), _LEAST_DOING))
        line = shortened(f"{head}{mark}{doing}", width)
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
