"""Main effects, interactions and levels, against what is known of them otherwise."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.test_comparison import study
from llenergymeasure.analysis.effects import effects

TWO_BY_TWO = {"backend": ["x", "x", "y", "y"], "batch": [1, 8, 1, 8]}


def crossed(cycles=5, backend=0.3, batch=-0.2, both=0.0, noise=0.01, seed=1):
    rng = np.random.default_rng(seed)
    levels = np.array([0.0, batch, backend, backend + batch + both])
    jumps = rng.normal(0, 0.05, (cycles, 1))
    return study(levels + jumps + rng.normal(0, noise, (cycles, 4)))


def by_name(terms):
    return {term.term: term for term in terms}


def test_one_factor_is_the_randomised_block_analysis():
    data = crossed()
    terms, _ = effects(data, {"cell": ["p", "q", "r", "s"]})
    y = data.logs
    grand, rows, columns = y.mean(), y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    between = 5 * ((columns - grand) ** 2).sum()
    rest = ((y - rows - columns + grand) ** 2).sum()
    f = (between / 3) / (rest / 12)
    found = by_name(terms)
    assert found["cell"].f == pytest.approx(f, rel=1e-6)
    assert found["cell"].p == pytest.approx(stats.f.sf(f, 3, 12), rel=1e-6)
    assert found["residual"].degrees_of_freedom == 12
    assert found["residual"].sum_of_squares == pytest.approx(rest, rel=1e-6)
    assert found["cycle"].degrees_of_freedom == 4


def test_sums_of_squares_of_a_balanced_design_add_up():
    data = crossed(both=0.1)
    terms, _ = effects(data, TWO_BY_TWO)
    assert sum(term.sum_of_squares for term in terms if term.sum_of_squares is not None) == (
        pytest.approx(((data.logs - data.logs.mean()) ** 2).sum())
    )
    assert sum(term.share for term in terms if term.share is not None) == pytest.approx(1)


def test_an_interaction_is_found_and_none_is_not_made_up():
    there = by_name(effects(crossed(both=0.1), TWO_BY_TWO)[0])["backend x batch"]
    absent = by_name(effects(crossed(both=0.0), TWO_BY_TWO)[0])["backend x batch"]
    assert there.p_holm < 0.001
    assert absent.p > 0.05


def test_levels_are_ratios_with_intervals_that_hold_the_truth():
    held = 0
    for seed in range(200):
        _, levels = effects(crossed(seed=seed), TWO_BY_TWO)
        backend = levels[0]
        assert (backend.factor, backend.level, backend.reference) == ("backend", "y", "x")
        held += backend.ci95_low <= math.exp(0.3) <= backend.ci95_high
    assert 0.90 <= held / 200 <= 0.99


def test_levels_hold_where_experiments_spread_unlike():
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        logs = np.array([0.0, 0.1, 0.2, 0.3]) + rng.normal(0, 1, (5, 4)) * [0.003, 0.01, 0.02, 0.04]
        _, levels = effects(study(logs), TWO_BY_TWO)
        held += levels[0].ci95_low <= math.exp(0.2) <= levels[0].ci95_high
    assert 0.92 <= held / 200 <= 0.985


def test_unequal_numbers_of_runs_do_not_shift_a_level():
    data = crossed(noise=1e-6)
    data.logs[1:, 3] = np.nan
    _, levels = effects(data, TWO_BY_TWO)
    assert {level.factor: level.ratio for level in levels} == pytest.approx(
        {"backend": math.exp(0.3), "batch": math.exp(-0.2)}, rel=1e-4
    )


def test_settings_that_move_together_are_not_told_apart():
    terms, levels = effects(crossed(), {"backend": ["x", "x", "y", "y"], "port": [1, 1, 2, 2]})
    found = by_name(terms)
    for name in ("backend", "port"):
        assert found[name].f is None
        assert "cannot be told from other settings" in found[name].unavailable
    assert all(level.ratio is None for level in levels)


def test_without_repeats_nothing_is_judged():
    terms, levels = effects(study([[0.0, 0.1, 0.2, 0.35]]), TWO_BY_TWO)
    found = by_name(terms)
    assert "cycle" not in found
    assert "no repeats" in found["backend"].unavailable
    assert found["backend"].p is None
    assert all(level.ci95_low is None and level.ratio is not None for level in levels)


def test_without_a_varying_setting_there_is_no_table():
    assert effects(crossed(), {"backend": ["x"] * 4}) == ([], [])


def test_too_many_levels_are_refused_in_words():
    rng = np.random.default_rng(0)
    terms, levels = effects(study(rng.normal(0, 1, (2, 500))), {"seed": list(range(500))})
    assert [term.f for term in terms] == [None]
    assert "up to 400" in terms[0].unavailable
    assert levels == []
