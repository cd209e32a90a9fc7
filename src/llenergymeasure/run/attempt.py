"""The outcome of a run, written by its supervisor (standard library only).

``outcome.json`` holds the latest attempt and is replaced whole. Snakemake deletes it when the
next attempt starts, so every start and end is also appended to ``attempts.jsonl``.
"""

import json
import os
import re
import socket
import sys
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llenergymeasure.files import write_text
from llenergymeasure.machine.scheduler import current_job
from llenergymeasure.results.layout import RunFolder

LOG_TAIL_LINES = 40
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|(?i:(?<=authorization: bearer ))\S+"
)


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
    pid_start_ticks: int | None = field(default_factory=lambda: _start_ticks())
    boot_id: str = field(default_factory=lambda: boot_id())
    job: dict[str, Any] | None = field(default_factory=lambda: _job())
    started_at: str = field(default_factory=lambda: utc_now())
    ended_at: str | None = None
    gpu_memory: dict[str, Any] | None = None
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
        self.ended_at = utc_now()
        self.log_tail = log_tail(folder.log)
        self.write(folder)
        self._append(folder)

    def _append(self, folder: RunFolder) -> None:
        line = json.dumps({key: value for key, value in asdict(self).items() if key != "log_tail"})
        with folder.attempts.open("a") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())


def attempt(folder: RunFolder) -> int:
    """Return how many attempts have begun: the number of the one at work."""
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
    return _SECRET.sub("[secret]", "".join(tail))[-8000:]


def boot_id() -> str:
    """Return the kernel's id of this boot: a process id means nothing after another one."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def _start_ticks() -> int | None:
    """Return when this process began, in clock ticks since boot (proc(5), field 22)."""
    try:
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _job() -> dict[str, Any] | None:
    job = current_job()
    return None if job is None else job.as_dict()


def utc_now() -> str:
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
