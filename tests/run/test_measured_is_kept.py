"""What was measured whole is finished, whatever keeps its engine or its result from an end."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure import files
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run import attempt, shared_server
from llenergymeasure.run import supervisor as supervisor_module
from llenergymeasure.run.ending import Cause, End
from llenergymeasure.run.result.build_result import _is_transient
from llenergymeasure.run.supervisor import Supervisor
from support.attempts import Attempt, command_of, start
from support.studies import living, wait_for

pytestmark = pytest.mark.slow

FULL_DISK = """
import errno, os, sys
words = open("/proc/self/cmdline").read()
if "build_result" in words and os.environ.get("TEST_FULL"):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    import pyarrow.parquet
    pyarrow.parquet.write_table = full
"""
"""As ``sitecustomize``: lets what computes a result find no room for its tables."""


def site_with(folder: Path, code: str) -> str:
    """Return a path for Python's modules on which this is ``sitecustomize``."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    return os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))


def window_of(attempt: Attempt) -> dict[str, Any]:
    engine = json.loads((attempt.folder / "work" / "engine.json").read_text())
    window: dict[str, Any] = engine["window"]
    return window


def test_a_full_disk_costs_no_window_however_often_it_is_full(tmp_path: Path) -> None:
    full = {"PYTHONPATH": site_with(tmp_path, FULL_DISK), "TEST_FULL": "1"}
    attempt = start(tmp_path, variables=full)
    assert attempt.process.wait(120) == 1
    window = window_of(attempt)
    for number in (2, 3):
        error = attempt.outcome()["error"]
        assert error["class"] == "OSError"
        assert "No space left on device" in error["message"]
        assert error["message"].endswith(
            "; what was measured is kept, and the next call finishes it; to measure it again "
            f"instead, remove {attempt.folder / 'work'}"
        )
        assert not (attempt.folder / "result.json").exists()
        attempt = start(tmp_path, variables=full if number == 2 else {})
        assert attempt.process.wait(120) == (1 if number == 2 else 0)
        assert attempt.outcome()["attempt"] == number
    assert attempt.result()["window"]["start_monotonic_ns"] == window["start_ns"]
    attempt.nothing_left()


def test_what_cannot_even_begin_to_compute_a_result_costs_no_window(tmp_path: Path) -> None:
    broken = (
        "import sys\nif 'build_result' in open('/proc/self/cmdline').read():\n    sys.exit(1)\n"
    )
    path = site_with(tmp_path, broken)
    for _ in range(2):
        attempt = start(tmp_path, variables={"PYTHONPATH": path})
        assert attempt.process.wait(120) == 1
        assert "what computes the result ended with" in attempt.outcome()["error"]["message"]
    window = window_of(attempt)
    assert start(tmp_path).process.wait(120) == 0
    assert attempt.result()["window"]["start_monotonic_ns"] == window["start_ns"]


def test_what_is_kept_and_cannot_be_finished_is_measured_again_without_its_files(
    tmp_path: Path,
) -> None:
    full = {"PYTHONPATH": site_with(tmp_path, FULL_DISK), "TEST_FULL": "1"}
    attempt = start(tmp_path, variables=full)
    assert attempt.process.wait(120) == 1
    window = window_of(attempt)
    shutil.rmtree(attempt.outcome()["error"]["message"].rpartition("remove ")[2])
    assert start(tmp_path).process.wait(120) == 0
    assert attempt.result()["window"]["start_monotonic_ns"] > window["end_ns"]


def test_what_a_machine_refuses_may_pass_and_what_is_never_read_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.ENOSPC, errno.ETIMEDOUT, errno.ENOMEM):
        assert _is_transient(OSError(number, os.strerror(number)))
    (tmp_path / "large").write_text("large")
    monkeypatch.setattr(files, "READ_LIMIT_BYTES", 4)
    with pytest.raises(OSError, match="is larger than") as raised:
        files.read_bytes(tmp_path / "large")
    assert not _is_transient(raised.value)


