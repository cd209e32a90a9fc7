"""The meter on faulty cards: in real time, and in the windows of the short benchmark."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim
from support import recording
from support.studies import ROOT

POWER_W, WINDOW_S, LEAD_S = 300.0, 4.0, 1.5
OTHERS = {"pid": os.getppid(), "used_memory_bytes": 2**30}


def halt(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)


def nothing(_: int) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "meddle", "code"),
    [
        pytest.param({"sensor": sim.Sensor(gain=1.06)}, nothing, "channel_mismatch", id="mismatch"),
        pytest.param({"keys": {"throttle": 0x20}}, nothing, "throttled", id="heat"),
        pytest.param({"keys": {"processes": [OTHERS]}}, nothing, "other_process", id="others"),
        pytest.param({}, kill, "recorder_lost", id="killed"),
        # A counter loses nothing by silence.
        pytest.param({}, halt, None, id="halted"),
    ],
)
def test_what_happens_to_a_card_or_its_recorder_gives_a_code_or_harms_nothing(
    tmp_path: Path, card: dict[str, Any], meddle: Callable[[int], None], code: str | None
) -> None:
    device = sim.Device(power_w=[(0.0, POWER_W)], **card)
    variables = recording.card_environment(tmp_path, [device])
    with recording.recorder(tmp_path, variables, devices="0", sensors="nvml") as (process, _):
        time.sleep(LEAD_S)
        start_ns = time.monotonic_ns()
        time.sleep(0.5)
        meddle(process.pid)
        time.sleep(max(0.0, WINDOW_S - (time.monotonic_ns() - start_ns) / 1e9))
        window = start_ns, time.monotonic_ns()
        time.sleep(LEAD_S)
        status = process.stop(recording.STOP_S)
    samples = read_samples(tmp_path / "samples.arrows")
    result = account(samples, window, recorder_lost=status != 0)
    assert all(reading.gross_j != 0 for reading in result.readings)
    assert code is None or code in result.validity
    if code == "recorder_lost":
        assert result.total is None
        return
    assert result.total is not None
    true_j = POWER_W * (window[1] - window[0]) / 1e9
    assert result.total.gross_j == pytest.approx(true_j, rel=0.02)


@pytest.mark.slow
def test_no_window_of_the_short_benchmark_is_wrong_without_a_code_or_beyond_its_bound() -> None:
    sim.library_or_skip()
    command = [str(ROOT / "benchmarks" / "meter_adversary.py"), "--quick", "--jobs", "1"]
    process = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in process.stderr, process.stdout + process.stderr
    assert "pass  windows outside their interval without a code: 0 of" in process.stdout, (
        process.stdout
    )
    assert "pass  windows beyond their bound: 0" in process.stdout, process.stdout
