"""A study's jobs in SLURM's queue: listing, explaining, watching and cancelling them.

A workflow that is killed leaves its jobs in the queue, and Snakemake does not find them again. They
would run at the same time as the new ones, so they are ended before those are submitted.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llenergymeasure.errors import PreflightError
from llenergymeasure.machine.scheduler import run_slurm
from llenergymeasure.processes import ChildError, descendants
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import say
from llenergymeasure.units import MISSING

COMMAND_TIMEOUT_S = 60.0
CANCEL_TIMEOUT_S = 120.0
QUIET_LIMIT_S = 300.0
"""Longer than the profile's latency-wait plus the time between two looks of the executor."""

QUEUE_POLL_S = 20.0

QUEUE_POLL_SOON_S = 5.0
"""After a run's end, when other jobs may start; not at once, as runs may end every second and
SLURM's controller should not be asked as often."""

NO_JOBS_PREFIX = "No job of this study that could still run"
"""Begins the last message of a workflow whose jobs have vanished or can never start."""

EARLIER_JOBS_PREFIX = "Jobs of an earlier call"
"""Begins messages about jobs that a killed workflow left in the queue."""

NEVER_ENDS_CLAUSE = ", which never ends by itself"

CHANGE_PROFILE = (
    "Change the profile (mem_mb, cpus_per_task, runtime, slurm_partition, slurm_account) "
    "and call again"
)
"""The remedy for jobs that ask for resources that do not exist."""

_FORMAT = "%A|%j|%T|%r|%k"
_NO_CLUSTER_ERROR = "Could not establish a configuration source"
"""Error of SLURM's commands where they are installed without a configured cluster.

Source: SLURM, src/common/read_config.c.
"""


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue.

    Attributes:
        id: its number.
        name: ``llem-STUDY-FOLDER-CALL``, the last two as short hashes.
        state: ``PENDING``, ``RUNNING`` and so on.
        reason: why it does not run, in SLURM's words.
        comment: the rule and wildcards, as Snakemake's executor writes them.
    """

    id: str
    name: str
    state: str
    reason: str = ""
    comment: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun, or SLURM took it back and holds it."""
        return self.state in ("PENDING", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")

    @property
    def never_starts(self) -> bool:
        """Whether it cannot begin as it was submitted, however long it waits."""
        return self.is_waiting and _HOPELESS_REASONS.match(self.reason) is not None


_STARTED_STATES = ("CONFIGURING", "RUNNING")
_HELD_REASONS = ("launch fail", "JobHoldMaxRequeue")
_HOPELESS_REASONS = re.compile(
    "PartitionConfig|BadConstraints|PartitionTimeLimit|InvalidAccount"
    "|InvalidQOS|AccountNotAllowed|QOSNotAllowed|MaxMemPerLimit|QOSMin"
    rf"|(Assoc|QOS)Max\w*Per(Job|Node)|{'|'.join(_HELD_REASONS)}"
)
"""Reasons that do not go away when other jobs end: the request itself, and jobs that SLURM holds
because a node could not start them or they were requeued too often. ``_NODE_LIMIT_REASON`` is not
here: it is also given for nodes that are down for a while. Source: squeue(1), "JOB REASON
CODES"."""


def job_prefix(folder: StudyFolder) -> str:
    """Return the prefix of the names of a study's jobs, the same on every machine."""
    path = folder.path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:6]
    return f"llem-{re.sub(r'[^A-Za-z0-9_-]', '_', path.name)[:40]}-{digest}-"


def has_squeue() -> bool:
    """Return whether this machine has the command that lists SLURM's jobs."""
    return shutil.which("squeue") is not None


