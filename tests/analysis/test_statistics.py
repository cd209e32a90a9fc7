import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.analysis.drift import drift
from llenergymeasure.analysis.statistics import estimate

# Two-sided 95 % quantiles of Student's t from printed tables (degrees of freedom: quantile).
PRINTED_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize(("freedom", "quantile"), PRINTED_T.items())
def test_interval_follows_the_printed_table(freedom, quantile):
    n = freedom + 1
    values = [10.0 + (-1) ** place * (place + 1) / 7 for place in range(n)]
    mean = sum(values) / n
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    result = estimate(values)
    assert result.mean == pytest.approx(mean, rel=1e-12)
    assert result.sd == pytest.approx(sd, rel=1e-12)
    half_width = quantile * sd / math.sqrt(n)
    assert result.ci95_high - result.mean == pytest.approx(half_width, rel=3e-4)
    assert result.mean - result.ci95_low == pytest.approx(half_width, rel=3e-4)


def test_worked_example():
    # mean 3, sd sqrt(2.5), t(0.975, 4) = 2.7764451051977987: half width 1.9632432...
    result = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (result.n, result.mean) == (5, 3.0)
    assert result.ci95_low == pytest.approx(3 - 1.963243161055, abs=1e-9)
    assert result.ci95_high == pytest.approx(3 + 1.963243161055, abs=1e-9)


def test_one_value_has_no_interval():
    result = estimate([4.2])
    assert (result.n, result.mean) == (1, 4.2)
    assert result.sd is None
    assert result.ci95_low is None
    assert result.ci95_high is None


def test_no_value_has_no_mean():
    assert estimate([]).mean is None


@given(st.lists(st.floats(0.1, 1e6), min_size=2, max_size=30), st.floats(0.001, 1000))
def test_interval_scales_with_its_values_and_holds_the_mean(values, factor):
    plain, scaled = estimate(values), estimate([factor * value for value in values])
    assert plain.ci95_low <= plain.mean <= plain.ci95_high
    assert scaled.mean == pytest.approx(factor * plain.mean, rel=1e-9)
    tolerance = 1e-9 * factor * max(values)
    assert scaled.sd == pytest.approx(factor * plain.sd, rel=1e-6, abs=tolerance)


def test_interval_covers_the_true_mean_95_times_in_100():
    import random

    rng = random.Random(7)
    covered = 0
    for _ in range(4000):
        result = estimate([rng.gauss(1.0, 0.1) for _ in range(4)])
        covered += result.ci95_low <= 1.0 <= result.ci95_high
    assert 0.94 <= covered / 4000 <= 0.96


def test_drift_finds_the_trend_under_different_levels():
    experiments, positions, energies = [], [], []
    for position in range(12):
        experiment = "ab"[position % 2]
        level = {"a": 100.0, "b": 5000.0}[experiment]
        wobble = 0.0005 * (-1) ** (position // 2)
        experiments.append(experiment)
        positions.append(position)
        energies.append(level * (1 + 0.01 * (position - 5.5) + wobble))
    found = drift(experiments, positions, energies)
    assert found.per_run == pytest.approx(0.01, rel=0.02)
    assert found.detected
    assert found.runs == 12


def test_difference_between_experiments_is_no_drift():
    energies = [100.0, 101.0, 99.0, 100.0, 5000.0, 4950.0, 5050.0, 5000.0]
    found = drift(list("aaaabbbb"), list(range(8)), energies)
    assert not found.detected
    assert abs(found.per_run) < 0.01


def test_drift_needs_repeats():
    assert drift(["a", "b", "c", "d", "e"], [1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert drift(["a", "a"], [1, 2], [1.0, 1.1]) is None
    assert drift([], [], []) is None


def test_drift_interval_covers_no_trend_95_times_in_100():
    import random

    rng = random.Random(11)
    experiments = [name for _ in range(4) for name in "abc"]
    found = 0
    for _ in range(2000):
        energies = [rng.gauss(level, level * 0.02) for _ in range(4) for level in (10, 50, 200)]
        found += drift(experiments, list(range(12)), energies).detected
    assert 0.035 <= found / 2000 <= 0.065
