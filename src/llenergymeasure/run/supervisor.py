"""The supervisor of one run: starts the recorder and the engine, and lives through their ends.

Standard library only, so that it starts at once and nothing an engine does can take it down.
It writes the outcome whatever happens: an engine's segfault, an out-of-memory kill, a signal, a
time limit, or the death of the workflow that asked for the run.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError
from llenergymeasure.machine.gpus.memory_release import ask_release, told
from llenergymeasure.recording.client import RecorderProcess
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder
from llenergymeasure.results.whole import is_whole
from llenergymeasure.run import processes
from llenergymeasure.run.attempt import Outcome, attempt, read_json
from llenergymeasure.run.attempt_lock import AttemptLock, StillAtWorkError
from llenergymeasure.run.circuit_breaker import Circuit, CircuitBrokenError
from llenergymeasure.run.engine.phase_marks import read_marks
from llenergymeasure.run.finisher import Finisher, wait
from llenergymeasure.run.reserved_gpus import Reservation
from llenergymeasure.run.signals import SignalPipe

ENGINE_MODULE = "llenergymeasure.run.engine.engine_process"

GRACE_S = 15.0
"""Seconds between SIGTERM and SIGKILL for what must end."""

RECORDER_READY_S = 60.0
FINISH_LIMIT_S = 600.0

LOADED_PHASES = frozenset({"load", "warmup", "idle_loaded", "measure", "idle_after", "release"})
"""From when on the finisher may get ready: rests before the load are to be undisturbed."""


@dataclass(frozen=True)
class End:
    """Why the engine's process is over: its return code, or what ended it from outside."""

    returncode: int
    cause: str | None = None
    signal_number: int | None = None


