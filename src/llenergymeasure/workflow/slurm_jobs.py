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
from llenergymeasure.processes import ChildError, completed, descendants
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import say
from llenergymeasure.units import MISSING

ASK_LIMIT_S = 60.0
GONE_LIMIT_S = 120.0
QUIET_LIMIT_S = 300.0
"""Longer than the profile's latency-wait plus the time between two looks of the executor."""

LOOK_INTERVAL_S = 20.0

LOOK_SOON_S = 5.0
"""After a run's end, when other jobs may start; not at once, as runs may end every second and
SLURM's controller should not be asked as often."""

NOTHING_LEFT = "No job of this study that could still run"
"""Begins the last message of a workflow whose jobs have vanished or can never start."""

LEFT = "Jobs of an earlier call"
"""Begins messages about jobs that a killed workflow left in the queue."""

NEVER_ENDS = ", which never ends by itself"

CHANGE_PROFILE = (
    "Change the profile (mem_mb, cpus_per_task, runtime, slurm_partition, slurm_account) "
    "and call again"
)
"""The remedy for jobs that ask for resources that do not exist."""

_FORMAT = "%A|%j|%T|%r|%k"
_IN_NO_CLUSTER = "Could not establish a configuration source"
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
    def waits(self) -> bool:
        """Whether it has not begun, or SLURM took it back and holds it."""
        return self.state in ("PENDING", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")

    @property
    def never_starts(self) -> bool:
        """Whether it cannot begin as it was submitted, however long it waits."""
        return self.waits and _NEVER.match(self.reason) is not None


_STARTS = ("CONFIGURING", "RUNNING")
_HELD = ("launch fail", "JobHoldMaxRequeue")
_NEVER = re.compile(
    "PartitionConfig|BadConstraints|PartitionTimeLimit|InvalidAccount"
    "|InvalidQOS|AccountNotAllowed|QOSNotAllowed|MaxMemPerLimit|QOSMin"
    rf"|(Assoc|QOS)Max\w*Per(Job|Node)|{'|'.join(_HELD)}"
)
"""Reasons that do not go away when other jobs end: the request itself, and jobs that SLURM holds
because a node could not start them or they were requeued too often. ``_NODES`` is not among them:
it is also given for nodes that are down for a while. Source: squeue(1), "JOB REASON CODES"."""


def job_prefix(folder: StudyFolder) -> str:
    """Return the prefix of the names of a study's jobs, the same on every machine."""
    path = folder.path.resolve()
    place = hashlib.sha256(str(path).encode()).hexdigest()[:6]
    return f"llem-{re.sub(r'[^A-Za-z0-9_-]', '_', path.name)[:40]}-{place}-"


def has_squeue() -> bool:
    """Return whether this machine has the command that lists SLURM's jobs."""
    return shutil.which("squeue") is not None


def left_jobs(folder: StudyFolder, limit_s: float | None = None) -> list[QueuedJob]:
    """Return the jobs that are in the queue for a study's folder; none without a cluster.

    Raises:
        PreflightError: this machine is in a cluster whose SLURM does not answer in ``limit_s``.
    """
    if not has_squeue():
        return []
    done = _squeue(f"--format={_FORMAT}", limit_s=limit_s)
    if done.returncode != 0 and _IN_NO_CLUSTER in done.stderr:
        return []
    if done.returncode != 0:
        raise PreflightError(f"SLURM does not answer: {done.stderr.strip()}")
    prefix = job_prefix(folder)
    told = [line.split("|", 4) for line in done.stdout.splitlines()]
    # Other jobs of this user may have a comment of several lines.
    ours = [parts for parts in told if len(parts) == 5 and parts[1].startswith(prefix)]
    return [QueuedJob(*parts) for parts in ours]


def with_waiting(runs: Iterable[dict[str, Any]], jobs: Iterable[QueuedJob]) -> list[dict[str, Any]]:
    """Return runs' states, with ``waiting`` for runs whose job is in the queue.

    Files of such a run are from an earlier attempt: SLURM has requeued its job.
    """
    queued = {job.comment: job for job in jobs if job.waits or job.state in _STARTS}
    found = []
    for run in runs:
        job = queued.get(f"rule_measure_wildcards_{run['experiment']}_{run['cycle']}")
        starts = job is not None and (job.waits or run["status"] == MISSING)
        if starts and run["status"] != "completed":
            run = {key: run[key] for key in ("experiment", "cycle", "order")}
            run["status"] = "waiting"
        found.append(run)
    return found


def waiting(jobs: Iterable[QueuedJob]) -> Iterator[str]:
    """Yield a line for each reason that SLURM gives for jobs not having begun."""
    yield from (line for _, line in _by_reason(jobs))


def _by_reason(jobs: Iterable[QueuedJob]) -> Iterator[tuple[str, str]]:
    held = (
        f"{NEVER_ENDS}: SLURM holds it, as a node failed to start it or it was requeued too often. "
        "Call again"
    )
    way_out = (
        f"{NEVER_ENDS}: no node of the partition gives what a job asks for, or "
        f"it may not be asked for. {CHANGE_PROFILE}"
    )
    for (reason, never), count in Counter(
        (job.reason, job.never_starts) for job in jobs if job.waits
    ).items():
        why = reason + (held if reason.startswith(_HELD) else way_out)
        yield reason, f"{_wait(count)} in SLURM's queue: {why if never else _in_words(reason)}"


def waiting_summary(jobs: Iterable[QueuedJob]) -> str:
    """Return how many jobs wait, for the progress line, and the reason if all have the same."""
    waits = [job for job in jobs if job.waits]
    reasons = {_meaning(job.reason).partition(";")[0] for job in waits}
    if len(reasons) == 1:
        return f"{_wait(len(waits))}: {reasons.pop()}"
    return f"{_wait(len(waits))} in the queue" if waits else ""


def _wait(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count} jobs wait"


def lasting_reasons(jobs: Iterable[QueuedJob], said: set[str]) -> Iterator[str]:
    """Yield, once for each reason, why jobs do not begin although they wait for no other job."""
    for reason, line in _by_reason(job for job in jobs if job.never_starts or job.reason == _NODES):
        if reason not in said:
            said.add(reason)
            yield line


_NODES = "PartitionNodeLimit"
_PINNED = "; a pinned study's own job may be on it"
_WORDS = {
    "None": "not looked at by SLURM yet",
    "Priority": "other jobs come first",
    "Resources": "what is asked for is in use",
    "ReqNodeNotAvail": f"the node that is asked for is in use, or out of service{_PINNED}",
    _NODES: "by its MinNodes or MaxNodes the partition takes no job of one node, or its nodes are "
    "down for a while",
    "BeginTime": "its time to begin has not come: after a requeue SLURM makes a pause",
    "Nodes required for job": f"the nodes that will do are in use, or out of service{_PINNED}",
}
"""The usual reasons, by their first words, and what they mean. Source: squeue(1), "JOB REASON
CODES"."""


def _in_words(reason: str) -> str:
    words = _meaning(reason)
    return words if reason in ("None", words) else f"{words} ({reason})"


def _meaning(reason: str) -> str:
    return next((words for begin, words in _WORDS.items() if reason.startswith(begin)), reason)


def end_jobs(jobs: Sequence[QueuedJob]) -> None:
    """Cancel jobs and wait until they are gone.

    Raises:
        PreflightError: some are still there after two minutes.
    """
    numbers = cancel_jobs(jobs)
    deadline = time.monotonic() + GONE_LIMIT_S
    while left := _still_there(numbers):
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
        _asked("scancel", *numbers)
    return numbers


def _still_there(numbers: Sequence[str]) -> list[str]:
    """Return which jobs may still exist: all of them if squeue fails."""
    done = _squeue("--format=%A")
    if done.returncode != 0:
        return sorted(numbers)
    return sorted(set(done.stdout.split()).intersection(numbers))


def _squeue(*options: str, limit_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    return _asked("squeue", "--me", "--noheader", *options, limit_s=limit_s)


def _asked(*command: str, limit_s: float | None = None) -> "subprocess.CompletedProcess[str]":
    try:
        return completed(command, limit_s or ASK_LIMIT_S)
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
        self._said: set[str] = set()

    def run(self) -> None:
        """Watch until no job has been left for too long, then end this process by SIGTERM."""
        last = time.monotonic()
        while time.monotonic() - last < QUIET_LIMIT_S:
            time.sleep(LOOK_INTERVAL_S)
            if self._something_is_left():
                last = time.monotonic()
        say(
            f"{NOTHING_LEFT} has been in SLURM's queue for {QUIET_LIMIT_S / 60:g} minutes, and "
            "Snakemake waits for one. What was measured is there; the same call makes the rest"
        )
        with suppress(PreflightError):  # Snakemake would wait for those that never start
            cancel_jobs([job for job in left_jobs(self._folder) if job.never_starts])
        os.kill(os.getpid(), signal.SIGTERM)

    def _something_is_left(self) -> bool:
        # Rules that run here are children of this process.
        if descendants(os.getpid()):
            return True
        try:
            jobs = left_jobs(self._folder)
        except PreflightError:  # a controller that does not answer may still have them
            return True
        for line in lasting_reasons(jobs, self._said):
            say(line)
        return any(not job.never_starts for job in jobs)