def queued_jobs(
    folder: StudyFolder, timeout_s: float | None = None, *, in_cluster: bool = False
) -> list[QueuedJob]:
    """Return the jobs that are in the queue for a study's folder; none without a cluster.

    Args:
        folder: the study's.
        timeout_s: how long SLURM may take; a minute if not given.
        in_cluster: whether jobs go to SLURM. Where each command fetches its configuration (SLURM's
            configless mode), one that finds none is then a controller that does not answer.

    Raises:
        PreflightError: this machine is in a cluster whose SLURM does not answer in ``timeout_s``.
    """
    if not has_squeue():
        return []
    result = _squeue(f"--format={_FORMAT}", timeout_s=timeout_s)
    if result.returncode != 0 and _NO_CLUSTER_ERROR in result.stderr and not in_cluster:
        return []
    if result.returncode != 0:
        raise PreflightError(f"SLURM does not answer: {result.stderr.strip()}")
    prefix = job_prefix(folder)
    rows = [line.split("|", 4) for line in result.stdout.splitlines()]
    # Other jobs of this user may have a comment of several lines.
    return [QueuedJob(*row) for row in rows if len(row) == 5 and row[1].startswith(prefix)]


def mark_waiting(runs: Iterable[dict[str, Any]], jobs: Iterable[QueuedJob]) -> list[dict[str, Any]]:
    """Return runs' states, with ``waiting`` for runs whose job is in the queue.

    Files of such a run are from an earlier attempt: SLURM has requeued its job.
    """
    queued = {job.comment: job for job in jobs if job.is_waiting or job.state in _STARTED_STATES}
    states = []
    for run in runs:
        job = queued.get(f"rule_measure_wildcards_{run['experiment']}_{run['cycle']}")
        is_queued = job is not None and (job.is_waiting or run["status"] == MISSING)
        if is_queued and run["status"] != "completed":
            run = {key: run[key] for key in ("experiment", "cycle", "order")}
            run["status"] = "waiting"
        states.append(run)
    return states


def waiting_lines(jobs: Iterable[QueuedJob]) -> Iterator[str]:
    """Yield a line for each reason that SLURM gives for jobs not having begun."""
    return (line for _, line in _reasons_and_lines(jobs))


def _reasons_and_lines(jobs: Iterable[QueuedJob]) -> Iterator[tuple[str, str]]:
    counts = Counter((job.reason, job.never_starts) for job in jobs if job.is_waiting)
    for (reason, never_starts), count in counts.items():
        words = _in_words(reason)
        if never_starts and reason.startswith(_HELD_REASONS):
            words = (
                f"{reason}{NEVER_ENDS_CLAUSE}: SLURM holds it, as a node failed to start it or it "
                "was requeued too often. Call again"
            )
        elif never_starts:
            words = (
                f"{reason}{NEVER_ENDS_CLAUSE}: no node of the partition gives what a job asks for, "
                f"or it may not be asked for. {CHANGE_PROFILE}"
            )
        yield reason, f"{_jobs_wait(count)} in SLURM's queue: {words}"


def waiting_summary(jobs: Iterable[QueuedJob]) -> str:
    """Return how many jobs wait, for the progress line, and the reason if all have the same."""
    waiting_jobs = [job for job in jobs if job.is_waiting]
    reasons = {_meaning(job.reason).partition(";")[0] for job in waiting_jobs}
    if len(reasons) == 1:
        return f"{_jobs_wait(len(waiting_jobs))}: {reasons.pop()}"
    return f"{_jobs_wait(len(waiting_jobs))} in the queue" if waiting_jobs else ""


def _jobs_wait(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count} jobs wait"


def lasting_reasons(jobs: Iterable[QueuedJob], reported: set[str]) -> Iterator[str]:
    """Yield, once for each reason, why jobs do not begin although they wait for no other job."""
    lasting = (job for job in jobs if job.never_starts or job.reason == _NODE_LIMIT_REASON)
    for reason, line in _reasons_and_lines(lasting):
        if reason not in reported:
            reported.add(reason)
            yield line


