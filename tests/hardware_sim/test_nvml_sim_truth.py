"""Power and energy of the simulated card against an independent, exact computation."""

from __future__ import annotations

import pytest

from nvml_sim import sim
from nvml_sim.reader import Reader

POWER_AVERAGE, POWER_INSTANT = 185, 186
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))
MOMENTS_MS = (
    *(0, 50, 99, 100, 101, 310, 1000, 1700, 1999.999999, 2000, 2050, 2100, 2345, 3300, 3500),
    *(60_000, 9876, -150, 1540, 640, 2100, 310),
)

SENSORS = {
    "defaults": sim.Sensor(),
    "periods apart": sim.Sensor(update_ms=101, window_ms=25, counter_update_ms=90.5),
    "V100": sim.Sensor(update_ms=20, window_ms=10),
    "H100": sim.Sensor(
        window_ms=25, average_window_ms=1000, counter_lag_ms=10, counter_jitter_ms=2
    ),
    "a window of a second": sim.Sensor(window_ms=1000),
    "gain and offset": sim.Sensor(gain=0.942, offset_w=7.5),
    "never below 0": sim.Sensor(gain=0.1, offset_w=-60),
    "phases": sim.Sensor(phase_ms=37, counter_phase_ms=61.5, counter_start_mj=123456),
    "summed": sim.Sensor(counter_from="samples", window_ms=25, gain=1.05, offset_w=-3),
    "summed, periods apart": sim.Sensor(
        counter_from="samples", update_ms=70, counter_update_ms=110, phase_ms=30
    ),
    "lost power": sim.Sensor(power_skip=0.6, update_ms=20, window_ms=10),
    "lost power, summed": sim.Sensor(power_skip=0.6, counter_from="samples", window_ms=30),
    "zeros": sim.Sensor(zero_every=3, phase_ms=130, counter_from="samples"),
    "zeros and lost power": sim.Sensor(
        zero_every=7, power_skip=0.2, update_ms=25, window_ms=0, counter_from="samples"
    ),
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
    "jitter of half a step": sim.Sensor(counter_update_ms=20, counter_jitter_ms=10),
    "lost steps": sim.Sensor(counter_update_ms=20, counter_skip=0.7),
    "resets": sim.Sensor(counter_resets_s=(0.31, 2.05), counter_start_mj=5000),
    "wrap": sim.Sensor(counter_wrap_mj=65_536, counter_start_mj=65_000),
    "jumps": sim.Sensor(counter_jumps=((0.3, 12.5), (0.3, 1), (2, -900.0), (3.3, 7e6))),
    "a jump at a reset": sim.Sensor(counter_jumps=((2, 50), (2.01, 3)), counter_resets_s=[2]),
    "gain of the counter": sim.Sensor(counter_gain=0.87, gain=2, counter_start_mj=1000),
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


def hold_against_the_truth(reader: Reader, index: int, device: sim.Device, elapsed_ns: int) -> None:
    sensor = device.sensor
    fields = reader.fields(POWER_AVERAGE, POWER_INSTANT, device=index)
    average, instant = (field["number"] for field in fields)
    assert instant == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1), device.name
    true_mw = pytest.approx(device.shown_power_mw(elapsed_ns, sensor.average_window_ms), abs=1)
    assert average == reader.power_mw(index) == true_mw, device.name
    difference_mj = abs(reader.energy_mj(index) - device.counter_mj(elapsed_ns))
    if sensor.counter_wrap_mj:  # the rounding of a tie may wrap
        difference_mj = min(difference_mj, sensor.counter_wrap_mj - difference_mj)
    assert difference_mj <= 1, device.name


def test_readings_equal_the_exact_ones(open_reader, clock) -> None:
    """Power by both channels and the counter, at each moment; the clock also goes back."""
    devices = [sim.Device(power_w=RAMP, sensor=SENSORS[name], name=name) for name in SENSORS]
    reader, start_ns = open_reader(sim.Trace(devices)), clock.now_ns
    for moment_ms in MOMENTS_MS:
        elapsed_ns = round(moment_ms * 1_000_000)
        clock.set(start_ns + elapsed_ns)
        for index, device in enumerate(devices):
            hold_against_the_truth(reader, index, device, elapsed_ns)


