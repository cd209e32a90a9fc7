"""One attempt at a run: its outcome, and the lock on it (standard library only).

``outcome.json`` holds the latest attempt and is replaced whole. Snakemake deletes it when the
next attempt starts, so every start and end is also appended to ``attempts.jsonl``.
"""

import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llenergymeasure.errors import LlemError
from llenergymeasure.files import sha256, try_lock, write_text
from llenergymeasure.machine.scheduler import current_job
from llenergymeasure.processes import boot_id, start_ticks
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import RunFolder

LOG_TAIL_LINES = 40

LOCK_POLL_S = 0.25
LOCK_WAIT_S = 900.0
"""Longer than computing a result may take, which an earlier attempt is let do."""


@dataclass
class Outcome:
    """How one attempt stands or ended."""

    attempt: int
    status: str = "running"
    phase: str | None = None
    error: dict[str, str] | None = None
    exit_code: int | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    pid_start_ticks: int | None = field(default_factory=lambda: start_ticks(os.getpid()))
    boot_id: str | None = field(default_factory=boot_id)
    job: dict[str, Any] | None = field(default_factory=lambda: _job())
    started_at: str = field(default_factory=lambda: _utc_now())
    ended_at: str | None = None
    gpu_memory: dict[str, Any] | None = None
    result_sha256: str | None = None
    log_tail: str = ""

    def begin(self, folder: RunFolder) -> None:
        """Write that this attempt is running."""
        self._append(folder)
        self.write(folder)

    def write(self, folder: RunFolder) -> None:
        """Replace ``outcome.json``."""
        write_text(folder.outcome, json.dumps(asdict(self), indent=2) + "\n")

    def end(
        self, folder: RunFolder, status: str, code: int, error: dict[str, str] | None = None
    ) -> None:
        """Write the end of this attempt, in the outcome and in the list of attempts."""
        self.status, self.exit_code, self.error = status, code, error
        self.ended_at = _utc_now()
        self.log_tail = log_tail(folder.log)
        # Kept apart from the record, so that a change of any byte of it shows.
        self.result_sha256 = sha256(folder.result) if status == "completed" else None
        self.write(folder)
        self._append(folder)

    def _append(self, folder: RunFolder) -> None:
        line = json.dumps({key: value for key, value in asdict(self).items() if key != "log_tail"})
        with folder.attempts.open("a") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())


class EarlierAttemptError(LlemError):
    """An earlier attempt at the same run did not end in time."""


class AttemptLock:
    """The right to write into a run's folder; it goes with the process that holds it.

    A workflow that is killed and called again at once finds its earlier run still ending: putting
    limits back, or computing a result. Both would write into one folder.
    """

    def __init__(self, handle: int, *, waited: bool) -> None:
        """Take an open, locked file; use ``take``."""
        self._handle = handle
        self.waited = waited
        """Whether another attempt was running when this one asked."""

    @classmethod
    def take(
        cls, folder: RunFolder, interrupted: Callable[[float], bool], wait_s: float = LOCK_WAIT_S
    ) -> "AttemptLock | None":
        """Wait for an earlier attempt to end; return None if ``interrupted`` said so first.

        The lock is on the list of attempts, which every attempt writes to and nobody removes.

        Raises:
            EarlierAttemptError: it did not end in time.
        """
        folder.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.attempts, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + wait_s
        waited = False
        while not try_lock(handle):
            waited = True
            if interrupted(LOCK_POLL_S):
                os.close(handle)
                return None
            if time.monotonic() > deadline:
                os.close(handle)
                raise EarlierAttemptError(
                    f"an earlier attempt at {folder.path} still runs after {wait_s:g} s"
                )
        return cls(handle, waited=waited)


@contextmanager
def unattended(folder: RunFolder) -> Iterator[bool]:
    """Hold a run's folder while no attempt is at work in it; yield whether it is held."""
    try:
        handle = os.open(folder.attempts, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:  # no folder
        yield False
        return
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


def attempt(folder: RunFolder) -> int:
    """Return how many attempts have begun: the number of the latest."""
    if not folder.attempts.is_file():
        return 0
    with folder.attempts.open(errors="replace") as stream:
        return sum(1 for line in stream if '"status": "running"' in line)


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, with what looks like a credential struck out."""
    if not path.is_file():
        return ""
    with path.open(errors="replace") as stream:
        tail = deque(stream, maxlen=lines)
    return without_secrets("".join(tail))[-8000:]


def _job() -> dict[str, Any] | None:
    job = current_job()
    return None if job is None else job.as_dict()


def _utc_now() -> str:
    """Return the wall clock in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def report_failure(folder: RunFolder, error: BaseException) -> None:
    """Say to the supervisor why a process of the run gave up.

    Where even that cannot be written (a full disk) the log says so and the first error stands.
    """
    message = (str(error) or type(error).__name__)[:4000]
    try:
        write_text(folder.error, json.dumps({"class": type(error).__name__, "message": message}))
    except OSError as second:
        print(f"cannot write {folder.error}: {second}", file=sys.stderr)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from ``path``; null if it is absent or not whole."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
