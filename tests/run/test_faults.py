"""Faults injected into a real run: the outcome says what happened, and nothing is left behind."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from llenergymeasure.run import ending
from llenergymeasure.run.measure_script import main
from support.attempts import start
from support.programs import program


@pytest.mark.slow
def test_a_run_that_its_job_s_time_limit_ends_says_so(tmp_path: Path) -> None:
    answer = "echo JobId=$3 Reason=TimeLimit TimeLimit=00:01:00"
    controller = program(tmp_path / "bin" / "scontrol", answer)
    path = f"{controller.parent}:{os.environ['PATH']}"
    attempt = start(tmp_path, variables={"SLURM_JOB_ID": "7", "PATH": path})
    attempt.wait_for_phase("load")
    attempt.process.send_signal(signal.SIGTERM)
    assert attempt.process.wait(60) == 143
    outcome = attempt.outcome()
    assert outcome["status"] == "interrupted"
    message = outcome["error"]["message"]
    assert message.startswith("SIGTERM: SLURM's time limit of 1 min was over; give the job more")


def test_a_kill_for_memory_names_what_the_run_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "memory_limit_bytes", lambda: 16_000_000_000)
    message = ending.silent_exit_error(-signal.SIGKILL)["message"]
    assert "killed by SIGKILL; the usual cause is the system running out of memory" in message
    assert "the run may use 16.0 GB" in message


@pytest.mark.slow
def test_a_run_ends_with_the_workflow_that_asked_for_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as workflow:
        attempt = start(tmp_path, "--watch", str(workflow.pid), window={"min_seconds": 60})
        attempt.wait_for_phase("load")
        workflow.kill()
    assert attempt.process.wait(30) == 1
    assert attempt.outcome()["status"] == "interrupted"
    attempt.nothing_left()
    assert start(tmp_path).process.wait(180) == 0


@pytest.mark.slow
def test_a_run_over_its_limit_is_ended(tmp_path: Path) -> None:
    attempt = start(tmp_path, spec={"timeout_s": 8}, window={"min_seconds": 120})
    assert attempt.process.wait(60) == 1
    outcome = attempt.outcome()
    assert outcome["status"] == "failed"
    assert outcome["error"] == {"class": "TimeoutError", "message": "over its limit of 8 s"}
    attempt.nothing_left()
    assert start(tmp_path, spec={"timeout_s": 600}).process.wait(180) == 0


RUN = json.dumps({"experiment": "a" * 12, "cycle": 1, "backend": "pytorch", "config": []})


@pytest.mark.parametrize("content", ["", "[]", "{}", "5", '{"runs": []}', "\x00", "[" * 10**5, RUN])
def test_a_spec_that_cannot_be_read_is_a_configuration_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content)
    assert main("pytorch", ["--spec", str(path), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_a_spec_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main("pytorch", ["--spec", str(tmp_path / "pipe"), "--out", str(tmp_path / "run")]) == 2


def test_a_run_that_a_plan_does_not_hold_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("[]")
    arguments = ["--spec", str(path), "--run", "a/1", "--out", str(tmp_path / "run")]
    assert main("pytorch", arguments) == 2