def test_the_helpers_integral_is_the_plain_one() -> None:
    """The reference itself, against numbers worked out by hand."""
    assert sim.Device([(0, 100), (10, 300), (10, 50)]).true_energy_j(0, 10) == 2000
    assert sim.Device([(0, 100), (10, 300), (10, 50)]).true_energy_j(-2, 12) == 2300
    assert sim.Device([(1, 100), (3, 200)]).true_energy_j(2, 2.5) == 81.25
    assert sim.Device([(5, 70)]).true_energy_j(0, 1) == 70


STEPS = [
    (sim.Sensor(), [0, 20, 40, 60, 80]),
    (sim.Sensor(counter_lag_ms=30), [0, 14, 34, 54, 74]),
    (sim.Sensor(counter_resets_s=[0.25], counter_start_mj=1000), [1, 21, 41, 10, 30]),
    (
        sim.Sensor(counter_wrap_mj=50_000, counter_jumps=[(0.2, 3.0), (0.4, -30)]),
        [0, 20, 43, 13, 3],
    ),
    (sim.Sensor(counter_stalls=[(0.15, 0.35, "catch_up")]), [0, 20, 20, 20, 80]),
    (sim.Sensor(counter_stalls=[(0.15, 0.35, "lose")]), [0, 20, 20, 20, 40]),
]


@pytest.mark.parametrize(("sensor", "shown_j"), STEPS)
def test_the_helpers_counter_of_200_w_steps_as_worked_out_by_hand(
    sensor: sim.Sensor, shown_j: list[int]
) -> None:
    device = sim.Device([(0.0, 200.0)], sensor)
    for index, joules in enumerate(shown_j):
        for elapsed_ms in (100 * index, 100 * index + 99):
            assert device.counter_mj(elapsed_ms * 1_000_000) == joules * 1000


BURST = ((0, 100), (0.02, 100), (0.02, 900), (0.03, 900), (0.03, 100))
TURNS = ((0, 100), (0.125, 100), (0.125, 700), (0.25, 700), (0.25, 300))
OWN = sim.Sensor(
    counter_from="own_samples",
    counter_sample_ms=50,
    counter_sample_phase_ms=15,
    counter_window_ms=10,
)


@pytest.mark.parametrize(
    ("sensor", "power_w", "shown_w"),
    [
        (sim.Sensor(window_ms=25), BURST, [100, 100]),
        (sim.Sensor(), BURST, [100, 180]),
        (sim.Sensor(update_ms=125, window_ms=0), TURNS, [100, 700, 300]),
        (sim.Sensor(zero_every=4), ((0, 200),), [200, 200, 200, 0] * 2),
    ],
    ids=["a burst between two windows", "within one", "a window of nothing", "each fourth is 0"],
)
def test_power_as_worked_out_by_hand(
    open_reader, clock, sensor: sim.Sensor, power_w: sim.Points, shown_w: list[int]
) -> None:
    """Of the card, and of the reference itself."""
    device = sim.Device(power_w, sensor)
    reader = open_reader(device)
    start_ns = clock.now_ns
    for each_w in shown_w:
        truth_mw = device.shown_power_mw(clock.now_ns - start_ns)
        assert (reader.power_mw(), truth_mw) == (each_w * 1000, each_w * 1000)
        clock.advance(sensor.update_ms / 1000)


@pytest.mark.parametrize(("sensor", "shown_mj"), [(sim.Sensor(), 28_000), (OWN, 20_000)])
def test_own_samples_do_not_see_a_burst_between_them(
    open_reader, clock, sensor: sim.Sensor, shown_mj: int
) -> None:
    device = sim.Device(BURST, sensor)
    reader = open_reader(device)
    clock.advance(0.2)
    assert (reader.energy_mj(), device.counter_mj(200_000_000)) == (shown_mj, shown_mj)


def test_the_share_left_out_and_the_move_are_even() -> None:
    """Of the reference itself: 30 % left out, moves from end to end with their mean at nil."""
    ticks = sim.Sensor(counter_skip=0.3, counter_jitter_ms=2).counter_ticks()
    moves = [ticks.time_ns(k) - k * 100_000_000 for k in range(20_000)]
    assert -2_000_000 <= min(moves) < -1_990_000 < 1_990_000 < max(moves) <= 2_000_000
    assert abs(sum(moves)) / len(moves) < 30_000
    left_out = sum(not ticks.happens(k) for k in range(20_000)) / 20_000
    assert left_out == pytest.approx(0.3, abs=0.015)
