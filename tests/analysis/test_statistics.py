"""Means and their intervals, correlated cycles, outliers and precision targets, as is known."""

import math

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.analysis.statistics import (
    Estimate,
    autocorrelation,
    energy_per_correct,
    estimate,
    outliers,
)
from llenergymeasure.analysis.stopping_rule import decide, interval

# Two-sided 95 % quantiles of Student's t from printed tables (degrees of freedom: quantile).
PRINTED_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045}


@pytest.mark.parametrize(("freedom", "quantile"), PRINTED_T.items())
def test_interval_follows_the_printed_table(freedom, quantile):
    n = freedom + 1
    values = [1e-4 * (10 + (-1) ** place * (place + 1) / 7) for place in range(n)]
    logs = [math.log(value) for value in values]
    mean = sum(values) / n
    result = estimate(values)
    assert result.mean == pytest.approx(mean, rel=1e-12)
    assert result.sd == pytest.approx(stats.tstd(values), rel=1e-12)
    half_width = quantile * stats.tstd(logs) / math.sqrt(n)
    assert math.log(result.ci95_high / mean) == pytest.approx(half_width, rel=3e-4)
    assert math.log(mean / result.ci95_low) == pytest.approx(half_width, rel=3e-4)


@pytest.mark.parametrize(
    ("values", "low"), [([0.0, 0.0, 3.0, 1.0], 0.0), ([-1.0, 2.0, 0.0, 1.0], None)]
)
def test_values_without_a_logarithm_have_the_plain_interval_which_stops_at_zero(values, low):
    plain = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert plain[0] < 0
    found = estimate(values)
    assert found.ci95_low == (pytest.approx(plain[0]) if low is None else low)
    assert found.ci95_high == pytest.approx(plain[1])


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert estimate([4.2]) == Estimate(n=1, mean=4.2)
    assert estimate([]) == Estimate(n=0)


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("shape", ["normal", "lognormal"])
def test_interval_holds_the_true_mean_at_a_spread_of_a_quarter(shape, n):
    rng = np.random.default_rng([7, n])
    sigma = math.sqrt(math.log1p(0.25**2))
    if shape == "normal":
        runs = np.abs(rng.normal(1.0, 0.25, (2000, n)))
    else:
        runs = np.exp(rng.normal(-(sigma**2) / 2, sigma, (2000, n)))
    found = [estimate(row.tolist()) for row in runs]
    held = np.mean([each.ci95_low <= 1.0 <= each.ci95_high for each in found])
    assert 0.93 <= held <= 0.97


def series(rng, n, correlation, spread=0.01):
    """Return a first-order autoregression around 1."""
    noise = rng.normal(0, 1, n)
    values = [noise[0]]
    for each in noise[1:]:
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * each)
    return (1 + spread * np.array(values)).tolist()


def test_lag1_by_hand():
    # deviations -2, -1, 0, 1, 2: (2 + 0 + 0 + 2) / 10
    assert autocorrelation([1.0, 2.0, 3.0, 4.0, 5.0]).lag1 == pytest.approx(0.4)


def test_a_trend_over_cycles_is_a_correlation_and_widens():
    values = [1.00, 1.01, 1.02, 1.03, 1.04, 1.05]
    found = estimate(values)
    logs = np.log(values)
    plain = stats.t.ppf(0.975, 5) * stats.sem(logs)
    assert found.correlated is True
    assert math.log(found.ci95_high / found.mean) > 1.5 * plain


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [2.0] * 6])
def test_too_few_or_equal_values_tell_no_correlation(values):
    found = autocorrelation(values)
    assert (found.lag1, found.correlated, found.widening) == (None, None, 1.0)


@pytest.mark.parametrize("n", [5, 20])
def test_independent_cycles_are_rarely_called_correlated(n):
    rng = np.random.default_rng([1, n])
    found = [autocorrelation(series(rng, n, 0.0)) for _ in range(1500)]
    assert np.mean([each.correlated is True for each in found]) <= 0.07
    assert all(each.widening == 1.0 for each in found if each.correlated is not True)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_correlated_cycles_are_covered_or_never_called_independent(n):
    rng = np.random.default_rng([2, n])
    found = [estimate(series(rng, n, 0.6)) for _ in range(1500)]
    sound = [each.ci95_low <= 1 <= each.ci95_high or each.correlated is not False for each in found]
    assert np.mean(sound) >= 0.95
    assert np.mean([each.correlated is False for each in found]) <= 0.08


