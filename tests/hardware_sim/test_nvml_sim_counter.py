"""What befalls a real card's energy counter, on the simulated one, step by step."""

from __future__ import annotations

import json

import pytest

from nvml_sim import sim
from nvml_sim.reader import Reader

TOTAL_ENERGY = 83
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))
STEADY = ((0.0, 200.0),)


def readings_each_step(reader: Reader, clock: sim.SteppedClock, count: int) -> list[int]:
    """The counter, read every 10 ms, in J."""
    shown = []
    for _ in range(count):
        shown.append(round(reader.energy_mj() / 1000))
        clock.advance(0.01)
    return shown


def test_keys_that_are_left_out_are_their_defaults(open_reader, clock, tmp_path) -> None:
    spelt = {**sim.Sensor().as_json(), "counter_resets_s": [], "counter_jumps": []}
    spelt |= {"counter_stalls": [], "counter_wrap_mj": None}
    content = {"devices": [{"power_w": RAMP}, {"power_w": RAMP, "sensor": spelt}]}
    path = tmp_path / "both.json"
    path.write_text(json.dumps(content))
    reader = open_reader(path)
    for _ in range(80):
        assert reader.energy_mj(0) == reader.energy_mj(1)
        assert reader.power_mw(0) == reader.power_mw(1)
        clock.advance(0.0513)
    reader.close()
    assert reader.stderr == ""


def test_a_lagging_counter_shows_what_was_true_before(open_reader, clock) -> None:
    reader = open_reader(sim.Device(STEADY, sim.Sensor(counter_lag_ms=30)))
    assert readings_each_step(reader, clock, 31) == [0] * 10 + [14] * 10 + [34] * 10 + [54]


def test_a_reset_is_seen_at_the_next_step(open_reader, clock) -> None:
    sensor = sim.Sensor(counter_resets_s=[0.25], counter_start_mj=1000)
    reader = open_reader(sim.Device(STEADY, sensor))
    shown = readings_each_step(reader, clock, 41)
    assert shown == [1] * 10 + [21] * 10 + [41] * 10 + [10] * 10 + [30]


def test_the_counter_wraps_and_jumps(open_reader, clock) -> None:
    sensor = sim.Sensor(counter_wrap_mj=50_000, counter_jumps=[(0.2, 3.0), (0.4, -30)])
    reader = open_reader(sim.Device(STEADY, sensor))
    assert readings_each_step(reader, clock, 41)[::10] == [0, 20, 43, 13, 3]


def test_after_a_stall_energy_is_caught_up_or_lost(open_reader, clock) -> None:
    cards = [
        sim.Device(STEADY, sim.Sensor(counter_stalls=[(0.15, 0.35, what)]))
        for what in ("catch_up", "lose")
    ]
    reader = open_reader(sim.Trace(cards))
    shown = []
    for _ in range(6):
        shown.append((reader.energy_mj(0), reader.energy_mj(1)))
        clock.advance(0.1)
    assert [first for first, _ in shown] == [0, 20_000, 20_000, 20_000, 80_000, 100_000]
    assert [second for _, second in shown] == [0, 20_000, 20_000, 20_000, 40_000, 60_000]


def test_own_samples_see_what_the_power_reading_does_not(open_reader, clock) -> None:
    """A burst between two of the counter's own windows is not counted."""
    burst = [(0, 100), (0.02, 100), (0.02, 900), (0.03, 900), (0.03, 100)]
    own = sim.Sensor(
        counter_from="own_samples",
        counter_sample_ms=50,
        counter_sample_phase_ms=15,
        counter_window_ms=10,
    )
    reader = open_reader(sim.Trace([sim.Device(burst), sim.Device(burst, own)]))
    clock.advance(0.2)
    assert (reader.energy_mj(0), reader.energy_mj(1)) == (28_000, 20_000)


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


def test_a_reset_turns_the_counter_back_under_a_programs_load_too(
    open_reader, clock, tmp_path
) -> None:
    sensor = sim.Sensor(counter_resets_s=[2.0], counter_wrap_mj=700_000)
    keys = {"load_file": "load.csv", "idle_w": 80, "max_w": 480}
    reader = open_reader(sim.Device(sensor=sensor, keys=keys))
    (tmp_path / "load.csv").write_text(f"{clock.now_ns},1\n")
    shown = []
    for _ in range(4):
        shown.append(reader.energy_mj())
        clock.advance(1)
    assert shown == [0, 480_000, 0, 480_000]
    assert reader.energy_mj() == 260_000
