"""One attempt at a run: its lock on the folder, how far it came, and how it ended.

Standard library only, as the supervisor is.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from llenergymeasure import processes
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError
from llenergymeasure.files import (
    make_folder,
    open_file,
    read_json,
    remove,
    remove_unfinished,
    try_lock,
    write_text,
)
from llenergymeasure.machine.scheduler import job_facts, time_limit_over
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.write_outcome import AttemptOutcome, attempts_begun
from llenergymeasure.run.circuit_breaker import Circuit, CircuitBrokenError
from llenergymeasure.run.ending import End, outcome_error, silent_exit_error
from llenergymeasure.run.engine.phase_marks import read_marks
from llenergymeasure.screen import say

LOCK_POLL_S = 0.25
LOCK_WAIT_S = 900.0
"""Longer than computing a result may take: an earlier attempt may finish that."""


class EarlierAttemptError(LlemError):
    """An earlier attempt at the same run did not end in time."""


def lock_folder(folder: RunFolder, interrupted: Callable[[float], bool]) -> bool | None:
    """Lock a run's folder for as long as this process lives.

    A workflow that is killed and called again at once finds its earlier run still ending: putting
    limits back, or computing a result. Both would write into one folder. The lock is on the list
    of attempts, which every attempt writes to and nobody removes.

    Returns:
        Whether an earlier attempt had to end first; None if ``interrupted`` said so meanwhile.

    Raises:
        EarlierAttemptError: it did not end in time.
    """
    make_folder(folder.path)
    handle = open_file(folder.attempts, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + LOCK_WAIT_S
    waited = False
    while not try_lock(handle):
        waited = True
        if interrupted(LOCK_POLL_S):
            return None
        if time.monotonic() > deadline:
            raise EarlierAttemptError(
                f"an earlier attempt at {folder.path} still runs after {LOCK_WAIT_S:g} s"
            )
    return waited


@contextmanager
def lock_if_idle(folder: RunFolder) -> Iterator[bool]:
    """Lock a run's folder if no attempt is running in it; yield whether it is locked."""
    try:
        handle = open_file(folder.attempts, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:  # no folder
        yield False
        return
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


class Attempt:
    """The record of one attempt at one run; create it once the folder is locked."""

    def __init__(self, spec: dict[str, Any], folder: RunFolder) -> None:
        self.spec = spec
        self.folder = folder
        self.outcome = AttemptOutcome(attempts_begun(folder) + 1, job=job_facts())
        self.circuit = Circuit(folder.study.circuit)

    @property
    def name(self) -> str:
        """The run, as people call it."""
        return f"{self.spec['experiment']}/{self.spec['cycle']}"

    def clear(self) -> None:
        """Remove what an earlier attempt left for people to look at, and write this one's spec."""
        folder = self.folder
        for path in (folder.work, folder.stream, folder.log, *folder.products):
            remove(path)
        remove_unfinished(folder.path)
        make_folder(folder.work)
        remove(folder.skip)  # one that was written during the clearing
        self.write("spec", self.spec)

    def write(self, name: str, content: Any) -> None:
        """Write one of the files between the run's processes."""
        write_text(getattr(self.folder, name), json.dumps(content))

    def log(self) -> IO[bytes]:
        """Open the log that keeps everything the run's processes print."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        return os.fdopen(open_file(self.folder.log, flags), "ab", buffering=0)

    def begin(self) -> None:
        """Write that this attempt is running."""
        self.outcome.begin(self.folder)

    def note(self, phase: str) -> None:
        """Keep the outcome's phase current, so that even a lost run says how far it came."""
        if phase != self.outcome.phase:
            self.outcome.phase = phase
            self.outcome.write(self.folder)

    def note_marked_phase(self) -> None:
        """Note the phase that the engine's process came to."""
        phases = read_marks(self.folder.marks)
        if phases:
            self.note(phases[-1][0])

    def name_phase_cut_short(self) -> None:
        """Name in the outcome the phase that failed, not the release that followed it."""
        for name, _, end_ns in read_marks(self.folder.marks):
            if end_ns is None:
                self.outcome.phase = name
                return

    def error(self, end: End) -> dict[str, str]:
        """Return why the run failed: from its processes' own error, or from how they ended."""
        if end.cause is not None:
            return outcome_error(end.cause.value, end.message)
        reported = read_json(self.folder.error)
        if not end.message:
            return reported or silent_exit_error(end.returncode)
        error = reported or silent_exit_error(end.returncode, "what computes the result", "Finish")
        return {**error, "message": f"{error['message']}; {end.message}"}

    def complete(self) -> int:
        """Write that the run has its result; return the exit code."""
        self.outcome.phase = None
        self.outcome.end(self.folder, "completed", EXIT_OK)
        return EXIT_OK

    def conclude(self, end: End) -> int:
        """Write how the run ended, with or without a result; return the exit code."""
        if end.succeeded:
            code = self.complete()  # first: if it cannot be written, the next call finishes the run
            self.circuit.remove()
            with suppress(OSError):
                remove(self.folder.work)
                remove(self.folder.stream)
            return code
        # The workflow asks for the record alone, so the files next to it are this one's to remove.
        for path in self.folder.products:
            remove(path)
        self.name_phase_cut_short()
        if end.requested:
            code = EXIT_FAILED if end.signal_number is None else 128 + end.signal_number
            limit_note = time_limit_over() if end.signal_number == signal.SIGTERM else None
            message = end.message if limit_note is None else f"{end.message}: {limit_note}"
            error = outcome_error("Interrupted", message)
            self.outcome.end(self.folder, "interrupted", code, error)
            return code
        code = EXIT_FAILED if end.cause is not None else processes.exit_code(end.returncode)
        return self.fail(code, self.error(end))

    def fail(self, code: int, error: dict[str, str]) -> int:
        """Write that the run failed, and why; return the exit code."""
        outcome = self.outcome
        outcome.end(self.folder, "failed", code, error)
        error = outcome.error or error  # without secrets
        if error["class"] != CircuitBrokenError.__name__:
            self.circuit.add_failure(self.spec["experiment"], error)
        in_phase = f" in phase {outcome.phase}" if outcome.phase else ""
        say(f"run {self.name} failed{in_phase}: {error['class']}: {error['message']}")
        return code or EXIT_FAILED
