"""What is written of an attempt: its number, its end, and no secret."""

from pathlib import Path

import pytest

from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.results.write_outcome import AttemptOutcome, attempts_begun, report_failure


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_attempts_are_counted_by_what_they_say(folder: RunFolder) -> None:
    assert attempts_begun(folder) == 0
    first = AttemptOutcome(1)
    first.begin(folder)
    first.end(folder, "failed", 1, {"class": "E", "message": 'it said {"status": "running"}'})
    AttemptOutcome(2).begin(folder)
    with folder.attempts.open("a") as stream:
        stream.write('{"attempt": 3, "status": "running"')  # killed while it wrote
    assert attempts_begun(folder) == 2


def test_no_secret_is_written(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "correct-horse")
    folder.work.mkdir()
    folder.log.write_text("GET https://me:pass@proxy/ with correct-horse\n")
    message = "401 for hf_abcdefghijklmnopqrstu and correct-horse"
    outcome = AttemptOutcome(1)
    outcome.begin(folder)
    outcome.end(folder, "failed", 1, {"class": "E", "message": message})
    report_failure(folder, RuntimeError(message))
    written = "".join(path.read_text() for path in (folder.outcome, folder.attempts, folder.error))
    for secret in ("hf_abc", "correct-horse", "me:pass"):
        assert secret not in written
    assert "401 for [removed] and [removed]" in written


def test_a_name_that_is_no_text_does_not_hide_why_a_run_failed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    attempt = AttemptOutcome(1)
    attempt.begin(folder)
    error = {"class": "FileNotFoundError", "message": "no such file: /home/m\udcfcller/model"}
    attempt.end(folder, "failed", 1, error)
    outcome = read_outcome(folder.outcome)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.message == "no such file: /home/m\ufffdller/model"
