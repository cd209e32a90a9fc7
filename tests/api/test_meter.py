"""``meter()``: the energy of a block, on this machine and on the simulated card."""

import json
import os
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import pytest

import llenergymeasure
from llenergymeasure import ConfigurationError, Metered, MeterError
from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim
from support.recording import card_environment, environment, uuid

WATTS = 250.0


def test_it_works_without_any_sensor_and_says_so() -> None:
    with llenergymeasure.meter() as energy:
        assert isinstance(energy, Metered)
        with pytest.raises(MeterError, match="once the block has ended"):
            _ = energy.energy_j
        with energy.phase("work"):
            time.sleep(0.1)
    assert energy.window_s >= 0.1
    if energy.energy_j is None:
        assert energy.unavailable
        assert str(energy).startswith("no energy: ")
    else:
        assert energy.kind in ("measured", "estimated")
        assert energy.scopes
        assert energy.power_mean_w == pytest.approx(energy.energy_j / energy.window_s)
        assert f"{energy.kind}" in str(energy)
    assert [phase.phase for phase in energy.phases] == ["work"]
    for reading in energy.readings:
        assert (reading.gross_j is None) == (reading.unavailable is not None)
        assert escape(reading.unavailable or "") in energy._repr_html_()
    assert all(code in energy._repr_html_() for code in energy.validity)


FORKING = """
import json, os, time
import llenergymeasure
with llenergymeasure.meter("none") as energy:
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    time.sleep(0.2)
    ended_s = time.monotonic()
left_s = time.monotonic() - ended_s
lives = os.waitpid(child, os.WNOHANG) == (0, 0)
os.kill(child, 9)
found = {"left_s": left_s, "lives": lives, "lost": "recorder_lost" in energy.validity}
print(json.dumps({**found, "complete": energy.samples.complete}))
"""


def test_leaving_does_not_wait_for_a_process_that_the_block_has_forked() -> None:
    process = sim.run_python(FORKING, os.environ)

    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["lives"]
    assert report["complete"]
    assert not report["lost"]
    assert report["left_s"] < 5


LEAVING = """
import os, sys, time
import llenergymeasure
ways = {"exit": (3, lambda: sys.exit(3)), "end": (0, lambda: None), "raise": (1, lambda: 1 / 0)}
with llenergymeasure.meter("none") as energy:
    for way, (code, leave) in ways.items():
        child = os.fork()
        if child == 0:
            leave()
            break
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == code, way
    else:
        time.sleep(0.5)
if child == 0:
    try:
        energy.energy_j
    except llenergymeasure.MeterError as error:
        assert "in the process that began it" in str(error)
    else:
        raise SystemExit("a child of the block has an energy")
else:
    assert energy.samples.complete, energy.validity
    assert "recorder_lost" not in energy.validity, energy.validity
    print(energy.window_s)
"""


def test_processes_that_the_block_has_forked_may_leave_it(tmp_path: Path) -> None:
    """By an exit, at the block's end, or by an error."""
    child = subprocess.run(
        [sys.executable, "-c", LEAVING],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) >= 0.5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["kept.parquet", "kept.arrows"])
def test_a_block_that_raises_is_metered_and_its_recording_kept_where_asked(
    tmp_path: Path, name: str
) -> None:
    def work() -> None:
        time.sleep(0.1)
        raise ZeroDivisionError

    path = tmp_path / "folder" / name
    with pytest.raises(ZeroDivisionError), llenergymeasure.meter(samples=path) as energy:
        work()
    assert energy.window_s >= 0.1
    assert read_samples(path).complete
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_a_recording_of_another_ending_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "kept.csv"
    with (
        pytest.raises(ConfigurationError, match="must end in"),
        llenergymeasure.meter(samples=path),
    ):
        pass


@pytest.mark.system
def test_energy_of_a_card_holds_the_truth(tmp_path: Path) -> None:
    steady = sim.Device(power_w=[[0.0, WATTS], [100000.0, WATTS]], sensor=sim.Sensor(window_ms=25))
    with environment(card_environment(tmp_path, [steady])):
        with llenergymeasure.meter() as energy:
            time.sleep(2)
        with pytest.raises(ConfigurationError), llenergymeasure.meter("GPU-not-there"):
            pass
    assert energy.kind == "measured"
    assert energy.scopes == ("gpu",)
    assert energy.energy_j is not None
    assert energy.energy_u95_j is not None
    truth_j = WATTS * energy.window_s
    assert energy.energy_j == pytest.approx(truth_j, abs=energy.energy_u95_j + 0.001 * truth_j)
    assert energy.energy_j == pytest.approx(truth_j, rel=0.005)  # also where u95 is wide


@pytest.mark.system
@pytest.mark.parametrize("devices", [0, [0], ["0"], (uuid(1),)])
def test_a_card_is_named_by_a_number_too_and_its_calibration_by_a_file(
    tmp_path: Path, devices: Any
) -> None:
    file = tmp_path / "gains.yaml"
    card = {"gain": 0.5, "u_gain_rel": 0.01, "source": "a meter"}
    file.write_text(json.dumps({"gpus": {uuid(1): card}}))
    device = sim.Device(power_w=[(0.0, WATTS)], uuid=uuid(1))
    with (
        environment(card_environment(tmp_path, [device, sim.Device(uuid=uuid(2))])),
        llenergymeasure.meter(devices, calibration=file) as energy,
    ):
        time.sleep(1)
    assert energy.power_mean_w == pytest.approx(2 * WATTS, rel=0.05)


def test_a_calibration_that_cannot_be_read_is_said_before_the_block(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="cannot be read"),
        llenergymeasure.meter(calibration=str(tmp_path / "none.yaml")),
    ):
        pytest.fail("the block was run")
