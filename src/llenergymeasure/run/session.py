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


def runs_to_measure(followers: "Iterable[Supervisor]", held: ExitStack) -> "Iterator[Supervisor]":
    """Yield the runs still to be measured; their folders stay locked while ``held`` is open."""
    for each in followers:
        folder = each.folder
        make_folder(folder.path)
        if not held.enter_context(lock_if_idle(folder)):
            continue
        if not is_complete(folder) and not is_measured(folder):
            yield each


def measure_followers(first: "Supervisor", engine: "subprocess.Popen[bytes]", end: End) -> End:
    """Measure the runs that share the first one's server.

    Returns:
        How the first run ended, or all of them if they were interrupted.
    """
    before = first.folder
    for each in first.followers:
        if not is_measured(before) or engine.poll() is not None or first.folder.last.exists():
            break
        each.join(first)
        its = each.record(engine, time.monotonic(), goes_on=each is not first.followers[-1])
        _conclude(each, its, first.folder)
        if its.asked:
            return its
        before = each.folder
    return end


def _conclude(run: "Supervisor", end: End, first: RunFolder) -> None:
    """Write that a run was measured on another one's server, or why it was not."""
    error = None
    run.discard_unassessed(end)
    measured = is_measured(run.folder)
    if not measured and not end.asked and not end.well:
        error = run.attempt.error(end)
        place = f"{first.path.parent.name}/{first.path.name}"
        error["message"] += f" (run.log of {place} has what was said)"
    if measured or error is not None:
        said = {"workflow": _workflow(run.asked_by), "error": error}
        write_text(run.folder.session, json.dumps(said))
    remove(run.folder.outcome)


def shared_outcome(folder: RunFolder, workflow_pid: int | None) -> dict[str, Any] | None:
    """Return what another run's job wrote of this run for the same workflow; None if nothing."""
    said = read_json(folder.session) or {}
    whole = "workflow" in said and isinstance(said.get("error", ""), dict | None)
    return said if whole and said["workflow"] == _workflow(workflow_pid) else None


def _workflow(pid: int | None) -> str | None:
    return boot_id() if pid is None else identity(pid)
