"""What is asked of SLURM's commands, on commands of our own that answer as SLURM does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from cli.commands import Call
from llenergymeasure.cli.status import _with_reasons
from llenergymeasure.containers.images import why_not_started
from llenergymeasure.errors import PreflightError
from llenergymeasure.files import locked, write_text
from llenergymeasure.machine import folders
from llenergymeasure.machine.cpu_share import AT_ONCE_VARIABLE
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.run import pin
from llenergymeasure.run.circuit_breaker import Circuit
from llenergymeasure.workflow import slurm_jobs, snakemake_process
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.progress import EndedRun, Progress
from llenergymeasure.workflow.slurm_jobs import (
    QueuedJob,
    QueueWatch,
    cancel_jobs_and_wait,
    job_prefix,
    queued_jobs,
    waiting_lines,
)
from llenergymeasure.workflow.snakemake_log import failed_jobs, failure_reason, first_error
from llenergymeasure.workflow.snakemake_process import Listener, SnakemakeProcess
from llenergymeasure.workflow.snakemake_study import (
    QUEUE_NOT_WATCHED,
    SERVERS_NOT_SHARED,
    SnakemakeStudy,
)
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.studies import write_study

JOB = QueuedJob("17", "llem-s-abc-1", "RUNNING")


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm_jobs, "CANCEL_TIMEOUT_S", 1.0)
    command(folder, "scancel", f"echo $* >> {folder}/cancelled")
    return folder


def test_jobs_are_not_taken_for_gone_while_squeue_fails(slurm: Path) -> None:
    command(slurm, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(PreflightError, match="17"):
        cancel_jobs_and_wait([JOB])


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("None", "1 job waits in SLURM's queue: not looked at by SLURM yet"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "the node that is asked for is in use, or out of"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs", "in use, or out of"),
        ("Nodes required for job are DOWN", "a pinned study's own job may be on it (Nodes"),
        ("Priority", "other jobs come first (Priority)"),
        (
            "PartitionNodeLimit",
            "or its nodes are down for a while (PartitionNodeLimit)",
        ),
        ("BeginTime", "after a requeue SLURM makes a pause (BeginTime)"),
        ("QOSMaxJobsPerUserLimit", "queue: QOSMaxJobsPerUserLimit"),
        ("PartitionConfig", "queue: PartitionConfig, which never ends by itself"),
    ],
)
def test_why_a_job_waits_is_said_in_words(reason: str, said: str) -> None:
    (line,) = waiting_lines([replace(JOB, state="PENDING", reason=reason)])
    assert said in line


def test_other_jobs_of_the_user_may_have_comments_of_several_lines(slurm: Path) -> None:
    folder = StudyFolder(slurm / "small")
    line = f"17|{job_prefix(folder)}ab|RUNNING|None|rule_measure"
    command(slurm, "squeue", f"printf '9|mine|RUNNING|None|first\nsecond\n\n{line}\n'")
    assert [job.id for job in queued_jobs(folder)] == ["17"]


@pytest.mark.parametrize("name", ["SQUEUE_STATES", "SQUEUE_PARTITION", "SQUEUE_ACCOUNT"])
def test_what_a_user_lists_for_himself_hides_no_job_of_a_study(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Hidden jobs would measure next to new ones, and be taken for gone while they wait."""
    line = f"17|{job_prefix(StudyFolder(slurm / 'small'))}ab|PENDING|Priority|"
    command(slurm, "squeue", f"[ -n \"${name}\" ] || echo '{line}'")
    command(slurm, "scancel", f'[ -n "$SCANCEL_STATE" ] || touch {slurm}/cancelled')
    monkeypatch.setenv(name, "urgent")
    monkeypatch.setenv("SCANCEL_STATE", "RUNNING")
    jobs = queued_jobs(StudyFolder(slurm / "small"))
    assert [job.id for job in jobs] == ["17"]
    slurm_jobs.cancel_jobs(jobs)
    assert (slurm / "cancelled").exists()


