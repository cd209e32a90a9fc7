"""A study's progress: which runs ended and how, what is running, and the time left."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from llenergymeasure.files import file_version, load_json, open_file
from llenergymeasure.plan import Estimates, Plan, PlannedRun
from llenergymeasure.plan.estimate import FINISH_S, Estimate
from llenergymeasure.results.complete import is_reusable
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.notes import record_notes
from llenergymeasure.results.outcome import Outcome, OutcomeError, read_outcome
from llenergymeasure.results.write_outcome import attempts_begun
from llenergymeasure.run.engine.phase_marks import current_phase
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workflow.manifest import run_state, states

PARALLEL_RUNS = 8
"""How many of the next runs are looked at: more than one machine runs at once."""

PARALLEL_RUNS_ON_CLUSTER = 256

WRITE_TABLES_S = 8.0
WRITE_TABLES_PER_RUN_S = 0.05
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
"""Words for phases whose names are not words."""


@dataclass(frozen=True)
class EndedRun:
    """A run that ended while it was watched.

    Attributes:
        line: the run and how it ended, as text.
        notes: what a reader of its result should know, from its preflight and its workload.
    """

    line: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _RunWithoutResult:
    """A run that ended so in this call; the size of its list of attempts when last looked at."""

    run: PlannedRun
    outcome: Outcome
    estimate: Estimate
    attempts_size: int | None = None


class Progress:
    """Reports each run's end once, in order, and counts how the runs ended."""

    def __init__(
        self,
        plan: Plan,
        folder: StudyFolder,
        parallel_runs: int = PARALLEL_RUNS,
        estimates: Estimates | None = None,
        *,
        measured: bool = False,
        share: bool = True,
    ) -> None:
        """Take a plan; runs that are already complete count as done, but not as part of this call.

        Args:
            plan: the plan.
            folder: its results.
            parallel_runs: how many of the next runs may go at once.
            estimates: estimates of how long runs take.
            measured: whether a sensor measures on their machine.
            share: whether runs of a session share a server there.
        """
        self.plan = plan
        self._folder = folder
        self._phases: dict[tuple[str, int], str] = {}
        self._parallel_runs, self._on_cluster = parallel_runs, parallel_runs > PARALLEL_RUNS
        self._total = len(plan.runs)
        self._quality = plan.sections.get("quality")
        self._started_ns = self._last_end_ns = time.monotonic_ns()
        self._counts = Counter[str]()
        self._without_result: dict[tuple[str, int], _RunWithoutResult] = {}
        self._open: dict[tuple[str, int], PlannedRun] = {}
        # Attempts of an earlier call's jobs, which are ended before this call measures.
        self._earlier_attempts: dict[tuple[str, int], int | None] = {}
        for run, state in zip(plan.runs, states(plan, folder), strict=True):
            if state["status"] != "completed":
                self._open[run.experiment, run.cycle] = run
            if state["status"] == "running":
                self._earlier_attempts[run.experiment, run.cycle] = state["attempt"]
        folders = [folder.run(*key) for key in self._open]
        self._attempts_before = {run: _size_bytes(run.attempts) for run in folders}
        self._outcomes_before = {run.outcome: file_version(run.outcome) for run in folders}
        self._completed_before = self._total - len(self._open)
        self._estimator, self._measured = estimates or Estimates(), measured
        self._share = share
        self._estimates = self._estimate(self._open)
        self._ended_estimate_s = 0.0

    @property
    def any_failed(self) -> bool:
        """Whether a run that began in this call has no result, however it ended.

        Detected by a grown list of attempts, independent of file systems' clocks.
        """
        return any(
            _size_bytes(run.attempts) not in (None, old_size) and not run.result.is_file()
            for run, old_size in self._attempts_before.items()
        )

    def next_runs(self) -> list[PlannedRun]:
        """Return the next runs in order, including those under way."""
        return list(islice(self._open.values(), self._parallel_runs))

    def open_configs(self) -> list[dict[str, Any]]:
        """Return the configurations with runs to do, each once."""
        return list({run.experiment: run.config for run in self._open.values()}.values())

    def newly_ended(self) -> list[EndedRun]:
        """Return the runs that ended since the last look; Snakemake starts them in order."""
        self._open_repeated()
        ended = []
        for run in self.next_runs():
            outcome = self._outcome(run)
            if outcome is None or outcome.status == "running":
                continue
            key = (run.experiment, run.cycle)
            earlier_attempt = self._earlier_attempts.get(key, 0)
            if outcome.status != "completed" and outcome.attempt == earlier_attempt:
                continue
            del self._open[key]
            estimate = self._estimates.pop(key)
            if outcome.status != "completed":
                self._without_result[key] = _RunWithoutResult(run, outcome, estimate)
            self._counts[outcome.status] += 1
            self._last_end_ns = time.monotonic_ns()
            self._ended_estimate_s += estimate.seconds
            if run.session is not None:  # the rest of its session needs a server of its own
                self._estimates |= self._estimate(
                    (other.experiment, other.cycle)
                    for other in self._open.values()
                    if (other.session, other.cycle) == (run.session, run.cycle)
                )
            number = self._total - len(self._open)
            line = (
                f"[{number}/{self._total}] {self.plan.label(run)}: {self._end_text(run, outcome)}"
            )
            notes = _notes(self._folder.run(*key).result)
            ended.append(EndedRun(line, notes))
        return ended

    def _open_repeated(self) -> None:
        """Take back the end of each run that began again, as where SLURM queued its job again."""
        for key, end in list(self._without_result.items()):
            folder = self._folder.run(*key)
            size = _size_bytes(folder.attempts)
            if size == end.attempts_size:
                continue
            self._without_result[key] = replace(end, attempts_size=size)
            if attempts_begun(folder) <= (end.outcome.attempt or 1):
                continue
            del self._without_result[key]
            # Its outcome may be there a moment longer.
            self._earlier_attempts[key] = end.outcome.attempt
            self._counts -= Counter([end.outcome.status])
            self._ended_estimate_s -= end.estimate.seconds
            self._open = {key: end.run, **self._open}
            self._estimates[key] = end.estimate

    def line(self, ending: str = "", queue: str = "") -> str:
        """Return the progress line: what is done, the time left, what failed, and what runs.

        Args:
            ending: what is waited for, if the study is to end now.
            queue: why jobs wait; shown if no run is under way.
        """
        completed = self._completed_before + self._counts["completed"]
        time_left, running = self.time_left(), self._running()
        if ending and self._on_cluster and not running:
            ending = f"no run under way, {_REPORT_OF_JOBS}"
        if queue and not running:
            time_left = None  # the time in the queue is not known
        parts = [f"{completed}/{self._total} done"]
        parts += [ending] if ending else [] if time_left is None else [f"{time_left} left"]
        interrupted = self._counts["interrupted"]
        failed = self._counts.total() - self._counts["completed"] - interrupted
        parts += [f"{failed} failed"] * bool(failed)
        parts += [f"{interrupted} interrupted"] * bool(interrupted)
        if len(running) == 1:
            parts.append(self._activity(running[0]))
        elif running:
            parts.append(f"{len(running)} running")
        elif queue and not ending and self._open:
            parts.append(queue)
        elif self._on_cluster and not ending and self._open:
            parts.append("no run seen under way")  # without a shared folder none is ever seen
        if not self._open and not ending:
            parts.append(_REPORT_OF_JOBS if self._on_cluster else "writing the report")
        return "; ".join(parts)

    def phases(self) -> list[str]:
        """Return a line for each run whose phase changed since the last look.

        None on a cluster, where many runs are under way at a time.
        """
        if self._on_cluster:
            return []
        lines = []
        for run in self._running():
            phase, key = self._phase(run), (run.experiment, run.cycle)
            if phase is not None and phase[0] != self._phases.get(key):
                self._phases[key] = name = phase[0]
                number, time_left = self._total - len(self._open) + 1, self.time_left()
                line = f"[{number}/{self._total}] {self.plan.label(run)}: {phase_in_words(name)}"
                lines.append(line if time_left is None else f"{line}; {time_left} left")
        return lines

    def time_left(self) -> Estimate | None:
        """Return the time left: the plan's estimate, corrected by the runs so far.

        It includes the tables and the report at the end. None on a cluster before the first run has
        ended, as how many go at once is not known, and once the last takes longer than estimated.
        """
        since_s = (time.monotonic_ns() - self._last_end_ns) / NS_PER_S
        tables_s = WRITE_TABLES_S + WRITE_TABLES_PER_RUN_S * self._total
        if not self._open:
            return Estimate(max(1.0, tables_s - since_s))
        if not self._counts and self._on_cluster:
            return None
        unknown: tuple[str, ...] = ()
        estimates = list(self._estimates.values())
        run_s, rate, longest = estimates[0].seconds, 1.0, False
        if self._counts:
            rate = (self._last_end_ns - self._started_ns) / NS_PER_S / self._ended_estimate_s
        else:
            longest = any(estimate.longest for estimate in estimates)
            unknown = next((estimate.unknown for estimate in estimates if estimate.unknown), ())
        if since_s > run_s * rate:
            if len(self._open) == 1:
                return None
            unknown = (*unknown, "how slow the current run is")
            rate = rate if self._counts else since_s / run_s  # nor are later runs quicker
        remaining_s = sum(estimate.seconds for estimate in estimates) * rate
        return Estimate(remaining_s - min(since_s, run_s * rate) + tables_s, unknown, longest)

    def _estimate(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Estimate]:
        """Return each open run's estimated job time, in order; one that is measured takes less."""
        estimates = dict.fromkeys(keys, Estimate(FINISH_S))
        to_do = {
            key: self._open[key]
            for key in estimates
            if self._open[key].session is None
            or not is_reusable(self._folder.run(*key), self._quality)
        }
        jobs = self._estimator.jobs(to_do.values(), self._measured, share=self._share)
        return estimates | dict(zip(to_do, jobs, strict=True))

    def _running(self) -> list[PlannedRun]:
        running: dict[object, PlannedRun] = {}
        for run in self.next_runs():
            outcome = self._outcome(run)
            if outcome is not None and outcome.status == "running":
                # Of a session only the last one: the runs before it wait for their results.
                running[run.session or (run.experiment, run.cycle)] = run
        return list(running.values())

    def _activity(self, run: PlannedRun) -> str:
        """Return a run's label with its phase."""
        phase = self._phase(run)
        if phase is None:
            return self.plan.label(run)
        seconds = (time.monotonic_ns() - phase[1]) / NS_PER_S
        # With another machine's clock the difference has no meaning.
        duration = f" {seconds:.0f} s" if 0 <= seconds < 86_400 else ""
        return f"{self.plan.label(run)}: {phase_in_words(phase[0])}{duration}"

    def _phase(self, run: PlannedRun) -> tuple[str, int] | None:
        """Return the phase that a run is in and when it began."""
        return current_phase(self._folder.run(run.experiment, run.cycle).marks)

    def _outcome(self, run: PlannedRun) -> Outcome | None:
        """Return the outcome that a run of this call has written; None if it is not there yet.

        A file system that fails at this moment may answer at the next look.
        """
        path = self._folder.run(run.experiment, run.cycle).outcome
        try:
            if file_version(path) == self._outcomes_before.get(path):
                return None
            load_json(path)
            return read_outcome(path)
        except (OSError, ValueError):
            return None

    def _end_text(self, run: PlannedRun, outcome: Outcome) -> str:
        if outcome.status == "completed":
            return _energy_text(self._folder.run(run.experiment, run.cycle).result)
        error = outcome.error or OutcomeError()
        place = f" in {outcome.phase}" if outcome.phase else ""
        message = (error.message or "").splitlines()
        return f"{outcome.status}{place}: {error.class_}: {message[0] if message else ''}"


