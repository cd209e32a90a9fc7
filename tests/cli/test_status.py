"""``llem status``: what is done, running, waiting, failed or missing, and what SLURM said of it."""

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest

from cli.commands import Call
from llenergymeasure.cli.status import _with_reasons
from llenergymeasure.files import locked, write_bytes
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.processes import boot_id
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow.slurm_jobs import job_prefix
from llenergymeasure.workflow.snakemake_process import LOG_NAME
from llenergymeasure.workload.load_study import study_from_mapping
from results.synthetic import make_result, write_result
from support.programs import program
from support.studies import SMALL, write_study

FOLDER = StudyFolder(Path("results/small"))
BUSY = f"llem run (pid {os.getpid()} on {socket.gethostname()})"


@pytest.fixture
def runs(call: Call) -> list[RunFolder]:
    """Three planned runs of which the first is complete, in a study where no call is going on."""
    del call  # which has the working folder
    plan = make_plan(study_from_mapping({**SMALL, "sweep": {"pytorch.batch_size": [1, 4, 8]}}))
    write_bytes(FOLDER.plan, plan.to_json_bytes())
    write_result(FOLDER.path, make_result(asdict(plan.runs[0])))
    folders = [FOLDER.run(run.experiment, run.cycle) for run in plan.runs]
    for folder in folders:
        folder.path.mkdir(parents=True, exist_ok=True)
    return folders


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a squeue whose queue is empty."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return program(tmp_path / "bin" / "squeue", ":").parent


def test_it_names_runs_by_their_settings(runs: list[RunFolder], call: Call) -> None:
    alive = {"host": socket.gethostname(), "boot_id": boot_id(), "pid": os.getpid()}
    error = {"class": "Oh", "message": "no"}
    running, failed = runs[1:]
    running.outcome.write_text(json.dumps({"status": "running", "phase": "warmup", **alive}))
    failed.outcome.write_text(json.dumps({"status": "failed", "phase": "load", "error": error}))
    failed.log.touch()
    result = call("status", "results/small")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        "small: 3 runs: 1 completed, 1 failed, 1 running",
        "  batch_size=4, cycle 1: warming up",
        "  batch_size=8, cycle 1: failed: Oh: no",
        f"    log: {failed.log}",
    ]


def test_runs_that_wait_in_the_queue_are_counted_as_such(
    runs: list[RunFolder], call: Call, slurm: Path
) -> None:
    runs[0].result.unlink()
    for run in runs:
        run.outcome.write_text("")
    lines = [
        f"{place}|{job_prefix(FOLDER)}1|{state}|Priority|"
        f"rule_measure_wildcards_{runs[place].path.parent.name}_1"
        for place, state in enumerate(("PENDING", "RUNNING"))
    ]
    program(slurm / "squeue", "\n".join(f"echo '{line}'" for line in lines))
    output = call("status", "results/small").out
    assert output.startswith("small: 3 runs: 1 missing, 2 waiting\n1 job waits in SLURM's queue: ")
    assert "batch_size=1," not in output
    counts = json.loads(call("status", "results/small", "--json").out)["counts"]
    assert counts == {"waiting": 2, "missing": 1}


def test_a_call_that_has_no_run_under_way_is_said_to_go_on(
    runs: list[RunFolder], call: Call
) -> None:
    assert "is going on" not in call("status", "results/small").out
    with locked(FOLDER.lock, "llem run"):
        assert f"{BUSY} is going on, and no run is under way" in call("status", "results/small").out
        plan = Plan.read(FOLDER.plan)
        for run in plan.runs[1:]:
            write_result(FOLDER.path, make_result(asdict(run)))
        output = call("status", "results/small").out
        assert f"{BUSY} is going on, and makes tables and report\n" in output
    assert all(run.result.is_file() for run in runs)
    assert "llem status results/small says how far it is" in call("results", "results/small").err


def test_a_study_that_has_only_begun_is_said_to_have(tmp_path: Path, call: Call) -> None:
    study = str(write_study(tmp_path))
    assert "no results yet in results/small; `llem run" in call("status", study).err
    with locked(FOLDER.lock, "llem run"):
        for named in (study, "results"):
            result = call("status", named)
            assert result.code == 2
            assert f"results/small has begun, by {BUSY[:-1]}" in result.err
            assert "no run is planned yet" in result.err
        log = FOLDER.path / LOG_NAME
        log.touch()
        assert "Snakemake is starting" in call("status", study).err
        os.utime(log, (1, 1))  # of an earlier call
        assert "models and folders are looked at" in call("status", study).err
    assert "no results yet in results/small; `llem run" in call("status", study).err


@pytest.mark.usefixtures("slurm")
def test_a_run_whose_job_was_cancelled_before_it_began_has_the_reason_of_the_last_call_alone(
    runs: list[RunFolder], call: Call
) -> None:
    run, log = runs[1], cancelled(runs[1])
    run.outcome.touch()  # as Snakemake does for a job that was cancelled
    words = f"the run never began: SLURM says of its job 7: CANCELLED; see {log}"
    assert words in call("status", "results/small").out
    states = json.loads(call("status", "results/small", "--json").out)["runs"]
    state = next(each for each in states if each.get("error_class"))
    assert (state["status"], state["error_class"]) == ("missing", "NeverBegan")
    assert state["error_message"] == words
    touched_s = run.outcome.stat().st_mtime
    os.utime(log, (touched_s - 9, touched_s - 9))  # the error was its last word so far
    assert words in call("status", "results/small").out
    os.utime(log, (1, 1))
    assert "its job was refused, was cancelled" in call("status", "results/small").out
    unexplained = [{**state, "error_message": "it ended"}]
    with mock.patch.object(Path, "read_text", side_effect=PermissionError):  # another user's
        assert _with_reasons([dict(unexplained[0])], FOLDER) == unexplained
    os.utime(log)
    run.outcome.unlink()  # as Snakemake does for a run that begins again
    assert _with_reasons([dict(unexplained[0])], FOLDER) == unexplained


@pytest.mark.usefixtures("slurm")
def test_a_run_that_ended_without_a_word_has_what_slurm_said_of_its_job(
    runs: list[RunFolder], call: Call
) -> None:
    """In an image file the signal takes away the mount as well, and a run can write nothing."""
    cancelled(runs[1])
    outcome = {"status": "running", "boot_id": "of another start", "host": socket.gethostname()}
    runs[1].outcome.write_text(json.dumps(outcome))
    words = "ProcessGone: the machine was restarted while it ran; SLURM says of its job 7: "
    assert words in call("status", "results/small").out


def cancelled(run: RunFolder) -> Path:
    """Leave Snakemake's log of a run whose job SLURM cancelled."""
    log = FOLDER.path / LOG_NAME
    log.write_text(
        "Error in rule measure:\n    message: SLURM-job '7' failed, SLURM status is: 'CANCELLED'."
        f"\n    jobid: 1\n    output: {run.result}\n    shell:\n        x\n"
    )
    return log
