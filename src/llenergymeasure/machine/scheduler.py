"""The scheduler's job that this process is part of (standard library only).

SLURM says what it gave in variables that srun(1) and sbatch(1) list under "OUTPUT ENVIRONMENT
VARIABLES". Which GPUs are the job's is in ``machine/gpus/inventory.py``.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure.processes import ChildError, run_to_end

JOB_VARIABLE = "LLEM_JOB"
"""The job, as JSON, in a container: there SLURM's own variables would make MPI call srun."""

ASK_LIMIT_S = 3.0
"""A job over its limit has 30 s from SIGTERM to SIGKILL, and more to do in them."""

_FILTERS = ("SQUEUE_", "SCANCEL_", "SINFO_", "SCONTROL_")
"""Begin the variables by which a user's shell narrows what SLURM's commands list and end."""
_ALL = {"SQUEUE_ALL": "1", "SINFO_ALL": "1", "SCONTROL_ALL": "1"}
"""Without them nothing in a hidden partition is listed, a user's own jobs neither."""


def job_facts(environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return the job on a cluster that this environment belongs to; None outside of any.

    Returns:
        ``scheduler``: ``slurm``; ``id``: the number it goes by in the queue, ``ARRAY_TASK`` in an
        array; ``partition``: where it was queued; ``node``: the machine, as the scheduler calls
        it; ``account``: who is charged; ``cluster``: which cluster.
    """
    variables = os.environ if environ is None else environ
    if variables.get(JOB_VARIABLE):
        job: dict[str, Any] = json.loads(variables[JOB_VARIABLE])
        return job
    job_id = variables.get("SLURM_JOB_ID")
    if not job_id:
        return None
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return {
        "scheduler": "slurm",
        "id": f"{array}_{task}" if array and task else job_id,
        "partition": variables.get("SLURM_JOB_PARTITION"),
        "node": variables.get("SLURMD_NODENAME"),
        "account": variables.get("SLURM_JOB_ACCOUNT"),
        "cluster": variables.get("SLURM_CLUSTER_NAME"),
    }


def job_variable(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that gives a process in a container its job; none outside of any."""
    job = job_facts(environ)
    return {} if job is None else {JOB_VARIABLE: json.dumps(job)}


def time_limit_over(environ: Mapping[str, str] | None = None) -> str | None:
    """Return in words that this process's job is over its time; None where not, or not known.

    For when the job is being ended: SLURM's controller knows the reason.
    """
    job_id = (os.environ if environ is None else environ).get("SLURM_JOB_ID")
    description = _describe_job(job_id) if job_id else None
    if description is None or "Reason=TimeLimit" not in description:
        return None
    minutes = _limit_minutes(description)
    limit = "SLURM's time limit" if minutes is None else f"SLURM's time limit of {minutes:g} min"
    return f"{limit} was over; give the job more: runtime in the profile, in minutes"


def _describe_job(job_id: str) -> str | None:
    """Return what SLURM's controller knows of a job; None where it cannot be asked."""
    try:
        result = run_slurm(["scontrol", "show", "job", job_id], ASK_LIMIT_S)
    except ChildError:
        return None
    return result.stdout if result.returncode == 0 else None


def run_slurm(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run one of SLURM's commands on all there is, whatever the user's own listings show.

    Raises:
        ChildError: it cannot be started, or did not end in time.
    """
    return run_to_end(command, timeout_s, environment=without_filters(os.environ))


def without_filters(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables with which SLURM's commands list all jobs, nodes and partitions."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_FILTERS)}
    return kept | _ALL


def _limit_minutes(description: str) -> float | None:
    """Return a job's time limit, which SLURM writes as ``[DAYS-]HH:MM:SS``."""
    match = re.search(r"TimeLimit=(?:(\d+)-)?(\d+):(\d+):(\d+)", description)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60
