"""Records, rows and results of every form that was ever written stay readable."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure import load_result, load_results
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import SCHEMA_VERSION
from llenergymeasure.results.record_files import read_result, read_run_row, write_run_row
from llenergymeasure.results.table import run_row
from results.synthetic import make_plan, make_result

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


# ``run.parquet``: what is read is what was written, and what is damaged is named.


def one_row(**swept: Any) -> dict[str, Any]:
    run = make_plan([{"model": "tiny-llama"}], [])["runs"][0]
    return run_row(make_result(run), swept)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"energy_gross_j": 5e-324, "batches": -(2**63), "validity": []},
        {"energy_gross_j": -1.7976931348623157e308, "batches": 2**63 - 1, "model": ""},
        {"energy_gross_j": None, "batches": None, "model": None, "validity": None},
        {"model": "\x00 ü\n\U0001f4a5\u202e", "validity": ["", None, "ü"], "slo_attained": True},
    ],
    ids=["usual", "least", "most", "none", "odd text"],
)
def test_every_value_survives_the_file(tmp_path: Path, odd: dict[str, Any]) -> None:
    row = one_row(**{"pytorch.batch_size": 8, "decoder.temperature": 0.7}) | odd
    write_run_row(tmp_path / "run.parquet", row)
    assert pq.read_table(tmp_path / "run.parquet").to_pylist() == [row]
    assert read_run_row(tmp_path / "run.parquet") == row


@pytest.mark.parametrize("content", [b"PAR1 cut short", None])
def test_damaged_row_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"run\.parquet cannot be read"):
        read_run_row(path)


def test_a_file_of_two_rows_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    pq.write_table(pa.table({"experiment": ["abc", "abd"]}), path)
    with pytest.raises(ResultsError, match="holds 2 rows"):
        read_run_row(path)
