"""What a call that drives Snakemake says and does: its runs' ends, its jobs, and why it failed."""

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.files import locked, write_text
from llenergymeasure.machine import folders
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.circuit_breaker import Circuit
from llenergymeasure.workflow import slurm_jobs, snakemake_process
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.progress import EndedRun
from llenergymeasure.workflow.slurm_jobs import job_prefix
from llenergymeasure.workflow.snakemake_process import Call, Listener, SnakemakeProcess
from llenergymeasure.workflow.snakemake_study import (
    QUEUE_NOT_WATCHED,
    SERVERS_NOT_SHARED,
)
from llenergymeasure.workload.load_study import load_study
from support.programs import program
from support.studies import write_study
from workflow.conftest import Driven, opened

FAILED_RUN = '{"status": "failed", "attempt": 1}'


@pytest.mark.parametrize(
    ("here", "supervisor", "copied"),
    [(True, True, False), (False, True, False), (True, False, False), (True, True, True)],
    ids=["a run of ours", "on another host", "no run", "a run of the folder's original"],
)
def test_a_signal_goes_to_runs_of_this_host_alone(
    slurm: Path, tmp_path: Path, driven: Driven, here: bool, supervisor: bool, copied: bool
) -> None:
    """Another's record names any process of one's own, and gives its number and its start.

    So does one's own that was copied with its folder while it ran.
    """
    program(slurm / "squeue", f"echo '17|{job_prefix(driven.folder)}1|RUNNING|None|'")
    run = f"{driven.plan.runs[0].experiment}/1"
    place = tmp_path / "original" if copied else tmp_path
    out = Path("results/small/runs") / run
    (place / out).mkdir(parents=True)
    words = ("--run", run, "--out", str(out)) if supervisor else ()
    arguments = [sys.executable, "-S", "-c", "import time; time.sleep(60)", *words]
    with subprocess.Popen(arguments, cwd=place) as stranger:
        host = socket.gethostname() if here else "gpu-node-17"
        outcome = {"status": "running", "attempt": 1, "host": host, "pid": stranger.pid}
        write_text(driven.run.outcome, json.dumps(outcome))
        driven.process._on_cluster = not here
        driven.process._end_runs()
        if here and supervisor and not copied:
            assert stranger.wait(10) == -signal.SIGTERM
        else:
            time.sleep(0.2)
            assert stranger.poll() is None
        assert (slurm / "cancelled").exists() == (not here)
        stranger.kill()


def test_failures_of_a_call_that_was_killed_on_another_machine_end_no_study(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {"experiments": 3, "host": "gpu-node-17", "pid": 1, "process": "boot:1:1"}
    alike = [{"experiment": name, "error": {"class": "OSError"}} for name in "abc"]
    circuit = driven.folder.circuit
    write_text(circuit, "".join(f"{json.dumps(line)}\n" for line in (begun, *alike)))
    # It may be alive there, for all we know.
    assert Circuit(circuit).broken_reason() is not None
    monkeypatch.setattr(Call, "command", lambda *_: ["sh", "-c", "sleep 0.1; exit 1"])
    monkeypatch.setattr(snakemake_process, "POLL_S", 0.02)
    with locked(driven.folder.lock, "a test"):
        assert driven.process.run(Call(profile="slurm")) == 1
    assert "llem: Snakemake failed; " in driven.process.error_text
    assert driven.process.circuit_message is None
    assert not any("failed the same way" in line for line in driven.messages)


@pytest.mark.parametrize(("profile", "shared"), [("slurm", False), (None, True)])
def test_it_is_said_where_servers_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str | None, shared: bool
) -> None:
    monkeypatch.setattr(SnakemakeProcess, "run", lambda *_: 1)
    monkeypatch.setattr("shutil.which", lambda _: None)
    traffic = {"serving": {"arrivals": "poisson", "rate_per_s": 1}}
    path = write_study(tmp_path, **traffic, execution={"n_cycles": 1, "share_server": True})
    messages: list[str] = []
    view, call = Listener(messages.append), Call(profile=profile)
    complete_study(load_study(path), path, StudyFolder(tmp_path), view, call, 0)
    assert (SERVERS_NOT_SHARED in messages) is not shared
    assert (QUEUE_NOT_WATCHED in messages) is (profile == "slurm")  # no squeue is here


