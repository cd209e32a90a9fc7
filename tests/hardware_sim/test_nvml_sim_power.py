"""Power and energy of the simulated card against an independent, exact computation."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvml_sim import sim
from nvml_sim.reader import NvmlError, Reader

POWER_AVERAGE, POWER_INSTANT, TOTAL_ENERGY = 185, 186, 83
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))
MOMENTS_S = (0.0, 0.05, 0.1, 0.31, 1.0, 1.999999999, 2.0, 2.05, 2.1, 3.3, 3.5, 10.0, 600.0)


def read_along(
    reader: Reader, clock: sim.SteppedClock, start_ns: int
) -> list[tuple[int, int, int]]:
    """(ns since time zero, mW shown, mJ shown) at each of the moments."""
    rows = []
    for moment in MOMENTS_S:
        elapsed_ns = round(moment * sim.NS_PER_S)
        clock.set(start_ns + elapsed_ns)
        rows.append((elapsed_ns, reader.power_mw(), reader.energy_mj()))
    return rows


@pytest.mark.parametrize(
    "sensor",
    [
        sim.Sensor(),
        sim.Sensor(update_ms=20, window_ms=10, counter_update_ms=100),
        sim.Sensor(update_ms=101, window_ms=25, counter_update_ms=90.5),
        sim.Sensor(gain=0.942, offset_w=7.5),
        sim.Sensor(gain=0.1, offset_w=-60),
        sim.Sensor(counter_from="samples", update_ms=100, window_ms=25, gain=1.05, offset_w=-3),
        sim.Sensor(counter_from="samples", update_ms=70, counter_update_ms=110, phase_ms=30),
        sim.Sensor(phase_ms=37, counter_phase_ms=61.5, counter_start_mj=123456),
        sim.Sensor(window_ms=1000),
    ],
    ids=str,
)
def test_readings_equal_the_exact_ones(open_reader, clock, sensor: sim.Sensor) -> None:
    device = sim.Device(power_w=RAMP, sensor=sensor)
    reader = open_reader(device)
    for elapsed_ns, power_mw, energy_mj in read_along(reader, clock, clock.now_ns):
        assert power_mw == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1)
        assert energy_mj == pytest.approx(device.counter_mj(elapsed_ns), abs=1)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    points=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1000)), min_size=1, max_size=30).map(
        lambda points: sorted(points, key=lambda point: point[0])
    ),
    sensor=st.builds(
        sim.Sensor,
        update_ms=st.integers(10, 500),
        window_ms=st.integers(1, 1500),
        counter_update_ms=st.integers(10, 500),
        gain=st.floats(0.5, 1.5),
        offset_w=st.floats(-50, 50),
        phase_ms=st.integers(0, 500),
        counter_phase_ms=st.integers(-500, 500),
        counter_from=st.sampled_from(["true", "samples"]),
    ),
    moments=st.lists(st.integers(0, 25 * sim.NS_PER_S), min_size=1, max_size=6),
)
def test_any_trace_and_sensor_read_exactly(tmp_path: Path, points, sensor, moments) -> None:
    clock = sim.SteppedClock(tmp_path / "clock")
    device = sim.Device(power_w=points, sensor=sensor)
    with Reader(sim.environment(sim.Trace([device]).write(tmp_path), clock=clock)) as reader:
        for elapsed_ns in moments:  # in no order: the clock may also go back
            clock.set(elapsed_ns)
            assert reader.power_mw() == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1)
            assert reader.energy_mj() == pytest.approx(device.counter_mj(elapsed_ns), abs=1)


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
    later = reader.fields(POWER_INSTANT, TOTAL_ENERGY, 999, 187)
    assert [value["valueType"] for value in later] == [1, 3, 0, 1]
    assert [value["nvmlReturn"] for value in later] == [0, 0, 3, 0]
    assert later[0]["timestamp"] == at_tick[0]["timestamp"]
    assert later[1]["timestamp"] - at_tick[1]["timestamp"] == 40_000


def test_a_million_points_are_read_exactly(open_reader, clock) -> None:
    points = [(i * 0.001, float(100 + i % 7)) for i in range(1_000_000)]
    reader = open_reader(sim.Device(power_w=points))
    clock.advance(777.7)
    joules = math.fsum(
        (t2 - t1) * (w1 + w2) / 2 for (t1, w1), (t2, w2) in itertools.pairwise(points[:777_701])
    )
    assert reader.energy_mj() == pytest.approx(joules * 1000, abs=1)


def test_the_helpers_integral_is_the_plain_one() -> None:
    """The reference itself, against numbers worked out by hand."""
    assert sim.true_energy_j([(0, 100), (10, 300), (10, 50)], 0, 10) == 2000
    assert sim.true_energy_j([(0, 100), (10, 300), (10, 50)], -2, 12) == 2300
    assert sim.true_energy_j([(1, 100), (3, 200)], 2, 2.5) == 81.25
    assert sim.true_energy_j([(5, 70)], 0, 1) == 70