def test_jobs_and_nodes_of_a_hidden_partition_are_seen(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM lists them to those alone who ask for all (squeue(1), ``--all``)."""
    monkeypatch.delenv("SQUEUE_ALL", raising=False)
    line = f"17|{job_prefix(StudyFolder(slurm / 'small'))}ab|PENDING|Priority|"
    command(slurm, "squeue", f"[ -z \"$SQUEUE_ALL\" ] || echo '{line}'")
    command(slurm, "sinfo", "[ -z \"$SINFO_ALL\" ] || echo 'n1|gpu:a100:2|idle|hidden'")
    assert [job.id for job in queued_jobs(StudyFolder(slurm / "small"))] == ["17"]
    assert [node.name for node in pin._nodes("hidden")] == ["n1"]


def test_snakemake_s_executor_does_not_see_what_a_user_lists_for_himself_either(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(slurm, "squeue", "true")
    monkeypatch.setattr(QueueWatch, "start", lambda _: None)
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")
    monkeypatch.setenv("SQUEUE_ALL", "")  # and put back what is set
    monkeypatch.setenv("SINFO_ALL", "")
    monkeypatch.setenv("SCONTROL_ALL", "")
    study: Any = object.__new__(SnakemakeStudy)
    study._folder = StudyFolder(slurm / "small")
    study._workflow = SimpleNamespace(
        executor_settings=None, resource_settings=SimpleNamespace(resources={})
    )
    study._prepare_cluster(named_jobs=True)
    assert "SQUEUE_PARTITION" not in os.environ
    assert os.environ["SQUEUE_ALL"] == "1"
    assert "PATH" in os.environ


def test_a_configuration_that_is_not_found_for_a_while_is_no_empty_queue(slurm: Path) -> None:
    """In SLURM's configless mode each command fetches it, and finds none while a name server is
    away."""
    folder = StudyFolder(slurm / "small")
    error = "squeue: fatal: Could not establish a configuration source"
    command(slurm, "squeue", f"echo '{error}' >&2; exit 1")
    assert queued_jobs(folder) == []  # as on a machine without a cluster
    with pytest.raises(PreflightError, match="SLURM does not answer"):
        queued_jobs(folder, in_cluster=True)
    assert QueueWatch(folder)._has_work_left()


@pytest.mark.parametrize(
    ("extra", "asked"),
    [
        ("--exclusive", "--exclusive --nodelist=n1"),
        ("--nodelist=n3", None),
        ("--exclusive -w n3", None),
        ("-wn3", None),
        ("-F nodes.txt", None),
        ("--nodefile=nodes.txt", None),
    ],
)
def test_a_node_that_the_profile_names_is_not_chosen_again(
    monkeypatch: pytest.MonkeyPatch, extra: str, asked: str | None
) -> None:
    plan = make_plan(study_from_mapping({"model": "tiny-llama", "execution": {"pin": "node"}}))
    monkeypatch.setattr(
        "llenergymeasure.workflow.snakemake_study.pin_options",
        lambda plan, *_: dict.fromkeys(plan.experiments, "--nodelist=n1"),
    )
    study: Any = object.__new__(SnakemakeStudy)
    study._plan, study._folder = plan, StudyFolder(Path("small"))
    settings = SimpleNamespace(nodes=2, default_resources={"slurm_extra": f"'{extra}'"})
    study._workflow = SimpleNamespace(resource_settings=settings, is_main_process=True)
    needed = study.resources()
    assert needed.get("slurm_extra") == asked


def test_where_jobs_cannot_be_listed_none_are_taken_for_gone(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watched: list[Any] = []
    monkeypatch.setattr(
        "llenergymeasure.workflow.snakemake_study.QueueWatch",
        lambda *each: SimpleNamespace(start=lambda: watched.append(each)),
    )
    study: Any = object.__new__(SnakemakeStudy)
    study._folder = StudyFolder(slurm / "small")
    settings = SimpleNamespace(resources={})
    study._workflow = SimpleNamespace(executor_settings=None, resource_settings=settings)
    monkeypatch.setenv("PATH", str(slurm))  # scancel alone
    study._prepare_cluster(named_jobs=True)
    assert not watched
    assert QUEUE_NOT_WATCHED in capsys.readouterr().err
    command(slurm, "squeue", "true")
    study._prepare_cluster(named_jobs=True)
    assert len(watched) == 1


@pytest.mark.parametrize(("local", "shares"), [(True, "4"), (False, None)])
def test_processors_are_shared_out_on_this_machine_and_not_within_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool, shares: str | None
) -> None:
    """``--jobs`` may be given on one machine too."""
    study = write_study(tmp_path, execution={"n_cycles": 1, "skip_preflight": True})
    plan, folder = make_plan(load_study(study)), StudyFolder(tmp_path / "results" / "small")
    workflow = SimpleNamespace(
        is_main_process=True,
        local_exec=local,
        storage_settings=SimpleNamespace(default_storage_provider=None),
        deployment_settings=SimpleNamespace(deployment_method=()),
        resource_settings=SimpleNamespace(resources={"gpu": 4}, cores=8, nodes=4),
    )
    monkeypatch.setattr("llenergymeasure.workflow.snakemake_study.guard_executors", mock.Mock())
    monkeypatch.setattr(SnakemakeStudy, "_prepare_cluster", mock.Mock())
    with mock.patch.dict(os.environ, {AT_ONCE_VARIABLE: "3"}):
        opened = SnakemakeStudy(plan, folder, workflow)
        opened.begin()
        opened._lock.close()
        assert os.environ.get(AT_ONCE_VARIABLE) == shares


def test_job_arrays_are_refused_before_anything_is_submitted() -> None:
    study: Any = object.__new__(SnakemakeStudy)
    study._workflow = SimpleNamespace(executor_settings=SimpleNamespace(array_jobs=["measure"]))
    with pytest.raises(PreflightError, match=r"--slurm-array-jobs.*leave it out"):
        study._prepare_cluster(named_jobs=True)


def test_commands_that_hang_are_an_error(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_jobs, "COMMAND_TIMEOUT_S", 0.2)
    command(slurm, "squeue", "exec sleep 5")
    with pytest.raises(PreflightError, match="squeue did not answer"):
        queued_jobs(StudyFolder(slurm))
    command(slurm, "scancel", "exec sleep 5")
    with pytest.raises(PreflightError, match="scancel 17 did not answer"):
        cancel_jobs_and_wait([JOB])


def planned(folder: Path) -> tuple[Path, Plan, StudyFolder]:
    path = write_study(folder)
    return path, make_plan(load_study(path)), StudyFolder(folder / "results" / "small")


def running(folder: StudyFolder, run: Any, pid: int, host: str) -> None:
    outcome = f'{{"status": "running", "attempt": 1, "host": "{host}", "pid": {pid}}}'
    write_text(folder.run(run.experiment, run.cycle).outcome, outcome)


@pytest.mark.parametrize(
    ("here", "supervisor", "copied"),
    [(True, True, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_a_signal_goes_to_runs_of_this_host_alone(
    slurm: Path, tmp_path: Path, here: bool, supervisor: bool, copied: bool
) -> None:
    """Another's record names any process of one's own, and gives its number and its start.

    So does one's own that was copied with its folder while it ran.
    """
    study, plan, folder = planned(tmp_path)
    command(slurm, "squeue", f"echo '17|{job_prefix(folder)}1|RUNNING|None|'")
    run = f"{plan.runs[0].experiment}/1"
    place = tmp_path / "original" if copied else tmp_path
    out = Path("results/small/runs") / run
    (place / out).mkdir(parents=True)
    words = ("--run", run, "--out", str(out)) if supervisor else ()
    arguments = [sys.executable, "-c", "import time; time.sleep(60)", *words]
    with subprocess.Popen(arguments, cwd=place) as stranger:
        host = socket.gethostname() if here else "gpu-node-17"
        running(folder, plan.runs[0], stranger.pid, host)
        with locked(folder.lock, "a test") as lock:
            driven = SnakemakeProcess(study, plan, folder, Listener(), lock)
            driven._on_cluster = not here
            driven._end_runs()
        if here and supervisor and not copied:
            assert stranger.wait(10) == -signal.SIGTERM
        else:
            time.sleep(0.2)
            assert stranger.poll() is None
        assert (slurm / "cancelled").exists() == (not here)
        stranger.kill()


def test_an_old_failure_does_not_explain_a_new_error(tmp_path: Path) -> None:
    study, plan, folder = planned(tmp_path)
    run = folder.run(plan.runs[0].experiment, plan.runs[0].cycle)
    write_text(run.outcome, '{"status": "failed", "attempt": 1}')
    write_text(run.attempts, "{}\n")
    os.utime(run.attempts, (1, 1))
    with locked(folder.lock, "a test") as lock:
        driven = SnakemakeProcess(study, plan, folder, Listener(), lock)
        code = driven.run(snakemake_process.Call(profile="nosuchprofile"))
    assert code == 1
    assert "nosuchprofile" in driven.error_text


def test_failures_of_a_call_that_was_killed_on_another_machine_end_no_study(tmp_path: Path) -> None:
    study, plan, folder = planned(tmp_path)
    begun = {"experiments": 3, "host": "gpu-node-17", "pid": 1, "process": "boot:1:1"}
    alike = [{"experiment": name, "error": {"class": "OSError"}} for name in "abc"]
    write_text(folder.circuit, "".join(f"{json.dumps(line)}\n" for line in (begun, *alike)))
    assert (
        Circuit(folder.circuit).broken_reason() is not None
    )  # it may be alive there, for all we know
    messages: list[str] = []
    with locked(folder.lock, "a test") as lock:
        driven = SnakemakeProcess(study, plan, folder, Listener(messages.append), lock)
        driven.run(snakemake_process.Call(profile="nosuchprofile"))
    assert driven.circuit_message is None
    assert not any("failed the same way" in line for line in messages)


@pytest.mark.parametrize(("profile", "shared"), [("slurm", False), (None, True)])
def test_it_is_said_where_servers_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str | None, shared: bool
) -> None:
    monkeypatch.setattr(SnakemakeProcess, "run", lambda *_: 1)
    monkeypatch.setattr("shutil.which", lambda _: None)
    traffic = {"serving": {"arrivals": "poisson", "rate_per_s": 1}}
    path = write_study(tmp_path, **traffic, execution={"n_cycles": 1, "share_server": True})
    messages: list[str] = []
    view, call = Listener(messages.append), snakemake_process.Call(profile=profile)
    complete_study(load_study(path), path, StudyFolder(tmp_path), view, call, 0)
    assert (SERVERS_NOT_SHARED in messages) is not shared
    assert (QUEUE_NOT_WATCHED in messages) is (profile == "slurm")  # no squeue is here


def fail(folder: StudyFolder, plan: Plan, outcome: str | None) -> None:
    run = folder.run(plan.runs[0].experiment, plan.runs[0].cycle)
    write_text(run.attempts, "{}\n")
    if outcome is not None:
        write_text(run.outcome, outcome)


def follow(driven: SnakemakeProcess, progress: Progress) -> None:
    """Watch a Snakemake that has ended."""
    with subprocess.Popen(["true"]) as process:
        driven._follow(process, progress)


def test_why_runs_are_missing_is_said_also_where_another_run_failed(tmp_path: Path) -> None:
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    messages: list[str] = []
    driven = SnakemakeProcess(study, plan, folder, Listener(), 0)
    progress = Progress(plan, folder)
    fail(folder, plan, '{"status": "failed", "attempt": 1}')
    follow(driven, progress)
    driven._view = Listener(messages.append)
    words = (
        f"{slurm_jobs.NO_JOBS_PREFIX} has been in SLURM's queue for 5 minutes, and Snakemake waits"
    )
    refused = "sbatch: error: Invalid account"
    assert driven._exit_code(1, f"Submitted job 1\n{words}\n'{refused}'.\nExiting\n") == 1
    place = f"; Snakemake's own words are in {folder.path / snakemake_process.LOG_NAME}"
    assert messages == [words, f"{refused}. {slurm_jobs.CHANGE_PROFILE}{place}"]
    assert not driven.error_text


@pytest.mark.parametrize("outcome", [None, '{"status": "failed", "attempt": 1}'])
def test_a_disk_that_is_full_is_named_where_nobody_could_write_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str | None
) -> None:
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    driven = SnakemakeProcess(study, plan, folder, Listener(), 0)
    progress = Progress(plan, folder)
    fail(folder, plan, outcome)
    follow(driven, progress)
    monkeypatch.setattr(folders, "free_bytes", lambda _: 4096)  # what was taken away gave some back
    assert driven._exit_code(1, "") == 1
    assert driven.error_text == f"llem: {folder.path}: No space left on device\n"


def test_why_a_run_could_not_write_its_outcome_is_said(tmp_path: Path) -> None:
    """As over a quota: it was only said to have ended without a word, as if it was killed."""
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    messages: list[str] = []
    driven = SnakemakeProcess(study, plan, folder, Listener(messages.append), 0)
    progress = Progress(plan, folder)
    fail(folder, plan, '{"status": "running", "attempt": 1, "pid": 0}')
    follow(driven, progress)
    words = "results/small/runs/a73e/1/outcome.json: Disk quota exceeded"
    log = f"llem: {words}\nRuleException:\nCalledProcessError in file measure.smk, line 26:\n"
    assert driven._exit_code(1, log) == 1
    assert any(words in text for text in (*messages, driven.error_text))
    assert "CalledProcessError" not in driven.error_text


def test_what_the_scheduler_said_of_a_job_it_refused_is_shown() -> None:
    words = "Unable to run job: error: no suitable queues\nExiting.\n"
    after = "Error in rule measure:\n    message: Error submitting jobscript (exit code 1):\n"
    log = f"rule measure:\n    jobid: 1\n{words}{after}"
    assert first_error(log) == f"{words}{after}"


def test_a_file_that_snakemake_could_not_make_is_one_line() -> None:
    """It tries to make the outcome of a run that could write nothing, and shows a traceback."""
    log = """\
Error in rule measure:
    jobid: 1
Traceback (most recent call last):
  File "snakemake/io/__init__.py", line 897, in touch
FileNotFoundError: [Errno 2] No such file or directory

During handling of the above exception, another exception occurred:

  File "snakemake/io/__init__.py", line 924, in touch_or_create
PermissionError: [Errno 1] Operation not permitted: 'results/small/runs/4276/1/outcome.json'
"""
    words = "results/small/runs/4276/1/outcome.json: Operation not permitted"
    assert failure_reason(log) == words
    quoted = log.replace("'results/small/runs/4276/1/outcome.json'", '"o\'brien/outcome.json"')
    assert failure_reason(quoted) == "o'brien/outcome.json: Operation not permitted"
    refused = f"sbatch: error: Unable to open file job.sh\n{log}"
    assert failure_reason(refused).startswith("sbatch: error: Unable to open file")


SUBMITTED = "Job {0} has been submitted with SLURM jobid 1{0} (log: {1}).\n"
FAILED = (
    "Error in rule measure:\n    message: SLURM-job '1{0}' failed, SLURM status is: 'FAILED'.\n"
    "    jobid: {0}\n    log: logs/measure.log, {1} (check log file(s) for error details)\n"
)
STARTED = "host: node-1\nActivating singularity image /x.sif\n"


def test_what_apptainer_said_in_a_job_s_own_log_is_found(tmp_path: Path) -> None:
    job_log = tmp_path / "slurm logs, mine" / "15.log"
    job_log.parent.mkdir()
    removed = tmp_path / "removed.log"
    jobs = ((1, removed), (2, job_log))
    log = "".join(SUBMITTED.format(*job) for job in jobs)
    failed = log + "".join(FAILED.format(*job) for job in jobs)
    job_log.write_text(f"{STARTED}RuleException:\n")
    assert why_not_started(failed) == ""
    fatal = "container creation failed: fuse: failed to open /dev/fuse: Permission denied"
    job_log.write_text(f"{STARTED}FATAL:   {fatal}\nRuleException:\n")
    assert why_not_started(log) == ""  # it goes on, or went well
    assert why_not_started(failed) == f"Apptainer did not start the image: {fatal} ({job_log})"


@pytest.mark.parametrize(
    "text",
    [
        f"{STARTED}FATAL: exception not rethrown\n",
        "host: node-1\nFATAL:   of a program without an image\n",
        f"{STARTED}FATAL:   \nthe next line\n",
    ],
    ids=["the C library's", "no image was started", "nothing said"],
)
def test_what_others_say_in_a_job_s_log_is_not_called_apptainers(tmp_path: Path, text: str) -> None:
    job_log = tmp_path / "15.log"
    job_log.write_text(text)
    assert why_not_started(SUBMITTED.format(2, job_log) + FAILED.format(2, job_log)) == ""


@pytest.mark.parametrize("runner", ["local", "apptainer"])
def test_jobs_logs_are_read_only_where_images_are_apptainers(tmp_path: Path, runner: Any) -> None:
    study, plan, folder = planned(tmp_path)
    plan = replace(plan, runs=tuple(replace(run, runner=runner) for run in plan.runs))
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    job_log = tmp_path / "15.log"
    job_log.write_text(f"{STARTED}FATAL:   no fuse\n")
    messages: list[str] = []
    driven = SnakemakeProcess(study, plan, folder, Listener(messages.append), 0)
    assert driven._exit_code(1, SUBMITTED.format(2, job_log) + FAILED.format(2, job_log)) == 1
    expected = [f"Apptainer did not start the image: no fuse ({job_log})"]
    assert messages == (expected if runner == "apptainer" else [])


def test_what_the_queue_says_goes_to_the_line_and_its_ends_are_said_once(
    slurm: Path, tmp_path: Path
) -> None:
    study, plan, folder = planned(tmp_path)
    name = f"{job_prefix(folder)}ab|PENDING"
    queue = ("7|{}|Priority|", "8|{}|PartitionConfig|", "9|{}|PartitionNodeLimit|")
    jobs = "\n".join(job.format(name) for job in queue)
    words = f"{slurm_jobs.NO_JOBS_PREFIX} has been in SLURM's queue for 5 minutes"
    write_text(folder.path / snakemake_process.LOG_NAME, f"Submitted job 1\n{words}\n")
    messages: list[str] = []
    view = Listener(messages.append)
    driven = SnakemakeProcess(study, plan, folder, view, 0)
    driven._on_cluster = True
    for more in ("", f"\n10|{name}|PartitionNodeLimit|"):
        command(slurm, "squeue", f"echo '{jobs}{more}'")
        driven._next_poll_s = 0.0
        driven._report_queue()
    assert driven._exit_code(1, f"{words}\n") == 1
    never, nodes, last = messages
    assert never.startswith("1 job waits in SLURM's queue: PartitionConfig, which never")
    assert nodes.endswith("its nodes are down for a while (PartitionNodeLimit)")
    assert last == words
    assert view.queue == "4 jobs wait in the queue"
    last = driven._explanation("Error in rule measure:\n").splitlines()[-1]
    assert last.startswith("llem: 1 job waited in SLURM's queue: PartitionConfig, which never ends")


def test_the_last_line_says_what_was_said_first_and_where_all_of_it_is(tmp_path: Path) -> None:
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    memory, node = "Memory specification can not be satisfied", "Requested node configuration"
    log = (
        "Error in rule measure:\n    message: SLURM sbatch failed. The error message was "
        f"'sbatch: error: {memory}\nsbatch: error: {node}'.\n"
        "    sbatch call:\n        sbatch --parsable\n"
    )
    driven = SnakemakeProcess(study, plan, folder, Listener(), 0)
    assert driven._exit_code(1, log * 20) == 1
    words = f"Snakemake's own words are in {folder.path / snakemake_process.LOG_NAME}"
    refused = f"sbatch: error: {memory}; {node}. {slurm_jobs.CHANGE_PROFILE}"
    assert driven.error_text == f"llem: {refused}; {words}\n"


def test_of_jobs_that_fail_alike_for_no_known_reason_one_is_shown(tmp_path: Path) -> None:
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    driven = SnakemakeProcess(study, plan, folder, Listener(), 0)
    log = "Error in rule measure:\n    message: no queue\n"
    assert driven._exit_code(1, f"Building DAG of jobs...\n{log * 20}") == 1
    message, _, last = driven.error_text.partition("llem: ")
    assert message == log
    assert last.startswith("Snakemake failed; ")


def test_jobs_of_an_earlier_call_that_are_ended_are_said_on_the_console(
    slurm: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, plan, folder = planned(tmp_path)
    opened: Any = object.__new__(SnakemakeStudy)
    opened._folder = folder
    opened._workflow = SimpleNamespace(
        executor_settings=None, resource_settings=SimpleNamespace(resources={})
    )
    command(
        slurm, "squeue", f"[ -e {slurm}/cancelled ] || echo '7|{job_prefix(folder)}1|RUNNING||'"
    )
    opened._prepare_cluster(named_jobs=False)
    write_text(
        folder.path / snakemake_process.LOG_NAME, f"Using executor\n{capfd.readouterr().err}"
    )
    messages: list[str] = []
    driven = SnakemakeProcess(study, plan, folder, Listener(messages.append), 0)
    driven._on_cluster = True
    progress = Progress(plan, folder)
    monkeypatch.setattr(progress, "newly_ended", lambda: [EndedRun("[1/1] interrupted")])
    driven._report_ended_runs(progress)  # of such a job, before the queue is looked at
    driven._report_queue()
    assert driven._exit_code(0, (folder.path / snakemake_process.LOG_NAME).read_text()) == 0
    assert messages == [
        "Jobs of an earlier call are ended first, as they would measure next to new ones: 1 in "
        "SLURM's queue",
        "[1/1] interrupted",
    ]


def test_jobs_that_were_cancelled_no_longer_wait(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, plan, folder = planned(tmp_path)
    job = f"7|{job_prefix(folder)}1|PENDING|Priority|"
    command(slurm, "squeue", f"[ -e {slurm}/cancelled ] || echo '{job}'")
    view = Listener()
    driven = SnakemakeProcess(study, plan, folder, view, 0)
    driven._on_cluster = True
    driven._report_queue()
    assert view.queue == "1 job waits: other jobs come first"
    progress = Progress(plan, folder)
    fail(folder, plan, '{"status": "failed", "attempt": 1}')  # also by somebody else: look again
    command(slurm, "squeue", "true")
    driven._report_ended_runs(progress)
    driven._report_queue()
    assert view.queue == "1 job waits: other jobs come first"  # not asked at each run's end
    monkeypatch.setattr(snakemake_process, "QUEUE_POLL_SOON_S", 0.0)
    monkeypatch.setattr(progress, "newly_ended", lambda: [EndedRun("")])
    driven._report_ended_runs(progress)
    driven._report_queue()
    assert view.queue == ""
    view.queue = "1 job waits"
    driven._cancel_jobs(waiting_only=True)
    assert view.queue == ""


@pytest.mark.parametrize("profile", [None, "slurm"])
def test_a_snakemake_that_was_killed_is_said_and_what_becomes_of_its_jobs(
    tmp_path: Path, profile: str | None
) -> None:
    study, plan, folder = planned(tmp_path)
    write_text(folder.path / snakemake_process.LOG_NAME, "")
    driven = SnakemakeProcess(study, plan, folder, Listener(), 0)
    driven._on_cluster = profile is not None
    assert driven._exit_code(-signal.SIGKILL, "rule measure:\n    jobid: 3\n") == 1
    assert driven.error_text.startswith("llem: Snakemake was killed; ")
    assert ("stay in the queue" in driven.error_text) is (profile == "slurm")


def test_what_a_job_s_shell_said_before_the_job_began_is_the_reason(tmp_path: Path) -> None:
    job_log = tmp_path / "15.log"
    failed = SUBMITTED.format(2, job_log) + FAILED.format(2, job_log)
    job_log.write_text("\n/bin/sh: 1: module: not found\nsrun: error: node-1\n")
    assert failure_reason(failed) == f"/bin/sh: 1: module: not found ({job_log})"
    for start in ("host: node-1\n", "\nSNAKEMAKE\n=========\n  Date: today\n  Host: node-1\n"):
        job_log.write_text(f"{start}Building DAG of jobs...\n")
        assert failure_reason(failed) == ""
    job_log.unlink()
    assert failure_reason(failed) == ""


def test_a_submission_that_failed_before_sbatch_is_the_reason() -> None:
    before = "Error in rule measure:\n    message: Job submission failed with exception: "
    assert failure_reason(f"{before}The 'sacctmgr' reported: 'no\nrest'.\n") == (
        f"The 'sacctmgr' reported: 'no. {slurm_jobs.CHANGE_PROFILE}"
    )
    account = "The given account me appears to be invalid. Available accounts:"
    assert failure_reason(
        f"{before}{account}\na, bFor further error details see the log.\n    jobid: 1\n"
    ) == (f"{account} a, b. {slurm_jobs.CHANGE_PROFILE}")


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller",
        "[Errno 28] No space left on device: '.snakemake/slurm_logs/rule_measure",
    ],
)
def test_no_profile_is_to_be_changed_where_slurm_does_not_answer(words: str) -> None:
    log = f"    message: Job submission failed with exception: {words}'.\n    jobid: 1\n"
    assert failure_reason(log) == words


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
    reasons = dict(failed_jobs(log))
    assert reasons == {
        "abc1/1": f"slurm_script: 4: module: not found ({job_log})",
        "abc2/1": f"{refused}. {slurm_jobs.CHANGE_PROFILE}",
        "abc3/1": "SLURM says of its job 13: CANCELLED",
        "abc4/1": "",
    }
    waits = f"1 job waits in SLURM's queue: PartitionConfig{slurm_jobs.NEVER_ENDS_CLAUSE}: no node"
    assert dict(failed_jobs(f"{waits}\n{log}"))["abc3/1"].endswith(f": CANCELLED; before: {waits}")


def a_cancelled_job(tmp_path: Path) -> tuple[StudyFolder, RunFolder, Path]:
    """Return a study, its first run, whose job SLURM cancelled, and Snakemake's log of that."""
    _, plan, folder = planned(tmp_path)
    write_text(folder.plan, plan.to_json_bytes().decode())
    run = plan.runs[0]
    place = folder.run(run.experiment, run.cycle)
    place.path.mkdir(parents=True)
    log = folder.path / snakemake_process.LOG_NAME
    log.write_text(
        "Error in rule measure:\n    message: SLURM-job '7' failed, SLURM status is: 'CANCELLED'."
        f"\n    jobid: 1\n    output: {place.result}\n    shell:\n        x\n"
    )
    return folder, place, log


def test_the_state_has_the_reason_of_the_last_call_and_of_no_earlier_one(
    tmp_path: Path, call: Call, slurm: Path
) -> None:
    command(slurm, "squeue", "")
    folder, place, log = a_cancelled_job(tmp_path)
    place.outcome.touch()
    words = f"the run never began: SLURM says of its job 7: CANCELLED; see {log}"
    assert words in call("status", str(folder.path)).out
    (state,) = (
        run
        for run in json.loads(call("status", str(folder.path), "--json").out)["runs"]
        if run["status"] == "missing" and run["error_class"] == "NeverBegan"
    )
    assert state["error_message"] == words
    touched_s = place.outcome.stat().st_mtime
    os.utime(log, (touched_s - 9, touched_s - 9))  # the error was its last word so far
    assert words in call("status", str(folder.path)).out
    os.utime(log, (1, 1))
    assert "its job was refused, was cancelled" in call("status", str(folder.path)).out
    with mock.patch.object(Path, "read_text", side_effect=PermissionError):  # another user's
        assert _with_reasons([{**state, "error_message": "it ended"}], folder) == [
            {**state, "error_message": "it ended"}
        ]
    os.utime(log)
    place.outcome.unlink()  # as Snakemake does for a run that begins again
    assert _with_reasons([{**state, "error_message": "it ended"}], folder) == [
        {**state, "error_message": "it ended"}
    ]


def test_a_run_that_ended_without_a_word_has_what_slurm_said_of_its_job(
    tmp_path: Path, call: Call, slurm: Path
) -> None:
    """In an image file the signal takes away the mount as well, and a run can write nothing."""
    command(slurm, "squeue", "")
    folder, place, _ = a_cancelled_job(tmp_path)
    outcome = {"status": "running", "boot_id": "of another start", "host": socket.gethostname()}
    write_text(place.outcome, json.dumps(outcome))
    output = call("status", str(folder.path)).out
    assert (
        "ProcessGone: the machine was restarted while it ran; SLURM says of its job 7: " in output
    )


def test_a_study_whose_runs_are_all_done_is_said_to_make_its_tables(
    tmp_path: Path, call: Call, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(slurm, "squeue", "")
    _, plan, folder = planned(tmp_path)
    write_text(folder.plan, plan.to_json_bytes().decode())
    states = [
        {
            "experiment": run.experiment,
            "cycle": run.cycle,
            "order": run.order,
            "status": "completed",
        }
        for run in plan.runs
    ]
    monkeypatch.setattr("llenergymeasure.cli.status.states", lambda *_, **__: states)
    with locked(folder.lock, "llem"):
        assert "is going on, and makes tables and report\n" in call("status", str(folder.path)).out
        states[0]["status"] = "missing"
        assert "and no run is under way" in call("status", str(folder.path)).out
    error_output = call("results", str(folder.path)).err
    assert f"llem status {folder.path} says how far it is" in error_output