class Supervisor:
    """One attempt at one run."""

    def __init__(
        self,
        spec: dict[str, Any],
        folder: RunFolder,
        watched_pid: int | None,
        engine_launcher: list[str] | None = None,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._watched_pid = watched_pid
        self._engine_launcher = engine_launcher
        self._recorder: RecorderProcess | None = None
        self._recorder_lost = False
        self._finisher = Finisher(self._start_waiting, folder.path)
        self._reservation: Reservation | None = None
        self._circuit = Circuit(folder.study.circuit)

    def run(self) -> int:
        """Do the run; return 0, 1, or 128 + n after signal n."""
        signals = SignalPipe()
        processes.adopt_orphans()
        os.environ[RUN_VARIABLE] = str(self._folder.path)
        try:
            lock = AttemptLock.take(self._folder, signals.wait)
        except StillAtWorkError as error:  # the outcome is the other attempt's to write
            print(error, file=sys.stderr)
            return EXIT_FAILED
        if lock is None:
            return 128 + signals.take()
        outcome = Outcome(attempt=attempt(self._folder) + 1)
        if lock.waited and is_whole(self._folder):
            # Its workflow was killed while the earlier attempt was finishing: nothing to do.
            outcome.end(self._folder, "completed", EXIT_OK)
            return EXIT_OK
        try:
            self._circuit.refuse_if_broken()
        except CircuitBrokenError as error:
            outcome.begin(self._folder)
            return self._fail(outcome, EXIT_FAILED, _described(error))
        try:
            self._clear()
        except OSError as error:
            outcome.begin(self._folder)
            return self._fail(outcome, EXIT_FAILED, _described(error))
        outcome.begin(self._folder)
        started = time.monotonic()
        with self._folder.log.open("ab", buffering=0) as log:
            try:
                return self._attempt(outcome, log, signals, started)
            except LlemError as error:
                self._clean_up()
                return self._fail(outcome, error.exit_code, _described(error))
            except Exception as error:  # the outcome must be written whatever went wrong
                self._clean_up()
                self._fail(outcome, EXIT_FAILED, _described(error))
                raise

    def _remove_products(self) -> None:
        """Remove what a run that did not end well has left of a result.

        The workflow asks for the record alone, so the files beside it are this one's to remove.
        """
        for path in self._folder.products:
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Make room: what an earlier attempt left for a look goes now."""
        shutil.rmtree(self._folder.work, ignore_errors=True)
        self._folder.stream.unlink(missing_ok=True)
        self._folder.log.unlink(missing_ok=True)
        self._remove_products()
        self._folder.work.mkdir(parents=True, exist_ok=True)
        self._folder.skip.unlink(missing_ok=True)  # one that came amid the clearing
        self._folder.spec.write_text(json.dumps(self._spec, indent=2))

    def _attempt(
        self, outcome: Outcome, log: IO[bytes], signals: SignalPipe, started: float
    ) -> int:
        self._note(outcome, "reserve")
        config = self._spec["config"]
        run = f"run {self._spec['experiment']}/{self._spec['cycle']}"
        self._reservation = Reservation.make(config, run, signals.wait)
        if self._reservation is None:
            return self._conclude(outcome, _interrupted(signals))
        self._reservation.hold_limits(config.get("gpu") or {}, log)
        engine = self._start_engine(log)
        allotment = self._reservation.allotment
        self._recorder = RecorderProcess.start(
            out=self._folder.stream,
            run_pid=os.getpid(),
            engine_pid=self._folder.engine_pid,
            sensors=_sensors(config),
            devices=allotment.uuids or None,
            log=log,
        )
        # In a thread, so that signals are heard while the recorder starts.
        threading.Thread(target=self._announce_recorder, args=[self._recorder], daemon=True).start()
        end = self._watch(engine, signals, started, outcome)
        processes.end_group(engine, 0.0)
        self._stop_recorder()
        self._put_limits_back()
        self._check_memory(outcome)
        if end.cause is None and end.returncode == 0:
            end = self._finish(signals, outcome)
        self._clean_up()
        return self._conclude(outcome, end)

    def _clean_up(self) -> None:
        """Leave nothing behind: no process, no changed limit, no locked card."""
        self._stop_recorder()
        self._finisher.dismiss()
        if self._reservation is not None:
            # The guard is a descendant too: it has to be done before they are killed.
            self._reservation.release()
            self._reservation = None
        processes.kill_descendants()

    def _put_limits_back(self) -> None:
        assert self._reservation is not None
        self._reservation.put_back()
        limits = self._reservation.limits()
        if limits is not None:
            self._folder.limits.write_text(json.dumps(limits))

    def _start_engine(self, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start the engine's process here, or in the container that was made for it."""
        if self._engine_launcher is None:
            command = [sys.executable, "-m", ENGINE_MODULE, "--out", str(self._folder.path)]
        else:
            out = ["--out", str(self._folder.path), "--watch", str(os.getpid())]
            command = [*self._engine_launcher, *out]
        assert self._reservation is not None
        return processes.start(command, log, self._reservation.environment())

    def _start_waiting(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a process that is told over its standard input when to begin."""
        assert self._reservation is not None
        with self._folder.log.open("ab", buffering=0) as log:
            environment = self._reservation.environment()
            return processes.start(command, log, environment, stdin=subprocess.PIPE)

    def _check_memory(self, outcome: Outcome) -> None:
        """Tell whether the cards have their memory back, now that the engine is gone."""
        assert self._reservation is not None
        processes.kill_descendants(spare=self._finisher.pid)
        if self._spec["backend"] == "openai":
            return  # a server that is not the run's may keep what it took
        release = ask_release(self._reservation.allotment.memory_used_bytes)
        if release is None:
            return
        outcome.gpu_memory = release
        self._folder.gpu_memory.write_text(json.dumps(release))
        for line in told(release):
            print(line, file=sys.stderr)

    def _announce_recorder(self, recorder: RecorderProcess) -> None:
        """Tell the engine's process which sensors work: it waits for this before it begins."""
        try:
            ready = recorder.wait_ready(RECORDER_READY_S)
        except Exception as error:
            ready = {"ready": False, "error": str(error), "sensors": []}
            self._recorder_lost = True
        temporary = self._folder.recorder.with_suffix(".part")
        temporary.write_text(json.dumps(ready))
        temporary.replace(self._folder.recorder)

    def _watch(
        self,
        child: "subprocess.Popen[bytes]",
        signals: SignalPipe,
        started: float,
        outcome: Outcome,
    ) -> End:
        """Wait for the child, a signal, the time limit or the end of who asked for the run."""
        poller = select.poll()
        child_handle = os.pidfd_open(child.pid)
        poller.register(child_handle, select.POLLIN)
        poller.register(signals.handle, select.POLLIN)
        watched = self._open_watched()
        if watched is None:
            return self._end_child(child, "the workflow that asked for the run ended")
        for handle in watched:
            poller.register(handle, select.POLLIN)
        try:
            while True:
                limit_s = self._limit_s()
                left_s = None if limit_s is None else started + limit_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return self._end_child(child, f"over its limit of {limit_s:g} s")
                # Often until the finisher is started, which is to fall into the loading.
                longest_ms = 1000 if self._finisher.started else 100
                wait_ms = longest_ms if left_s is None else min(longest_ms, max(1, left_s * 1000))
                ready = {handle for handle, _ in poller.poll(wait_ms)}
                self._note_phase(outcome)
                if not self._finisher.started and outcome.phase in LOADED_PHASES:
                    self._finisher.ready()
                if child_handle in ready:
                    return End(child.wait())
                if signals.handle in ready:
                    number = signals.take()
                    return self._end_child(child, signal.Signals(number).name, number)
                if ready.intersection(watched):
                    return self._end_child(child, "the workflow that asked for the run ended")
        finally:
            for handle in (child_handle, *watched):
                os.close(handle)

    def _limit_s(self) -> float | None:
        """Return the study's limit, else the one the engine's process reckoned, once it has."""
        limit_s = self._spec.get("timeout_s")
        if limit_s is None and self._folder.time_limit.is_file():
            limit_s = json.loads(self._folder.time_limit.read_text())
        return None if limit_s is None else float(limit_s)

    def _open_watched(self) -> list[int] | None:
        """Return pidfds on who asked for the run and on our parent; null if the first is gone.

        They differ in a container, whose starter can be killed alone.
        """
        if self._watched_pid is None:
            return []
        if self._watched_pid == os.getppid():
            processes.die_with_parent(signal.SIGTERM)
        try:
            watched = [os.pidfd_open(self._watched_pid)]
        except ProcessLookupError:
            return None
        if os.getppid() not in (0, 1, self._watched_pid):
            with contextlib.suppress(ProcessLookupError):
                watched.append(os.pidfd_open(os.getppid()))
        return watched

    def _note_phase(self, outcome: Outcome) -> None:
        """Keep the outcome's phase current, so that even a lost run says how far it came."""
        phases = read_marks(self._folder.marks)
        if phases:
            self._note(outcome, phases[-1][0])
        if self._recorder is not None and not self._recorder.alive():
            self._recorder_lost = True

    def _note(self, outcome: Outcome, phase: str) -> None:
        if phase != outcome.phase:
            outcome.phase = phase
            outcome.write(self._folder)

    def _end_child(
        self, child: "subprocess.Popen[bytes]", cause: str, signal_number: int | None = None
    ) -> End:
        return End(processes.end_group(child, GRACE_S), cause, signal_number)

    def _stop_recorder(self) -> None:
        if self._recorder is None:
            return
        if not self._recorder.alive():
            self._recorder_lost = True
        self._recorder.stop(GRACE_S)
        if self._recorder_lost:
            (self._folder.work / "recorder_lost").touch()
        self._recorder = None

    def _finish(self, signals: SignalPipe, outcome: Outcome) -> End:
        """Compute the result from what the run left.

        Who asked for the run may be gone by now: what was measured is kept all the same.
        """
        outcome.phase = "finish"
        child = self._finisher.begin()
        code = wait(child, FINISH_LIMIT_S, signals.wait)
        if code is not None:
            return End(code)
        if signals.wait(0.0):
            end = _interrupted(signals)
            processes.end_group(child, GRACE_S)
            return end
        return self._end_child(child, f"finishing took over {FINISH_LIMIT_S:g} s")

    def _conclude(self, outcome: Outcome, end: End) -> int:
        if end.cause is not None or end.returncode != 0:
            self._remove_products()
            self._name_phase_cut_short(outcome)
        if end.signal_number is not None:
            code = 128 + end.signal_number
            outcome.end(self._folder, "interrupted", code, _error("Interrupted", end.cause))
            return code
        if end.cause is not None and end.cause.startswith("over its limit"):
            return self._fail(outcome, EXIT_FAILED, _error("TimeoutError", end.cause))
        if end.cause is not None:
            outcome.end(self._folder, "interrupted", EXIT_FAILED, _error("Interrupted", end.cause))
            return EXIT_FAILED
        if end.returncode != 0:
            error = read_json(self._folder.error) or _killed(end.returncode)
            return self._fail(outcome, processes.exit_code(end.returncode), error)
        shutil.rmtree(self._folder.work, ignore_errors=True)
        self._folder.stream.unlink(missing_ok=True)
        outcome.phase = None
        outcome.end(self._folder, "completed", EXIT_OK)
        self._circuit.remove()
        return EXIT_OK

    def _name_phase_cut_short(self, outcome: Outcome) -> None:
        """Let the outcome name the phase that went wrong, not the release that followed it."""
        for name, _, end_ns in read_marks(self._folder.marks):
            if end_ns is None:
                outcome.phase = name
                return

    def _fail(self, outcome: Outcome, code: int, error: dict[str, str]) -> int:
        outcome.end(self._folder, "failed", code, error)
        if error["class"] != CircuitBrokenError.__name__:
            self._circuit.add_failure(self._spec["experiment"], error)
        where = f" in phase {outcome.phase}" if outcome.phase else ""
        run = f"{self._spec['experiment']}/{self._spec['cycle']}"
        print(f"run {run} failed{where}: {error['class']}: {error['message']}", file=sys.stderr)
        return code or EXIT_FAILED


def _interrupted(signals: SignalPipe) -> End:
    number = signals.take()
    return End(-number, signal.Signals(number).name, number)


def _sensors(config: Mapping[str, Any]) -> str:
    """Return the recorder's sensors: always the automatic ones, and one that the study names."""
    named = (config.get("energy") or {}).get("backend") or "auto"
    return "auto" if named in {"auto", "none"} else f"auto,{named}"


def _error(kind: str, message: str | None) -> dict[str, str]:
    return {"class": kind, "message": message or ""}


def _described(error: BaseException) -> dict[str, str]:
    return _error(type(error).__name__, str(error))


def _killed(returncode: int) -> dict[str, str]:
    """Describe an engine's process that ended without saying why."""
    if returncode >= 0:
        return _error("EngineExit", f"the engine's process ended with exit code {returncode}")
    name = signal.Signals(-returncode).name
    hint = "; the usual cause is the system running out of memory" if name == "SIGKILL" else ""
    return _error("EngineKilled", f"the engine's process was killed by {name}{hint}")
