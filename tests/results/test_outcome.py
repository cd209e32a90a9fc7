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


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_running_with_a_live_process_is_running(tmp_path):
    assert read(tmp_path, running()).status == "running"


def test_running_with_a_dead_process_is_lost(tmp_path):
    outcome = read(tmp_path, running(pid=dead_pid()))
    assert outcome.status == "lost"
    assert outcome.phase == "measure"
    assert "without a word" in outcome.error.message


def test_zombie_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert read(tmp_path, running(pid=process.pid)).status == "lost"
    process.wait()


def test_running_before_a_reboot_is_lost(tmp_path):
    outcome = read(tmp_path, running(boot_id="11111111-2222-3333-4444-555555555555"))
    assert outcome.status == "lost"
    assert "restarted" in outcome.error.message


def test_a_process_is_known_by_the_kernels_ticks_whatever_the_clock_says(tmp_path):
    long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    ticks = start_ticks(os.getpid())
    alive = running(pid=os.getpid(), started_at=long_ago, pid_start_ticks=ticks)
    assert read(tmp_path, alive).status == "running"
    another = read(tmp_path, {**alive, "pid_start_ticks": ticks - 1})
    assert another.status == "lost"
    assert "another's" in another.error.message


def test_running_in_a_process_that_this_user_may_not_see_is_believed(tmp_path, monkeypatch):
    """Where /proc is mounted with hidepid, as on many shared machines."""

    def refuse(_pid, _number):
        raise PermissionError

    monkeypatch.setattr(processes, "stat_fields", lambda _: [])
    monkeypatch.setattr("os.kill", refuse)
    monkeypatch.setattr("os.geteuid", lambda: USER + 1)
    launcher = f"{docker.pid_namespace()}@{processes.boot_id()}:{os.getpid()}:1@{USER}"
    assert read(tmp_path, running()).status == "running"
    assert not docker._is_abandoned(launcher, "true")
    assert docker._is_abandoned(launcher, "false")
    monkeypatch.setattr("os.geteuid", lambda: USER)  # one's own would be seen
    assert read(tmp_path, running()).status == "lost"
    assert docker._is_abandoned(launcher, "true")
    monkeypatch.undo()
    assert read(tmp_path, running(pid=dead_pid())).status == "lost"
    assert docker._is_abandoned(launcher, "true")


def test_a_zombie_of_another_user_is_seen_and_dead(tmp_path, monkeypatch):
    def refuse(_pid, _number):
        raise PermissionError

    monkeypatch.setattr(processes, "stat_fields", lambda _: ["Z", *"1" * 40])
    monkeypatch.setattr("os.kill", refuse)
    monkeypatch.setattr("os.geteuid", lambda: USER + 1)
    assert read(tmp_path, running()).status == "lost"


def test_a_container_of_a_living_launcher_stays():
    assert not docker._is_abandoned(docker._owner_label(), "true")
    assert not docker._is_abandoned(docker._owner_label(), "false")


def test_versions_that_name_no_namespace_and_this_one_leave_each_others_containers():
    """Those took what is before the first colon for the boot, and the rest for its process."""
    assert docker._owner_label().partition(":")[0] != processes.boot_id()
    of_theirs = f"{processes.boot_id()}:{os.getpid()}:1@{USER}"
    for owner in (of_theirs, of_theirs.partition("@")[0]):
        assert not docker._is_abandoned(owner, "true")
        assert docker._is_abandoned(owner, "false")


def test_running_on_another_host_is_believed(tmp_path):
    assert read(tmp_path, running(host="elsewhere", pid=dead_pid())).status == "running"
    assert read(tmp_path, running(host="elsewhere", boot_id="other")).status == "running"


def test_absent_is_lost(tmp_path):
    assert read_outcome(tmp_path / "outcome.json").status == "lost"


@pytest.mark.parametrize("content", ["", "  \n"])
def test_empty_is_lost(tmp_path, content):
    (tmp_path / "attempts.jsonl").write_text('{"attempt": 1, "status": "running"}\n')
    (tmp_path / "outcome.json").write_text(content)
    outcome = read_outcome(tmp_path / "outcome.json")
    assert outcome.status == "lost"
    assert "empty" in outcome.error.message


def test_empty_without_an_attempt_never_began(tmp_path):
    (tmp_path / "outcome.json").touch()  # as Snakemake does for a job that was cancelled
    outcome = read_outcome(tmp_path / "outcome.json")
    assert outcome.status == "missing"
    assert outcome.error.class_ == "NeverBegan"
    assert "cancelled while it waited" in outcome.error.message


@pytest.mark.parametrize(
    ("last", "began"), [("failed", False), ("completed", False), ("running", True)]
)
def test_empty_after_earlier_attempts_is_of_the_last(tmp_path, last, began):
    lines = [json.dumps({"attempt": 1, "status": status}) for status in ("running", last)]
    (tmp_path / "attempts.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "outcome.json").touch()
    error = read_outcome(tmp_path / "outcome.json").error
    assert error.class_ == ("NoOutcome" if began else "NeverBegan")


@pytest.mark.parametrize("content", ['{"status": "fai', "[]", '{"status": "splendid"}', "\x00\x00"])
def test_damaged_is_lost(tmp_path, content):
    (tmp_path / "outcome.json").write_text(content)
    outcome = read_outcome(tmp_path / "outcome.json")
    assert outcome.status == "lost"
    assert outcome.error.class_ == "DamagedOutcome"


def test_end_of_an_attempt_is_told_as_it_was(tmp_path):
    ended = running(
        status="failed",
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
