"""Runs that share a server: the first one's job also measures the windows of the others.

Each of the others is left as if it had been killed once it was measured, and its own job finishes
it. A failure is reported once, by the run's own job. Standard library only.
"""

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llenergymeasure.files import make_folder, read_json, remove, write_text
from llenergymeasure.processes import boot_id, identity
from llenergymeasure.results.complete import is_complete, is_measured
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.attempt import lock_if_idle
from llenergymeasure.run.ending import End

if TYPE_CHECKING:
    from llenergymeasure.run.supervisor import Supervisor


def runs_to_measure(followers: "Iterable[Supervisor]", locks: ExitStack) -> "Iterator[Supervisor]":
    """Yield the runs still to be measured; their folders stay locked while ``locks`` is open."""
    for follower in followers:
        folder = follower.folder
        make_folder(folder.path)
        if not locks.enter_context(lock_if_idle(folder)):
            continue
        if not is_complete(folder) and not is_measured(folder):
            yield follower


def measure_followers(first: "Supervisor", engine: "subprocess.Popen[bytes]", end: End) -> End:
    """Measure the runs that share the first one's server.

    Returns:
        How the first run ended, or all of them if they were interrupted.
    """
    previous = first.folder
    for follower in first.followers:
        if not is_measured(previous) or engine.poll() is not None or first.folder.last.exists():
            break
        follower.join(first)
        is_last = follower is first.followers[-1]
        follower_end = follower.record(engine, time.monotonic(), keep_engine=not is_last)
        _conclude(follower, follower_end, first.folder)
        if follower_end.requested:
            return follower_end
        previous = follower.folder
    return end


def _conclude(run: "Supervisor", end: End, first: RunFolder) -> None:
    """Write that a run was measured on another one's server, or why it was not."""
    error = None
    run.discard_unassessed(end)
    measured = is_measured(run.folder)
    if not measured and not end.requested and not end.succeeded:
        error = run.attempt.error(end)
        first_run = f"{first.path.parent.name}/{first.path.name}"
        error["message"] += f" (run.log of {first_run} has what was said)"
    if measured or error is not None:
        report = {"workflow": _workflow(run.workflow_pid), "error": error}
        write_text(run.folder.session, json.dumps(report))
    remove(run.folder.outcome)


def shared_outcome(folder: RunFolder, workflow_pid: int | None) -> dict[str, Any] | None:
    """Return what another run's job wrote of this run for the same workflow; None if nothing."""
    report = read_json(folder.session) or {}
    is_valid = "workflow" in report and isinstance(report.get("error", ""), dict | None)
    return report if is_valid and report["workflow"] == _workflow(workflow_pid) else None


def _workflow(pid: int | None) -> str | None:
    return boot_id() if pid is None else identity(pid)
