"""The supervisor of one run: starts the recorder and the engine, and lives through their ends.

Standard library only, so that it starts at once and nothing an engine does can take it down.
It writes the outcome whatever happens: an engine's segfault, an out-of-memory kill, a signal, a
time limit, or the death of the workflow that asked for the run.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

from llenergymeasure import processes
from llenergymeasure.config.servers import is_external
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError
from llenergymeasure.files import (
    make_folder,
    open_file,
    read_json,
    remove,
    remove_unfinished,
    write_text,
)
from llenergymeasure.machine.gpus.memory_release import ask_release, told
from llenergymeasure.machine.host import memory_kills
from llenergymeasure.machine.scheduler import job_facts, time_limit_over
from llenergymeasure.processes import SignalPipe, python_module
from llenergymeasure.recording.client import RecorderProcess
from llenergymeasure.redact import keep_secret, make_key
from llenergymeasure.results.attempt import Outcome, attempts_begun
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder
from llenergymeasure.results.whole import is_measured, is_whole
from llenergymeasure.run.attempt_lock import AttemptLock, EarlierAttemptError
from llenergymeasure.run.circuit_breaker import Circuit, CircuitBrokenError
from llenergymeasure.run.ending import (
    GRACE_S,
    Cause,
    End,
    described,
    engine_killed,
    finish_killed,
    outcome_error,
    wait_for_end,
)
from llenergymeasure.run.engine.phase_marks import read_marks
from llenergymeasure.run.reserved_gpus import Reservation, put_back_left_limits
from llenergymeasure.run.session import conclude, concluded, joining
from llenergymeasure.screen import say
from llenergymeasure.units import DISQUALIFYING

ENGINE_MODULE = "llenergymeasure.run.engine.engine_process"
FINISH_MODULE = "llenergymeasure.run.result.build_result"

RECORDER_READY_S = 60.0
RELEASE_LIMIT_S = 180.0
"""For an engine to end once it has written what it measured: then nothing is lost with it."""

FINISH_LIMIT_S = 600.0
FINISH_HURRIED_S = 120.0
"""For computing the result, from when a signal has asked for the run's end."""