_NODE_LIMIT_REASON = "PartitionNodeLimit"
_PINNED_HINT = "; a pinned study's own job may be on it"
_REASON_MEANINGS = {
    "None": "not looked at by SLURM yet",
    "Priority": "other jobs come first",
    "Resources": "what is asked for is in use",
    "ReqNodeNotAvail": f"the node that is asked for is in use, or out of service{_PINNED_HINT}",
    _NODE_LIMIT_REASON: "by its MinNodes or MaxNodes the partition takes no job of one node, or "
    "its nodes are down for a while",
    "BeginTime": "its time to begin has not come: after a requeue SLURM makes a pause",
    "Nodes required for job": f"the nodes that will do are in use, or out of service{_PINNED_HINT}",
}
"""The usual reasons, by their first words, and what they mean. Source: squeue(1), "JOB REASON
CODES"."""


def _in_words(reason: str) -> str:
    meaning = _meaning(reason)
    return meaning if reason in ("None", meaning) else f"{meaning} ({reason})"


def _meaning(reason: str) -> str:
    return next(
        (words for begin, words in _REASON_MEANINGS.items() if reason.startswith(begin)), reason
    )


def cancel_jobs_and_wait(jobs: Sequence[QueuedJob]) -> None:
    """Cancel jobs and wait until they are gone.

    Raises:
        PreflightError: some are still there after two minutes.
    """
    numbers = cancel_jobs(jobs)
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    while left := _remaining_jobs(numbers):
        if time.monotonic() > deadline:
            raise PreflightError(f"jobs of an earlier workflow cannot be ended: {', '.join(left)}")
        time.sleep(1)


def cancel_jobs(jobs: Sequence[QueuedJob]) -> list[str]:
    """Ask SLURM to end jobs; return their numbers.

    Raises:
        PreflightError: it does not answer.
    """
    numbers = list(dict.fromkeys(job.id for job in jobs))
    if numbers:
        _run_slurm("scancel", *numbers)
    return numbers


def _remaining_jobs(numbers: Sequence[str]) -> list[str]:
    """Return which jobs may still exist: all of them if squeue fails."""
    result = _squeue("--format=%A")
    if result.returncode != 0:
        return sorted(numbers)
    return sorted(set(result.stdout.split()).intersection(numbers))


def _squeue(*options: str, timeout_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    return _run_slurm("squeue", "--me", "--noheader", *options, timeout_s=timeout_s)


def _run_slurm(*command: str, timeout_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    try:
        return run_slurm(command, timeout_s or COMMAND_TIMEOUT_S)
    except ChildError as error:
        raise PreflightError(f"SLURM does not answer: {error}") from None


class QueueWatch(threading.Thread):
    """Ends a workflow on SLURM that waits for jobs that have vanished or can never start.

    A job may vanish silently, ask for more than any node has, or never be submitted. In each case
    Snakemake would wait forever, although everything that can be measured is done.
    """

    def __init__(self, folder: StudyFolder) -> None:
        super().__init__(name="queue watch", daemon=True)
        self._folder = folder
        self._reported: set[str] = set()

    def run(self) -> None:
        """Watch until no job has been left for too long, then end this process by SIGTERM."""
        last_work = time.monotonic()
        while time.monotonic() - last_work < QUIET_LIMIT_S:
            time.sleep(QUEUE_POLL_S)
            if self._has_work_left():
                last_work = time.monotonic()
        say(
            f"{NO_JOBS_PREFIX} has been in SLURM's queue for {QUIET_LIMIT_S / 60:g} minutes, and "
            "Snakemake waits for one. What was measured is there; the same call makes the rest"
        )
        with suppress(PreflightError):  # Snakemake would wait for those that never start
            jobs = queued_jobs(self._folder, in_cluster=True)
            cancel_jobs([job for job in jobs if job.never_starts])
        os.kill(os.getpid(), signal.SIGTERM)

    def _has_work_left(self) -> bool:
        # Rules that run here are children of this process.
        if descendants(os.getpid()):
            return True
        try:
            jobs = queued_jobs(self._folder, in_cluster=True)
        except PreflightError:  # a controller that does not answer may still have them
            return True
        for line in lasting_reasons(jobs, self._reported):
            say(line)
        return any(not job.never_starts for job in jobs)
