"""How an attempt ended is concluded from what it wrote and from whether its process lives."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llenergymeasure import processes
from llenergymeasure.containers import docker
from llenergymeasure.processes import start_ticks
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workflow.manifest import run_state

USER = os.geteuid()
NO_PID = 2**22 + 1  # one more than the kernel ever gives (PID_MAX_LIMIT)
TICKS = start_ticks(os.getpid())
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()


def running(**changes):
    return {
        "status": "running",
        "attempt": 1,
        "phase": "measure",
        "error": None,
        "exit_code": None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "started_at": datetime.now(UTC).isoformat(),
        "ended_at": None,
        "log_tail": "",
        **changes,
    }


def read(tmp_path, content):
    path = tmp_path / "outcome.json"
    path.write_text(json.dumps(content))
    return read_outcome(path)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        pytest.param({}, "running", None, id="alive"),
        pytest.param({"pid": NO_PID}, "lost", "without a word", id="dead"),
        pytest.param({"boot_id": "11111111"}, "lost", "restarted", id="before a reboot"),
        # A process is known by the kernel's ticks, whatever the clock says.
        pytest.param(
            {"started_at": LONG_AGO, "pid_start_ticks": TICKS}, "running", None, id="its ticks"
        ),
        pytest.param({"pid_start_ticks": (TICKS or 0) - 1}, "lost", "another's", id="other ticks"),
        pytest.param({"host": "elsewhere", "pid": NO_PID}, "running", None, id="another host"),
        pytest.param(
            {"host": "elsewhere", "boot_id": "other"}, "running", None, id="another host's boot"
        ),
    ],
)
def test_what_was_running_is_so_while_nothing_shows_its_end(tmp_path, changes, status, told):
    outcome = read(tmp_path, running(**changes))
    assert (outcome.status, outcome.phase) == (status, "measure")
    assert (outcome.error is None) is (told is None)
    assert told is None or told in outcome.error.message


def test_zombie_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert read(tmp_path, running(pid=process.pid)).status == "lost"
    process.wait()


def hide(monkeypatch, seen=()):
    """Make every process another user's, of which only ``seen`` is shown (hidepid, proc(5))."""

    def refuse(_pid, _number):
        raise PermissionError

    monkeypatch.setattr(processes, "stat_fields", lambda _: [*seen])
    monkeypatch.setattr("os.kill", refuse)
    monkeypatch.setattr("os.geteuid", lambda: USER + 1)


def test_running_in_a_process_that_this_user_may_not_see_is_believed(tmp_path, monkeypatch):
    launcher = f"{docker.pid_namespace()}@{processes.boot_id()}:{os.getpid()}:1@{USER}"
    hide(monkeypatch)
    assert read(tmp_path, running()).status == "running"
    assert not docker._is_abandoned(launcher, "true")
    assert docker._is_abandoned(launcher, "false")
    monkeypatch.setattr("os.geteuid", lambda: USER)  # one's own would be seen
    assert read(tmp_path, running()).status == "lost"
    assert docker._is_abandoned(launcher, "true")
    monkeypatch.undo()
    assert docker._is_abandoned(launcher, "true")


def test_a_zombie_of_another_user_is_seen_and_dead(tmp_path, monkeypatch):
    hide(monkeypatch, seen=["Z", *"1" * 40])
    assert read(tmp_path, running()).status == "lost"


def test_a_launcher_that_lives_keeps_its_container_and_of_another_version_what_runs():
    """Versions without a namespace took what is before the first colon for the boot."""
    assert docker._owner_label().partition(":")[0] != processes.boot_id()
    for running_state in ("true", "false"):
        assert not docker._is_abandoned(docker._owner_label(), running_state)
    of_theirs = f"{processes.boot_id()}:{os.getpid()}:1@{USER}"
    for owner in (of_theirs, of_theirs.partition("@")[0]):
        assert not docker._is_abandoned(owner, "true")
        assert docker._is_abandoned(owner, "false")


BEGAN, FAILED, COMPLETED = (
    json.dumps({"attempt": 1, "status": status}) for status in ("running", "failed", "completed")
)


@pytest.mark.parametrize(
    ("attempts", "content", "status", "error", "told"),
    [
        ([], None, "lost", "NoOutcome", "left no outcome"),
        ([BEGAN], "", "lost", "NoOutcome", "empty"),
        ([BEGAN], "  \n", "lost", "NoOutcome", "empty"),
        ([BEGAN, BEGAN], "", "lost", "NoOutcome", "empty"),
        # Snakemake touches the outcome of a job that was cancelled.
        ([], "", "missing", "NeverBegan", "cancelled while it waited"),
        ([BEGAN, FAILED], "", "missing", "NeverBegan", "never began"),
        ([BEGAN, COMPLETED], "", "missing", "NeverBegan", "never began"),
        *(
            ([], content, "lost", "DamagedOutcome", "cannot be read")
            for content in ('{"status": "fai', "[]", '{"status": "splendid"}', "\x00\x00")
        ),
    ],
)
def test_without_an_end_it_is_said_what_is_known(tmp_path, attempts, content, status, error, told):
    if attempts:
        (tmp_path / "attempts.jsonl").write_text("\n".join(attempts) + "\n")
    if content is not None:
        (tmp_path / "outcome.json").write_text(content)
    outcome = read_outcome(tmp_path / "outcome.json")
    assert (outcome.status, outcome.error.class_) == (status, error)
    assert told in outcome.error.message


def test_end_of_an_attempt_is_told_as_it_was(tmp_path):
    ended = running(
        status="failed",
        pid=NO_PID,
        exit_code=137,
        error={"class": "Killed", "message": "by the kernel", "hint": "of a later version"},
        later_field=1,
    )
    outcome = read(tmp_path, ended)
    assert (outcome.status, outcome.exit_code) == ("failed", 137)
    assert outcome.error.class_ == "Killed"


def test_a_run_whose_result_was_removed_says_so(tmp_path):
    read(tmp_path, running(status="completed", exit_code=0))
    state = run_state(RunFolder(tmp_path))
    assert (state["status"], state["error_class"]) == ("lost", "RecordGone")
    assert "result.json is not there" in state["error_message"]