POLL_S = 0.01


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
        keep_secret([(spec["config"].get("openai") or {}).get("api_key_env")])
        self.followers: list[Supervisor] = []
        """The runs after it that share its server."""
        self._folder = folder
        self._watched_pid = watched_pid
        self._engine_launcher = engine_launcher
        self._recorder: RecorderProcess | None = None
        self._recorder_lost = False
        self._reservation: Reservation | None = None
        self._circuit = Circuit(folder.study.circuit)
        self._memory_kills = memory_kills()

    @property
    def folder(self) -> RunFolder:
        """Where the run goes."""
        return self._folder

    def run(self) -> int:
        """Do the run; return 0, 1, or 128 + n after signal n."""
        signals = SignalPipe()
        make_key()  # here, so that whoever writes of the run knows it
        processes.adopt_orphans()
        os.environ[RUN_VARIABLE] = str(self._folder.path)
        try:
            lock = AttemptLock.take(self._folder, signals.wait)
        except EarlierAttemptError as error:  # the outcome is the other attempt's to write
            say(str(error))
            return EXIT_FAILED
        if lock is None:
            return 128 + signals.take()
        outcome = Outcome(attempt=attempts_begun(self._folder) + 1, job=job_facts())
        try:
            if lock.waited and is_whole(self._folder):
                # Its workflow was killed while the earlier attempt was finishing: nothing to do.
                outcome.end(self._folder, "completed", EXIT_OK)
                return EXIT_OK
            self._circuit.refuse_if_broken()
            put_back_left_limits()
            left = self._finish_what_was_left(outcome, signals)
            if left is not None:
                return left
            self.clear()
        except (OSError, LlemError) as error:
            outcome.begin(self._folder)
            return self._fail(outcome, EXIT_FAILED, described(error))
        outcome.begin(self._folder)
        started = time.monotonic()
        with self._log() as log, ExitStack() as held:
            try:
                self.followers = list(joining(self.followers, held))
                for each in self.followers:
                    each.clear()
                return self._attempt(outcome, log, signals, started)
            except LlemError as error:
                self._clean_up()
                return self._fail(outcome, error.exit_code, described(error))
            except Exception as error:  # the outcome must be written whatever went wrong
                self._clean_up()
                self._fail(outcome, EXIT_FAILED, described(error))
                raise

    def _log(self) -> IO[bytes]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        return os.fdopen(open_file(self._folder.log, flags), "ab", buffering=0)

    def _disqualified(self) -> bool:
        """Return whether the result is kept out of the means."""
        record = read_json(self._folder.result) or {}
        return not DISQUALIFYING.isdisjoint(record.get("validity", ()))

    def _remove_products(self) -> None:
        """Remove what a run that did not end well has left of a result.

        The workflow asks for the record alone, so the files next to it are this one's to remove.
        """
        for path in self._folder.products:
            remove(path)

    def clear(self) -> None:
        """Make room: what an earlier attempt left for a look goes now."""
        for path in (self._folder.work, self._folder.stream, self._folder.log):
            remove(path)
        remove_unfinished(self._folder.path)
        self._remove_products()
        make_folder(self._folder.work)
        remove(self._folder.skip)  # one that came amid the clearing
        write_text(self._folder.spec, json.dumps(self._spec, indent=2))

    def _attempt(
        self, outcome: Outcome, log: IO[bytes], signals: SignalPipe, started: float
    ) -> int:
        self._note(outcome, "reserve")
        config = self._spec["config"]
        run = f"run {self._spec['experiment']}/{self._spec['cycle']}"
        self._reservation = Reservation.make(config, run, signals.wait)
        if self._reservation is None:
            return self._conclude(outcome, End.by_signal(signals.take()))
        self._reservation.hold_limits(config.get("gpu") or {})
        self._write_limits()
        engine = self._start_engine(log, (each.folder for each in self.followers))
        end = self._record(engine, log, signals, started, outcome, goes_on=bool(self.followers))
        end = self._measure_followers(engine, log, signals, end)
        processes.end_group(engine, 0.0)
        self._put_limits_back()
        if end.cause is not Cause.SIGNAL:
            self._check_memory(outcome)
        if is_measured(self._folder):
            if end.cause is not Cause.SIGNAL and self._to_be_judged():
                judging = self._judge(log, signals, started, outcome)
                end = judging if judging.cause is not None else end
            end = self._finish(signals, outcome, end)
        self._clean_up()
        return self._conclude(outcome, end)

    def _record(
        self,
        engine: "subprocess.Popen[bytes]",
        log: IO[bytes],
        signals: SignalPipe,
        started: float,
        outcome: Outcome,
        *,
        goes_on: bool,
    ) -> End:
        """Record while the engine does this run; end it unless it goes on with another."""
        assert self._reservation is not None
        self._recorder = RecorderProcess.start(
            out=self._folder.stream,
            run_pid=os.getpid(),
            engine_pid=self._folder.engine_pid,
            sensors=_sensors(self._spec["config"]),
            devices=self._reservation.allotment.uuids or None,
            log=log,
        )
        # In a thread, so that signals are heard while the recorder starts.
        threading.Thread(target=self._announce_recorder, args=[self._recorder], daemon=True).start()
        end = self._watch(engine, signals, started, outcome, goes_on=goes_on)
        if not goes_on:
            processes.end_group(engine, 0.0)
        self._stop_recorder()
        return end

    def _measure_followers(
        self, engine: "subprocess.Popen[bytes]", log: IO[bytes], signals: SignalPipe, end: End
    ) -> End:
        """Measure the runs that share the server; return what ended this one's, or all of them."""
        before = self._folder
        for each in self.followers:
            if not is_measured(before) or engine.poll() is not None or self._folder.last.exists():
                break
            goes_on = each is not self.followers[-1]
            its = each.measure_on(self, engine, log, signals, goes_on=goes_on)
            if its.cause in (Cause.SIGNAL, Cause.WORKFLOW_GONE):
                return its
            before = each.folder
        return end

    def measure_on(
        self,
        first: "Supervisor",
        engine: "subprocess.Popen[bytes]",
        log: IO[bytes],
        signals: SignalPipe,
        *,
        goes_on: bool,
    ) -> End:
        """Measure this run on the server that the first has started; its own job finishes it."""
        outcome = Outcome(attempt=attempts_begun(self._folder) + 1, job=job_facts())
        self._reservation = first._reservation
        self._write_limits()
        end = self._record(engine, log, signals, time.monotonic(), outcome, goes_on=goes_on)
        if is_measured(self._folder):
            conclude(self._folder, self._watched_pid, None)
        elif end.cause not in (Cause.SIGNAL, Cause.WORKFLOW_GONE) and not end.well:
            error = self._error(end)
            place = first.folder.path
            error["message"] += f" (run.log of {place.parent.name}/{place.name} has what was said)"
            conclude(self._folder, self._watched_pid, error)
        remove(self._folder.outcome)
        return end

    def _to_be_judged(self) -> bool:
        """Return whether the engine's end kept the study's command from judging the experiment."""
        asked = self._spec.get("sections", {}).get("quality", {})
        done = read_json(self._folder.engine) or {}
        judged = (done.get("quality") or {}).get("command") is not None
        return asked.get("command") is not None and not judged

    def _judge(self, log: IO[bytes], signals: SignalPipe, started: float, outcome: Outcome) -> End:
        """Let an engine's process judge what another has measured."""
        engine = self._start_engine(log)
        end = self._watch(engine, signals, started, outcome)
        processes.end_group(engine, 0.0)
        return end

    def _finish_what_was_left(self, outcome: Outcome, signals: SignalPipe) -> int | None:
        """Finish the window that an earlier attempt measured completely before it was killed.

        Or that the job of another run measured on their server; if it failed there, say so.

        Returns:
            The exit code; None where nothing was left, or what was left gives no valid result.
        """
        shared = concluded(self._folder, self._watched_pid)
        if not is_measured(self._folder):
            if shared is None or shared["error"] is None:
                return None
            outcome.begin(self._folder)
            self._name_phase_cut_short(outcome)
            remove(self._folder.session)  # said once: another attempt measures it
            return self._fail(outcome, EXIT_FAILED, shared["error"])
        outcome.begin(self._folder)
        write_text(self._folder.spec, json.dumps(self._spec, indent=2))
        end = self._finish(signals, outcome, End(0))
        # What was killed or asked to end has not judged what was measured: the next call goes on.
        cut_short = end.cause is Cause.SIGNAL or end.returncode < 0
        if shared or cut_short or (end.well and not self._disqualified()):
            return self._conclude(outcome, end)
        say("what an earlier attempt left gives no result: measured again")
        outcome.attempt += 1
        outcome.phase = None
        return None

    def _clean_up(self) -> None:
        """Leave nothing behind: no process, no changed limit, no locked card."""
        self._stop_recorder()
        changed = False
        if self._reservation is not None:
            self._put_limits_back()
            self._reservation.release()
            changed = self._reservation.changed
            self._reservation = None
        processes.kill_descendants()
        if changed:
            # Whoever did not answer is dead by now, or has the card's lock until its driver does.
            put_back_left_limits()

    def _put_limits_back(self) -> None:
        assert self._reservation is not None
        self._reservation.put_back()
        for each in (self, *self.followers):
            if each._reservation is not None:
                each._write_limits()

    def _write_limits(self) -> None:
        assert self._reservation is not None
        if self._reservation.limits is not None:
            write_text(self._folder.limits, json.dumps(self._reservation.limits))

    def _start_engine(
        self, log: IO[bytes], then: Iterable[RunFolder] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start the engine's process here, or in the container that was made for it."""
        if self._engine_launcher is None:
            folders = [str(each.path) for each in (self._folder, *then)]
            command = python_module(ENGINE_MODULE, "--out", *folders)
        else:
            out = ["--out", str(self._folder.path), "--watch", str(os.getpid())]
            command = [*self._engine_launcher, *out]
        assert self._reservation is not None
        return processes.start(command, log, self._reservation.environment())

    def _check_memory(self, outcome: Outcome) -> None:
        """Report whether the cards have their memory back, now that the engine is gone."""
        assert self._reservation is not None
        processes.kill_descendants()
        if is_external(self._spec["config"]):
            return  # a server that is not the run's may keep what it took
        release = ask_release(self._reservation.allotment.memory_used_bytes)
        if release is None:
            return
        outcome.gpu_memory = release
        write_text(self._folder.gpu_memory, json.dumps(release))
        for line in told(release):
            say(line)

    def _announce_recorder(self, recorder: RecorderProcess) -> None:
        """Notify the engine's process which sensors work: it waits for this before it begins."""
        try:
            ready = recorder.wait_ready(RECORDER_READY_S)
        except Exception as error:
            ready = {"ready": False, "error": str(error), "sensors": []}
            self._recorder_lost = True
        write_text(self._folder.recorder, json.dumps(ready))

    def _watch(
        self,
        child: "subprocess.Popen[bytes]",
        signals: SignalPipe,
        started: float,
        outcome: Outcome,
        *,
        goes_on: bool = False,
    ) -> End:
        """Wait for the engine's end, and keep the outcome's phase current meanwhile.

        One that goes on with another run is waited for until it has measured this one.
        """
        released_at: float | None = None

        def limits() -> Iterator[tuple[float, Cause, str]]:
            nonlocal released_at
            self._note_phase(outcome)
            limit_s = self._limit_s()
            if limit_s is not None:
                yield started + limit_s, Cause.TIME_LIMIT, f"over its limit of {limit_s:g} s"
            over = self._folder.engine.is_file() and outcome.phase != "judge"
            released_at = (released_at or time.monotonic()) if over else None
            if released_at is not None:
                message = f"not ended {RELEASE_LIMIT_S:g} s after its work"
                yield released_at + RELEASE_LIMIT_S, Cause.TEARDOWN_HUNG, message

        done = self._folder.engine.is_file if goes_on else None
        return wait_for_end(child, signals, self._watched_pid, limits, done)

    def _limit_s(self) -> float | None:
        """Return the study's limit, else the one the engine's process computed, once it has."""
        limit_s = self._spec.get("timeout_s")
        if limit_s is None and self._folder.time_limit.is_file():
            limit_s = json.loads(self._folder.time_limit.read_text())
        return None if limit_s is None else float(limit_s)

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

    def _stop_recorder(self) -> None:
        if self._recorder is None:
            return
        if not self._recorder.alive():
            self._recorder_lost = True
        self._recorder.stop(GRACE_S)
        if self._recorder_lost:
            (self._folder.work / "recorder_lost").touch()
        self._recorder = None

    def _finish(self, signals: SignalPipe, outcome: Outcome, engine_end: End) -> End:
        """Compute the result from what the run left.

        What was measured is kept whatever ended the engine, and whoever asks for an end now: the
        limit is shorter then.
        """
        if not engine_end.well:
            how = {"returncode": engine_end.returncode, "message": engine_end.message}
            write_text(self._folder.engine_end, json.dumps(how))
        self._note(outcome, "finish")
        remove(self._folder.error)
        command = python_module(FINISH_MODULE, "--out", str(self._folder.path))
        with self._log() as log:
            child = processes.start(command, log)
        number = engine_end.signal_number
        deadline = time.monotonic() + (FINISH_LIMIT_S if number is None else FINISH_HURRIED_S)
        while child.poll() is None and time.monotonic() < deadline:
            if number is not None:
                time.sleep(POLL_S)
            elif signals.wait(POLL_S):
                number = signals.take()
                deadline = min(deadline, time.monotonic() + FINISH_HURRIED_S)
        if child.poll() is not None:
            code = child.wait()
            return End(code, message=finish_killed(code) if code < 0 else "")
        processes.end_group(child, GRACE_S)
        if number is not None:
            return End.by_signal(number)
        return End(-1, Cause.FINISH_HUNG, f"computing the result took over {FINISH_LIMIT_S:g} s")

    def _conclude(self, outcome: Outcome, end: End) -> int:
        if end.well:
            remove(self._folder.work)
            remove(self._folder.stream)
            outcome.phase = None
            outcome.end(self._folder, "completed", EXIT_OK)
            self._circuit.remove()
            return EXIT_OK
        self._remove_products()
        self._name_phase_cut_short(outcome)
        if end.cause in (Cause.SIGNAL, Cause.WORKFLOW_GONE):
            code = EXIT_FAILED if end.signal_number is None else 128 + end.signal_number
            over = time_limit_over() if end.signal_number == signal.SIGTERM else None
            message = end.message if over is None else f"{end.message}: {over}"
            outcome.end(self._folder, "interrupted", code, outcome_error("Interrupted", message))
            return code
        code = EXIT_FAILED if end.cause is not None else processes.exit_code(end.returncode)
        return self._fail(outcome, code, self._error(end))

    def _error(self, end: End) -> dict[str, str]:
        """Return why the run failed, as far as its processes or their end say it."""
        if end.cause is not None:
            return outcome_error(end.cause.value, end.message)
        error = read_json(self._folder.error)
        if error is not None:
            return error
        if end.message:
            return outcome_error("FinishKilled", end.message)
        out_of_memory = (memory_kills() or 0) > (self._memory_kills or 0)
        return engine_killed(end.returncode, out_of_memory=out_of_memory)

    def _name_phase_cut_short(self, outcome: Outcome) -> None:
        """Let the outcome name the phase that went wrong, not the release that followed it."""
        for name, _, end_ns in read_marks(self._folder.marks):
            if end_ns is None:
                outcome.phase = name
                return

    def _fail(self, outcome: Outcome, code: int, error: dict[str, str]) -> int:
        outcome.end(self._folder, "failed", code, error)
        error = outcome.error or error  # without secrets
        if error["class"] != CircuitBrokenError.__name__:
            self._circuit.add_failure(self._spec["experiment"], error)
        where = f" in phase {outcome.phase}" if outcome.phase else ""
        run = f"{self._spec['experiment']}/{self._spec['cycle']}"
        say(f"run {run} failed{where}: {error['class']}: {error['message']}")
        return code or EXIT_FAILED


def _sensors(config: Mapping[str, Any]) -> str:
    """Return the recorder's sensors: always the automatic ones, and one that the study names."""
    named = (config.get("energy") or {}).get("backend") or "auto"
    return "auto" if named in {"auto", "none"} else f"auto,{named}"
