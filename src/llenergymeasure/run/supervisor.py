"""The supervisor of one run: starts the recorder and the engine, and lives through their ends.

Standard library only, so that it starts at once and nothing an engine does can take it down.
It writes the outcome whatever happens: an engine's segfault, an out-of-memory kill, a signal, a
time limit, or the death of the workflow that asked for the run.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from llenergymeasure import processes
from llenergymeasure.config.servers import is_external
from llenergymeasure.errors import EXIT_FAILED, LlemError
from llenergymeasure.files import load_json, open_file, read_json, remove
from llenergymeasure.machine.gpus.memory_release import unreleased_lines, wait_for_release_in_child
from llenergymeasure.processes import SignalPipe, python_module
from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.redact import keep_secret, make_key
from llenergymeasure.results.complete import is_assessed, is_complete, is_measured
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder
from llenergymeasure.run.attempt import Attempt, EarlierAttemptError, lock_folder
from llenergymeasure.run.ending import (
    EXIT_LATER,
    GRACE_S,
    KEPT_MESSAGE,
    Cause,
    End,
    exception_error,
    wait_for_end,
    wait_for_result,
)
from llenergymeasure.run.gpu_reservation import Reservation, restore_leftover_limits
from llenergymeasure.run.shared_server import measure_followers, runs_to_measure, shared_outcome
from llenergymeasure.screen import say
from llenergymeasure.validity_codes import DISQUALIFYING

ENGINE_MODULE = "llenergymeasure.run.engine.engine_process"
FINISH_MODULE = "llenergymeasure.run.result.build_result"

RECORDER_READY_S = 60.0
PREFLIGHT_LIMIT_S = 4 * 3600.0
"""For an engine's process to say how long its run may take: until then it reads what others wrote,
and a model's chat template is a program that need not end."""

RELEASE_LIMIT_S = 180.0
"""For an engine to end once it has written what it measured: then nothing is lost with it."""

ASSESSMENT_PHASES = ("quality", "judge")
"""Phases after the window in which the engine assesses answers, within the run's own limit."""


