"""Which job of a scheduler a process is in, as the scheduler's variables say it."""

from llenergymeasure.machine.scheduler import current_job, handed_on

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_ACCOUNT": "physics",
    "SLURM_CLUSTER_NAME": "test",
}


def test_outside_of_any_job_there_is_none() -> None:
    assert current_job({"PATH": "/bin"}) is None


def test_a_job_says_its_number_partition_and_node() -> None:
    job = current_job(SLURM)
    assert job is not None
    assert job.as_dict() == {
        "scheduler": "slurm",
        "id": "4711",
        "partition": "gpu",
        "node": "n1",
        "account": "physics",
        "cluster": "test",
    }


def test_a_task_of_an_array_goes_by_the_number_that_squeue_shows() -> None:
    job = current_job({**SLURM, "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "11"})
    assert job is not None
    assert job.id == "4700_11"


def test_in_a_container_a_job_is_told_without_the_schedulers_own_variables() -> None:
    told = handed_on(SLURM)
    assert not [name for name in told if name.startswith("SLURM")]
    assert current_job(told) == current_job(SLURM)
    assert handed_on({"PATH": "/bin"}) == {}
