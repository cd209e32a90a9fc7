"""Faults injected while a card is recorded: each gives its code, none a zero."""

import subprocess
import sys

import pytest

from nvml_sim import sim
from support.studies import ROOT

CODES = ["channel_mismatch", "sample_gap", "recorder_lost", "throttled", "other_process"]


@pytest.mark.slow
def test_every_injected_fault_gives_its_code() -> None:
    library, reason = sim.library_or_reason()
    if library is None:
        pytest.skip(reason)
    command = [sys.executable, str(ROOT / "benchmarks" / "meter_faults.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if line.startswith("pass")]
    assert len(passed) == 6
    assert all(any(f"asked {code}" in line for line in passed) for code in CODES)
