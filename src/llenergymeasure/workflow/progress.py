"""How far a study is: which runs ended and how, what is running, and how long the rest may take."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llenergymeasure.files import load_json, open_file
from llenergymeasure.plan import Estimates, Plan, PlannedRun
from llenergymeasure.plan.estimate import FINISH_S, Estimate
from llenergymeasure.results.complete import is_kept
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.notes import notes_of
from llenergymeasure.results.outcome import Outcome, OutcomeError, read_outcome
from llenergymeasure.run.engine.phase_marks import current_phase
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workflow.manifest import run_state, states

AT_ONCE = 8
"""So many of the runs next in line are looked at: more than one machine does at a time."""

AT_ONCE_ON_A_CLUSTER = 256

TABLES_S = 8.0
TABLES_OF_A_RUN_S = 0.05
"""How long tables, figures and page take at the end; measured on two cores of a laptop."""

_REPORT_OF_JOBS = "waiting for the cluster's word"

PHASE_NAMES = {
    "idle_before": "idle before",
    "load": "loading",
    "warmup": "warming up",
    "measure": "measuring",
    "idle_after": "idle after",
    "settle": "resting",
}
"""The phases in words, as far as their names are none."""


@dataclass(frozen=True)
class Ended:
    """A run that ended while it was watched.

    Attributes:
        told: which, and how it ended, in words.
        notes: what a reader of its result should know, by its preflight and its workload.
    """

    told: str
    notes: tuple[str, ...] = ()


class Progress:
    """Sees each run's end once, in the order in which they end, and keeps how they ended."""

    def __init__(
        self,
        plan: Plan,
        folder: StudyFolder,
        at_once: int = AT_ONCE,
        estimates: Estimates | None = None,
        *,
        measured: bool = False,
        share: bool = True,
    ) -> None:
        """Take a plan; what is complete already counts as done, and as nothing of this call.

        Args:
            plan: the plan.
            folder: its results.
            at_once: so many of the runs next in line may run at once.
            estimates: how long runs take, by who knows models and devices.
            measured: whether a sensor measures where they are.
            share: whether runs of a session share a server there.
        """
        self.plan = plan
        self._folder = folder
        self._phases: dict[tuple[str, int], str] = {}
        self._at_once, self._on_cluster = at_once, at_once > AT_ONCE
        self._total = len(plan.runs)
        self._quality = plan.sections.get("quality")
        self._started_ns = self._last_end_ns = time.time_ns()
        self._ends = Counter[str]()
        waiting = {
            (run["experiment"], run["cycle"]): run
            for run in states(plan, folder)
            if run["status"] != "completed"
        }
        # Of an earlier call's job that is still there, which is ended before this call measures.
        self._earlier = {
            key: run["attempt"] for key, run in waiting.items() if run["status"] == "running"
        }
        self._open = {
            (run.experiment, run.cycle): run
            for run in plan.runs
            if (run.experiment, run.cycle) in waiting
        }
        to_do = [folder.run(*key) for key in self._open]
        self._attempts_before = {run: _size(run.attempts) for run in to_do}
        self._done_before = self._total - len(self._open)
        self._of_runs, self._measured = estimates or Estimates(), measured
        self._share = share
        self._estimates = self._estimated(self._open)
        self._ended_s = 0.0

    @property
    def any_failed(self) -> bool:
        """Whether a run that began in this call has no result, however it ended.

        Its list of attempts has grown since, whatever the clocks of file systems say.
        """
        return any(
            _size(run.attempts) not in (None, before) and not run.result.is_file()
            for run, before in self._attempts_before.items()
        )

    def next_runs(self) -> list[PlannedRun]:
        """Return the runs next in line, those that run among them."""
        return list(islice(self._open.values(), self._at_once))

    def open_configs(self) -> list[dict[str, Any]]:
        """Return the configurations with runs to do, each once."""
        return list({run.experiment: run.config for run in self._open.values()}.values())

    def look(self) -> list[Ended]:
        """Return the runs that ended since the last look; Snakemake starts them in order."""
        ended = []
        for run in self.next_runs():
            outcome = self._outcome(run)
            if outcome is None or outcome.status == "running":
                continue
            key = (run.experiment, run.cycle)
            if outcome.status != "completed" and outcome.attempt == self._earlier.get(key, 0):
                continue
            del self._open[key]
            self._ends[outcome.status] += 1
            self._last_end_ns = time.time_ns()
            self._ended_s += self._estimates.pop(key).seconds
            if run.session is not None:  # what was not measured with it starts its own
                self._estimates |= self._estimated(
                    (each.experiment, each.cycle)
                    for each in self._open.values()
                    if (each.session, each.cycle) == (run.session, run.cycle)
                )
            done = self._total - len(self._open)
            told = f"[{done}/{self._total}] {self.plan.label(run)}: {self._told(run, outcome)}"
            notes = _notes(self._folder.run(*key).result)
            ended.append(Ended(told, notes))
        return ended

    def line(self, ending: str = "", queue: str = "") -> str:
        """Return in one line what is done, how long the rest may take, what failed and runs.

        Args:
            ending: what is waited for where the rest is not to be made now.
            queue: what jobs wait for; shown where no run is under way.
        """
        completed = self._done_before + self._ends["completed"]
        left, running = self.left(), self._running()
        if ending and self._on_cluster and not running:
            ending = f"no run under way, {_REPORT_OF_JOBS}"
        if queue and not running:
            left = None  # how long the queue takes is not known
        parts = [f"{completed}/{self._total} done"]
        parts += [ending] if ending else [] if left is None else [f"{left} left"]
        interrupted = self._ends["interrupted"]
        failed = self._ends.total() - self._ends["completed"] - interrupted
        parts += [f"{failed} failed"] * bool(failed)
        parts += [f"{interrupted} interrupted"] * bool(interrupted)
        if len(running) == 1:
            parts.append(self._doing(running[0]))
        elif running:
            parts.append(f"{len(running)} running")
        elif queue and not ending and self._open:
            parts.append(queue)
        elif self._on_cluster and not ending and self._open:
            parts.append("no run seen under way")  # without a shared folder none is, ever
        if not self._open and not ending:
            parts.append(_REPORT_OF_JOBS if self._on_cluster else "writing the report")
        return "; ".join(parts)

    def phases(self) -> list[str]:
        """Return a line for each run that is in another phase than at the last look.

        None on a cluster, where many runs are under way at a time.
        """
        if self._on_cluster:
            return []
        lines = []
        for run in self._running():
            phase, key = self._phase(run), (run.experiment, run.cycle)
            if phase is not None and phase[0] != self._phases.get(key):
                self._phases[key] = phase[0]
                place, left = self._total - len(self._open) + 1, self.left()
                told = f"[{place}/{self._total}] {self.plan.label(run)}: {phase_in_words(phase[0])}"
                lines.append(told if left is None else f"{told}; {left} left")
        return lines

    def left(self) -> Estimate | None:
        """Return how long the rest may take: the plan's estimate, corrected by the runs so far.

        What the tables and the report take at the end is in it. None while on a cluster no run has
        ended: how many it does at a time is not known then.
        """
        since_s = (time.time_ns() - self._last_end_ns) / NS_PER_S
        tables_s = TABLES_S + TABLES_OF_A_RUN_S * self._total
        if not self._open:
            return Estimate(max(1.0, tables_s - since_s))
        if not self._ends and self._on_cluster:
            return None
        unknown: tuple[str, ...] = ()
        longest = not self._ends and any(each.longest for each in self._estimates.values())
        run_s, rate = next(iter(self._estimates.values())).seconds, 1.0
        if self._ends:
            rate = (self._last_end_ns - self._started_ns) / NS_PER_S / self._ended_s
        else:
            unknown = next((each.unknown for each in self._estimates.values() if each.unknown), ())
        if since_s > run_s * rate:
            unknown = (*unknown, "how slow the current run is")
            rate = rate if self._ends else since_s / run_s  # those after it are no quicker
        left_s = sum(each.seconds for each in self._estimates.values()) * rate
        return Estimate(left_s - min(since_s, run_s * rate) + tables_s, unknown, longest)

    def _estimated(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Estimate]:
        """Return how long the job of each of the open runs takes, in order.

        Less where it is measured.
        """
        found = dict.fromkeys(keys, Estimate(FINISH_S))
        to_do = {
            key: self._open[key]
            for key in found
            if self._open[key].session is None or not is_kept(self._folder.run(*key), self._quality)
        }
        jobs = self._of_runs.jobs(to_do.values(), self._measured, share=self._share)
        return found | dict(zip(to_do, jobs, strict=True))

    def _running(self) -> list[PlannedRun]:
        found: dict[object, PlannedRun] = {}
        for run in self.next_runs():
            outcome = self._outcome(run)
            if outcome is not None and outcome.status == "running":
                # Of a session the last: those before it wait for their results.
                found[run.session or (run.experiment, run.cycle)] = run
        return list(found.values())

    def _doing(self, run: PlannedRun) -> str:
        """Return a run with the phase it is in."""
        phase = self._phase(run)
        if phase is None:
            return self.plan.label(run)
        seconds = (time.monotonic_ns() - phase[1]) / NS_PER_S
        # On another machine's clock the difference means nothing.
        since = f" {seconds:.0f} s" if 0 <= seconds < 86_400 else ""
        return f"{self.plan.label(run)}: {phase_in_words(phase[0])}{since}"

    def _phase(self, run: PlannedRun) -> tuple[str, int] | None:
        """Return the phase that a run is in and when it began."""
        return current_phase(self._folder.run(run.experiment, run.cycle).marks)

    def _outcome(self, run: PlannedRun) -> Outcome | None:
        """Return what a run of this call has written of itself; None if nothing whole yet.

        What a file system does not give at this moment, the next look may.
        """
        path = self._folder.run(run.experiment, run.cycle).outcome
        try:
            if path.stat().st_mtime_ns < self._started_ns:
                return None
            load_json(path)
            return read_outcome(path)
        except (OSError, ValueError):
            return None

    def _told(self, run: PlannedRun, outcome: Outcome) -> str:
        if outcome.status == "completed":
            return _number(self._folder.run(run.experiment, run.cycle).result)
        error = outcome.error or OutcomeError()
        where = f" in {outcome.phase}" if outcome.phase else ""
        message = (error.message or "").splitlines()
        return f"{outcome.status}{where}: {error.class_}: {message[0] if message else ''}"


def phase_in_words(phase: str) -> str:
    """Return what a run does in a phase."""
    return PHASE_NAMES.get(phase, phase.replace("_", " "))


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
        """End the rest when the run looks next, within a second; return what was done.

        By a file in its folder, so it works into a container too.
        """
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
        if phase is None or phase[0] != "settle" or place.skip.exists():
            continue
        if run_state(place)["status"] == "running":
            found.append(Rest(run, plan.label(run), place, phase[1]))
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _notes(result: Path) -> tuple[str, ...]:
    try:
        return tuple(notes_of(load_json(result)["provenance"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _number(result: Path) -> str:
    """Return a finished run's headline in words."""
    try:
        energy = load_json(result)["energy"]
    except (OSError, ValueError, KeyError):
        return "completed"
    if energy["per_output_token_j"] is None and energy["gross_j"] is not None:
        return f"{energy['power_mean_w']:.4g} W with no output, {energy['kind']}"
    if energy["per_output_token_j"] is None:
        return f"completed, no energy: {energy.get('unavailable')}"
    return f"{energy['per_output_token_j']:.4g} J per output token, {energy['kind']}"
