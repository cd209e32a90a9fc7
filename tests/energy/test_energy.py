"""Cumulative energy: exact at ticks, additive, rising, and what averaging did undone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llenergymeasure.meter.counter import read_ticks, went_back
from llenergymeasure.meter.curve import EnergyCurve, PowerRange
from llenergymeasure.meter.device import open_device
from llenergymeasure.meter.power import read_power, undo_averaging
from llenergymeasure.meter.renewals import find_period, place

from llenergymeasure.recording.samples import Row
from support import energy_card as card

REACH = PowerRange(60.0, 500.0)


def curve(energy_j: list[float], spacing_s: float = 0.1) -> EnergyCurve:
    t_s = spacing_s * np.arange(len(energy_j))
    return EnergyCurve(0, t_s, np.array(energy_j), np.zeros(len(t_s)), REACH)


def test_at_a_tick_the_energy_is_the_ticks_and_sure() -> None:
    knots = curve([0.0, 10.0, 35.0, 60.0])
    for t_s, energy_j in zip(knots.t_s, knots.energy_j, strict=True):
        guess_j, limit_j = knots.at(float(t_s))
        assert guess_j == pytest.approx(energy_j, abs=1e-9)
        assert limit_j == pytest.approx(0.0, abs=1e-9)


def test_between_ticks_the_bound_is_what_the_power_range_allows() -> None:
    guess_j, limit_j = curve([0.0, 28.0]).at(0.05)
    assert guess_j == pytest.approx(14.0)
    # From 60 W for 50 ms, or back from 500 W for 50 ms: whichever bounds first.
    assert limit_j == pytest.approx(14.0 - max(60 * 0.05, 28.0 - 500 * 0.05))


@pytest.mark.parametrize(("t_s", "beyond_s"), [(-0.01, 0.01), (0.31, 0.01), (0.3, 0.0)])
def test_just_beyond_the_outermost_tick_little_is_unsure(t_s: float, beyond_s: float) -> None:
    guess_j, limit_j = curve([0.0, 20.0, 40.0, 60.0]).at(t_s)
    assert guess_j == pytest.approx(200 * t_s)
    assert limit_j == pytest.approx(beyond_s * 300)


def test_a_step_between_ticks_is_put_where_the_energy_tells() -> None:
    # 100 W, then 400 W from 0.24 s on.
    knots = curve([0.0, 10.0, 20.0, 20 + 4 + 24, 88.0, 128.0])
    assert knots.at(0.24)[0] == pytest.approx(24.0)
    assert knots.at(0.22)[0] == pytest.approx(22.0)
    assert knots.at(0.27)[0] == pytest.approx(36.0)
    unlevel = curve([0.0, 30.0, 40.0, 68.0, 108.0, 148.0])
    assert unlevel.at(0.24)[0] == pytest.approx(40 + 28 * 0.4)


def test_an_unsure_tick_makes_its_energy_unsure() -> None:
    knots = EnergyCurve(
        0, np.array([0.0, 0.1, 0.2]), np.array([0.0, 25.0, 50.0]), np.full(3, 1e-3), REACH
    )
    assert knots.at(0.1)[1] == pytest.approx(0.5)


rises = st.lists(st.floats(6.0, 50.0), min_size=3, max_size=60)


@settings(deadline=None)
@given(rises, st.data())
def test_adjacent_stretches_add_up(rises_j: list[float], data: st.DataObject) -> None:
    knots = curve([0.0, *np.cumsum(rises_j)])
    moment = st.floats(0.0, float(knots.t_s[-1]))
    a_s, b_s, c_s = sorted(data.draw(st.tuples(moment, moment, moment)))
    whole_j = knots.energy(a_s, c_s)[0]
    assert knots.energy(a_s, b_s)[0] + knots.energy(b_s, c_s)[0] == pytest.approx(whole_j, abs=1e-7)


@settings(deadline=None)
@given(rises, st.data())
def test_energy_stays_in_its_bounds(rises_j: list[float], data: st.DataObject) -> None:
    """Each estimate lies between what the neighbouring ticks allow, so energy never runs back."""
    knots = curve([0.0, *np.cumsum(rises_j)])
    t_s = data.draw(st.floats(0.0, float(knots.t_s[-1])))
    left = min(int(t_s / 0.1), len(rises_j) - 1)
    guess_j, limit_j = knots.at(t_s)
    assert knots.energy_j[left] - 1e-7 <= guess_j <= knots.energy_j[left + 1] + 1e-7
    assert limit_j >= 0


@pytest.mark.parametrize("power", [card.constant(250.0), card.square(0.033, 100, 400, 40, 0.4)])
def test_a_window_cut_at_ticks_has_no_end_point_error(power: card.Power) -> None:
    samples = card.record(power, end_s=40)
    ticks = read_ticks(samples.series(card.UUID, "nvml", "energy_counter_j"), card.T0_NS)
    start_ns, end_ns = ticks.nearest(card.ns(10)), ticks.nearest(card.ns(15))
    stretch = open_device(samples, card.info()).counter.stretch(start_ns, end_ns)
    true_j = power.energy((start_ns - card.T0_NS) / 1e9, (end_ns - card.T0_NS) / 1e9)
    assert stretch.energy_j == pytest.approx(true_j, rel=2e-4)
    true_ticks_s = (np.array([start_ns, end_ns]) - card.T0_NS) / 1e9
    assert np.abs((true_ticks_s - 0.037 + 0.05) % 0.1 - 0.05).max() < 2e-4


@settings(deadline=None, max_examples=40)
@given(start_s=st.floats(5.0, 30.0), span_s=st.floats(1.0, 20.0))
def test_any_stretch_lies_in_its_interval(start_s: float, span_s: float) -> None:
    device, power = PULSING
    stretch = device.counter.stretch(card.ns(start_s), card.ns(start_s + span_s))
    true_j = float(power.energy(start_s, start_s + span_s))
    assert abs(stretch.energy_j - true_j) <= stretch.u95_j
    # Never worse than the tick quantisation that plain differences have.
    assert abs(stretch.energy_j - true_j) < 0.1 * 400


PULSING_POWER = card.square(0.06, 100, 400, 60)
PULSING = (
    open_device(card.record(PULSING_POWER, card.Sensor(window_s=0.025), end_s=60), card.info()),
    PULSING_POWER,
)


def test_a_counter_that_starts_anew_makes_no_energy_up() -> None:
    rows = [
        Row(card.ns(0.1 * i), card.UUID, "nvml", "energy_counter_j", value, card.ns(0.1 * i) - 1000)
        for i, value in enumerate([500.0, 520.0, 540.0, 3.0, 23.0, 43.0])
    ]
    series = card.recording(rows).series(card.UUID, "nvml", "energy_counter_j")
    assert read_ticks(series, card.T0_NS).energy_j.tolist() == [0, 20, 40, 40, 60, 80]
    assert went_back(series, card.ns(0), card.ns(1))


def test_reads_between_ticks_are_no_ticks() -> None:
    series = card.record(card.constant(200.0), end_s=3).series(
        card.UUID, "nvml", "energy_counter_j"
    )
    ticks = read_ticks(series, card.T0_NS)
    assert len(ticks) == len(series) - 2
    assert ticks.period_s == pytest.approx(0.1, rel=1e-4)


def test_many_brackets_place_renewals_better_than_one() -> None:
    true_s = 0.013 + 0.1 * np.arange(200)
    looks_s = np.arange(0, 21, 0.0071)
    after = np.searchsorted(looks_s, true_s)
    low_s, high_s = looks_s[after - 1], looks_s[after]
    placed = place(low_s, high_s, find_period(low_s, high_s))
    assert np.abs(placed.t_s - true_s).max() < 1e-3
    assert np.all(np.abs(placed.t_s - true_s) <= placed.half_s + 1e-9)


def test_without_a_pace_each_renewal_stays_in_its_bracket() -> None:
    rng = np.random.default_rng(0)
    low_s = np.cumsum(rng.uniform(0.02, 0.3, 50))
    placed = place(low_s, low_s + 0.004, find_period(low_s, low_s + 0.004))
    assert placed.t_s == pytest.approx(low_s + 0.002)
    assert placed.half_s == pytest.approx(np.full(50, 0.002))


def test_averaging_over_a_second_is_undone() -> None:
    power, sensor = card.steps(60), card.Sensor(window_s=1.0, counter_s=None)
    readings = read_power(
        card.record(power, sensor).series(card.UUID, "nvml", "power_instant_w"), card.T0_NS
    )
    undone = undo_averaging(readings, 1.0, REACH)
    assert undone is not None
    moments_s = readings.t_s[20:-20]
    energy_j = np.interp(moments_s, undone.curve.t_s, undone.curve.energy_j)
    off_j = energy_j - power.energy(0.0, moments_s)
    assert np.ptp(off_j) < 3.0
    smeared_j = 1.0 * 340 / 8
    assert np.ptp(off_j) < smeared_j / 5


def test_averaging_is_not_undone_where_that_asks_for_impossible_power() -> None:
    readings = read_power(
        card.record(card.steps(60), card.Sensor(window_s=1.0, counter_s=None)).series(
            card.UUID, "nvml", "power_instant_w"
        ),
        card.T0_NS,
    )
    assert undo_averaging(readings, 0.3, REACH) is None
    assert undo_averaging(readings, 0.25, REACH) is None


def test_power_alone_gives_what_a_full_sensor_saw() -> None:
    power = card.steps(60)
    device = open_device(card.record(power, card.Sensor(counter_s=None)), card.info())
    assert device.counter is None
    stretch = device.power.stretch(card.ns(10), card.ns(40))
    assert stretch.energy_j == pytest.approx(float(power.energy(10, 40)), rel=0.01)


def test_outside_the_recording_there_is_no_energy() -> None:
    device = open_device(card.record(card.constant(200.0), end_s=10), card.info())
    assert device.counter.stretch(card.ns(5), card.ns(12)) is None
    assert device.power.stretch(card.ns(-3), card.ns(5)) is None
