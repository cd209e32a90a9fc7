"""Runs whose machine went away: said to be running by their outcome, and running nowhere.

A process on this machine can be looked for; one on a node that was lost, or on the machine from
which a results folder was copied, cannot. Whoever holds the study's lock knows all the same that
no run is running.
"""

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from llenergymeasure.files import load_json, write_text
from llenergymeasure.results.layout import RunFolder, StudyFolder

RUNNING = "running"


def conclude_lost(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> int:
    """Write into the outcome of each run that is said to be running that it is lost.

    Only for whoever holds the study's lock, with no job of it in any queue. An attempt whose
    process lives on this machine is left alone.

    Args:
        states: the runs with their states.
        folder: the study's folder.

    Returns:
        How many runs were lost.
    """
    said = [each for each in states if each["status"] == RUNNING]
    return sum(_conclude(folder.run(each["experiment"], each["cycle"])) for each in said)


def _conclude(run: RunFolder) -> bool:
    try:
        outcome = load_json(run.outcome)
    except (OSError, ValueError):
        return False
    here, there = socket.gethostname(), outcome.get("host")
    if here == there or outcome.get("status") != RUNNING:
        return False
    job = outcome.get("job") or {}
    where = f"job {job['id']} on {job.get('node') or there}" if job.get("id") else f"host {there}"
    message = f"{where} is gone without a word (node lost, or a folder from another machine)"
    lost = {**outcome, "status": "lost", "error": {"class": "MachineGone", "message": message}}
    write_text(run.outcome, json.dumps(lost, indent=2) + "\n")
    return True
