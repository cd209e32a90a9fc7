"""Repairs what killed processes and lost machines left, before Snakemake builds its DAG.

- A run that finished while Snakemake was being killed stays finished: Snakemake would take its
  outputs for half written and measure again, but a record with correct hashes proves it complete.
- A damaged result is moved, never deleted: its run is measured again, and the old files stay next
  to it in ``damaged-1``, ``damaged-2`` and so on.
- A run that is marked as running on a lost node, or on the machine from which a results folder was
  copied, is marked as lost: the holder of the study's lock knows that no run is running.
- Files from a time that is still to come, as a clock that was wrong leaves them, would make
  Snakemake take old tables for new ones, or refuse new ones: records get the present time, and
  tables are made again.

A window that a killed run had completed is kept by the run's supervisor (``run/supervisor.py``).
"""

import json
import os
import socket
import stat
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llenergymeasure.files import (
    load_json,
    open_folder,
    remove,
    remove_unfinished,
    sync_folder,
    write_text,
)
from llenergymeasure.results.complete import SETTLED_NS
from llenergymeasure.results.layout import PARTIAL_MTIME_S, TABLE_NAMES, RunFolder, StudyFolder
from llenergymeasure.results.outcome import DAMAGED
from llenergymeasure.run.attempt import lock_if_idle

RUNNING = "running"
_INCOMPLETE_MARKS_FOLDER = Path(".snakemake/incomplete")


def keep_finished(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> None:
    """Remove Snakemake's mark of an incomplete output from every run whose record is complete.

    The study's folder is relative to the working directory, as the rules name it.
    """
    marks = {path for path in _INCOMPLETE_MARKS_FOLDER.rglob("*") if path.is_file()}
    if not marks:
        return
    # A mark's name is the output's path in URL-safe base64, cut into folders whose names begin
    # with @ where it is too long for one (snakemake/persistence/file.py).
    name_limit = os.pathconf(_INCOMPLETE_MARKS_FOLDER, "PC_NAME_MAX") - 1
    for run in states:
        if run["status"] != "completed":
            continue
        for output in folder.run(run["experiment"], run["cycle"]).products:
            name = urlsafe_b64encode(str(output).encode()).decode()
            parts = [name[start : start + name_limit] for start in range(0, len(name), name_limit)]
            mark = _INCOMPLETE_MARKS_FOLDER.joinpath(
                *(f"@{part}" for part in parts[:-1]), parts[-1]
            )
            if mark in marks:
                mark.unlink(missing_ok=True)


def correct_times(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> None:
    """Take the plan, records and tables of a study out of the future.

    The caller holds the study's lock. Files of another user's stay as they are.
    """
    records = [
        folder.run(run["experiment"], run["cycle"]).result
        for run in states
        if run["status"] == "completed"
    ]
    for path in (folder.plan, *records):
        _correct_time(path, None)
    for name in (*TABLE_NAMES, "report.html"):
        _correct_time(folder.path / name, (PARTIAL_MTIME_S, PARTIAL_MTIME_S))


def _correct_time(path: Path, times: tuple[int, int] | None) -> None:
    with suppress(OSError):
        if path.lstat().st_mtime_ns > time.time_ns() + SETTLED_NS:
            with open_folder(path.parent) as parent:
                os.utime(parent / path.name, times, follow_symlinks=False)


def damage_messages(states: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each damaged run, and what happens to it."""
    return [
        f"Damaged: {run['error_message']}. The run is measured again; its files stay next to it "
        "in a folder damaged-N"
        for run in states
        if run.get("error_class") == DAMAGED
    ]


def _is_special_file(path: Path) -> bool:
    """Return whether a path is neither a folder nor a plain file: a link, a hard link or a pipe."""
    status = path.lstat()
    is_plain_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return not is_plain_file and not stat.S_ISDIR(status.st_mode)


def clear_leftovers(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> None:
    """Set damaged results aside, and remove the unfinished files of killed processes.

    The caller holds the study's lock. A run whose earlier attempt is still running is not touched.
    """
    logs = folder.path / "logs"
    for subfolder in (folder.path, folder.path / "figures", folder.path / "pins", logs):
        remove_unfinished(subfolder)
    for log in logs.glob("*"):
        if _is_special_file(log):  # Snakemake's rules would write to it, and wait for a pipe
            remove(log)
    for state in states:
        run = folder.run(state["experiment"], state["cycle"])
        with lock_if_idle(run) as is_idle:
            if is_idle:
                remove_unfinished(run.path)
                if state.get("error_class") == DAMAGED:
                    _set_aside(run)


def _set_aside(run: RunFolder) -> None:
    """Move a run's result and outcome into a folder of their own next to them."""
    number = 1
    while (target := run.path / f"damaged-{number}").exists():
        number += 1
    # The record last: if this is interrupted, the run is still seen as damaged.
    with open_folder(target, make=True) as aside, open_folder(run.path) as place:
        for path in (run.outcome, *reversed(run.products)):
            if path.exists():
                (place / path.name).rename(aside / path.name)
        sync_folder(place)


def mark_lost(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> int:
    """Mark each run that is recorded as running on another machine as lost.

    The caller holds the study's lock, and no job of the study is in any queue. Attempts on this
    machine are not touched. Returns how many runs were lost.
    """
    running = [state for state in states if state["status"] == RUNNING]
    return sum(_mark_lost(folder.run(state["experiment"], state["cycle"])) for state in running)


def _mark_lost(run: RunFolder) -> bool:
    try:
        outcome = load_json(run.outcome)
    except (OSError, ValueError):
        return False
    here, there = socket.gethostname(), outcome.get("host")
    if here == there or outcome.get("status") != RUNNING:
        return False
    job = outcome.get("job") or {}
    origin = f"job {job['id']} on {job.get('node') or there}" if job.get("id") else f"host {there}"
    message = f"{origin} is gone without a word (node lost, or a folder from another machine)"
    outcome |= {"status": "lost", "error": {"class": "MachineGone", "message": message}}
    write_text(run.outcome, json.dumps(outcome, indent=2) + "\n")
    return True
