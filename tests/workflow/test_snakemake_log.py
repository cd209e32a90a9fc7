"""What is said of a Snakemake that failed: the first cause in its log and in its jobs' logs."""

from pathlib import Path

import pytest

from llenergymeasure.containers.images import why_not_started
from llenergymeasure.workflow import slurm_jobs
from llenergymeasure.workflow.slurm_jobs import CHANGE_PROFILE
from llenergymeasure.workflow.snakemake_log import failed_jobs, failure_reason, first_error

SUBMITTED = "Job {0} has been submitted with SLURM jobid 1{0} (log: {1}).\n"
FAILED = (
    "Error in rule measure:\n    message: SLURM-job '1{0}' failed, SLURM status is: 'FAILED'.\n"
    "    jobid: {0}\n    log: logs/measure.log, {1} (check log file(s) for error details)\n"
)
STARTED = "host: node-1\nActivating singularity image /x.sif\n"
SUBMISSION = "Error in rule measure:\n    message: Job submission failed with exception: "
NO_OUTCOME = "results/small/runs/4276/1/outcome.json"
NOT_MADE = """\
Error in rule measure:
    jobid: 1
Traceback (most recent call last):
  File "snakemake/io/__init__.py", line 897, in touch
FileNotFoundError: [Errno 2] No such file or directory

During handling of the above exception, another exception occurred:

  File "snakemake/io/__init__.py", line 924, in touch_or_create
PermissionError: [Errno 1] Operation not permitted: {}
"""
"""Snakemake tries to make the outcome of a run that could write nothing."""

ACCOUNT = "The given account me appears to be invalid. Available accounts:"
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
UNCONTACTED = "sbatch: error: Batch job submission failed: Unable to contact slurm controller"
NO_SPACE = "[Errno 28] No space left on device: '.snakemake/slurm_logs/rule_measure"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (NOT_MADE.format(f"'{NO_OUTCOME}'"), f"{NO_OUTCOME}: Operation not permitted"),
        (
            NOT_MADE.format('"o\'brien/outcome.json"'),
            "o'brien/outcome.json: Operation not permitted",
        ),
        (
            f"sbatch: error: Unable to open file job.sh\n{NOT_MADE.format(NO_OUTCOME)}",
            f"sbatch: error: Unable to open file job.sh. {CHANGE_PROFILE}",
        ),
        (
            f"{SUBMISSION}The 'sacctmgr' reported: 'no\nrest'.\n",
            f"The 'sacctmgr' reported: 'no. {CHANGE_PROFILE}",
        ),
        (
            f"{SUBMISSION}{ACCOUNT}\na, bFor further error details see the log.\n    jobid: 1\n",
            f"{ACCOUNT} a, b. {CHANGE_PROFILE}",
        ),
        # No profile is to be changed where SLURM does not answer.
        *((f"{SUBMISSION}{each}'.\n", each) for each in (TIMED_OUT, UNCONTACTED, NO_SPACE)),
    ],
)
def test_the_first_cause_is_one_line(log: str, reason: str) -> None:
    assert failure_reason(log) == reason


def test_what_the_scheduler_said_of_a_job_it_refused_is_shown() -> None:
    words = "Unable to run job: error: no suitable queues\nExiting.\n"
    after = "Error in rule measure:\n    message: Error submitting jobscript (exit code 1):\n"
    assert first_error(f"rule measure:\n    jobid: 1\n{words}{after}") == f"{words}{after}"


def test_what_apptainer_said_in_a_job_s_own_log_is_found(tmp_path: Path) -> None:
    job_log = tmp_path / "slurm logs, mine" / "15.log"
    job_log.parent.mkdir()
    jobs = ((1, tmp_path / "removed.log"), (2, job_log))
    log = "".join(SUBMITTED.format(*job) for job in jobs)
    failed = log + "".join(FAILED.format(*job) for job in jobs)
    fatal = "container creation failed: fuse: failed to open /dev/fuse: Permission denied"
    job_log.write_text(f"{STARTED}FATAL:   {fatal}\nRuleException:\n")
    assert why_not_started(log) == ""  # it goes on, or went well
    assert why_not_started(failed) == f"Apptainer did not start the image: {fatal} ({job_log})"


