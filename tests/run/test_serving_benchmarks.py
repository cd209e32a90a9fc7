"""What the page on serving promises, at one load and with room: the benchmarks, kept short."""

import subprocess
import sys

import pytest

from nvml_sim import sim
from support.studies import ROOT

pytestmark = pytest.mark.quiet


def benchmark(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_latencies_are_what_the_server_did_at_50_requests_a_second() -> None:
    """Every percentile of first token, inter-token and end to end within 2 % or 1 ms."""
    result = benchmark("serving_client_truth.py", "--rates", "50", "--seconds", "8")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("| yes |") == 3
    assert "; 0 failed;" in result.stdout


@pytest.mark.slow
@pytest.mark.system
def test_power_at_no_load_and_energy_of_a_request_are_recovered() -> None:
    """Intercept and slope within 2 % of the simulated card's truth."""
    sim.library_or_skip()
    result = benchmark("serving_energy_load.py", "--rates", "0", "8", "24", "--seconds", "8")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "slope" in result.stdout
