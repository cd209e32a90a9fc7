"""Children and their groups: ended whole, never for ever, and never in place of another's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import processes
from support.studies import wait_for


def child(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, start_new_session=True)


@pytest.mark.parametrize("is_reaped", [False, True], ids=["ended", "its code taken"])
def test_what_a_child_has_left_ends_with_it(is_reaped: bool) -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!"], start_new_session=True, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if is_reaped:
            assert parent.wait() == 0
        else:
            os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        assert processes.start_ticks(pid) is not None
        assert processes.end_group(parent, 1.0) == 0
        wait_for(lambda: processes.start_ticks(pid) is None, 5)


def test_a_child_gets_its_time_to_end() -> None:
    with child("sleep", "60") as process:
        began_s = time.monotonic()
        assert processes.end_group(process, 30.0) == -signal.SIGTERM
        assert time.monotonic() - began_s < 25


def test_nothing_is_sent_to_a_number_that_may_be_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    with child("false") as process:
        process.wait()
    sent: list[Any] = []
    monkeypatch.setattr(os, "killpg", lambda *what: sent.append(what))
    process.pid = os.getpid()  # in use again
    assert processes.end_group(process, 1.0) == 1
    assert not sent


def test_what_the_kernel_cannot_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process amid a call into a driver that hangs."""
    with child("sleep", "60") as process, monkeypatch.context() as patched:
        patched.setattr(processes, "MEMORY_RELEASE_WAIT_S", 0.2)
        patched.setattr(os, "killpg", lambda *_: None)
        assert processes.end_group(process, 0.1) == -signal.SIGKILL
        patched.undo()
        process.kill()


def test_a_child_that_goes_on_ignores_what_is_sent_to_all_of_a_job(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('goes on')"
    output = tmp_path / "said"
    with (
        output.open("wb") as log,
        processes.start(["python3", "-c", code], log, ignores_end_signals=True) as process,
    ):
        assert process.wait(20) == 0
    assert output.read_text() == "goes on\n"


ENDS_NOW = """
import multiprocessing, sys, time
from llenergymeasure.processes import end_now
child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=[60.0])
if __name__ == "__main__":
    child.start()
    print(child.pid, file=open(sys.argv[1], "w"), flush=True)
    end_now(3)
"""


def test_what_a_library_has_started_ends_with_a_process_that_ends_now(tmp_path: Path) -> None:
    """As Zeus does, which polls some chips in processes of its own."""
    script, output = tmp_path / "ends_now.py", tmp_path / "pid"
    script.write_text(ENDS_NOW)
    assert subprocess.run([sys.executable, script, output], check=False).returncode == 3
    pid = int(output.read_text())
    wait_for(lambda: processes.start_ticks(pid) is None, 10)
