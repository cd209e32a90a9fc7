"""A study measured on the simulated card: real NVML bindings and real Zeus, known true energy."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.config.sensor_gain import GAIN_BAND
from llenergymeasure.validity_codes import DISQUALIFYING
from nvml_sim import sim
from support.studies import snakemake, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]

WATTS = [[0.0, 250.0], [100000.0, 250.0]]


@pytest.fixture
def card(tmp_path: Path) -> dict[str, str]:
    sim.library_or_skip()
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
    process = snakemake(tmp_path, "--configfile", str(study), variables=card)
    assert process.returncode == 0, process.stderr
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


@pytest.mark.long
def test_the_whole_machines_meter_stands_next_to_the_card(tmp_path: Path) -> None:
    sim.library_or_skip()
    draw = random.Random(3)
    begins_s = [0.0]
    while begins_s[-1] < 900:
        begins_s.append(begins_s[-1] + draw.uniform(2, 8))
    levels_w = [draw.uniform(80, 500) for _ in begins_s]
    points = [
        [at_s, watts]
        for begin_s, end_s, watts in zip(begins_s, begins_s[1:], levels_w, strict=False)
        for at_s in (begin_s, end_s)
    ]
    device = sim.Device(power_w=points, sensor=sim.Sensor(window_ms=25))
    t0_ns = time.monotonic_ns()
    variables = sim.environment(sim.Trace([device]).write(tmp_path), t0_ns=t0_ns, base={})
    variables["LLEM_NODE_METER"] = f"csv:{tmp_path / 'wall.csv'}"
    study = write_study(
        tmp_path, window={"min_seconds": 20}, baseline={"enabled": True, "duration_seconds": 10}
    )
    with _wall_meter(tmp_path / "wall.csv", device, t0_ns):
        process = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert process.returncode == 0, process.stderr
    (result,) = _results(tmp_path)
    node, window = result["energy"]["node"], result["window"]
    start_s, end_s = ((window[f"{end}_monotonic_ns"] - t0_ns) / 1e9 for end in ("start", "end"))
    card_j = device.true_energy_j(start_s, end_s)
    truth_j = LOSS * card_j + REST_W * (end_s - start_s)
    assert node["unavailable"] is None
    assert node["lag_s"] == pytest.approx(METER_LAG_S, abs=node["lag_u95_s"])
    assert node["gross_j"] == pytest.approx(truth_j, abs=node["gross_u95_j"])
    assert node["ratio_low"] < truth_j / card_j < node["ratio_high"]
    assert result["energy"]["scopes"] == ["gpu"]  # never added
    (row,) = pq.read_table(tmp_path / "results/small/summary.parquet").to_pylist()
    assert row["energy_node_ratio_mean"] == pytest.approx(node["ratio"])


REST_W, LOSS, METER_LAG_S = 250.0, 1.08, 2.0
"""What else the machine draws, what its supply loses, and how late its meter is."""


@contextmanager
def _wall_meter(path: Path, device: sim.Device, t0_ns: int) -> Iterator[None]:
    """A meter of the whole machine that logs a line a second: the mean of one, 2 s before it."""
    stop_event = threading.Event()
    path.write_text("time,watts\n")

    def log() -> None:
        while not stop_event.wait(1.0):
            elapsed_s, now_s = (time.monotonic_ns() - t0_ns) / 1e9, time.time()
            to_s = elapsed_s - METER_LAG_S + 0.5
            if to_s > 1:
                watts = REST_W + LOSS * device.true_energy_j(to_s - 1, to_s)
                with path.open("a") as stream:
                    stream.write(f"{now_s:.3f},{watts:.1f}\n")

    thread = threading.Thread(target=log)
    thread.start()
    try:
        time.sleep(4)  # a log that holds no line yet is refused
        yield
    finally:
        stop_event.set()
        thread.join()
