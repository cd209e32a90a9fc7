"""A precision target: how many cycles the pilot asks for, and the interval that goes with it."""

import numpy as np
import pytest

from llenergymeasure.analysis.statistics import estimate
from llenergymeasure.analysis.stopping_rule import decide, interval

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
        noise = rng.normal(0, 1, 20)
        for place in range(1, 20):
            noise[place] = 0.6 * noise[place - 1] + 0.8 * noise[place]
        values = np.exp(0.02 * noise)
        decision = decide(values[:5], 5, 0.02, 20)
        used = values[: decision.cycles].tolist()
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
