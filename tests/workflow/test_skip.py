"""The rest before a run is ended by a person: from anywhere, or with Enter at a terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.studies import SERVED, environment, llem, result_times, write_study

pytestmark = pytest.mark.slow

LONG = {"n_cycles": 2, "cycle_order": "sequential", "cycle_gap_seconds": 3600}
LLEM = [sys.executable, "-c", "from llenergymeasure.cli import main; main()"]


def start(folder: Path, study: Path, **streams: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*LLEM, "run", str(study)], cwd=folder, env=environment(), start_new_session=True, **streams
    )


@pytest.mark.long
def test_a_rest_is_skipped_from_anywhere(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, execution=LONG)
    assert llem(tmp_path, "skip", str(study)).returncode == 2
    process = start(tmp_path, study, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while (done := llem(tmp_path, "skip", str(study))).returncode != 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)
    assert "cycle 2 skipped" in done.stdout
    assert process.wait(120) == 0
    process.communicate()
    assert len(result_times(tmp_path)) == 2
    done = llem(tmp_path, "skip", str(study))
    assert done.returncode == 1
    assert "no run of this study is resting" in done.stderr


def test_enter_at_a_terminal_skips_the_rest(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, execution=LONG)
    pid, terminal = pty.fork()
    if pid == 0:  # the child has the terminal in front
        os.chdir(tmp_path)
        os.execve(sys.executable, [*LLEM, "run", str(study)], environment())
    said = b""
    entered = False
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        said += piece
        if b"Enter skips it" in said and not entered:
            entered = True
            os.write(terminal, b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = said.decode(errors="replace")
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "s to go" in text
    assert "cycle 2 skipped" in text
    assert len(result_times(tmp_path)) == 2
