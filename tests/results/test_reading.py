"""Records and results of every form that was ever written stay readable."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import load_result, load_results
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import SCHEMA_VERSION
from llenergymeasure.results.record_files import read_result

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = sorted(FIXTURES.glob("record_v*"))
RECORD = next(VERSIONS[0].glob("runs/*/*/result.json"))


def test_there_is_a_fixture_for_every_version() -> None:
    found = [path.name for path in VERSIONS]
    assert found == [f"record_v{version}" for version in range(1, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
def test_an_old_study_is_read(folder: Path) -> None:
    study = load_results(folder)
    assert len(study.completed) == 2
    for run in study.completed:
        stored = json.loads((run.folder / "result.json").read_text()) if run.folder else {}
        assert run.energy_j == stored["energy"]["gross_j"]
        assert run.energy_per_output_token_j == stored["energy"]["per_output_token_j"]
        assert run.output_tokens == stored["tokens"]["output"]
        assert run.kind == "estimated"
        assert len(run.samples()) > 0
        assert len(run.requests()) == stored["tokens"]["requests"]
    (failed,) = study.failed
    assert failed.status == "failed"
    assert failed.phase == "load"
    assert failed.error_class == "BackendError"
    assert list(study.runs["status"]) == ["completed", "completed", "failed"]
    assert list(study.summary["n"]) == [1, 1, 0]


def _changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Return a copy of a record with a change."""
    stored = json.loads(RECORD.read_text())
    change(stored)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(stored))
    return path


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    def add(stored: dict[str, Any]) -> None:
        stored["later"] = {"a": 1}
        stored["energy"]["readings"][0]["later_j"] = 2.0
        stored["window"]["later_s"] = 3.0

    assert read_result(_changed(tmp_path, add)) == read_result(RECORD)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, None, "1", True])
def test_a_later_form_is_refused(tmp_path: Path, version: object) -> None:
    path = _changed(tmp_path, lambda stored: stored.update(schema_version=version))
    with pytest.raises(ResultsError, match="this program reads up to"):
        read_result(path)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = _changed(tmp_path, lambda stored: stored["window"].pop("duration_s"))
    with pytest.raises(ResultsError, match=r"window\.duration_s"):
        read_result(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "no JSON"), ("{", "no JSON"), ("[]", "record version None"), ("{}", "version None")],
)
def test_what_is_no_record_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ResultsError, match=told):
        read_result(tmp_path / "result.json")


def test_a_folder_without_a_record_or_a_study_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No such file"):
        load_result(tmp_path)
    with pytest.raises(ResultsError, match="holds no study"):
        load_results(tmp_path)
    with pytest.raises(ResultsError, match="no such folder"):
        load_results(tmp_path / "nowhere")