def test_many_correlated_cycles_are_told_and_covered():
    rng = np.random.default_rng(3)
    found = [estimate(series(rng, 30, 0.6)) for _ in range(500)]
    assert np.mean([each.correlated is True for each in found]) >= 0.85
    assert np.mean([each.ci95_low <= 1 <= each.ci95_high for each in found]) >= 0.87


def test_normal_values_have_few_outliers():
    rng = np.random.default_rng(2)
    flagged = sum(bool(outliers(rng.normal(0, 1, 8).tolist())) for _ in range(1000))
    assert flagged / 1000 < 0.025


@pytest.mark.parametrize(
    ("cycles", "spread", "items", "share"),
    [
        (3, 0.2, 40, 0.9),
        (8, 0.002, 200, 0.55),
        (3, 0.03, 1000, 0.05),
    ],
)
def test_the_interval_of_energy_per_right_answer_holds(
    cycles: int, spread: float, items: int, share: float
) -> None:
    """Both are uncertain: energy by its cycles, the share of right answers by the questions."""
    rng = np.random.default_rng([cycles, round(spread * 1000), items])
    studies, truth = 2000, 50.0 / share
    energies = 50.0 * np.exp(rng.normal(-(spread**2) / 2, spread, (studies, cycles)))
    right = rng.binomial(items, share, studies)
    held = known = 0
    for values, correct in zip(energies, right, strict=True):
        found = energy_per_correct(estimate(values.tolist()), correct / items, items)
        if found is not None:
            known += 1
            held += found[1] <= truth <= found[2]
    assert known > 0.95 * studies
    assert held / known >= 0.93


def test_energy_per_right_answer_is_the_ratio_and_has_none_of_nothing() -> None:
    assert energy_per_correct(estimate([10.0, 10.0, 10.0]), 0.5, 40)[0] == 20
    assert energy_per_correct(estimate([10.0]), 0.5, 40) == (20, None, None)
    assert energy_per_correct(estimate([10.0, 11.0]), 0.0, 40) is None
    assert energy_per_correct(estimate([]), 0.5, 40) is None
    _, low, high = energy_per_correct(estimate([10.0] * 3), 1.0, 40)
    assert (low, high) == (pytest.approx(10), pytest.approx(10 * (1 + 1.96**2 / 40), rel=1e-3))


# A precision target: how many cycles the pilot asks for, and the interval that goes with it.

RISING = [100.0, 101.0, 102.0, 103.0, 104.0]
MIXED = [100.0, 104.0, 101.0, 103.0, 102.0]


def test_a_pilot_whose_cycles_follow_each_other_asks_for_more():
    rising, mixed = (decide(each, 5, 0.02, 100) for each in (RISING, MIXED))
    assert rising.pilot_cv == pytest.approx(mixed.pilot_cv)
    assert rising.needed > 1.5 * mixed.needed


def test_a_target_on_correlated_cycles_is_covered_or_they_are_not_called_independent():
    rng = np.random.default_rng(4)
    sound = []
    for _ in range(400):
        values = series(rng, 20, 0.6, spread=0.02)
        used = values[: decide(values[:5], 5, 0.02, 20).cycles]
        low, high = interval(values[:5], used)
        sound.append(low <= 1 <= high or estimate(used).correlated is not False)
    assert np.mean(sound) >= 0.93


def test_values_that_are_not_positive_have_no_interval():
    assert interval([1.0, 2.0, 0.0], [1.0, 2.0, 0.0]) is None
    assert interval([1.0, 2.0], [1.0, 2.0]) is None


def test_cycles_that_scatter_more_than_the_pilots_are_in_the_interval():
    quiet = [100.0, 100.1, 99.9, 100.05, 99.95]
    values = [*quiet, 110.0, 91.0, 108.0, 93.0]
    low, high = interval(quiet, values)
    plain = estimate(values)
    assert (low, high) == pytest.approx((plain.ci95_low, plain.ci95_high))
    assert high > 1.02 * np.mean(values)
