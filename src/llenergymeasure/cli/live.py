"""What a person sees of a running study: a changing line at a terminal, plain ones in a pipe."""

import os
import select
import shutil
import sys
import time

from llenergymeasure.cli.output import Level, level, note
from llenergymeasure.report.formatting import plain, shortened
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import write_control_sequence
from llenergymeasure.workflow.progress import Progress, resting_runs
from llenergymeasure.workflow.snakemake_process import Listener

_MIN_ACTIVITY_WIDTH = 24
"""Signs of what a run does that are shown before how many failed."""

_MIN_LABEL_WIDTH = 8
"""Signs of a run's settings that are shown, if any."""


class Live(Listener):
    """Says each run's end; at a terminal a last line shows how far it is, and Enter ends a rest."""

    def __init__(self, folder: StudyFolder) -> None:
        """Take the folder of the running study."""
        super().__init__(note)
        self._folder = folder
        self._line = ""

    def say(self, line: str) -> None:
        """Say a line of its own."""
        self.clear()
        note(line)

    def wait(self, timeout_s: float, progress: Progress) -> None:
        """Wait so long, show how far it is, and let Enter end the rest of a run that rests."""
        if _wait_for_enter(timeout_s):
            for rest in resting_runs(progress.plan, self._folder, progress.next_runs()):
                self.say(rest.skip())
        if level() == Level.QUIET or not self.is_due():
            return
        if not sys.stderr.isatty():
            self.say_phases(progress)
            return
        line = progress.line(self.ending, self.queue)
        for rest in resting_runs(progress.plan, self._folder, progress.next_runs())[:1]:
            count = line.partition("; ")[0]
            line = f"{count}; {'Enter skips it; ' if _has_person() else ''}{rest}"
        self._show(line)

    def clear(self) -> None:
        """Take the last line away."""
        if self._line:
            write_control_sequence("\r\x1b[K")
            self._line = ""

    def _show(self, line: str) -> None:
        line = _fit(line, shutil.get_terminal_size().columns - 1)
        if line == self._line:
            return
        self.clear()
        sys.stderr.write(line)
        sys.stderr.flush()
        self._line = line


def _fit(line: str, width: int) -> str:
    """Return a line of progress that fits: what is done, and the time left, are cut last.

    How many failed goes before what runs, and of that the cycle, then the settings, then the phase.
    """
    *head, activity = line.split("; ")
    least = min(len(activity), _MIN_ACTIVITY_WIDTH)
    while len(head) > 2 and width - len("; ".join([*head, ""])) < least:
        head.pop()
    room = width - len("; ".join([*head, ""]))
    label, colon, phase = activity.rpartition(": ")
    if len(activity) > room and len(phase) <= _MIN_ACTIVITY_WIDTH:
        room -= len(colon + phase)
        label = label if len(label) <= room else label.rpartition(", cycle ")[0] or label
        activity = f"{shortened(label, room)}{colon}{phase}" if room >= _MIN_LABEL_WIDTH else phase
    return plain("; ".join([*head, activity]), width)


def _wait_for_enter(timeout_s: float) -> bool:
    """Wait so long, or until a person presses Enter; return whether one did."""
    if not _has_person():
        time.sleep(timeout_s)
        return False
    if not select.select([sys.stdin], [], [], timeout_s)[0]:
        return False
    if os.read(sys.stdin.fileno(), 4096):
        return True
    time.sleep(timeout_s)  # Ctrl-D: from now on there is always something to read
    return False


def _has_person() -> bool:
    """Return whether this process may read from a terminal (in the background it would halt)."""
    try:
        descriptor = sys.stdin.fileno()
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
