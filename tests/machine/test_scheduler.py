"""Which job of a scheduler a process is in, as the scheduler's variables say it."""

import os
from pathlib import Path

import pytest

from llenergymeasure.machine.scheduler import job_facts, job_variable, time_limit_over
from support.programs import program

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_ACCOUNT": "physics",
    "SLURM_CLUSTER_NAME": "test",
}


def test_outside_of_any_job_there_is_none() -> None:
    assert job_facts({"PATH": "/bin"}) is None
    assert job_variable({"PATH": "/bin"}) == {}
    assert time_limit_over({}) is None


def test_a_job_says_its_number_partition_and_node() -> None:
    assert job_facts(SLURM) == {
        "scheduler": "slurm",
        "id": "4711",
        "partition": "gpu",
        "node": "n1",
        "account": "physics",
        "cluster": "test",
    }


def test_a_task_of_an_array_goes_by_the_number_that_squeue_shows() -> None:
    job = job_facts({**SLURM, "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"})
    assert job is not None
    assert job["id"] == "4700_11"


def test_in_a_container_a_job_is_told_without_the_schedulers_own_variables() -> None:
    variables = job_variable(SLURM)
    assert not [name for name in variables if name.startswith("SLURM")]
    assert job_facts(variables) == job_facts(SLURM)


def controller(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """Put a controller's command on the path that says the same of every job."""
    program(folder / "scontrol", says)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


TIMED_OUT = (
    "echo 'JobId=4711 JobState=COMPLETING Reason=TimeLimit RunTime=00:01:20 TimeLimit=00:01:00'"
)
CANCELLED = "echo 'JobId=4711 JobState=CANCELLED Reason=None TimeLimit=1-00:00:00'"


def test_the_controller_s_reason_tells_a_limit_from_scancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller(tmp_path, monkeypatch, TIMED_OUT)
    message = time_limit_over(SLURM)
    assert message is not None
    assert message.startswith("SLURM's time limit of 1 min was over; give the job more")
    # It would replace the profile's partition and account.
    assert "--default-resources" not in message
    controller(tmp_path, monkeypatch, CANCELLED)
    assert time_limit_over(SLURM) is None


@pytest.mark.parametrize("says", ["exit 1", "exec sleep 60"])
def test_without_the_controller_it_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr("llenergymeasure.machine.scheduler.ASK_LIMIT_S", 0.1)
    controller(tmp_path, monkeypatch, says)
    assert time_limit_over(SLURM) is None
