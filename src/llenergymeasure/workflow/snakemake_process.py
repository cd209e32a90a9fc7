"""Runs Snakemake on one study: progress, two-stage interruption, messages, exit code."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llenergymeasure.containers.images import image_folder, why_not_started
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError, PreflightError, Problem
from llenergymeasure.files import open_file
from llenergymeasure.installation import workflow_root
from llenergymeasure.machine.folders import is_full, why_not_writable
from llenergymeasure.machine.gpus.allotment import driver_there
from llenergymeasure.plan import Plan
from llenergymeasure.processes import die_with_parent, python_module, safe_path_variables
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.notes import note_kind
from llenergymeasure.results.outcome import makes_runs, read_outcome
from llenergymeasure.run.circuit_breaker import Circuit
from llenergymeasure.run.preflight.checks import check_folder
from llenergymeasure.run.preflight.forecast import Forecast
from llenergymeasure.run.preflight.model_checks import check_models_available
from llenergymeasure.sensors.rapl import RaplSensor
from llenergymeasure.workflow import snakemake_log
from llenergymeasure.workflow.open_study import OVERRIDES_VARIABLE
from llenergymeasure.workflow.progress import PARALLEL_RUNS, PARALLEL_RUNS_ON_CLUSTER, Progress
from llenergymeasure.workflow.slurm_jobs import (
    NEVER_ENDS_CLAUSE,
    QUEUE_POLL_S,
    QUEUE_POLL_SOON_S,
    cancel_jobs,
    lasting_reasons,
    queued_jobs,
    waiting_summary,
)
from llenergymeasure.workflow.snakemake_profile import is_bundled, may_share, snakemake_profile
from llenergymeasure.workflow.snakemake_study import DRIVEN_VARIABLE

POLL_S = 0.2
REFRESH_S = 1.0
"""Looking at the runs costs a little of the machine's time while it is measured."""
OWNER = "llem"
"""The name in a study's lock, for a second caller."""
LOG_NAME = "snakemake.log"


class Listener:
    """Receives messages about a running study, and reports each run's phases."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """Take the function that gets each line; None for silence."""
        self._say = say
        self._refreshed_s = 0.0
        self.ending = ""
        """What a study that is to end waits for; empty while it continues."""
        self.queue = ""
        """Why the study's jobs wait in SLURM's queue."""

    def say(self, line: str) -> None:
        """Pass it on."""
        if self._say is not None:
            self._say(line)

    def wait(self, timeout_s: float, progress: Progress) -> None:
        """Wait, and pass on what phase a run is in."""
        time.sleep(timeout_s)
        if self._say is not None and self.is_due():
            self.say_phases(progress)

    def clear(self) -> None:
        """Remove the changing status line; there is none here."""

    def is_due(self) -> bool:
        """Return whether it is time to look at the runs."""
        if time.monotonic() - self._refreshed_s < REFRESH_S:
            return False
        self._refreshed_s = time.monotonic()
        return True

    def say_phases(self, progress: Progress) -> None:
        """Report the runs that have entered another phase."""
        for line in progress.phases():
            self.say(line)


@dataclass(frozen=True)
class Call:
    """How Snakemake is called.

    Attributes:
        overrides: settings that win over the study's, by dotted key.
        profile: its profile: a folder, a name it knows, or one of ours; None for the default.
        folder: where it works and keeps its own state; this process's if None.
        targets: the files to make; all if empty.
        environment: variables set for it.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    folder: Path | None = None
    targets: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, study_file: Path) -> list[str]:
        """Return the command that runs this workflow on a study."""
        return [
            *python_module("snakemake", *self.targets),
            *("--rerun-triggers", "mtime"),  # also if the user's own profile leaves it out
            *("--snakefile", str(workflow_root() / "Snakefile")),
            *("--configfile", str(study_file.absolute())),
            # Snakemake would apply the default profile next to the rules on top of another profile.
            *("--workflow-profile", "none", "--profile", snakemake_profile(self.profile)),
        ]

    def variables(self) -> dict[str, str]:
        """Return the environment for Snakemake."""
        variables = {DRIVEN_VARIABLE: "1", **safe_path_variables()}
        # This process sends notifications; its variables would be passed on to jobs and containers.
        overrides = {k: v for k, v in self.overrides.items() if k.partition(".")[0] != "notify"}
        if overrides:
            variables[OVERRIDES_VARIABLE] = json.dumps(overrides)
        return os.environ | dict(self.environment) | variables


