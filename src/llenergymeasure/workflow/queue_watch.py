"""Ends a workflow on SLURM that waits for jobs that are no longer there, or can never start.

A job may vanish without a word, ask for more than any node has, or never be submitted. In each
case Snakemake waits forever, and everything that was measured is there already.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from llenergymeasure.errors import PreflightError
from llenergymeasure.processes import descendants
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.cluster import QueuedJob, left_jobs, waiting

QUIET_LIMIT_S = 300.0
"""More than the profile's latency-wait and the time between two looks of the executor together."""

LOOK_INTERVAL_S = 20.0


class QueueWatch(threading.Thread):
    """Looks from time to time whether anything is left that could still happen.

    Args:
        folder: the study's.
        say: takes the line that says why the workflow is ended.
        limit_s: how long nothing may be left before the workflow is ended.
        interval_s: seconds between two looks.
        ask: returns the study's jobs in the queue.
    """

    def __init__(
        self,
        folder: StudyFolder,
        say: Callable[[str], None],
        *,
        limit_s: float = QUIET_LIMIT_S,
        interval_s: float = LOOK_INTERVAL_S,
        ask: Callable[[StudyFolder], Sequence[QueuedJob]] = left_jobs,
    ) -> None:
        super().__init__(name="queue watch", daemon=True)
        self._folder, self._say, self._ask = folder, say, ask
        self._limit_s, self._interval_s = limit_s, interval_s
        self._said: set[str] = set()

    def run(self) -> None:
        """Look until nothing has been left for too long, and then end this process by SIGTERM."""
        last = time.monotonic()
        while time.monotonic() - last < self._limit_s:
            time.sleep(self._interval_s)
            if self._something_is_left():
                last = time.monotonic()
        self._say(
            f"No job of this study that could still run has been in SLURM's queue for "
            f"{self._limit_s / 60:g} minutes, and Snakemake waits for one. What was measured is "
            "there; the same call makes the rest"
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def _something_is_left(self) -> bool:
        # Rules that run here are children of this process; those that only ask end at once.
        if descendants(os.getpid()):
            return True
        try:
            jobs = self._ask(self._folder)
        except PreflightError:  # a controller that does not answer may still have them
            return True
        for line in waiting(job for job in jobs if job.never_starts):
            if line not in self._said:
                self._said.add(line)
                self._say(line)
        return any(not job.never_starts for job in jobs)
