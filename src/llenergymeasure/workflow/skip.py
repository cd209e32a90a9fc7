"""Ending the rest before a run: from a terminal with Enter, or from anywhere with ``llem skip``.

Both leave a file in the run's folder that the run polls for, so it works into a container too.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from llenergymeasure.files import open_file
from llenergymeasure.plan import Plan, PlannedRun
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.run.engine.phase_marks import current_phase
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workflow.manifest import run_state

SETTLE = "settle"


@dataclass(frozen=True)
class Rest:
    """A run that rests before it begins.

    Attributes:
        run: which.
        label: its settings and cycle, for people.
        folder: its folder.
        since_ns: when the rest began, CLOCK_MONOTONIC.
    """

    run: PlannedRun
    label: str
    folder: RunFolder
    since_ns: int

    def __str__(self) -> str:
        """Return how long it has rested, out of how long at least."""
        rested_s = (time.monotonic_ns() - self.since_ns) / NS_PER_S
        left_s = self.run.gap_s - rested_s
        more = f"{left_s:.0f} s to go" if left_s > 0 else f"{rested_s:.0f} s, until it is steady"
        return f"{more}: resting before {self.label}"

    def skip(self) -> str:
        """End the rest when the run looks next, within a second; return what was done."""
        if self.folder.work.is_dir():
            os.close(open_file(self.folder.skip, os.O_WRONLY | os.O_CREAT))
        return f"Rest before {self.label} skipped."


def resting(
    plan: Plan, folder: StudyFolder, runs: Iterable[PlannedRun] | None = None
) -> list[Rest]:
    """Return the runs, of all or of some, that rest now and were not yet asked to go on."""
    found = []
    for run in plan.runs if runs is None else runs:
        place = folder.run(run.experiment, run.cycle)
        phase = current_phase(place.marks)
        if phase is None or phase[0] != SETTLE or place.skip.exists():
            continue
        if run_state(place)["status"] == "running":
            found.append(Rest(run, plan.label(run), place, phase[1]))
    return found
