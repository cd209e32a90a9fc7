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


COOL, HOT = cooling(34, 34), cooling(90, 30)
FALLING = [[0, 300.0], [40, 75.0]]
IDLE = {"protocol": "publication"}
"""Waits until a card is within three degrees of idle."""


@pytest.mark.parametrize(
    ("cards", "asked", "reason", "least_s", "most_s"),
    [
        ([COOL], {}, "settled", 15, 25),
        ([cooling(75, 34)], IDLE, "settled", 100, 999),
        ([COOL, cooling(80, 34)], IDLE, "settled", 100, 999),
        ([cooling(34, 34, power_w=FALLING)], {}, "settled", 40, 999),
        ([cooling(90, 30, tau_s=300)], {}, "ceiling", 119, 121),
        ([COOL], {"gap_s": 60}, "settled", 59, 61),
        ([cooling(90, 30, tau_s=2000)], {"gap_s": 200}, "ceiling", 199, 201),
        ([HOT], {"protocol": "quick"}, "not asked for", 0, 0),
        ([HOT], {"protocol": "quick", "gap_s": 10}, "not asked for", 9.4, 10.6),
        ([HOT], {"gap_s": 600, "skip_at_s": 7}, "skipped", 6, 8),
        ([], {}, "nothing to watch", 0, 0),
        ([cooling(34, 34, fail_after_s=4)], {}, "nothing to watch", 0, 999),
    ],
    ids=[
        *("cool", "hot", "slowest card", "falling power", "ceiling", "gap of a settled card"),
        *("gap beyond the ceiling", "no settling", "gap alone", "control file", "no card"),
        "card that stops to answer",
    ],
)
def test_how_long_a_rest_is_and_why_it_ends(
    settled: Any,
    cards: list[sim.Device],
    asked: dict[str, Any],
    reason: str,
    least_s: float,
    most_s: float,
) -> None:
    result = settled(*cards, **asked)
    assert result["reason"] == reason
    assert least_s <= result["waited_s"] <= most_s


def test_what_the_cards_show_at_the_rests_end_is_in_the_record(settled: Any) -> None:
    cool = settled(COOL)
    assert cool["start"] == {"temperature_celsius": {UUID: 34.0}, "power_w": {UUID: 75.0}}
    assert cool["slope_celsius_per_s"] == 0
    hot = settled(cooling(75, 34, power_w=FALLING), **IDLE)
    assert hot["first"]["temperature_celsius"][UUID] == 75
    assert hot["start"]["temperature_celsius"][UUID] <= 37
    assert hot["start"]["power_w"][UUID] == 75
    assert settled(cooling(90, 30, tau_s=300))["slope_celsius_per_s"] > 0.04
    assert settled(HOT, protocol="quick", gap_s=10)["start"]["temperature_celsius"][UUID] < 90
    nothing = settled()
    assert nothing["start"] == {"temperature_celsius": {}, "power_w": {}}
    assert nothing["slope_celsius_per_s"] is None
