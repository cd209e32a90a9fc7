"""The scheduler's job that this process is part of (standard library only).

SLURM says what it gave in variables that srun(1) and sbatch(1) list under "OUTPUT ENVIRONMENT
VARIABLES".
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

HANDED_ON = "LLEM_JOB"
"""The job, as JSON, in a container: there SLURM's own variables would make MPI call srun."""


@dataclass(frozen=True)
class Job:
    """A job on a cluster.

    Attributes:
        scheduler: ``slurm``.
        id: the number it goes by in the queue; ``ARRAY_TASK`` in an array.
        partition: where it was queued.
        node: the machine, as the scheduler calls it.
        account: who is charged.
        cluster: which cluster.
    """

    scheduler: str
    id: str
    partition: str | None = None
    node: str | None = None
    account: str | None = None
    cluster: str | None = None


def current_job(environ: Mapping[str, str] | None = None) -> Job | None:
    """Return the job that this environment belongs to; null outside of any."""
    found = os.environ if environ is None else environ
    if found.get(HANDED_ON):
        return Job(**json.loads(found[HANDED_ON]))
    number = found.get("SLURM_JOB_ID")
    if not number:
        return None
    array, task = found.get("SLURM_ARRAY_JOB_ID"), found.get("SLURM_ARRAY_TASK_ID")
    return Job(
        scheduler="slurm",
        id=f"{array}_{task}" if array and task else number,
        partition=found.get("SLURM_JOB_PARTITION"),
        node=found.get("SLURMD_NODENAME"),
        account=found.get("SLURM_JOB_ACCOUNT"),
        cluster=found.get("SLURM_CLUSTER_NAME"),
    )


def job_facts(environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return the job as plain values; None outside of any."""
    job = current_job(environ)
    return None if job is None else asdict(job)


def handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that tells a process in a container its job; none outside of any."""
    job = job_facts(environ)
    return {} if job is None else {HANDED_ON: json.dumps(job)}
