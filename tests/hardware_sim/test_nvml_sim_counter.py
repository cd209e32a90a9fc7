"""What befalls a real card's energy counter, on the simulated one, against exact computation."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvml_sim import sim
from nvml_sim.reader import Reader

TOTAL_ENERGY = 83
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))
STEADY = ((0.0, 200.0),)
MOMENTS_MS = (
    0,
    50,
    99,
    100,
    101,
    310,
    1000,
    1700,
    2000,
    2050,
    2100,
    2345,
    3300,
    3500,
    9876,
    60_000,
)

SENSORS = {
    "lag": sim.Sensor(counter_lag_ms=10),
    "a lag longer than a step": sim.Sensor(counter_lag_ms=250, counter_update_ms=20),
    "own samples": sim.Sensor(
        counter_from="own_samples",
        counter_sample_ms=20,
        counter_sample_phase_ms=7,
        counter_window_ms=5,
        gain=1.3,
        offset_w=9,
    ),
    "own samples of a moment": sim.Sensor(
        counter_from="own_samples", counter_sample_ms=33, counter_window_ms=0, counter_lag_ms=12
    ),
    "own samples, defaults": sim.Sensor(counter_from="own_samples", counter_update_ms=10),
    "jitter": sim.Sensor(counter_jitter_ms=2),
    "jitter of half a step": sim.Sensor(counter_update_ms=20, counter_jitter_ms=10),
    "skip": sim.Sensor(counter_update_ms=20, counter_skip=0.7),
    "resets": sim.Sensor(counter_resets_s=(0.31, 2.05), counter_start_mj=5000),
    "wrap": sim.Sensor(counter_wrap_mj=65_536, counter_start_mj=65_000),
    "jumps": sim.Sensor(counter_jumps=((0.3, 12.5), (0.3, 1), (2, -900.0), (3.3, 7e6))),
    "a jump at a reset": sim.Sensor(counter_jumps=((2, 50), (2.01, 3)), counter_resets_s=[2]),
    "gain": sim.Sensor(counter_gain=0.87, gain=2, counter_start_mj=1000),
    "a stall caught up": sim.Sensor(counter_stalls=((0.1, 2.02, "catch_up"),)),
    "a stall that loses": sim.Sensor(counter_stalls=((0.1, 2.02, "lose"), (2.02, 2.1, "lose"))),
    "all together": sim.Sensor(
        counter_from="samples",
        window_ms=25,
        counter_update_ms=37,
        counter_phase_ms=-5,
        counter_lag_ms=11,
        counter_jitter_ms=3,
        counter_skip=0.4,
        counter_gain=1.05,
        counter_start_mj=77,
        counter_resets_s=(1.7,),
        counter_jumps=((1, 4), (3, 5)),
        counter_stalls=((0.2, 0.5, "lose"), (1.5, 2.05, "lose"), (3, 3.4, "catch_up")),
        counter_wrap_mj=100_000,
    ),
}


def assert_same(shown_mj: int, true_mj: int, wrap_mj: int | None) -> None:
    """The same but for the rounding of a tie, which may wrap."""
    apart = abs(shown_mj - true_mj)
    assert min(apart, abs(wrap_mj - apart) if wrap_mj else apart) <= 1, (shown_mj, true_mj)


def hold_against_the_truth(
    reader: Reader, clock: sim.SteppedClock, device: sim.Device, moments_ms=MOMENTS_MS
) -> None:
    start_ns = clock.now_ns
    for moment in moments_ms:
        clock.set(start_ns + moment * 1_000_000)
        true_mj = device.counter_mj(moment * 1_000_000)
        assert_same(reader.energy_mj(), true_mj, device.sensor.counter_wrap_mj)


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
def test_the_counter_equals_the_exact_one(open_reader, clock, sensor: sim.Sensor) -> None:
    device = sim.Device(power_w=RAMP, sensor=sensor)
    hold_against_the_truth(open_reader(device), clock, device)


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS)
def test_reading_back_in_time_gives_the_same(open_reader, clock, sensor: sim.Sensor) -> None:
    device = sim.Device(power_w=RAMP, sensor=sensor)
    hold_against_the_truth(open_reader(device), clock, device, MOMENTS_MS[::-1])


def spans(kinds: st.SearchStrategy[tuple[object, ...]]) -> st.SearchStrategy[list[tuple]]:
    """Stalls in order, none in another."""
    times = st.lists(st.integers(-1000, 20_000), max_size=6, unique=True).map(sorted)
    pairs = times.map(lambda t: list(zip(t[::2], t[1::2], strict=False)))
    return st.builds(lambda of, rest: [(a / 1000, b / 1000, *rest) for a, b in of], pairs, kinds)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    points=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1000)), min_size=1, max_size=20).map(
        lambda points: sorted(points, key=lambda point: point[0])
    ),
    sensor=st.builds(
        sim.Sensor,
        update_ms=st.integers(20, 500),
        window_ms=st.integers(0, 600),
        gain=st.floats(0.5, 1.5),
        counter_update_ms=st.integers(10, 500),
        counter_phase_ms=st.integers(-500, 500),
        counter_from=st.sampled_from(["true", "samples", "own_samples"]),
        counter_lag_ms=st.integers(0, 700),
        counter_sample_ms=st.integers(20, 500),
        counter_sample_phase_ms=st.integers(-500, 500),
        counter_window_ms=st.integers(0, 600),
        counter_gain=st.floats(0.5, 1.5),
        counter_jitter_ms=st.integers(0, 5),
        counter_skip=st.floats(0, 0.9),
        counter_start_mj=st.integers(0, 10**9),
        counter_wrap_mj=st.none() | st.integers(1000, 10**7),
        counter_resets_s=st.lists(st.integers(0, 20).map(float), max_size=3).map(sorted),
        counter_jumps=st.lists(
            st.tuples(st.integers(0, 20), st.integers(-1000, 1000)), max_size=4
        ).map(sorted),
        counter_stalls=spans(st.sampled_from([("lose",), ("catch_up",)])),
    ),
    moments_ms=st.lists(st.integers(0, 25_000), min_size=1, max_size=6),
)
def test_any_counter_reads_exactly(tmp_path: Path, points, sensor, moments_ms) -> None:
    clock = sim.SteppedClock(tmp_path / "clock")
    device = sim.Device(power_w=points, sensor=sensor)
    with Reader(sim.environment(sim.Trace([device]).write(tmp_path), clock=clock)) as reader:
        hold_against_the_truth(reader, clock, device, moments_ms)


def readings_each_step(reader: Reader, clock: sim.SteppedClock, count: int) -> list[int]:
    """The counter, read every 10 ms, in J."""
    shown = []
    for _ in range(count):
        shown.append(round(reader.energy_mj() / 1000))
        clock.advance(0.01)
    return shown


def test_the_new_keys_defaults_change_nothing(open_reader, clock, tmp_path) -> None:
    """A trace as it was before them reads as one that spells all of them out."""
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


def test_ticks_are_moved_and_left_out_alike_for_every_reader(open_reader, clock) -> None:
    sensor = sim.Sensor(counter_update_ms=100, counter_jitter_ms=20, counter_skip=0.3)
    device = sim.Device(STEADY, sensor)
    readers = open_reader(device), open_reader(device)
    shown, stamps = [], []
    for _ in range(5000):
        first, second = (reader.fields(TOTAL_ENERGY)[0] for reader in readers)
        assert (first["number"], second["number"]) == (first["number"],) * 2
        shown.append(first["number"])
        stamps.append(first["timestamp"])
        clock.advance(0.002)
    assert shown == sorted(shown)
    steps = [b - a for a, b in itertools.pairwise(sorted(set(stamps)))]
    assert 55 <= len(steps) <= 85  # of 100
    assert min(steps) < 90_000 < 110_000 < 180_000 < max(steps)
    true_mj = device.counter_mj(4999 * 2_000_000)
    assert shown[-1] == pytest.approx(true_mj, abs=1)


def test_the_share_left_out_and_the_move_are_even() -> None:
    """Of the reference itself: 30 % left out, moves from end to end with their mean at nil."""
    ticks = sim.Sensor(counter_skip=0.3, counter_jitter_ms=2).counter_ticks()
    moves = [ticks.time_ns(k) - k * 100_000_000 for k in range(20_000)]
    assert -2_000_000 <= min(moves) < -1_990_000 < 1_990_000 < max(moves) <= 2_000_000
    assert abs(sum(moves)) / len(moves) < 30_000
    left_out = sum(not ticks.happens(k) for k in range(20_000)) / 20_000
    assert left_out == pytest.approx(0.3, abs=0.015)


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


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("counter_lag_ms", -1, "a number from 0 to 1e+09"),
        ("counter_jitter_ms", 51, "a number from 0 to 50"),
        ("counter_skip", 1, "a number from 0 to 0.99"),
        ("counter_wrap_mj", 0, "a number from 1 to"),
        ("counter_resets_s", [3, 2], "a time in s, in order"),
        ("counter_resets_s", 3, "a list, found 3"),
        ("counter_jumps", [[1, "x"]], "a pair of numbers"),
        ("counter_stalls", [[1, 2, "forget"]], '[from_s, until_s, "catch_up" or "lose"]'),
        (
            "counter_stalls",
            [[1, 3, "lose"], [2, 4, "lose"]],
            '[from_s, until_s, "catch_up" or "lose"], in order',
        ),
        ("counter_stalls", [[2, 1, "lose"]], '[from_s, until_s, "catch_up" or "lose"], in order'),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, key, value, expected) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"devices": [{"sensor": {key: value}}]}))
    done = sim.run_python("import pynvml; pynvml.nvmlInit()", sim.environment(path))
    assert done.returncode != 0
    assert f"devices[0].sensor.{key}: expected {expected}" in done.stderr.splitlines()[0]
