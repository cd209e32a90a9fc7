"""Readings of the simulated card that its truth does not hold: extremes, noise, what is missing."""

from __future__ import annotations

import pytest

from nvml_sim import sim

POWER_INSTANT, TOTAL_ENERGY = 186, 83
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))


def test_a_month_of_counting_does_not_drift(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 1000 / 3)]))
    clock.advance(30 * 86_400)
    assert reader.energy_mj() == 864_000_000_000


def test_noise_is_bounded_and_the_same_for_every_reader(open_reader, clock) -> None:
    device = sim.Device(power_w=[(0, 200)], sensor=sim.Sensor(power_noise_w=5))
    readers = open_reader(device), open_reader(device)
    readings = []
    for _ in range(50):
        clock.advance(0.1)
        first, second = (reader.power_mw() for reader in readers)
        assert first == second
        readings.append(first)
    assert 195_000 <= min(readings) < max(readings) <= 205_000
    assert len(set(readings)) > 40


def test_fields_carry_their_type_and_the_time_of_their_last_update(open_reader, clock) -> None:
    sensor = sim.Sensor(update_ms=100, counter_update_ms=40)
    reader = open_reader(sim.Device(power_w=[(0, 80)], sensor=sensor))
    clock.advance(1.0)
    at_tick = reader.fields(POWER_INSTANT, TOTAL_ENERGY)
    clock.advance(0.075)
    later = reader.fields(POWER_INSTANT, TOTAL_ENERGY, 999)
    assert [value["valueType"] for value in later] == [1, 3, 0]
    assert [value["nvmlReturn"] for value in later] == [0, 0, 3]
    assert later[0]["timestamp"] == at_tick[0]["timestamp"]
    assert later[1]["timestamp"] - at_tick[1]["timestamp"] == 40_000


def test_keys_that_are_left_out_are_their_defaults(open_reader, clock, tmp_path) -> None:
    path = sim.Trace([sim.Device(power_w=RAMP)]).write(tmp_path)
    spelt = path.read_text()
    bare = "".join(line for line in spelt.splitlines(keepends=True) if "sensor." not in line)
    path.write_text(spelt + bare)
    reader = open_reader(path)
    for _ in range(80):
        assert reader.energy_mj(0) == reader.energy_mj(1)
        assert reader.power_mw(0) == reader.power_mw(1)
        clock.advance(0.0513)
    reader.close()
    assert reader.stderr == ""


def test_a_long_sum_of_samples_is_made_once_and_read_anywhere(open_reader, clock) -> None:
    points = [(i * 0.5, float(100 + i % 9)) for i in range(20_000)]
    stalls = [(i * 100.0, i * 100.0 + 10, "lose") for i in range(90)]
    sensor = sim.Sensor(counter_from="own_samples", counter_sample_ms=10, counter_stalls=stalls)
    reader = open_reader(sim.Device(points, sensor))
    start_ns = clock.now_ns
    for moment_s in (9_995, 20, 9_000.5, 3, 9_999):  # half a million samples on and back
        clock.set(start_ns + round(moment_s * sim.NS_PER_S))
        reader.energy_mj()
    joules = 104 * (9_999 - 900)
    assert reader.energy_mj() == pytest.approx(joules * 1000, rel=1e-3)