class SnakemakeProcess:
    """One call of Snakemake on one study, followed to its end."""

    def __init__(
        self, study_file: Path, plan: Plan, folder: StudyFolder, view: Listener, lock: int
    ) -> None:
        """Take a study and who watches.

        Args:
            study_file: what Snakemake reads.
            plan: the same, planned.
            folder: where its results go.
            view: who watches.
            lock: the open file of the study's lock, which the caller holds. Snakemake inherits it,
                so that nobody else begins as long as either lives.
        """
        self._study_file = study_file
        self._plan = plan
        self._folder = folder
        self._view = view
        self._lock = lock
        self._log_path = folder.path / LOG_NAME
        self._reported: set[str] = set()
        self._interruptions = 0
        self._on_cluster = False
        self._next_poll_s = 0.0
        self._run_failed = False
        self._signal_number: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.error_text = ""
        """What Snakemake said where it failed and no run explains it."""
        self.circuit_message: str | None = None
        """Why the circuit broke, if it did."""

    def run(self, call: Call) -> int:
        """Run the workflow; return 0, 1, 130 or 143.

        Raises:
            PreflightError: a model that runs need is not here and cannot be downloaded.

        The first SIGINT lets the current run end and starts no new one; the second ends it now;
        a third ends Snakemake too. SIGTERM is both stages at once. Outside a program's main
        thread signals are left to the program.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        self._on_cluster = call.profile is not None
        # This process lives as long as the study, and a driver with open NVML could not unload.
        gpus = call.profile is not None or driver_there()
        estimates = Forecast(local=not gpus).estimates
        measured = gpus or bool(RaplSensor().channels())
        parallel_runs = PARALLEL_RUNS if call.profile is None else PARALLEL_RUNS_ON_CLUSTER
        share = may_share(self._plan.execution, call.profile)
        progress = Progress(
            self._plan, self._folder, parallel_runs, estimates, measured=measured, share=share
        )
        _check_snakemake_cache()
        if not self._plan.execution.get("skip_preflight"):
            problems = [] if self._on_cluster else check_folder(self._folder.path)
            fatal_problems = [problem for problem in problems if problem.fatal]
            if fatal_problems and progress.next_runs():
                raise PreflightError(fatal_problems)
            for line in check_models_available(progress.open_configs(), in_jobs=self._on_cluster):
                self._view.say(line)
        with self._signals(), os.fdopen(open_file(self._log_path, flags), "w+b") as log:
            Circuit(self._folder.circuit).remove()  # of an earlier call, on any machine
            self._process = self._start(log, call)
            self._follow(self._process, progress)
            log.seek(0)
            return self._exit_code(self._process.returncode, log.read().decode(errors="replace"))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._on_interrupt),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_terminate),
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self, log: IO[bytes], call: Call) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*call.command(self._study_file), *self._apptainer_options(call)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=call.folder,
            env=call.variables(),
            pass_fds=(self._lock,),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def _apptainer_options(self, call: Call) -> list[str]:
        if not self._uses_apptainer():
            return []
        has_cache_folder = "APPTAINER_CACHEDIR" in os.environ  # Snakemake then puts images there
        if has_cache_folder or not (call.profile is None or is_bundled(call.profile)):
            return ["--use-apptainer"]
        # Not the working folder: Snakemake takes any file of that name there for its pulled image.
        return ["--use-apptainer", "--apptainer-prefix", str(image_folder())]

    def _uses_apptainer(self) -> bool:
        return any(run.runner == "apptainer" for run in self._plan.runs)

    def _follow(self, process: "subprocess.Popen[bytes]", progress: Progress) -> None:
        """Watch Snakemake to its end."""
        circuit = Circuit(self._folder.circuit)
        while process.poll() is None:
            self._report_ended_runs(progress)
            self._report_queue()
            if self.circuit_message is not None:
                self._end_runs()  # again: another one may have been starting
            elif (message := circuit.broken_reason()) is not None:
                self.circuit_message = message
                self._view.say(message)
                self._signal_snakemake(signal.SIGTERM)
            self._view.wait(POLL_S, progress)
        self._view.clear()
        self._report_ended_runs(progress)
        self._run_failed = progress.any_failed

    def _report_ended_runs(self, progress: Progress) -> None:
        ends = progress.newly_ended()
        if ends and self._on_cluster:  # an earlier call's job may be one of them: first say so
            self._say_once(snakemake_log.read_job_messages(self._log_path))
        for ended in ends:
            self._next_poll_s = min(self._next_poll_s, time.monotonic() + QUEUE_POLL_SOON_S)
            self._view.say(ended.line)
            for note in ended.notes:
                kind = note_kind(note)
                if kind not in self._reported:  # once a study: most hold for every run
                    self._reported.add(kind)
                    self._view.say(f"Note: {note}")

    def _report_queue(self) -> None:
        if not self._on_cluster or time.monotonic() < self._next_poll_s:
            return
        self._next_poll_s = time.monotonic() + QUEUE_POLL_S
        with suppress(LlemError):  # SLURM does not answer just now
            jobs = queued_jobs(self._folder)
            self._view.queue = waiting_summary(jobs)
            self._say_once(lasting_reasons(jobs, self._reported))
        self._say_once(snakemake_log.read_job_messages(self._log_path))

    def _say_once(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line and line not in self._reported:
                self._reported.add(line)
                self._view.say(line)

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        self._signal_number = signal.SIGINT
        self._interruptions += 1
        if self._interruptions == 1:
            self._view.ending = "stopping after the current run"
            self._view.say("Stopping after the current run; interrupt again to end it now.")
            self._signal_snakemake(signal.SIGTERM)
            self._end_sessions()
            self._cancel_jobs(waiting_only=True)
        elif self._interruptions == 2:
            self._end_now()
        else:
            self._signal_snakemake(signal.SIGKILL)

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self._signal_number = signal.SIGTERM
        self._signal_snakemake(signal.SIGTERM)
        self._end_now()

    def _end_now(self) -> None:
        delay = " The cluster is asked for its jobs at intervals: this may take minutes."
        self._view.ending = "waiting until what runs has ended"
        self._view.say(f"Ending the current run.{delay if self._on_cluster else ''}")
        self._end_runs()

    def _signal_snakemake(self, number: int) -> None:
        if self._process is not None:  # one that has ended is sent nothing
            self._process.send_signal(number)

    def _end_sessions(self) -> None:
        """Prevent further runs from starting on the current run's server."""
        for run in self._plan.runs:
            folder = self._folder.run(run.experiment, run.cycle)
            if run.session is not None and folder.work.is_dir():
                os.close(open_file(folder.last, os.O_WRONLY | os.O_CREAT))

    def _end_runs(self) -> None:
        """Ask the supervisors of the running runs to end them; on a cluster, their jobs.

        A process id is only valid on its own host, and anyone with access may have written it.
        """
        for run in self._plan.runs:
            folder = self._folder.run(run.experiment, run.cycle)
            if folder.result.is_file():
                continue
            outcome = read_outcome(folder.outcome)
            running = outcome.status == "running" and outcome.host == socket.gethostname()
            if running and outcome.pid is not None and makes_runs(outcome.pid, self._folder):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(outcome.pid, signal.SIGTERM)
        self._cancel_jobs()

    def _cancel_jobs(self, *, waiting_only: bool = False) -> None:
        """Cancel the study's jobs on a cluster: Snakemake would wait for pending ones."""
        if not self._on_cluster:
            return
        try:
            jobs = queued_jobs(self._folder)
            cancel_jobs([job for job in jobs if job.is_waiting or not waiting_only])
            self._view.queue = ""
        except LlemError as error:
            self._view.say(f"the jobs may still be there: {error}")

    def _exit_code(self, returncode: int, log: str) -> int:
        self._say_once(snakemake_log.job_messages(log))
        if self._signal_number is not None:
            return 128 + self._signal_number
        if returncode == 0:
            return EXIT_OK
        self._say_once([why_not_started(log) if self._uses_apptainer() else ""])
        if not self._log_path.is_file():
            self.error_text = f"llem: {self._folder.path} was removed while the study was running\n"
        elif returncode == -signal.SIGKILL:
            self.error_text = f"llem: {snakemake_log.killed_message(self._on_cluster)}\n"
        elif is_full(self._folder.path) or not self._run_failed:
            self.error_text = self._explanation(log)
        else:  # a failed run explains itself, but no other failure
            self._say_once([self._with_log_path(snakemake_log.failure_reason(log))])
        return EXIT_FAILED

    def _with_log_path(self, cause: str) -> str:
        return cause and f"{cause}; Snakemake's own words are in {self._log_path}"

    def _explanation(self, log: str) -> str:
        """Return why Snakemake failed although no run did: the failed rule's own log if any."""
        if rule_logs := snakemake_log.failed_rule_logs(log, self._folder):
            return rule_logs
        if is_full(self._folder.path):
            return f"llem: {self._folder.path}: {os.strerror(errno.ENOSPC)}\n"
        if (error_text := snakemake_log.first_error(log)).startswith("llem: "):
            return error_text
        hopeless_wait = next((line for line in self._reported if NEVER_ENDS_CLAUSE in line), "")
        hopeless_wait = re.sub(" waits? in ", " waited in ", hopeless_wait)
        if cause := snakemake_log.failure_reason(log) or hopeless_wait:
            return f"llem: {self._with_log_path(cause)}\n"
        return f"{error_text.rstrip()}\nllem: {self._with_log_path('Snakemake failed')}\n"


def _check_snakemake_cache() -> None:
    """Raise if Snakemake could not cache the workflow's files.

    Raises:
        PreflightError: its folder cannot be written to.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "snakemake")
    reason = why_not_writable(folder, 1_000_000)  # more than its copies of the workflow's files
    if reason is not None:
        text = f"Snakemake's cache cannot be written: {reason}; choose another: XDG_CACHE_HOME"
        raise PreflightError(Problem(text, file=folder))