def test_no_profile_lets_llem_run_measure_again_for_another_reason_than_a_missing_result() -> None:
    words = Call(profile="./mine", targets=("all",)).command(Path("study.yaml"))
    assert [words[at + 1] for at, word in enumerate(words) if word == "--rerun-triggers"] == [
        "mtime"
    ]
    assert words[words.index("mtime") + 1].startswith("--")  # it takes all words up to an option


def test_why_runs_are_missing_is_said_also_where_another_run_failed(driven: Driven) -> None:
    driven.follow(driven.begin_run(FAILED_RUN))
    driven.messages.clear()
    words = f"{slurm_jobs.NO_JOBS_PREFIX} has been in SLURM's queue for 5 minutes"
    refused = "sbatch: error: Invalid account"
    assert driven.exit_code(f"Submitted job 1\n{words}\n'{refused}'.\nExiting\n") == 1
    place = f"; Snakemake's own words are in {driven.log}"
    assert driven.messages == [words, f"{refused}. {slurm_jobs.CHANGE_PROFILE}{place}"]
    assert not driven.process.error_text


@pytest.mark.parametrize("outcome", [None, FAILED_RUN])
def test_a_disk_that_is_full_is_named_where_nobody_could_write_so(
    driven: Driven, monkeypatch: pytest.MonkeyPatch, outcome: str | None
) -> None:
    driven.follow(driven.begin_run(outcome))
    monkeypatch.setattr(folders, "free_bytes", lambda _: 4096)  # what was taken away gave some back
    assert driven.exit_code("") == 1
    assert driven.process.error_text == f"llem: {driven.folder.path}: No space left on device\n"


def test_why_a_run_could_not_write_its_outcome_is_said(driven: Driven) -> None:
    """As over a quota: it was only said to have ended without a word, as if it was killed."""
    driven.follow(driven.begin_run('{"status": "running", "attempt": 1, "pid": 0}'))
    words = "results/small/runs/a73e/1/outcome.json: Disk quota exceeded"
    log = f"llem: {words}\nRuleException:\nCalledProcessError in file measure.smk, line 26:\n"
    assert driven.exit_code(log) == 1
    assert any(words in text for text in (*driven.messages, driven.process.error_text))
    assert "CalledProcessError" not in driven.process.error_text


@pytest.mark.parametrize("runner", ["local", "apptainer"])
def test_jobs_logs_are_read_only_where_images_are_apptainers(
    tmp_path: Path, driven: Driven, runner: Any
) -> None:
    runs = tuple(replace(run, runner=runner) for run in driven.plan.runs)
    driven.process._plan = replace(driven.plan, runs=runs)
    job_log = tmp_path / "15.log"
    job_log.write_text("host: node-1\nActivating singularity image /x.sif\nFATAL:   no fuse\n")
    log = (
        f"Job 2 has been submitted with SLURM jobid 12 (log: {job_log}).\n"
        "Error in rule measure:\n    message: SLURM-job '12' failed\n    jobid: 2\n"
        f"    log: logs/measure.log, {job_log} (check log file(s) for error details)\n"
    )
    assert driven.exit_code(log) == 1
    said = [f"Apptainer did not start the image: no fuse ({job_log})"]
    assert driven.messages == (said if runner == "apptainer" else [])


def test_what_the_queue_says_goes_to_the_line_and_its_ends_are_said_once(
    slurm: Path, driven: Driven
) -> None:
    name = f"{job_prefix(driven.folder)}ab|PENDING"
    queue = ("7|{}|Priority|", "8|{}|PartitionConfig|", "9|{}|PartitionNodeLimit|")
    jobs = "\n".join(job.format(name) for job in queue)
    words = f"{slurm_jobs.NO_JOBS_PREFIX} has been in SLURM's queue for 5 minutes"
    write_text(driven.log, f"Submitted job 1\n{words}\n")
    driven.process._on_cluster = True
    for more in ("", f"\n10|{name}|PartitionNodeLimit|"):
        program(slurm / "squeue", f"echo '{jobs}{more}'")
        driven.process._next_poll_s = 0.0
        driven.process._report_queue()
    assert driven.exit_code(f"{words}\n") == 1
    never, nodes, last = driven.messages
    assert never.startswith("1 job waits in SLURM's queue: PartitionConfig, which never")
    assert nodes.endswith("its nodes are down for a while (PartitionNodeLimit)")
    assert last == words
    assert driven.view.queue == "4 jobs wait in the queue"
    last = driven.process._explanation("Error in rule measure:\n").splitlines()[-1]
    assert last.startswith("llem: 1 job waited in SLURM's queue: PartitionConfig, which never ends")


