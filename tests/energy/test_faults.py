"""The meter next to a recorder that fails, and in the windows of the short benchmark."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim
from support import recording
from support.studies import ROOT

POWER_W, WINDOW_S, LEAD_S = 300.0, 4.0, 1.5


def halt(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("meddle", [kill, halt])
def test_a_recorder_that_is_killed_has_a_code_and_one_that_is_halted_loses_nothing(
    tmp_path: Path, meddle: Callable[[int], None]
) -> None:
    """A counter loses nothing by silence."""
    variables = recording.card_environment(tmp_path, [sim.Device(power_w=[(0.0, POWER_W)])])
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
    assert ("recorder_lost" in result.validity) == (meddle is kill)
    if meddle is kill:
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