def test_an_engine_that_crashes_over_its_quality_costs_no_window(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a text of some words that is looked at\n" * 20000)
    attempt = start(tmp_path, quality={"texts": str(texts)})
    attempt.wait_for_phase("quality")
    os.kill(attempt.child("engine_process"), signal.SIGSEGV)
    assert attempt.process.wait(60) == 0
    result = attempt.result()
    assert "quality_unavailable" in result["validity"]
    reason = result["quality"]["perplexity_unavailable"]
    assert reason == "the run was ended before its answers were looked at"
    assert result["provenance"]["engine_end"]["returncode"] == -signal.SIGSEGV
    attempt.nothing_left()


@pytest.mark.parametrize("how", ["signal", "killed", "limit"])
def test_a_quality_that_is_interrupted_is_found_by_the_next_call(tmp_path: Path, how: str) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a text of some words that is looked at\n" * 20000)
    attempt = start(tmp_path, quality={"texts": str(texts)})
    attempt.wait_for_phase("quality")
    if how == "limit":
        RunFolder(attempt.folder).time_limit.write_text("0.1")
    else:
        os.kill(attempt.process.pid, signal.SIGTERM if how == "signal" else signal.SIGKILL)
    assert attempt.process.wait(60) == {"signal": 143, "killed": -9, "limit": 1}[how]
    if how != "killed":
        outcome = attempt.outcome()
        ends = {"signal": "interrupted", "limit": "failed"}
        assert (outcome["status"], outcome["phase"]) == (ends[how], "quality")
    attempt.nothing_left()
    texts.write_text("a text of some words that is looked at\n" * 20)
    attempt = start(tmp_path, quality={"texts": str(texts)})
    assert attempt.process.wait(120) == 0
    assert attempt.result()["quality"]["perplexity"] > 0
    assert "quality_unavailable" not in attempt.result()["validity"]


@pytest.mark.parametrize("how", ["signal", "killed"])
def test_a_command_that_was_kept_from_judging_does_so_in_the_next_call(
    tmp_path: Path, how: str
) -> None:
    slow = tmp_path / "slow"
    slow.touch()
    code = f"import os, time\nwhile os.path.exists({str(slow)!r}): time.sleep(0.1)\nprint('3/4')"
    quality = {"command": [sys.executable, "-c", code]}
    attempt = start(tmp_path, quality=quality)
    attempt.wait_for_phase("judge")
    window = window_of(attempt)
    os.kill(attempt.process.pid, signal.SIGTERM if how == "signal" else signal.SIGKILL)
    assert attempt.process.wait(60) == (143 if how == "signal" else -9)
    attempt.nothing_left()
    slow.unlink()
    attempt = start(tmp_path, quality=quality)
    assert attempt.process.wait(120) == 0
    result = attempt.result()
    assert (result["quality"]["correct"], result["quality"]["items"]) == (3, 4)
    assert "quality_unavailable" not in result["validity"]
    assert result["window"]["start_monotonic_ns"] == window["start_ns"]
    attempt.nothing_left()


@pytest.mark.parametrize(
    ("end", "kept"),
    [(End.by_signal(signal.SIGTERM), False), (End(-signal.SIGSEGV), True), (End(0), True)],
)
def test_a_run_on_another_one_s_server_keeps_its_window_where_its_engine_ended_by_itself(
    tmp_path: Path, end: End, kept: bool
) -> None:
    folder = RunFolder(tmp_path / "runs" / "a" / "1")
    folder.work.mkdir(parents=True)
    folder.engine.write_text('{"window": {}}')
    folder.stream.write_text("samples")
    spec = {"config": {}, "sections": {"quality": {"texts": "texts.txt"}}}
    shared_server._conclude(Supervisor(spec, folder, None), end, folder)
    assert (folder.engine.exists(), folder.session.exists()) == (kept, kept)


@pytest.mark.parametrize(
    "said", ["{}", "[]", '{"workflow": null}', '{"workflow": 1, "error": "x"}']
)
def test_what_is_no_word_of_another_one_s_server_is_none(
    tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "runs" / "a" / "1")
    folder.work.mkdir(parents=True)
    folder.session.write_text(said)
    monkeypatch.setattr(shared_server, "identity", lambda _: 1 if "1" in said else None)
    assert shared_server.shared_outcome(folder, 1) is None


def _left_to_be_judged(path: Path) -> Supervisor:
    """A run whose window an earlier attempt has measured, and whose command has not judged it."""
    folder = RunFolder(path / "runs" / "a" / "1")
    folder.work.mkdir(parents=True)
    folder.engine.write_text('{"window": {}}')
    folder.engine_end.write_text("{}")
    spec = {"config": {}, "sections": {"quality": {"command": ["judge"]}}, "experiment": "a"}
    supervisor = Supervisor({**spec, "cycle": 1}, folder, None)
    supervisor.attempt = attempt.Attempt(supervisor._spec, folder)
    return supervisor


@pytest.mark.parametrize("end", [End(-9, Cause.TIME_LIMIT, "over its limit"), End(-11)])
def test_how_a_command_left_to_judge_ended_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    supervisor, finished = _left_to_be_judged(tmp_path), list[End]()
    monkeypatch.setattr(supervisor_module, "is_measured", lambda _: True)
    monkeypatch.setattr(supervisor, "_judge_earlier_attempt", lambda: end)
    monkeypatch.setattr(supervisor, "_finish", lambda given: finished.append(given) or End(0))
    supervisor._finish_earlier_attempt()
    assert finished == [end]


def test_a_command_left_to_judge_is_not_taken_for_an_engine_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = _left_to_be_judged(tmp_path)
    monkeypatch.setattr(supervisor_module, "RELEASE_LIMIT_S", 0.1)
    read, write = os.pipe()
    supervisor._signals = SimpleNamespace(handle=read)  # type: ignore[assignment]
    child = subprocess.Popen(["/bin/sleep", "0.5"], start_new_session=True)
    try:
        assert supervisor._wait_for_engine(child, time.monotonic()) == End(0)
    finally:
        os.close(read)
        os.close(write)


def test_a_signal_to_all_of_a_job_interrupts_its_run(tmp_path: Path) -> None:
    """As a scheduler sends it at a job's time limit, in whatever order."""
    attempt = start(tmp_path, window={"min_seconds": 60})
    attempt.wait_for_phase("measure")
    for pid in (attempt.child("engine_process"), attempt.child("recorder"), attempt.process.pid):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
    assert attempt.process.wait(30) == 143
    outcome = attempt.outcome()
    assert (outcome["status"], outcome["phase"]) == ("interrupted", "measure")
    assert outcome["error"] == {"class": "Interrupted", "message": "SIGTERM"}
    attempt.nothing_left()


def test_a_signal_to_all_of_a_job_lets_a_result_be_computed(tmp_path: Path) -> None:
    attempt = start(tmp_path)

    def finishing() -> bool:
        outcome = attempt.folder / "outcome.json"
        return outcome.is_file() and attempt.outcome()["phase"] == "finish"

    wait_for(finishing)
    wait_for(lambda: any("build_result" in command_of(pid) for pid in living(str(attempt.folder))))
    finish = attempt.child("build_result")
    os.kill(finish, signal.SIGSTOP)
    for pid in (finish, attempt.process.pid):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(finish, signal.SIGCONT)
    assert attempt.process.wait(60) == 0
    assert attempt.outcome()["status"] == "completed"
    attempt.nothing_left()
