"""Drives Snakemake from a command line: progress, two-stage interruption, exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, EXIT_SIGINT, EXIT_SIGTERM
from llenergymeasure.measure.processes import die_with_parent
from llenergymeasure.plan import Plan, PlannedRun
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workflow.breaker import Broken, broken_circuit
from llenergymeasure.workflow.manifest import run_state
from llenergymeasure.workflow.skip import Keyboard
from llenergymeasure.workflow.source import workflow_root
from llenergymeasure.workflow.study import DRIVEN_VARIABLE

POLL_S = 0.2
LOG_NAME = "snakemake.log"

Say = Callable[[str], None]


class Drive:
    """One call of Snakemake on one study, watched to its end."""

    def __init__(self, study_file: Path, plan: Plan, folder: StudyFolder, say: Say) -> None:
        self._study_file = study_file
        self._plan = plan
        self._folder = folder
        self._say = say
        self._interruptions = 0
        self._signal_number: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, extra: Sequence[str] = ()) -> int:
        """Run the workflow; return 0, 1, 130 or 143.

        The first SIGINT lets the run at work end and starts no new one; the second ends it now;
        a third ends Snakemake too. SIGTERM is both stages at once.
        """
        self._folder.path.mkdir(parents=True, exist_ok=True)
        log_path = self._folder.path / LOG_NAME
        previous = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._on_interrupt),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._on_terminate),
        }
        try:
            with log_path.open("wb") as log:
                self._process = self._start(log, extra)
                returncode = self._follow(self._process)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self._exit_code(returncode, log_path)

    def _start(self, log: IO[bytes], extra: Sequence[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*snakemake_command(self._study_file), *extra, *self._apptainer()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LLEM_QUIET": "1", DRIVEN_VARIABLE: "1"},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def _apptainer(self) -> list[str]:
        wanted = any(run.runner == "apptainer" for run in self._plan.runs)
        return ["--use-apptainer"] if wanted else []

    def _follow(self, process: "subprocess.Popen[bytes]") -> int:
        keyboard = Keyboard(self._folder, self._say)
        progress = _Progress(self._plan, self._folder, keyboard.say)
        broken: Broken | None = None
        while process.poll() is None:
            progress.look()
            if broken is not None:
                self._end_runs()  # again: one may have been starting
            elif (broken := progress.broken()) is not None:
                keyboard.say(str(broken))
                self._signal_snakemake(signal.SIGTERM)
            keyboard.wait(POLL_S, progress.next_runs())
        keyboard.clear()
        progress.look()
        return process.returncode

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        self._signal_number = signal.SIGINT
        self._interruptions += 1
        if self._interruptions == 1:
            self._say("Stopping after the run at work; interrupt again to end it now.")
            self._signal_snakemake(signal.SIGTERM)
        elif self._interruptions == 2:
            self._say("Ending the run at work.")
            self._end_runs()
        else:
            self._signal_snakemake(signal.SIGKILL)

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self._signal_number = signal.SIGTERM
        self._signal_snakemake(signal.SIGTERM)
        self._end_runs()

    def _signal_snakemake(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end_runs(self) -> None:
        """Ask the supervisors of the runs at work to end them."""
        for run in self._plan.runs:
            folder = self._folder.run(run.experiment, run.cycle)
            if folder.result.is_file():
                continue
            outcome = read_outcome(folder.outcome)
            if outcome.status == "running" and outcome.pid is not None:
                try:
                    os.kill(outcome.pid, signal.SIGTERM)
                except (ProcessLookupError, PermissionError):
                    continue

    def _exit_code(self, returncode: int, log_path: Path) -> int:
        if self._signal_number == signal.SIGINT:
            return EXIT_SIGINT
        if self._signal_number == signal.SIGTERM:
            return EXIT_SIGTERM
        if returncode == 0:
            return EXIT_OK
        if not self._anything_failed():
            sys.stderr.write(_its_error(log_path.read_text(errors="replace")))
        return EXIT_FAILED

    def _anything_failed(self) -> bool:
        """Return whether a run explains Snakemake's failure; if not, its own words must."""
        states = [
            run_state(self._folder.run(run.experiment, run.cycle))["status"]
            for run in self._plan.runs
        ]
        return any(state in {"failed", "interrupted", "lost"} for state in states)


def _its_error(log: str) -> str:
    """Return what Snakemake said from its first error on; all of it if it named none."""
    lines = log.splitlines(keepends=True)
    first = next((place for place, line in enumerate(lines) if "Error" in line), 0)
    return "".join(lines[first:])


class _Progress:
    """Says each run's end once, in the order in which they end, and keeps how they ended."""

    def __init__(self, plan: Plan, folder: StudyFolder, say: Say) -> None:
        self._folder = folder
        self._say = say
        self._total = len(plan.runs)
        self._open = {}
        self._started_ns = time.time_ns()
        self._ends: list[dict[str, Any]] = []
        self._experiments = len({run.experiment for run in plan.runs})
        for run in plan.runs:
            if not folder.run(run.experiment, run.cycle).result.is_file():
                self._open[run.experiment, run.cycle] = run
        self._completed_before = len(self._open) < self._total

    def broken(self) -> Broken | None:
        """Return why the study should end now; null while it may go on."""
        return broken_circuit(self._ends, self._experiments, self._completed_before)

    def next_runs(self) -> list[PlannedRun]:
        """Return the runs next in line, the one at work among them."""
        return list(islice(self._open.values(), 8))

    def look(self) -> None:
        """Look at the runs next in line; Snakemake starts them in the planned order."""
        for run in self.next_runs():
            state = self._ended(run)
            if state is None:
                continue
            del self._open[run.experiment, run.cycle]
            done = self._total - len(self._open)
            self._say(f"[{done}/{self._total}] {_told(run)}: {state}")

    def _ended(self, run: PlannedRun) -> str | None:
        folder = self._folder.run(run.experiment, run.cycle)
        try:
            if folder.outcome.stat().st_mtime_ns < self._started_ns:
                return None
            outcome = json.loads(folder.outcome.read_text())
        except (OSError, ValueError):
            return None
        if outcome["status"] == "running":
            return None
        self._ends.append({**outcome, "experiment": run.experiment})
        if outcome["status"] == "completed":
            return _number(folder.result)
        error = outcome.get("error") or {}
        where = f" in {outcome['phase']}" if outcome.get("phase") else ""
        message = str(error.get("message", "")).splitlines()
        return f"{outcome['status']}{where}: {error.get('class')}: {message[0] if message else ''}"


def _told(run: PlannedRun) -> str:
    settings = " ".join(f"{key}={value}" for key, value in run.swept.items())
    return f"{run.experiment} cycle {run.cycle}" + (f" ({settings})" if settings else "")


def _number(result: Path) -> str:
    """Return a finished run's headline in words."""
    try:
        energy = json.loads(result.read_text())["energy"]
    except (OSError, ValueError, KeyError):
        return "completed"
    if energy["per_output_token_j"] is None:
        return f"completed, no energy: {energy.get('unavailable')}"
    return f"{energy['per_output_token_j']:.4g} J per output token, {energy['kind']}"


def snakemake_command(study_file: Path) -> list[str]:
    """Return the command that runs this workflow on a study, with the default profile."""
    root = workflow_root()
    return [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(root / "Snakefile"),
        "--configfile",
        str(study_file),
        "--profile",
        str(root / "profiles" / "default"),
    ]
