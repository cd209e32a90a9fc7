"""The rest before a run, watched on the simulated card while its clock is moved on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nvml_sim import sim
from support.forks import run_forked

UUID = "GPU-51b0cafe-0000-4000-8000-000000000000"

SETTLE = """
import json, struct, sys
from pathlib import Path
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.machine.gpus.inventory import discover
from llenergymeasure.run.engine.settle import read_gpus, settle

told = json.loads(sys.argv[1])
path = Path(told["clock"])

def now_ns():
    return struct.unpack("<q", path.read_bytes())[0]

def rest(seconds):
    with path.open("r+b", buffering=0) as file:
        file.write(struct.pack("<q", now_ns() + round(seconds * 1e9)))
    if told["skip_at_s"] is not None and now_ns() / 1e9 - 5 >= told["skip_at_s"]:
        Path(told["skip_file"]).touch()

config = ExperimentConfig.model_validate({"model": "tiny-llama", "protocol": told["protocol"]})
found = settle(
    read_gpus(discover().gpus),
    resolve_protocol(config, measured=True),
    told["gap_s"],
    Path(told["skip_file"]),
    clock=lambda: now_ns() / 1e9,
    sleep=rest,
)
print(json.dumps(found))
"""
IMPORTED = ("llenergymeasure.run.engine.settle", "llenergymeasure.config.protocol", "pynvml")


@pytest.fixture
def settled(tmp_path: Path, library: Path) -> Any:  # noqa: ARG001 - builds it
    """Settles on the cards given, in a process that sees them, and returns what came of it."""

    def run(
        *cards: sim.Device,
        protocol: str = "standard",
        gap_s: float = 0,
        skip_at_s: float | None = None,
    ) -> dict[str, Any]:
        clock = sim.SteppedClock(tmp_path / "clock", start_ns=5 * sim.NS_PER_S)
        variables = sim.environment(sim.Trace(cards).write(tmp_path), clock=clock)
        arguments = {
            "clock": str(clock.path),
            "skip_file": str(tmp_path / "skip"),
            "protocol": protocol,
            "gap_s": gap_s,
            "skip_at_s": skip_at_s,
        }
        process = run_forked(SETTLE, variables, json.dumps(arguments), modules=IMPORTED)
        assert process.returncode == 0, process.stderr
        result: dict[str, Any] = json.loads(process.stdout)
        return result

    return run


def cooling(
    from_c: float, to_c: float, tau_s: float = 60, power_w: list[Any] | None = None, **keys: Any
) -> sim.Device:
    temperature = [[t, to_c + (from_c - to_c) * math.exp(-t / tau_s)] for t in range(0, 1000, 2)]
    return sim.Device(power_w=power_w or [[0, 75.0]], keys={"temperature_c": temperature, **keys})


def test_a_cool_card_is_settled_as_soon_as_that_can_be_told(settled: Any) -> None:
    result = settled(cooling(34, 34))
    assert result["reason"] == "settled"
    assert 15 <= result["waited_s"] <= 25
    assert result["start"] == {"temperature_celsius": {UUID: 34.0}, "power_w": {UUID: 75.0}}
    assert result["slope_celsius_per_s"] == 0


def test_a_hot_card_is_waited_for_until_it_is_within_three_degrees_of_idle(settled: Any) -> None:
    result = settled(cooling(75, 34), protocol="publication")
    assert result["reason"] == "settled"
    assert result["first"]["temperature_celsius"][UUID] == 75
    assert result["start"]["temperature_celsius"][UUID] <= 37
    assert result["waited_s"] > 100


def test_the_ceiling_ends_the_wait_and_says_so(settled: Any) -> None:
    result = settled(cooling(90, 30, tau_s=300))
    assert result["reason"] == "ceiling"
    assert result["waited_s"] == pytest.approx(120, abs=1)
    assert result["slope_celsius_per_s"] > 0.04


def test_power_that_still_falls_is_waited_for(settled: Any) -> None:
    falling = [[0, 300.0], [40, 75.0]]
    result = settled(cooling(34, 34, power_w=falling))
    assert result["reason"] == "settled"
    assert result["waited_s"] > 40
    assert result["start"]["power_w"][UUID] == 75


def test_the_slowest_card_decides(settled: Any) -> None:
    cards = (cooling(34, 34), cooling(80, 34))
    assert settled(*cards, protocol="publication")["waited_s"] > 100


def test_the_studys_gap_is_kept_though_all_is_settled(settled: Any) -> None:
    result = settled(cooling(34, 34), gap_s=60)
    assert result["reason"] == "settled"
    assert result["waited_s"] == pytest.approx(60, abs=1)


def test_a_gap_longer_than_the_ceiling_is_kept(settled: Any) -> None:
    result = settled(cooling(90, 30, tau_s=2000), gap_s=200)
    assert result["reason"] == "ceiling"
    assert result["waited_s"] == pytest.approx(200, abs=1)


def test_a_protocol_that_does_not_settle_keeps_the_gap_alone(settled: Any) -> None:
    hot = cooling(90, 30)
    assert settled(hot, protocol="quick")["waited_s"] == 0
    result = settled(hot, protocol="quick", gap_s=10)
    assert result["reason"] == "not asked for"
    assert result["waited_s"] == pytest.approx(10, abs=0.6)
    assert result["start"]["temperature_celsius"][UUID] < 90


def test_the_control_file_ends_it_at_once(settled: Any) -> None:
    result = settled(cooling(90, 30), gap_s=600, skip_at_s=7)
    assert result["reason"] == "skipped"
    assert result["waited_s"] == pytest.approx(7, abs=1)


def test_without_a_card_there_is_nothing_to_watch(settled: Any) -> None:
    result = settled()
    assert result["reason"] == "nothing to watch"
    assert result["waited_s"] == 0
    assert result["start"] == {"temperature_celsius": {}, "power_w": {}}
    assert result["slope_celsius_per_s"] is None


def test_a_card_that_stops_to_answer_does_not_hold_the_run_up(settled: Any) -> None:
    result = settled(cooling(34, 34, fail_after_s=4))
    assert result["reason"] == "nothing to watch"