class Supervisor:
    """One attempt at one run."""

    attempt: Attempt
    """Its outcome and files, once its folder is held."""
    _signals: SignalPipe

    def __init__(
        self,
        spec: dict[str, Any],
        folder: RunFolder,
        watched_pid: int | None,
        engine_launcher: list[str] | None = None,
    ) -> None:
        self._spec = spec
        keep_secret([(spec["config"].get("openai") or {}).get("api_key_env")])
        self.folder = folder
        """Where the run goes."""
        self.watched_pid = watched_pid
        """The process that this run must not outlive."""
        self.workflow_pid = watched_pid
        """The workflow; in a container the process above is the launcher."""
        self.followers: list[Supervisor] = []
        """The runs after it that share its server."""
        self._engine_launcher = engine_launcher
        self._recorder: RecorderProcess | None = None
        self._recorder_lost = False
        self._reservation: Reservation | None = None

    def run(self) -> int:
        """Do the run; return 0, 1, or 128 + n after signal n."""
        self._signals = SignalPipe()
        make_key()  # before anything writes of the run, so that it is struck out everywhere
        processes.adopt_orphans()
        os.environ[RUN_VARIABLE] = str(self.folder.path)
        try:
            waited = lock_folder(self.folder, self._signals.wait)
        except EarlierAttemptError as error:  # the outcome is the other attempt's to write
            say(str(error))
            return EXIT_FAILED
        if waited is None:
            return 128 + self._signals.take()
        self.attempt = Attempt(self._spec, self.folder)
        try:
            if waited and is_complete(self.folder):
                # Its workflow was killed while the earlier attempt was finishing: nothing to do.
                return self.attempt.complete()
            self.attempt.circuit.refuse_if_broken()
            restore_leftover_limits()
            exit_code = self._finish_earlier_attempt()
            if exit_code is not None:
                return exit_code
            self.attempt.clear()
        except (OSError, LlemError) as error:
            self.attempt.begin()
            return self.attempt.fail(EXIT_FAILED, exception_error(error))
        self.attempt.begin()
        with ExitStack() as locks:
            try:
                self.followers = list(runs_to_measure(self.followers, locks))
                for follower in self.followers:
                    follower.attempt = Attempt(follower._spec, follower.folder)
                    follower.attempt.clear()
                return self._measure()
            except Exception as error:  # the outcome must be written whatever went wrong
                code = error.exit_code if isinstance(error, LlemError) else EXIT_FAILED
                try:
                    self._clean_up()
                finally:
                    self.attempt.fail(code, exception_error(error))
                if isinstance(error, LlemError):
                    return code
                raise

    def _measure(self) -> int:
        self.attempt.note("reserve")
        config = self._spec["config"]
        self._reservation = Reservation.make(config, f"run {self.attempt.name}", self._signals.wait)
        if self._reservation is None:
            return self.attempt.conclude(End.by_signal(self._signals.take()))
        started_s = time.monotonic()  # waiting for its cards is not part of its time
        self._reservation.set_limits(config.get("gpu") or {})
        self._write_limits()
        engine = self._start_engine(follower.folder for follower in self.followers)
        end = self.record(engine, started_s, keep_engine=bool(self.followers))
        end = measure_followers(self, engine, end)
        processes.end_group(engine, 0.0)  # it still runs if a follower was left out
        self._restore_limits()
        if end.cause is not Cause.SIGNAL:
            self._check_memory()
        self.discard_unassessed(end)
        if is_measured(self.folder):
            if not end.requested and self._needs_judging():
                # A new engine process finds what this one has measured, and only judges it.
                judging_end = self._wait_for_engine(self._start_engine(), started_s)
                end = judging_end if judging_end.cause is not None else end
            if not (end.requested and self._needs_judging()):  # else the next call does both
                end = self._finish(end)
        self._clean_up()
        return self.attempt.conclude(end)

    def join(self, first: "Supervisor") -> None:
        """Measure on the server that another run has started, with its cards."""
        self._signals, self._reservation = first._signals, first._reservation
        self._write_limits()

    def record(
        self, engine: "subprocess.Popen[bytes]", started_s: float, *, keep_engine: bool
    ) -> End:
        """Record while the engine does this run, and end it unless another run needs it."""
        assert self._reservation is not None
        with self.attempt.log() as log:
            self._recorder = RecorderProcess.start(
                out=self.folder.stream,
                run_pid=os.getpid(),
                engine_pid_file=self.folder.engine_pid,
                sensors=_sensors(self._spec["config"]),
                devices=self._reservation.allotment.uuids or None,
                log=log,
            )
        # In a thread, so that signals are heard while the recorder starts.
        threading.Thread(target=self._announce_recorder, args=[self._recorder], daemon=True).start()
        end = self._wait_for_engine(engine, started_s, self._is_assessed if keep_engine else None)
        self._stop_recorder()
        return end

    def _needs_judging(self) -> bool:
        """Return whether the engine's end kept the study's command from judging the experiment."""
        judged = ((read_json(self.folder.engine) or {}).get("quality") or {}).get("command")
        return self._quality.get("command") is not None and judged is None

    @property
    def _quality(self) -> Mapping[str, Any]:
        return self._spec.get("sections", {}).get("quality") or {}

    def _is_assessed(self) -> bool:
        return is_assessed(self.folder, self._quality)

    def discard_unassessed(self, end: End) -> None:
        """Delete the measurement if the engine was stopped before it assessed its quality.

        An engine that failed at that by itself would fail again: then the window is kept without
        it.
        """
        stopped = end.requested or end.cause is Cause.TIME_LIMIT
        if stopped and not self._is_assessed():
            remove(self.folder.engine)

    def _finish_earlier_attempt(self) -> int | None:
        """Finish the window that an earlier attempt measured completely before it was killed.

        Also a window that another run's job measured on a shared server; if it failed there, report
        that.

        Returns:
            The exit code; None where nothing was left, or what was left gives no valid result.
        """
        shared = shared_outcome(self.folder, self.workflow_pid)
        if not is_measured(self.folder):
            if shared is None or shared["error"] is None:
                return None
            self.attempt.begin()
            self.attempt.name_phase_cut_short()
            remove(self.folder.session)  # said once: another attempt measures it
            return self.attempt.fail(EXIT_FAILED, shared["error"])
        engine_ended = shared is not None or self.folder.engine_end.is_file()
        if not engine_ended and not self._is_assessed():
            return None
        self.attempt.begin()
        self.attempt.write("spec", self._spec)
        end = self._judge_earlier_attempt() if self._needs_judging() else End(0)
        if end.requested:
            return self.attempt.conclude(end)
        end = self._finish(end)
        result = (read_json(self.folder.result) or {}) if end.succeeded else {}
        codes = sorted(DISQUALIFYING.intersection(result.get("validity", ())))
        # With a message, something prevented the result process from judging what was measured.
        if shared or end.message or (end.succeeded and not codes):
            return self.attempt.conclude(end)
        outcome = f"a run that is in no mean ({', '.join(codes)})" if codes else "no result"
        say(f"what an earlier attempt left gives {outcome}: measured again")
        self.attempt.outcome.attempt += 1
        self.attempt.outcome.phase = None
        return None

    def _judge_earlier_attempt(self) -> End:
        """Let the study's command judge what an earlier attempt has measured."""
        config, name = self._spec["config"], f"run {self.attempt.name}"
        self._reservation = Reservation.make(config, name, self._signals.wait)
        if self._reservation is None:
            return End.by_signal(self._signals.take())
        try:
            return self._wait_for_engine(self._start_engine(), time.monotonic())
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        """Leave nothing behind: no process, no changed limit, no locked card.

        This also holds if it cannot be recorded, as on a full disk.
        """
        try:
            self._stop_recorder()
            if self._reservation is not None:
                self._restore_limits()
        finally:
            reservation, self._reservation = self._reservation, None
            # A process that is still giving memory back keeps the cards until then.
            processes.kill_descendants(RELEASE_LIMIT_S)
            if reservation is not None:
                reservation.release()
            if reservation is not None and reservation.limits_changed:
                # A process that did not answer is dead by now, or holds the card's lock until its
                # driver answers.
                restore_leftover_limits()

    def _restore_limits(self) -> None:
        assert self._reservation is not None
        self._reservation.restore_limits()
        for run in (self, *self.followers):
            run._write_limits()

    def _write_limits(self) -> None:
        if self._reservation is not None and self._reservation.limits is not None:
            self.attempt.write("limits", self._reservation.limits)

    def _start_engine(self, followers: Iterable[RunFolder] = ()) -> "subprocess.Popen[bytes]":
        """Start the engine's process here, or in the container that was made for it."""
        if self._engine_launcher is None:
            folders = [str(folder.path) for folder in (self.folder, *followers)]
            command = python_module(ENGINE_MODULE, "--out", *folders)
        else:
            out = ["--out", str(self.folder.path), "--watch", str(os.getpid())]
            command = [*self._engine_launcher, *out]
        assert self._reservation is not None
        with self.attempt.log() as log:
            return processes.start(command, log, self._reservation.environment())

    def _check_memory(self) -> None:
        """Report whether the cards have their memory back, now that the engine is gone."""
        assert self._reservation is not None
        processes.kill_descendants()
        if is_external(self._spec["config"]):
            return  # a server that is not the run's may keep what it took
        release = wait_for_release_in_child(self._reservation.allotment.memory_used_bytes)
        if release is None:
            return
        self.attempt.outcome.gpu_memory = release
        self.attempt.write("gpu_memory", release)
        for line in unreleased_lines(release):
            say(line)

    def _announce_recorder(self, recorder: RecorderProcess) -> None:
        """Notify the engine's process which sensors work: it waits for this before it begins."""
        try:
            ready = recorder.wait_ready(RECORDER_READY_S)
        except Exception as error:
            ready = {"ready": False, "error": str(error), "sensors": []}
            self._recorder_lost = True
        self.attempt.write("recorder", ready)

    def _wait_for_engine(
        self,
        child: "subprocess.Popen[bytes]",
        started_s: float,
        is_done: Callable[[], bool] | None = None,
    ) -> End:
        """Wait for the engine's end, and keep the outcome's phase current meanwhile.

        If it continues with another run, wait only until ``is_done`` returns True for this one.
        """
        work_done_s: float | None = None

        def limits() -> Iterator[tuple[float, Cause, str]]:
            nonlocal work_done_s
            self.attempt.note_marked_phase()
            self._check_recorder()
            limit_s = self._limit_s()
            if limit_s is None:
                message = f"still reading model and prompts after {PREFLIGHT_LIMIT_S:g} s"
                yield started_s + PREFLIGHT_LIMIT_S, Cause.TIME_LIMIT, message
            else:
                yield started_s + limit_s, Cause.TIME_LIMIT, f"over its limit of {limit_s:g} s"
            # No recorder runs for an engine that only judges: its file was there before it began.
            is_over = self._recorder is not None and self.folder.engine.is_file()
            is_over = is_over and self.attempt.outcome.phase not in ASSESSMENT_PHASES
            work_done_s = (work_done_s or time.monotonic()) if is_over else None
            if work_done_s is not None:
                message = f"not ended {RELEASE_LIMIT_S:g} s after its work"
                yield work_done_s + RELEASE_LIMIT_S, Cause.TEARDOWN_HUNG, message

        return wait_for_end(child, self._signals, self.watched_pid, limits, is_done)

    def _limit_s(self) -> float | None:
        """Return the study's limit, else the one the engine's process computed, once it has."""
        limit_s = self._spec.get("timeout_s")
        if limit_s is None and self.folder.time_limit.is_file():
            limit_s = load_json(self.folder.time_limit)
        return None if limit_s is None else float(limit_s)

    def _check_recorder(self) -> None:
        if self._recorder is not None and not self._recorder.alive():
            self._recorder_lost = True

    def _stop_recorder(self) -> None:
        if self._recorder is None:
            return
        self._check_recorder()
        recorder, self._recorder = self._recorder, None
        recorder.stop(GRACE_S)
        if self._recorder_lost:
            # Not a whole write, which would make a folder that is gone.
            os.close(open_file(self.folder.work / "recorder_lost", os.O_WRONLY | os.O_CREAT))

    def _finish(self, engine_end: End) -> End:
        """Compute the result from what the run left, whatever ended the engine."""
        if not engine_end.succeeded:
            content = {"returncode": engine_end.returncode, "message": engine_end.message}
            self.attempt.write("engine_end", content)
        self.attempt.note("finish")
        remove(self.folder.error)
        with self.attempt.log() as log:
            command = python_module(FINISH_MODULE, "--out", str(self.folder.path))
            child = processes.start(command, log, ignores_end_signals=True)
        end = wait_for_result(child, self._signals, engine_end.signal_number)
        message = f"{KEPT_MESSAGE}; to measure it again instead, remove {self.folder.work}"
        if end.returncode == EXIT_LATER:
            return End(EXIT_FAILED, message=message)
        if end.returncode != 0 and end.cause is None and not self.folder.error.is_file():
            return replace(end, message=message)  # it ended before it could say why
        return end


def _sensors(config: Mapping[str, Any]) -> str:
    """Return the recorder's sensors: always the automatic ones, and one that the study names."""
    sensor = (config.get("energy") or {}).get("backend") or "auto"
    return "auto" if sensor in {"auto", "none"} else f"auto,{sensor}"
