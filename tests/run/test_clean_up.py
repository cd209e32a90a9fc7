"""A run that cannot write down how it ends still leaves nothing behind."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure import processes
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.write_outcome import AttemptOutcome
from llenergymeasure.run.attempt import Attempt
from llenergymeasure.run.ending import End
from llenergymeasure.run.supervisor import RELEASE_LIMIT_S, Supervisor
from support.attempts import supervised

FOLDER_GONE = """
self._recorder = SimpleNamespace(alive=lambda: False, stop=lambda grace_s: -9)
shutil.rmtree(self.folder.work)
self._stop_recorder()
"""


def test_limits_and_processes_do_not_wait_for_what_cannot_be_written(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a" / "1"
    done = supervised(run, FOLDER_GONE)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "released\n"
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["status"] == "failed"
    assert outcome["error"]["class"] == "FileNotFoundError"


def test_a_card_is_released_once_nobody_is_giving_its_memory_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []
    run = Supervisor.__new__(Supervisor)
    methods = {"restore_limits": lambda: None, "release": lambda: done.append("released")}
    reservation: Any = SimpleNamespace(limits=None, limits_changed=False, **methods)
    run._recorder, run._reservation, run.followers = None, reservation, []
    monkeypatch.setattr(processes, "kill_descendants", lambda *limit_s: done.append(limit_s))
    run._clean_up()
    assert done == [(RELEASE_LIMIT_S,), "released"]


def test_what_was_measured_stays_until_it_is_written_that_its_run_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "runs" / "a" / "1")
    folder.work.mkdir(parents=True)
    folder.engine.write_text("{}")
    folder.stream.write_text("samples")
    attempt = Attempt({"experiment": "a", "cycle": 1}, folder)
    with monkeypatch.context() as patched:
        patched.setattr(AttemptOutcome, "write", _no_room)
        with pytest.raises(OSError, match="No space"):
            attempt.conclude(End(0))
    assert folder.engine.is_file()
    assert folder.stream.is_file()
    assert attempt.conclude(End(0)) == 0
    assert not folder.work.exists()
    assert not folder.stream.exists()


def _no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
