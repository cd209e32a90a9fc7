"""Readings of power of the simulated card, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from nvml_sim import sim
from nvml_sim.reader import NvmlError

POWER_AVERAGE, POWER_INSTANT, TOTAL_ENERGY = 185, 186, 83
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))


def test_counter_stands_still_between_its_ticks(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 250)]))
    shown = []
    for _ in range(21):
        shown.append(reader.energy_mj())
        clock.advance(0.01)
    assert shown == [0] * 10 + [25_000] * 10 + [50_000]


def test_power_sees_only_its_window(open_reader, clock) -> None:
    """A 25 ms window each 100 ms misses a burst that lies between two windows."""
    burst = [(0, 100), (0.02, 100), (0.02, 900), (0.06, 900), (0.06, 100)]
    reader = open_reader(sim.Device(power_w=burst, sensor=sim.Sensor(window_ms=25)))
    clock.advance(0.1)
    assert reader.power_mw() == 100_000
    assert reader.energy_mj() == 42_000


def test_average_window_holds_for_power_usage_and_its_field_alone(open_reader, clock) -> None:
    device = sim.Device(
        power_w=[(0, 100), (1, 100), (1, 500)],
        sensor=sim.Sensor(window_ms=25, average_window_ms=1000),
    )
    reader = open_reader(device)
    clock.advance(1.5)
    average, instant = reader.fields(POWER_AVERAGE, POWER_INSTANT)
    assert reader.power_mw() == average["number"] == 300_000
    assert instant["number"] == 500_000


def test_a_window_of_nothing_shows_the_moment_and_at_a_step_what_follows(
    open_reader, clock
) -> None:
    steps = [(0, 100), (0.1, 100), (0.1, 700), (0.2, 700), (0.2, 300), (9, 300)]
    reader = open_reader(sim.Device(power_w=steps, sensor=sim.Sensor(window_ms=0)))
    shown = []
    for _ in range(3):
        shown.append(reader.power_mw())
        clock.advance(0.1)
    assert shown == [100_000, 700_000, 300_000]


def test_before_time_zero_the_counter_is_nil_and_power_the_first_value(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=RAMP), t0_ns=clock.now_ns + 10 * sim.NS_PER_S)
    assert reader.energy_mj() == 0
    assert reader.power_mw() == 100_000


def test_a_month_of_counting_does_not_drift(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 1000 / 3)]))
    clock.advance(30 * 86_400)
    assert reader.energy_mj() == 864_000_000_000


def test_noise_is_bounded_and_the_same_for_every_reader(open_reader, clock) -> None:
    device = sim.Device(power_w=[(0, 200)], sensor=sim.Sensor(power_noise_w=5))
    readers = open_reader(device), open_reader(device)
    shown = []
    for _ in range(50):
        clock.advance(0.1)
        first, second = (reader.power_mw() for reader in readers)
        assert first == second
        shown.append(first)
    assert 195_000 <= min(shown) < max(shown) <= 205_000
    assert len(set(shown)) > 40


def test_a_card_without_a_counter_still_shows_power(open_reader) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 80)], keys={"counter_supported": False}))
    with pytest.raises(NvmlError, match="NVML error 3"):
        reader.energy_mj()
    energy, power = reader.fields(TOTAL_ENERGY, POWER_INSTANT)
    assert energy["nvmlReturn"] == 3
    assert energy["number"] is None
    assert (power["nvmlReturn"], power["number"]) == (0, 80_000)


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


def test_a_hundred_thousand_points_are_read_exactly(open_reader, clock) -> None:
    points = [(i * 0.001, float(100 + i % 7)) for i in range(100_000)]
    reader = open_reader(sim.Device(power_w=points))
    clock.advance(77.7)
    joules = math.fsum(
        (t2 - t1) * (w1 + w2) / 2 for (t1, w1), (t2, w2) in itertools.pairwise(points[:77_701])
    )
    assert reader.energy_mj() == pytest.approx(joules * 1000, abs=1)


def test_each_nth_renewal_reads_nothing_and_the_counter_goes_on(open_reader, clock) -> None:
    sensor = sim.Sensor(zero_every=4, power_noise_w=1, counter_from="samples")
    reader = open_reader(sim.Device([(0, 200)], sensor))
    shown = []
    for _ in range(12):
        shown.append(reader.power_mw() == 0)
        clock.advance(0.1)
    assert shown == [False, False, False, True] * 3
    assert reader.energy_mj() == 240_000
