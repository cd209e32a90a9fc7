"""Results of the first edition still open, merge and verify, and what was doctored is found.

``record_v1`` was estimated on a machine without a sensor, by one of its first versions;
``measured_v1`` by its last one, on the simulated card: an energy counter and both power readings.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.recompute import check_run
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.analysis.verify import verify_study
from llenergymeasure.results.layout import RunFolder
from results.synthetic import change_record

FIXTURES = Path(__file__).parents[1] / "results" / "fixtures"


STUDIES = ("record_v1", "measured_v1")


@pytest.fixture(params=STUDIES)
def study(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy to spoil."""
    shutil.copytree(FIXTURES / request.param, tmp_path / request.param)
    return tmp_path / request.param


def finished(study: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(study.glob("runs/*/*/result.json"))]


def test_it_merges_and_then_verifies(study: Path) -> None:
    runs = finished(study)
    assert len(runs) >= 2
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


DOCTORED = [
    ("energy.gross_j", 1.5),
    ("energy.gross_j", 0.8),
    ("energy.readings[0].gross_j", 1.5),
    ("energy.per_output_token_j", 1.0001),
    ("energy.per_request_j", 1.0001),
    ("energy.power_mean_w", 0.999),
    ("tokens.output", 2),
    ("performance.request_latency_p95_s", 1.001),
]


@pytest.mark.parametrize(
    ("study", "figure", "by"),
    [
        *((name, *each) for name in STUDIES for each in DOCTORED),
        ("measured_v1", "energy.footprint.carbon_gco2e", 1.5),
    ],
    indirect=["study"],
)
def test_a_doctored_figure_is_found(study: Path, figure: str, by: float) -> None:
    run = finished(study)[0]
    change_record(run, figure, lambda value: value * by)
    assert figure in {each.figure for each in check_run(run, {})}
