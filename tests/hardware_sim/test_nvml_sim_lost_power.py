"""Readings of power that fail now and then: lost renewals, stalls and zeros."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvml_sim import sim
from nvml_sim.reader import Reader

POWER_AVERAGE, POWER_INSTANT = 185, 186
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))

SENSORS = {
    "skip": sim.Sensor(power_skip=0.6, update_ms=20, window_ms=10),
    "skip, summed": sim.Sensor(power_skip=0.6, counter_from="samples", window_ms=30),
    "stall": sim.Sensor(power_stalls=((-1.0, 0.2), (1.5, 2.5)), average_window_ms=1000),
    "stall, summed": sim.Sensor(power_stalls=[(0.5, 3.0)], counter_from="samples"),
    "zeros": sim.Sensor(zero_every=3, phase_ms=130, counter_from="samples"),
    "all": sim.Sensor(
        zero_every=7,
        power_skip=0.2,
        power_stalls=[(1, 1.5)],
        update_ms=25,
        window_ms=0,
        counter_from="samples",
    ),
}


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
def test_power_and_counter_equal_the_exact_ones(open_reader, clock, sensor: sim.Sensor) -> None:
    device = sim.Device(power_w=RAMP, sensor=sensor)
    reader = open_reader(device)
    start_ns = clock.now_ns
    for elapsed_ns in range(-200_000_000, 4_200_000_000, 51_000_000):
        clock.set(start_ns + elapsed_ns)
        average, instant = (v["number"] for v in reader.fields(POWER_AVERAGE, POWER_INSTANT))
        assert instant == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1)
        long = device.shown_power_mw(elapsed_ns, sensor.average_window_ms)
        assert average == reader.power_mw() == pytest.approx(long, abs=1)
        assert reader.energy_mj() == pytest.approx(device.counter_mj(elapsed_ns), abs=1)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sensor=st.builds(
        sim.Sensor,
        update_ms=st.integers(20, 300),
        phase_ms=st.integers(-500, 500),
        window_ms=st.integers(0, 300),
        counter_from=st.sampled_from(["true", "samples"]),
        power_skip=st.floats(0, 0.9),
        power_stalls=st.lists(st.integers(0, 9).map(float), min_size=2, max_size=2).map(
            lambda times: [tuple(sorted(times))]
        ),
        zero_every=st.integers(0, 5),
    ),
    moments=st.lists(st.integers(0, 10 * sim.NS_PER_S), min_size=1, max_size=8),
)
def test_any_such_sensor_reads_exactly(tmp_path: Path, sensor, moments) -> None:
    clock = sim.SteppedClock(tmp_path / "clock")
    device = sim.Device(power_w=RAMP, sensor=sensor)
    with Reader(sim.environment(sim.Trace([device]).write(tmp_path), clock=clock)) as reader:
        for elapsed_ns in moments:
            clock.set(elapsed_ns)
            assert reader.power_mw() == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1)
            assert reader.energy_mj() == pytest.approx(device.counter_mj(elapsed_ns), abs=1)


def shown_w(reader: Reader, clock: sim.SteppedClock, count: int) -> list[int]:
    """Power read every 100 ms, in W."""
    shown = []
    for _ in range(count):
        shown.append(reader.power_mw() // 1000)
        clock.advance(0.1)
    return shown


def test_each_nth_renewal_reads_nothing_and_the_counter_goes_on(open_reader, clock) -> None:
    sensor = sim.Sensor(zero_every=4, power_noise_w=1, counter_from="samples")
    reader = open_reader(sim.Device([(0, 200)], sensor))
    assert [w == 0 for w in shown_w(reader, clock, 12)] == [False, False, False, True] * 3
    assert reader.energy_mj() == 240_000


def test_in_a_stall_the_reading_holds_and_its_time_too(open_reader, clock) -> None:
    rising = [(0, 0), (10, 1000)]
    reader = open_reader(sim.Device(rising, sim.Sensor(window_ms=0, power_stalls=[(0.2, 0.5)])))
    start_us = reader.fields(POWER_INSTANT)[0]["timestamp"]
    clock.advance(0.4)
    assert reader.fields(POWER_INSTANT)[0]["timestamp"] - start_us == 100_000
    clock.advance(-0.4)
    assert shown_w(reader, clock, 7) == [0, 10, 10, 10, 10, 50, 60]


def test_lost_renewals_are_a_share_and_the_same_for_all(open_reader, clock) -> None:
    rising = [(0, 0), (1000, 100_000)]
    device = sim.Device(rising, sim.Sensor(window_ms=0, power_skip=0.25))
    readers = open_reader(device), open_reader(device)
    shown = []
    for _ in range(400):
        first, second = (reader.power_mw() for reader in readers)
        assert first == second
        shown.append(first)
        clock.advance(0.1)
    assert 270 <= len(set(shown)) <= 330


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("power_skip", 0.999, "a number from 0 to 0.99"),
        ("power_stalls", [[1, 2, "lose"]], "[from_s, until_s], in order"),
        ("power_stalls", [1, 2], "[from_s, until_s], in order"),
        ("zero_every", -1, "a number from 0 to"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, key, value, expected) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"devices": [{"sensor": {key: value}}]}))
    done = sim.run_python("import pynvml; pynvml.nvmlInit()", sim.environment(path))
    assert done.returncode != 0
    assert f"devices[0].sensor.{key}: expected {expected}" in done.stderr.splitlines()[0]
