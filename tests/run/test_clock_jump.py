"""The wall clock is set while a run is at work: nothing that counts depends on it."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from llenergymeasure.results.outcome import read_outcome
from support.attempts import start
from support.clocks import jumping_clock
from support.studies import environment

pytestmark = [pytest.mark.slow, pytest.mark.system]

YEAR_S = 365 * 86_400


@pytest.fixture
def clock(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file with the seconds that the wall clock is ahead, and the variables that make it so."""
    return jumping_clock(tmp_path, "JUMPING_CLOCK")


SAMPLED = """
import sys, threading, time
from pathlib import Path
from llenergymeasure.recording.sampler import Loop
from llenergymeasure.sensors.base import Channel, Every, Value
rows = []
channel = Channel("card", "made up", ("power_w",), lambda: [Value("power_w", 1.0)], Every(0.05))
loop = Loop([channel], rows.append, beats=False)
loop.prime()
threading.Thread(target=loop.run, daemon=True).start()
for hours in range(1, 6):
    time.sleep(0.2)
    Path(sys.argv[1]).write_text(str(-3600 * hours))
time.sleep(0.2)
before = len(rows)
time.sleep(1.0)
print(len(rows) - before)
"""


def test_the_recorder_reads_on_where_the_clock_is_set_back(
    clock: tuple[Path, dict[str, str]],
) -> None:
    ahead, variables = clock
    result = subprocess.run(
        [sys.executable, "-c", SAMPLED, str(ahead)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) >= 5


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
def test_a_run_over_which_the_clock_jumps(
    tmp_path: Path, clock: tuple[Path, dict[str, str]], jump_s: int
) -> None:
    ahead, variables = clock
    attempt = start(tmp_path / "made", variables=variables, window={"min_seconds": 3})
    attempt.wait_for_phase("measure")
    before_s = datetime.fromisoformat(attempt.outcome()["started_at"]).timestamp()
    ahead.write_text(str(jump_s))
    assert read_outcome(attempt.folder / "outcome.json").status == "running"
    assert attempt.process.wait(120) == 0
    outcome = attempt.outcome()
    assert outcome["status"] == "completed"
    ended_s = datetime.fromisoformat(outcome["ended_at"]).timestamp()
    assert ended_s - before_s == pytest.approx(jump_s, abs=200)
    result = attempt.result()
    assert 3 <= result["window"]["duration_s"] < 100
    assert result["performance"]["output_tokens_per_s"] > 0
    energies = [phase["energy_j"] for phase in result["energy"]["phases"]]
    assert all(energy is None or 0 <= energy < 1e5 for energy in energies), json.dumps(energies)
    assert "sample_gap" not in result["validity"]
    attempt.nothing_left()
