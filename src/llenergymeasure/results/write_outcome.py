"""Writes ``outcome.json`` and the list of attempts (standard library only).

``outcome.json`` holds the latest attempt and is replaced whole. Snakemake deletes it when the
next attempt starts, so every start and end is also appended to ``attempts.jsonl``. The reader is
:mod:`.outcome`.
"""

import json
import os
import socket
import sys
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llenergymeasure.files import open_file, read_bytes, sha256, write_text
from llenergymeasure.processes import boot_id, start_ticks
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.screen import replace_surrogates

_TAIL_LINES = 40
_TAIL_LENGTH = 8000
_MESSAGE_LENGTH = 4000


def utc_now() -> str:
    """Return the wall clock in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class AttemptOutcome:
    """The state of one attempt, or how it ended."""

    attempt: int
    status: str = "running"
    phase: str | None = None
    error: dict[str, str] | None = None
    exit_code: int | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    pid_start_ticks: int | None = field(default_factory=lambda: start_ticks(os.getpid()))
    boot_id: str | None = field(default_factory=boot_id)
    job: dict[str, Any] | None = None
    started_at: str = field(default_factory=utc_now)
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
        self,
        folder: RunFolder,
        status: str,
        code: int,
        error: dict[str, str] | None = None,
        tail: str | None = None,
    ) -> None:
        """Write the end of this attempt, in the outcome and in the list of attempts.

        ``error`` has ``class`` and ``message``; ``tail`` is by default the end of the run's log.
        """
        self.status, self.exit_code = status, code
        self.error = error and {
            key: replace_surrogates(without_secrets(text)) for key, text in error.items()
        }
        self.ended_at = utc_now()
        _strike_secrets(folder.log)
        self.log_tail = _log_tail(folder.log) if tail is None else tail
        # Stored outside the record, so that a change of any byte in it is found.
        is_complete = status == "completed" and folder.result.is_file()
        self.result_sha256 = sha256(folder.result) if is_complete else None
        self.write(folder)
        self._append(folder)

    def _append(self, folder: RunFolder) -> None:
        line = json.dumps({key: value for key, value in asdict(self).items() if key != "log_tail"})
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(open_file(folder.attempts, flags), "a") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())


def attempts_begun(folder: RunFolder) -> int:
    """Return how many attempts have begun: the number of the latest."""
    if not folder.attempts.is_file():
        return 0
    with folder.attempts.open(errors="replace") as lines:
        return sum(_status(line) == "running" for line in lines)


def is_under_way(folder: RunFolder) -> bool:
    """Return whether the latest attempt has begun and has no end written.

    An attempt that was killed while writing its line counts as under way.
    """
    try:
        last_lines = read_bytes(folder.attempts).splitlines()[-1:]
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return bool(last_lines) and _status(last_lines[0]) in ("running", None)


def _status(line: str | bytes) -> str | None:
    try:
        attempt = json.loads(line)
    except ValueError:  # an attempt that was killed while it wrote
        return None
    return attempt.get("status") if isinstance(attempt, dict) else None


def _log_tail(path: Path) -> str:
    """Return the last lines of a log, with what looks like a credential struck out."""
    if not path.is_file():
        return ""
    with path.open(errors="replace") as stream:
        tail = deque(stream, maxlen=_TAIL_LINES)
    return without_secrets("".join(tail))[-_TAIL_LENGTH:]


def _strike_secrets(path: Path) -> None:
    """Remove keys that a server or an engine has printed from a log."""
    if not path.is_file():
        return
    with os.fdopen(open_file(path, os.O_RDWR), "r+", errors="surrogateescape", newline="") as log:
        text = log.read()
        cleaned = without_secrets(text)
        if cleaned != text:
            log.seek(0)
            log.write(cleaned)
            log.truncate()


def report_failure(folder: RunFolder, error: BaseException) -> None:
    """Write for the supervisor why a process of the run gave up.

    If even that cannot be written (a full disk), the log says so and the first error is kept.
    """
    message = without_secrets(str(error) or type(error).__name__)[:_MESSAGE_LENGTH]
    try:
        write_text(folder.error, json.dumps({"class": type(error).__name__, "message": message}))
    except OSError as write_error:
        print(f"cannot write {folder.error}: {write_error}", file=sys.stderr)
