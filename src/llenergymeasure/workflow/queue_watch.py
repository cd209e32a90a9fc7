"""Ends a workflow on SLURM whose executor waits for jobs that are no longer there.

Snakemake's executor forgets its jobs where the controller does not answer at the wrong moment, a
job may vanish without a word, and an option may keep jobs from being submitted. In each case
Snakemake waits for ever, and everything that was measured is there already.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from llenergymeasure.errors import PreflightError
from llenergymeasure.processes import descendants
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.cluster import QueuedJob, left_jobs

QUIET_LIMIT_S = 300.0
"""More than the profile's latency-wait and the time between two looks of the executor together."""

LOOK_INTERVAL_S = 20.0


class QueueWatch(threading.Thread):
    """Looks from time to time whether anything is left that could still happen.

    Args:
        folder: the study's.
        say: takes the line that tells why the workflow is ended.
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

    def run(self) -> None:
        """Look until nothing has been left for too long, and then end this process by SIGTERM."""
        last = time.monotonic()
        while time.monotonic() - last < self._limit_s:
            time.sleep(self._interval_s)
            if self._something_is_left():
                last = time.monotonic()
        self._say(
            f"No job of this study has been in SLURM's queue for {self._limit_s / 60:g} minutes, "
            "and Snakemake still waits for one: its executor has lost it. What was measured is "
            "there; the same call makes the rest"
        )
        os.kill(os.getpid(), signal.SIGTERM)

    def _something_is_left(self) -> bool:
        # Rules that run here are children of this process; those that only ask end at once.
        if descendants(os.getpid()):
            return True
        try:
            return bool(self._ask(self._folder))
        except PreflightError:  # a controller that does not answer may still have them
            return True