def phase_in_words(phase: str) -> str:
    """Return a phase's name in words."""
    return PHASE_NAMES.get(phase, phase.replace("_", " "))


@dataclass(frozen=True)
class RestingRun:
    """A run that is resting before it begins.

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
        """Return the time left of the rest, or how long it has lasted."""
        rested_s = (time.monotonic_ns() - self.since_ns) / NS_PER_S
        wait_s = self.run.gap_s - rested_s
        state = f"{wait_s:.0f} s to go" if wait_s > 0 else f"{rested_s:.0f} s, until it is steady"
        return f"{state}: resting before {self.label}"

    def skip(self) -> str:
        """End the rest within a second; return a message.

        The request is a file in the run's folder, so that it also reaches a container.
        """
        if self.folder.work.is_dir():
            os.close(open_file(self.folder.skip, os.O_WRONLY | os.O_CREAT))
        return f"Rest before {self.label} skipped."


def resting_runs(
    plan: Plan, folder: StudyFolder, runs: Iterable[PlannedRun] | None = None
) -> list[RestingRun]:
    """Return the runs, of all or of some, that are resting and were not yet asked to continue."""
    rests = []
    for run in plan.runs if runs is None else runs:
        run_folder = folder.run(run.experiment, run.cycle)
        phase = current_phase(run_folder.marks)
        if phase is None or phase[0] != "settle" or run_folder.skip.exists():
            continue
        if run_state(run_folder)["status"] == "running":
            rests.append(RestingRun(run, plan.label(run), run_folder, phase[1]))
    return rests


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _notes(result: Path) -> tuple[str, ...]:
    try:
        return tuple(record_notes(load_json(result)["provenance"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _energy_text(result: Path) -> str:
    """Return a finished run's energy as text."""
    try:
        energy = load_json(result)["energy"]
    except (OSError, ValueError, KeyError):
        return "completed"
    if energy["per_output_token_j"] is None and energy["gross_j"] is not None:
        return f"{energy['power_mean_w']:.4g} W with no output, {energy['kind']}"
    if energy["per_output_token_j"] is None:
        return f"completed, no energy: {energy.get('unavailable')}"
    return f"{energy['per_output_token_j']:.4g} J per output token, {energy['kind']}"
