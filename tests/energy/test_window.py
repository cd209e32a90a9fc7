"""``window_energy`` against loads whose energy is known: interval, bound, margins, knots."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llenergymeasure.energy.channel import error_of_mean
from llenergymeasure.energy.knots import Knots, PowerRange, Readings, counter_knots
from llenergymeasure.energy.window import Margin, StretchEnergy, window_energy
from llenergymeasure.recording.samples import SampleRow
from llenergymeasure.sensors.known_behaviour import PowerBehaviour
from support import energy_card as card
from support.cpu_time import cpu_s

LOW_W, HIGH_W = 60.0, 500.0
REACH = PowerRange(LOW_W, HIGH_W)
SHORT = PowerBehaviour("power_instant_w", 0.1, 0.025, "found")
WHOLE_S = 12.0


def knots_of(power: card.Power, phase_s: float = 0.0, lag_s: float = 0.0) -> Knots:
    """A counter that sees every joule, each 0.1 s, shown without any error of time."""
    t_s = np.arange(phase_s, WHOLE_S, 0.1)
    return Knots(0, t_s, power.energy(-5.0, t_s - lag_s), np.zeros(len(t_s)))


def plain(energy_j: list[float]) -> Knots:
    count = len(energy_j)
    return Knots(0, 0.1 * np.arange(count), np.array(energy_j), np.zeros(count))


def short_readings(power: card.Power, seed: int) -> tuple[Readings, ...]:
    """Readings of 25 of 100 ms beside the counter."""
    t_s = np.arange(np.random.default_rng(seed).uniform(0, 0.1), WHOLE_S, 0.1)
    power_w = power.energy(t_s - 0.025, t_s) / 0.025
    return (Readings(0, t_s, np.zeros(len(t_s)), power_w, behaviour=SHORT),)


def held(
    power: card.Power,
    window_s: tuple[float, float],
    phase_s: float,
    *,
    seed: int | None = None,
    margin_s: float | None = 0.4,
    **options: Any,
) -> tuple[StretchEnergy, float]:
    """Return a window's energy, with readings of a seed and between margins, and how far off it is.

    It is never farther off than its bound.
    """
    start_s, end_s = window_s
    if margin_s is not None:
        options["margins"] = Margin(start_s - margin_s, start_s), Margin(end_s, end_s + margin_s)
    if seed is not None:
        options["fine_readings"] = short_readings(power, seed)
    stretch = window_energy(knots_of(power, phase_s), start_s, end_s, REACH, **options)
    off_j = abs(stretch.energy_j - float(power.energy(start_s, end_s)))
    assert off_j <= stretch.bound_j + 1e-6
    assert 0 <= stretch.u95_j <= stretch.bound_j
    return stretch, off_j


loads = st.builds(
    lambda lengths, levels: card.Power(
        [-10.0, *np.cumsum(lengths)], [100.0, *levels[: len(lengths)]]
    ),
    st.lists(st.floats(0.005, 0.8), min_size=5, max_size=40),
    st.lists(st.floats(LOW_W, HIGH_W), min_size=40, max_size=40),
)
phases_s = st.floats(0.0, 0.0999)
moments_s = st.tuples(*[st.floats(0.3, WHOLE_S - 0.3)] * 3).map(sorted)


@settings(deadline=None, max_examples=100)
@given(loads, phases_s, moments_s, st.booleans())
def test_no_load_within_the_power_range_leaves_the_bound(
    power: card.Power, phase_s: float, moments: list[float], with_readings: bool
) -> None:
    start_s, _, end_s = moments
    held(power, (start_s, end_s), phase_s, seed=1 if with_readings else None, margin_s=None)


@settings(deadline=None, max_examples=100)
@given(loads, phases_s, st.floats(2.0, 5.0), st.floats(0.5, 4.0))
def test_the_bound_holds_beside_a_rest_that_was_none(
    power: card.Power, phase_s: float, start_s: float, span_s: float
) -> None:
    held(power, (start_s, start_s + span_s), phase_s)


@settings(deadline=None, max_examples=100)
@given(loads, phases_s, moments_s)
def test_adjacent_windows_add_up(power: card.Power, phase_s: float, moments: list[float]) -> None:
    a_s, b_s, c_s = moments
    knots = knots_of(power, phase_s)
    first_j, second_j, whole_j = (
        window_energy(knots, *ends, REACH).energy_j for ends in ((a_s, b_s), (b_s, c_s), (a_s, c_s))
    )
    assert first_j + second_j == pytest.approx(whole_j, abs=1e-6)
    assert first_j >= -1e-6


def test_at_knots_the_energy_is_theirs_and_sure() -> None:
    knots = plain([0.0, 10.0, 35.0, 60.0, 68.0])
    stretch = window_energy(knots, 0.1, 0.3, REACH)
    assert stretch.energy_j == pytest.approx(50.0)
    assert stretch.u95_j <= stretch.bound_j == pytest.approx(0.0, abs=1e-9)


def test_between_knots_the_bound_is_what_the_power_range_allows() -> None:
    # 28 J in 0.1 s: from 60 W for 50 ms, or back from 500 W for 50 ms, whichever bounds first.
    stretch = window_energy(plain([0.0, 28.0, 56.0]), 0.0, 0.05, REACH)
    assert stretch.energy_j == pytest.approx(14.0)
    assert stretch.bound_j == pytest.approx(14.0 - max(60 * 0.05, 28.0 - 500 * 0.05))


def test_a_step_between_knots_is_put_where_the_energy_shows_it() -> None:
    knots = plain([0.0, 10.0, 20.0, 20 + 4 + 24, 88.0, 128.0])  # 100 W, 400 W from 0.24 s on
    for at_s, energy_j in ((0.24, 24.0), (0.22, 22.0), (0.27, 36.0)):
        assert window_energy(knots, 0.0, at_s, REACH).energy_j == pytest.approx(energy_j)
    # Between uneven levels too: a line is 7 J off at 0.24 s.
    knots = plain([0.0, 10.5, 20.0, 20 + 4 + 24, 87.0, 128.0])
    assert window_energy(knots, 0.0, 0.24, REACH).energy_j == pytest.approx(24.0, abs=0.7)


def test_an_unsure_moment_makes_the_energy_unsure() -> None:
    t_s = np.array([0.0, 0.1, 0.2, 0.3])
    sharp = Knots(0, t_s, 250 * t_s, np.zeros(4))
    vague = Knots(0, t_s, 250 * t_s, np.full(4, 2e-3))
    readings = short_readings(card.constant(250.0), 0)
    assert window_energy(sharp, 0.1, 0.2, REACH, fine_readings=readings).u95_j < 1e-6
    unsure_j = window_energy(vague, 0.1, 0.2, REACH, fine_readings=readings).u95_j
    assert unsure_j == pytest.approx(1.96 * math.sqrt(2) * 250 * 2e-3 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("kind", ["work", "pulses"])
def test_the_interval_holds_for_windows_cut_anywhere(kind: str) -> None:
    errors_j, intervals_j = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        if kind == "work":
            power = card.work(0.2, 11.0, seed)
        else:
            power = card.square(rng.uniform(0.02, 0.4), 100, 450, 12, rng.uniform(0.2, 0.8))
        start_s = rng.uniform(1, 4)
        window_s = start_s, start_s + rng.uniform(1, 6)
        stretch, off_j = held(power, window_s, rng.uniform(0, 0.1), seed=seed, margin_s=None)
        errors_j.append(off_j)
        intervals_j.append(stretch.u95_j)
    assert np.mean(np.array(errors_j) <= intervals_j) >= 0.95
    # An interval that is never left because it is wide is of no use.
    assert np.median(intervals_j) < 3 * np.quantile(errors_j, 0.95)


@pytest.mark.parametrize("pause_s", [0.005, 0.02, 0.05, 0.1])
def test_work_between_pauses_too_short_to_show_themselves_is_in_its_interval(
    pause_s: float,
) -> None:
    outside = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        start_s = rng.uniform(2, 4)
        end_s = start_s + rng.uniform(0.5, 2)
        edges_s = [-10.0, start_s - pause_s, start_s, end_s, end_s + pause_s]
        power = card.Power(edges_s, [420.0, 100.0, 400.0, 110.0, rng.uniform(300, 450)])
        stretch, off_j = held(
            power, (start_s, end_s), rng.uniform(0, 0.1), seed=seed, margin_s=pause_s
        )
        outside.append(off_j > stretch.u95_j)
    assert np.mean(outside) <= 0.05


@pytest.mark.parametrize("noise_w", [0.0, 3.0])
def test_between_rests_whose_power_strays_by_chance_the_interval_holds(noise_w: float) -> None:
    """Each 5 ms has another power; the mean of 0.1 s strays by less than a quarter of that."""
    errors_j, intervals_j = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        edges_s = np.arange(0.0, 3.0, 0.005)
        power_w = 90.0 + rng.normal(0, noise_w, len(edges_s))
        power_w[200 : 200 + int(rng.integers(200, 260))] += 300.0
        power = card.Power(edges_s.tolist(), power_w.tolist())
        start_s, end_s = 1.0, float(edges_s[np.flatnonzero(power_w > 250)[-1] + 1])
        stretch, off_j = held(power, (start_s, end_s), rng.uniform(0, 0.1), late_s=0.0)
        errors_j.append(off_j)
        intervals_j.append(stretch.u95_j + 1e-6)
    assert np.mean(np.array(errors_j) <= intervals_j) >= 0.93
    assert np.median(intervals_j) < 10 * max(np.median(errors_j), 1e-6)


@pytest.mark.parametrize("period_s", [0.0083, 0.033, 0.099, 0.3, 0.7])
def test_margins_in_the_midst_of_a_load_are_not_taken_for_rest(period_s: float) -> None:
    outside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        power = card.square(period_s, 190, 450, 12, rng.uniform(0.3, 0.7))
        window_s = rng.uniform(2, 3), rng.uniform(6, 7)
        stretch, off_j = held(power, window_s, rng.uniform(0, 0.1), seed=seed)
        outside += off_j > stretch.u95_j
    assert outside <= 7


@pytest.mark.parametrize("span_s", [0.12, 3.0])
def test_a_reading_that_may_hold_some_work_does_not_make_a_margin_unrest(span_s: float) -> None:
    """The first reading that holds work was renewed 4 ms after it began, by reads around that."""
    power = card.Power([-10.0, 3.0, 3.0 + span_s], [90.0, 300.0, 90.0])
    t_s = np.arange(0.004, WHOLE_S, 0.1)
    power_w = power.energy(t_s - 0.025, t_s) / 0.025
    readings = Readings(0, t_s - 0.005, np.full(len(t_s), 0.006), power_w, behaviour=SHORT)
    beside = (Margin(2.6, 3.0), Margin(3.0 + span_s, 3.4 + span_s))
    stretch = window_energy(
        knots_of(power, 0.05), 3.0, 3.0 + span_s, REACH,
        fine_readings=(readings,), margins=beside,
    )  # fmt: skip
    assert stretch.energy_j == pytest.approx(300 * span_s, abs=1e-3)
    assert stretch.u95_j < 0.02 * stretch.energy_j


def test_a_counter_of_known_lag_needs_a_shorter_margin() -> None:
    power = card.work(3.0, 6.0)
    late = knots_of(power, 0.03, 0.06)
    beside = (Margin(2.6, 3.0), Margin(6.0, 6.25))
    cut = {"power_range": REACH, "margins": beside}
    indicated = window_energy(late, 3.0, 6.0, **cut)
    corrected = window_energy(late.earlier(0.06), 3.0, 6.0, late_s=0.0, **cut)
    assert corrected.energy_j == pytest.approx(float(power.energy(3.0, 6.0)), abs=1e-3)
    assert corrected.u95_j < indicated.u95_j


def test_steps_seen_by_slow_reads_are_placed_by_all_of_them() -> None:
    """A step each 0.1 s, seen by calls of 5 ms: together they place each within 3 ms."""
    sensor = card.Sensor(call_s=0.005)
    series = card.record(card.constant(250.0), sensor, 20).series(
        card.UUID, "nvml", "energy_counter_j"
    )
    knots = counter_knots(series, card.T0_NS)
    ticks_s = 0.037 + 0.1 * np.round((knots.t_s - 0.037) / 0.1)
    off_s = np.abs(knots.t_s - ticks_s)
    assert np.median((series.t_ns - series.t_before_ns)[1:-1]) > 15e6
    assert off_s.max() < 3e-3
    assert np.all(off_s <= knots.t_half_width_s + 1e-6)


def test_steps_that_come_unevenly_stay_between_their_reads() -> None:
    rng = np.random.default_rng(0)
    true_s = np.cumsum(rng.uniform(0.03, 0.3, 100))
    rows = [
        SampleRow(
            card.ns(t + 0.002), card.UUID, "nvml", "energy_counter_j", 10.0 * i, card.ns(t - 0.001)
        )
        for i, t in enumerate(true_s)
    ]
    series = card.recording(rows).series(card.UUID, "nvml", "energy_counter_j")
    knots = counter_knots(series, card.T0_NS)
    assert np.all(np.abs(knots.t_s - true_s) <= 0.0021)
    assert np.all(np.abs(knots.t_s - true_s) <= knots.t_half_width_s + 1e-9)


def test_an_hour_of_readings_that_drift_takes_no_minutes_to_judge() -> None:
    """Ones that are correlated over a third of an hour were compared one lag after the other."""
    watts = np.linspace(300.0, 310.0, 48_000) + np.tile([0.0, 0.5, -0.5], 16_000)
    assert 0.5 < error_of_mean(watts) < 5.0
    fourth_s = cpu_s(lambda: error_of_mean(watts[::4]))
    assert cpu_s(lambda: error_of_mean(watts)) < 10 * fourth_s
    few = np.array([1.0, 2.0, 4.0, 3.0, 2.0, 1.0])
    off = few - few.mean()
    by_hand = 1 + 2 * float(off[1:] @ off[:-1]) / float(off @ off)
    assert error_of_mean(few) == pytest.approx(np.sqrt(np.mean(off**2) * by_hand / 6))
    # The first correlation of this one is 0, and the second above it.
    zero = np.array([-2.0, -1.0, -2.0, 2.0, -1.0, 2.0, 2.0])
    by_hand = 1 + 2 * 6.0 / float(zero @ zero)
    assert error_of_mean(zero) == pytest.approx(np.sqrt(np.mean(zero**2) * by_hand / 7))
