"""Rates of a cycle on one start of their server, in a container: as without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.results.layout import RunFolder
from support.studies import living, llem, plan_of, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]

LATE = {"timeout_seconds": 0.001}
"""No answer comes in time: the run is in no mean, and its server goes on with no other."""


def measured(
    folder: Path, runner: str, rates: list[dict[str, Any]], **variables: str
) -> list[RunFolder]:
    folder.mkdir(parents=True, exist_ok=True)
    study = write_study(
        folder,
        experiments=[{"serving": {"ramp_up_max_seconds": 2, **load}} for load in rates],
        window={"min_seconds": 1},
        runners={"pytorch": runner},
        execution={"n_cycles": 1, "cycle_order": "interleaved", "share_server": True},
    )
    result = llem(folder, "run", str(study), variables=variables, timeout_s=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not living(str(folder))
    runs = folder / "results" / "small" / "runs"
    planned = plan_of(folder)["runs"]
    return [RunFolder(runs / run["experiment"] / str(run["cycle"])) for run in planned]


def hold(runs: list[RunFolder], runner: str, started_by: list[int]) -> None:
    records = [json.loads(record.result.read_text()) for record in runs]
    names = [f"{record['experiment']}/{record['cycle']}" for record in records]
    shared = [record["provenance"]["shared_server"] for record in records]
    assert [record["started_by"] for record in shared] == [names[index] for index in started_by]
    loads = [[phase["name"] for phase in record["phases"]].count("load") for record in records]
    assert loads == [int(index == first) for index, first in enumerate(started_by)]
    assert {record["runner"] for record in records} == {runner}
    assert {record["provenance"]["attempt"] for record in records} == {1}
    assert len({record["provenance"]["container"]["digest"] for record in records}) == 1
    assert len({record["provenance"]["workload"]["content_seed"] for record in records}) == len(
        runs
    )


@pytest.mark.usefixtures("sif")
def test_a_session_in_apptainer(tmp_path: Path, images: Path) -> None:
    rates = [{"rate_per_s": rate} for rate in (4, 8)]
    runs = measured(tmp_path / "with a space", "apptainer", rates, LLEM_IMAGES=str(images))
    hold(runs, "apptainer", [0, 0])


@pytest.mark.usefixtures("docker_image")
def test_a_session_in_docker_with_a_trace_of_one_and_failures_of_another(
    tmp_path: Path, docker_host: str
) -> None:
    """What only a later run reads is in the first one's container; failures are measured once."""
    trace = tmp_path / "traces" / "later.csv"
    trace.parent.mkdir()
    rows = "".join(f"{number / 5},8,4\n" for number in range(30))
    trace.write_text("timestamp,input_tokens,output_tokens\n" + rows)
    rates: list[dict[str, Any]] = [
        {"rate_per_s": 4},
        {"arrivals": "trace", "trace": str(trace)},
        {"rate_per_s": 8, **LATE},
        {"rate_per_s": 6},
    ]
    runs = measured(tmp_path / "study", "docker", rates, DOCKER_HOST=docker_host)
    hold(runs, "docker", [0, 0, 0, 3])
    assert "failed_requests" in json.loads(runs[2].result.read_text())["validity"]
