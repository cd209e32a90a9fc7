"""Benchmarks of the meter on faulty cards, in real time and in thousands of windows."""

import os
import re
import subprocess
import sys

import pytest

from nvml_sim import sim
from support.studies import ROOT

RIGHT_J = 1200.0


def printed(*command: str) -> str:
    sim.library_or_skip()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_happens_to_a_card_or_its_recorder_gives_a_code_or_no_energy_or_harms_nothing() -> (
    None
):
    found = re.findall(
        r"(\w[^:]*): .*given (.*); energy (null|None|\d+)", printed("meter_faults.py")
    )
    given = {what: (codes, energy) for what, codes, energy in found}
    expected = {
        "counter and power differ": "channel_mismatch",
        "recorder is killed": "recorder_lost",
        "slows from heat": "throttled",
        "process of somebody else": "other_process",
        # A counter loses nothing by silence; a card that vanished has no energy.
        "recorder is halted": "",
        "card vanishes": "",
    }
    assert len(given) == len(expected)
    for part, code in expected.items():
        (what,) = [each for each in given if part in each]
        codes, energy = given[what]
        assert code in codes
        if part in ("recorder is killed", "card vanishes"):
            assert not energy.isdigit()
        else:
            assert float(energy) == pytest.approx(RIGHT_J, rel=0.02)


@pytest.mark.slow
def test_no_window_of_the_short_benchmark_is_wrong_without_a_code_or_beyond_its_bound() -> None:
    output = printed("meter_adversary.py", "--quick", "--jobs", "1")
    assert "pass  windows outside their interval without a code: 0 of" in output, output
    assert "pass  windows beyond their bound: 0" in output, output
