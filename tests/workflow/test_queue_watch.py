"""A workflow on SLURM that waits for nothing is ended; one that waits for something never is."""

import subprocess
import sys

import pytest

from llenergymeasure.workflow.slurm_jobs import QueuedJob, waiting_lines, waiting_summary

LEFT = "QueuedJob('7', 'llem-small-ab-cd', 'PENDING', 'Resources')"
STUCK = "QueuedJob('7', 'llem-small-ab-cd', 'PENDING', 'PartitionConfig')"
SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from llenergymeasure.errors import PreflightError, Problem
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow import slurm_jobs
from llenergymeasure.workflow.slurm_jobs import QueuedJob, QueueWatch

def ask(folder, in_cluster):
    {ask}

{before}
slurm_jobs.QUIET_LIMIT_S, slurm_jobs.QUEUE_POLL_S, slurm_jobs.queued_jobs = 0.5, 0.05, ask
slurm_jobs._run_slurm = lambda *words: print(*words, flush=True)
QueueWatch(StudyFolder(Path("."))).start()
time.sleep({wait_s})
print("went on", flush=True)
"""


def _run(ask: str, *, before: str = "", wait_s: float = 2.0) -> subprocess.CompletedProcess[str]:
    code = SCRIPT.format(ask=ask, before=before, wait_s=wait_s)
    return subprocess.run(
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False
    )


def test_where_nothing_is_left_the_workflow_is_ended_and_says_why() -> None:
    result = _run("return []", wait_s=60)
    assert result.returncode == -15
    assert "the same call makes the rest" in result.stderr
    assert not result.stdout


def test_a_job_that_can_never_start_is_named_once_and_ends_the_workflow() -> None:
    result = _run(f"return [{STUCK}]", wait_s=60)
    assert result.returncode == -15
    assert (
        result.stderr.count("1 job waits in SLURM's queue: PartitionConfig, which never ends") == 1
    )
    assert "mem_mb" in result.stderr
    assert result.stdout == "scancel 7\n"  # Snakemake would wait for it for ever


def test_a_partition_whose_nodes_may_come_back_is_named_once_and_waited_for() -> None:
    jobs = LEFT.replace("Resources", "PartitionNodeLimit")
    result = _run(f"return [{jobs}] * (1 + int(time.monotonic() * 10) % 2)")
    assert result.stdout == "went on\n"
    assert result.stderr.count("in SLURM's queue: by its MinNodes or MaxNodes") == 1


@pytest.mark.parametrize(
    ("reason", "never"),
    [
        ("QOSMaxGRESPerJob", True),
        ("QOSMaxCpuPerJobLimit", True),
        ("QOSMaxMemoryPerNode", True),
        ("QOSMinGRES", True),
        ("AssocMaxGRESPerJob", True),
        ("MaxMemPerLimit", True),
        ("launch failed requeued held", True),
        ("launch failure limit exceeded requeued held", True),
        ("JobHoldMaxRequeue", True),
        ("PartitionNodeLimit", False),  # also said of nodes that are down for a while
        ("QOSMaxJobsPerUserLimit", False),
        ("QOSMaxGRESPerUser", False),
        ("QOSMaxNodePerUserLimit", False),
        ("AssocGrpGRES", False),
        ("AssocMaxJobsLimit", False),
        ("JobHeldUser", False),
        ("Priority", False),
    ],
)
def test_which_reasons_no_other_job_s_end_removes(reason: str, never: bool) -> None:
    job = QueuedJob("7", "llem-small-ab-cd", "PENDING", reason)
    assert job.never_starts == never
    (message,) = waiting_lines([job])
    assert ("never ends by itself" in message) == never
    assert ("SLURM holds it" in message) == reason.startswith(("launch", "JobHold"))


def test_a_job_that_slurm_holds_after_a_requeue_waits() -> None:
    held_job = QueuedJob(
        "7", "llem-a", "REQUEUE_HOLD", "launch failure limit exceeded requeued held"
    )
    assert held_job.never_starts
    (message,) = waiting_lines([held_job, QueuedJob("8", "llem-a", "RUNNING", "None")])
    assert message.startswith("1 job waits in SLURM's queue: launch failure limit exceeded")


@pytest.mark.parametrize(
    ("ask", "before"),
    [
        (f"return [{LEFT}]", ""),
        ("raise PreflightError([Problem('SLURM does not answer')])", ""),
        ("return []", "child = subprocess.Popen(['sleep', '4'])"),
    ],
    ids=["a job in the queue", "a controller that does not answer", "a rule that runs here"],
)
def test_what_may_still_happen_is_waited_for(ask: str, before: str) -> None:
    result = _run(ask, before=before)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "went on\n"


def test_a_line_of_progress_says_why_jobs_wait_in_a_few_words() -> None:
    def jobs(*reasons: str) -> list[QueuedJob]:
        return [QueuedJob(str(n), "llem", "PENDING", each) for n, each in enumerate(reasons)]

    away = "the node that is asked for is in use, or out of service"
    assert waiting_summary(jobs("ReqNodeNotAvail, UnavailableNodes:n1")) == f"1 job waits: {away}"
    assert waiting_summary(jobs("Priority", "Priority")) == "2 jobs wait: other jobs come first"
    assert waiting_summary(jobs("Priority", "Resources")) == "2 jobs wait in the queue"
    assert waiting_summary(jobs("PartitionNodeLimit")).endswith("or its nodes are down for a while")
    assert waiting_summary([QueuedJob("1", "llem", "RUNNING", "None")]) == ""
