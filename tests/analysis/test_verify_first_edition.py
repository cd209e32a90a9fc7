"""Results of the first edition still open, merge and verify, and what was doctored is found.

``record_v1`` was estimated on a machine without a sensor, by one of its first versions;
``measured_v1`` by its last one, on the simulated card: an energy counter and both power readings.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.recompute import check_run
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.analysis.verify import verify_study
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Result

FIXTURES = Path(__file__).parents[1] / "results" / "fixtures"


@pytest.fixture(params=["record_v1", "measured_v1"])
def study(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy to spoil."""
    shutil.copytree(FIXTURES / request.param, tmp_path / request.param)
    return tmp_path / request.param


def finished(study: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(study.glob("runs/*/*/result.json"))]


def spoil(run: RunFolder, *keys: Any, by: float) -> None:
    """Multiply a value of the record."""
    record = json.loads(run.result.read_text())
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] *= by
    run.result.write_text(json.dumps(record))


def test_its_records_open_and_its_runs_follow_from_what_was_recorded(study: Path) -> None:
    runs = finished(study)
    assert len(runs) >= 2
    for run in runs:
        result = Result.model_validate_json(run.result.read_text())
        assert result.energy.gross_j is not None
        assert [str(each) for each in check_run(run, {})] == []


def test_it_merges_and_then_verifies(study: Path) -> None:
    runs = finished(study)

    write_tables(study, partial=True)

    rows = pq.read_table(study / "runs.parquet").to_pylist()
    energies = {(row["experiment"], row["cycle"]): row["energy_gross_j"] for row in rows}
    for run in runs:
        result = json.loads(run.result.read_text())
        assert energies[result["experiment"], result["cycle"]] == result["energy"]["gross_j"]
    found = verify_study(study)
    assert found.runs == len(runs)
    assert [str(each) for each in found.differences] == []


def test_tables_of_another_version_are_named_with_what_writes_them_again(study: Path) -> None:
    said = {each.file.name: str(each) for each in verify_study(study).differences}
    for name in ("runs.parquet", "summary.parquet", "summary.csv"):
        assert "`llem report` writes it again" in said[name]
    assert not {"result.json", "samples.parquet"} & set(said)


@pytest.mark.parametrize(
    ("keys", "by"),
    [
        (("gross_j",), 1.5),
        (("gross_j",), 0.8),
        (("per_output_token_j",), 1.0001),
        (("per_request_j",), 1.0001),
        (("power_mean_w",), 0.999),
    ],
)
def test_a_doctored_energy_is_found(study: Path, keys: tuple[Any, ...], by: float) -> None:
    run = finished(study)[0]
    spoil(run, "energy", *keys, by=by)
    assert f"energy.{keys[-1]}" in {each.figure for each in check_run(run, {})}


@pytest.mark.parametrize(
    ("keys", "figure"),
    [
        (("readings", 0, "gross_j"), "energy.readings[0].gross_j"),
        (("footprint", "carbon_gco2e"), "energy.footprint.carbon_gco2e"),
    ],
)
def test_a_doctored_reading_or_footprint_is_found(
    tmp_path: Path, keys: tuple[Any, ...], figure: str
) -> None:
    shutil.copytree(FIXTURES / "measured_v1", tmp_path / "measured_v1")
    run = finished(tmp_path / "measured_v1")[0]
    record = json.loads(run.result.read_text())
    channels = [(each["sensor"], each["channel"]) for each in record["energy"]["readings"]]
    assert {("nvml", "counter"), ("nvml", "power")} <= set(channels)
    assert channels[0] == ("nvml", "counter")

    spoil(run, "energy", *keys, by=1.5)

    assert figure in {each.figure for each in check_run(run, {})}


def test_tokens_and_latencies_are_recomputed_exactly(study: Path) -> None:
    run = finished(study)[0]
    spoil(run, "tokens", "output", by=2)
    spoil(run, "performance", "request_latency_p95_s", by=1.001)
    found = {each.figure for each in check_run(run, {})}
    assert {"tokens.output", "performance.request_latency_p95_s"} <= found