@pytest.mark.parametrize(
    "text",
    [
        f"{STARTED}RuleException:\n",
        f"{STARTED}FATAL: exception not rethrown\n",
        "host: node-1\nFATAL:   of a program without an image\n",
        f"{STARTED}FATAL:   \nthe next line\n",
    ],
    ids=["a rule's", "the C library's", "no image was started", "nothing said"],
)
def test_what_others_say_in_a_job_s_log_is_not_called_apptainers(tmp_path: Path, text: str) -> None:
    job_log = tmp_path / "15.log"
    job_log.write_text(text)
    assert why_not_started(SUBMITTED.format(2, job_log) + FAILED.format(2, job_log)) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "\n/bin/sh: 1: module: not found\nsrun: error: node-1\n",
            "/bin/sh: 1: module: not found ({})",
        ),
        ("host: node-1\nBuilding DAG of jobs...\n", ""),
        ("\nSNAKEMAKE\n=========\n  Date: today\n  Host: node-1\nBuilding DAG of jobs...\n", ""),
        (None, ""),
    ],
    ids=["before it began", "it began", "it began, with a heading", "no log"],
)
def test_what_a_job_s_shell_said_before_the_job_began_is_the_reason(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    job_log = tmp_path / "15.log"
    if text is not None:
        job_log.write_text(text)
    failed = SUBMITTED.format(2, job_log) + FAILED.format(2, job_log)
    assert failure_reason(failed) == reason.format(job_log)


def test_reasons_are_read_also_where_the_command_of_a_job_is_not_shown() -> None:
    failed = "Error in rule measure:\n    message: SLURM-job '{0}' failed, SLURM status is: "
    failed += "'TIMEOUT'.\n    jobid: {0}\n    output: r/abc/{0}/result.json\n\n"
    assert dict(failed_jobs(failed.format(1) + failed.format(2))) == {
        "abc/1": "SLURM says of its job 1: TIMEOUT",
        "abc/2": "SLURM says of its job 2: TIMEOUT",
    }


def test_each_run_that_never_began_has_the_reason_that_its_own_job_ended_for(
    tmp_path: Path,
) -> None:
    job_log = tmp_path / "11.log"
    job_log.write_text("slurm_script: 4: module: not found\n")
    refused = "sbatch: error: invalid partition specified: gpu"
    messages = {
        "1": f"SLURM-job '11' failed, SLURM status is: 'FAILED'.\n    log: x, {job_log} "
        "(check log file(s) for error details)",
        "2": f"SLURM sbatch failed. The error message was '{refused}\nsbatch: error: more'.",
        "3": "SLURM-job '13' failed, SLURM status is: 'CANCELLED'. Detailed failure reason",
        "4": "SLURM-job '14' failed, SLURM status is: 'FAILED'. Detailed failure reason",
    }
    log = SUBMITTED.format(1, job_log)
    for job, message in messages.items():
        first, _, rest = message.partition("\n")
        log += f"Error in rule measure:\n    message: {first}\n    jobid: {job}\n"
        log += f"    output: results/s/runs/abc{job}/1/result.json\n{rest}\n    shell:\n        x\n"
    assert dict(failed_jobs(log)) == {
        "abc1/1": f"slurm_script: 4: module: not found ({job_log})",
        "abc2/1": f"{refused}. {CHANGE_PROFILE}",
        "abc3/1": "SLURM says of its job 13: CANCELLED",
        "abc4/1": "",
    }
    waits = f"1 job waits in SLURM's queue: PartitionConfig{slurm_jobs.NEVER_ENDS_CLAUSE}: no node"
    assert dict(failed_jobs(f"{waits}\n{log}"))["abc3/1"].endswith(f": CANCELLED; before: {waits}")
