"""How a run's latest attempt ended, as its supervisor wrote it to ``outcome.json``.

The writer may be killed at any byte. So the reader concludes what was never written: a run whose
process is gone without an end is ``lost``.
"""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llenergymeasure.files import read_bytes
from llenergymeasure.processes import arguments, boot_id, is_hidden, start_ticks
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.write_outcome import is_under_way
from llenergymeasure.units import MISSING, Status

DAMAGED = "DamagedRecord"
"""Error class of a run whose result exists but is not complete."""


_RUN_PATH = re.compile(r"runs/[0-9a-f]{12}/[0-9]+$")


class OutcomeError(BaseModel):
    """Why the attempt failed: the exception's class and message."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    class_: str | None = Field(default=None, alias="class")
    message: str | None = None


class Outcome(BaseModel):
    """The end of one attempt; unknown keys of a later version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    status: Status
    attempt: int | None = None
    phase: str | None = Field(default=None, description="the phase it was in when it ended")
    error: OutcomeError | None = None
    exit_code: int | None = None
    host: str | None = None
    pid: int | None = None
    pid_start_ticks: int | None = Field(
        default=None, description="when that process began, in the kernel's ticks since boot"
    )
    boot_id: str | None = None
    job: dict[str, Any] | None = Field(
        default=None, description="the scheduler's job, on a cluster"
    )
    started_at: str | None = Field(default=None, description="when it began, UTC, ISO 8601")
    ended_at: str | None = Field(default=None, description="when it ended, UTC, ISO 8601")
    result_sha256: str | None = Field(
        default=None,
        description="SHA-256 of result.json as it was written; absent in early versions",
    )
    log_tail: str | None = None


def read_outcome(path: Path) -> Outcome:
    """Return the outcome at ``path``; conclude what was never written.

    Absent, empty or damaged files, and ``running`` with a dead process, give ``lost`` with an error
    that names the case; a run whose job never began gives ``missing``. A process on another host,
    in another container or hidden from this user cannot be checked and counts as running.
    """
    try:
        content, owner_uid = read_bytes(path), path.stat().st_uid
    except FileNotFoundError:
        return _lost("NoOutcome", "the run left no outcome file")
    if not content.strip() and not is_under_way(RunFolder(path.parent)):
        # Snakemake touches the log of a job that failed; a run writes to its attempts first.
        never_began = OutcomeError(
            class_="NeverBegan",
            message="the run never began: its job was refused, was cancelled while it waited, or "
            "waits in the queue again, or its precommand, container or program did not start",
        )
        return Outcome(status=MISSING, error=never_began)
    if not content.strip():
        return _lost("NoOutcome", "the outcome file is empty: the run ended before its first word")
    try:
        outcome = Outcome.model_validate(json.loads(content))
    except (ValueError, ValidationError, RecursionError) as error:
        first_line = str(error).splitlines()[0]
        return _lost("DamagedOutcome", f"the outcome file cannot be read: {first_line}")
    if outcome.status != "running":
        return outcome
    reason = _death_reason(outcome, is_own=owner_uid == os.geteuid())
    if reason is None:
        return outcome
    process_gone = OutcomeError(class_="ProcessGone", message=reason)
    return outcome.model_copy(update={"status": "lost", "error": process_gone})


def makes_runs(pid: int, study: StudyFolder) -> bool:
    """Return whether a process makes runs of this study folder, not of a copy of it."""
    run_paths = [word for word in arguments(pid) if _RUN_PATH.search(word)]
    try:
        folders = [Path(f"/proc/{pid}/cwd", word, "../../..") for word in run_paths]
        return any(folder.samefile(study.path) for folder in folders)
    except OSError:
        return False


def without_result(folder: RunFolder, damaged: str | None = None) -> Outcome | None:
    """Return how a run without a valid result ended; None if it was never started."""
    if damaged is not None:
        return _lost(DAMAGED, damaged)
    if not folder.outcome.is_file():
        return None
    outcome = read_outcome(folder.outcome)
    if outcome.status != "completed":
        return outcome
    record_gone = _lost("RecordGone", "the run completed, but its result.json is not there")
    return outcome.model_copy(update={"status": record_gone.status, "error": record_gone.error})


def _lost(name: str, message: str) -> Outcome:
    return Outcome(status="lost", error=OutcomeError(class_=name, message=message))


def _death_reason(outcome: Outcome, *, is_own: bool) -> str | None:
    """Return why the process of a ``running`` outcome is certainly dead; None if it may be alive.

    A user's own processes are never hidden: a hidden process with this id is another user's.
    """
    same_host = outcome.host == socket.gethostname()
    same_boot = outcome.boot_id == boot_id()
    if same_host and outcome.boot_id is not None and not same_boot:
        return "the machine was restarted while it ran"
    if not (same_host and same_boot and outcome.pid is not None):
        return None
    ticks = start_ticks(outcome.pid)
    if not is_own and is_hidden(outcome.pid):
        return None
    if ticks is None:
        return f"its process {outcome.pid} ended without a word (killed?)"
    if outcome.pid_start_ticks not in (None, ticks):
        return f"its process {outcome.pid} ended without a word; the number is another's now"
    return None