def test_the_last_line_says_what_was_said_first_and_where_all_of_it_is(driven: Driven) -> None:
    memory, node = "Memory specification can not be satisfied", "Requested node configuration"
    log = (
        "Error in rule measure:\n    message: SLURM sbatch failed. The error message was "
        f"'sbatch: error: {memory}\nsbatch: error: {node}'.\n"
        "    sbatch call:\n        sbatch --parsable\n"
    )
    assert driven.exit_code(log * 20) == 1
    refused = f"sbatch: error: {memory}; {node}. {slurm_jobs.CHANGE_PROFILE}"
    assert driven.process.error_text == (
        f"llem: {refused}; Snakemake's own words are in {driven.log}\n"
    )


def test_of_jobs_that_fail_alike_for_no_known_reason_one_is_shown(driven: Driven) -> None:
    log = "Error in rule measure:\n    message: no queue\n"
    assert driven.exit_code(f"Building DAG of jobs...\n{log * 20}") == 1
    message, _, last = driven.process.error_text.partition("llem: ")
    assert message == log
    assert last.startswith("Snakemake failed; ")


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_snakemake_that_was_killed_is_said_and_what_becomes_of_its_jobs(
    driven: Driven, on_cluster: bool
) -> None:
    driven.process._on_cluster = on_cluster
    assert driven.exit_code("rule measure:\n    jobid: 3\n", -signal.SIGKILL) == 1
    assert driven.process.error_text.startswith("llem: Snakemake was killed; ")
    assert ("stay in the queue" in driven.process.error_text) is on_cluster


def test_jobs_of_an_earlier_call_that_are_ended_are_said_on_the_console(
    slurm: Path,
    driven: Driven,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = f"7|{job_prefix(driven.folder)}1|RUNNING||"
    program(slurm / "squeue", f"[ -e {slurm}/cancelled ] || echo '{job}'")
    opened(driven.folder)._prepare_cluster(named_jobs=False)
    write_text(driven.log, f"Using executor\n{capfd.readouterr().err}")
    driven.process._on_cluster = True
    progress = driven.begin_run(None)
    monkeypatch.setattr(progress, "newly_ended", lambda: [EndedRun("[1/1] interrupted")])
    driven.process._report_ended_runs(progress)  # of such a job, before the queue is looked at
    driven.process._report_queue()
    assert driven.exit_code(driven.log.read_text(), 0) == 0
    assert driven.messages == [
        "Jobs of an earlier call are ended first, as they would measure next to new ones: 1 in "
        "SLURM's queue",
        "[1/1] interrupted",
    ]


def test_jobs_that_were_cancelled_no_longer_wait(
    slurm: Path, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven.log.unlink()  # it cannot be read just now
    job = f"7|{job_prefix(driven.folder)}1|PENDING|Priority|"
    program(slurm / "squeue", f"[ -e {slurm}/cancelled ] || echo '{job}'")
    driven.process._on_cluster = True
    driven.process._report_queue()
    assert driven.view.queue == "1 job waits: other jobs come first"
    progress = driven.begin_run(FAILED_RUN)  # also by somebody else: look again
    program(slurm / "squeue", "true")
    driven.process._report_ended_runs(progress)
    driven.process._report_queue()
    assert driven.view.queue == "1 job waits: other jobs come first"  # not asked at each run's end
    monkeypatch.setattr(snakemake_process, "QUEUE_POLL_SOON_S", 0.0)
    monkeypatch.setattr(progress, "newly_ended", lambda: [EndedRun("")])
    driven.process._report_ended_runs(progress)
    driven.process._report_queue()
    assert driven.view.queue == ""
    driven.view.queue = "1 job waits"
    driven.process._cancel_jobs(waiting_only=True)
    assert driven.view.queue == ""
