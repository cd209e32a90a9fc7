"""A study measured on the simulated card: real NVML bindings and real Zeus, known true energy."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.config.calibration import GAIN_BAND
from llenergymeasure.units import DISQUALIFYING
from nvml_sim import sim
from support.studies import snakemake, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]

WATTS = [[0.0, 250.0], [100000.0, 250.0]]


@pytest.fixture
def card(tmp_path: Path) -> dict[str, str]:
    library, reason = sim.library_or_reason()
    if library is None:
        pytest.skip(reason)
    trace = sim.Trace([sim.Device(power_w=WATTS, sensor=sim.Sensor(window_ms=25))])
    return sim.environment(trace.write(tmp_path), t0_ns=time.monotonic_ns(), base={})


def _results(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text()) for path in folder.glob("results/small/runs/*/*/result.json")
    ]


@pytest.mark.parametrize("backend", ["auto", pytest.param("zeus", marks=pytest.mark.long)])
def test_energy_is_measured_and_holds_the_truth(
    tmp_path: Path, card: dict[str, str], backend: str
) -> None:
    study = write_study(
        tmp_path,
        energy={"backend": backend},
        window={"min_seconds": 3},
        baseline={"enabled": True, "duration_seconds": 5},
    )
    done = snakemake(tmp_path, "--configfile", str(study), variables=card)
    assert done.returncode == 0, done.stderr
    results = _results(tmp_path)
    assert len(results) == 1
    for result in results:
        energy = result["energy"]
        assert energy["kind"] == "measured"
        assert energy["scopes"] == ["gpu"]
        truth_j = 250.0 * result["window"]["duration_s"]
        assert energy["gross_j"] == pytest.approx(truth_j, abs=energy["u95_j"] + 0.001 * truth_j)
        assert energy["u_sys_j"] == pytest.approx(GAIN_BAND * truth_j, rel=0.01)
        phases = {phase["name"]: phase for phase in result["phases"]}
        window = result["window"]
        # The window is the work's own, between two short rests.
        before, after = phases["margin_before"], phases["margin_after"]
        assert before["end_monotonic_ns"] <= window["start_monotonic_ns"]
        assert window["end_monotonic_ns"] <= after["start_monotonic_ns"]
        assert window["duration_s"] >= 3
        per_token_j = energy["per_output_token_j"]
        power_w = per_token_j * result["performance"]["output_tokens_per_s"]
        assert power_w == pytest.approx(energy["power_mean_w"], rel=0.001)
        assert result["provenance"]["computes_on_gpu"]
        assert not DISQUALIFYING & set(result["validity"])
        channels = {
            (reading["sensor"], reading["channel"])
            for reading in energy["readings"]
            if reading["gross_j"] is not None and reading["kind"] == "measured"
        }
        assert {("nvml", "counter"), ("nvml", "power")} <= channels
        assert energy["source"] == ("zeus" if backend == "zeus" else "nvml")
    rows = pq.read_table(tmp_path / "results/small/runs.parquet").to_pylist()
    assert {row["kind"] for row in rows} == {"measured"}
