"""The accuracy benchmark, in its short form, on the simulated card."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.system
def test_the_short_benchmark_meets_every_requirement() -> None:
    subprocess.run(["make", "-s", "nvml-sim"], cwd=ROOT, check=True)
    done = subprocess.run(
        [sys.executable, "benchmarks/meter_accuracy.py", "--quick", "--jobs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert done.stdout.count("pass  ") >= 9
