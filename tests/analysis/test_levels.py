"""The levels of settings, against what is known of them otherwise."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.studies import blocks
from llenergymeasure.analysis.levels import levels

TWO_BY_TWO = {"backend": ["x", "x", "y", "y"], "batch": [1, 8, 1, 8]}


def crossed(cycles=5, backend=0.3, batch=-0.2, both=0.0, noise=0.01, seed=1):
    rng = np.random.default_rng(seed)
    levels = np.array([0.0, batch, backend, backend + batch + both])
    jumps = rng.normal(0, 0.05, (cycles, 1))
    return blocks(levels + jumps + rng.normal(0, noise, (cycles, 4)))


UNLIKE = np.random.default_rng(3).normal(0, 1, (5, 8)) * [*[0.003] * 7, 0.04]
"""Logarithms of five cycles of experiments that spread unlike."""


@pytest.mark.parametrize(
    ("logs", "factors", "place", "differences"),
    [
        (
            crossed().logs,
            TWO_BY_TWO,
            ("backend", "y", "x"),
            lambda logs: (logs[:, 2] + logs[:, 3] - logs[:, 0] - logs[:, 1]) / 2,
        ),
        (
            UNLIKE,
            {"batch": list(range(8))},
            ("batch", "7", "0"),
            lambda logs: logs[:, 7] - logs[:, 0],
        ),
    ],
    ids=["two by two", "one factor, of which a level is noisy"],
)
def test_five_whole_cycles_are_judged_by_what_is_between_them(logs, factors, place, differences):
    found = levels(blocks(logs), factors)
    (level,) = [each for each in found if (each.factor, each.level, each.reference) == place]
    expected = stats.ttest_1samp(differences(logs), 0.0)
    low, high = expected.confidence_interval(0.95)
    assert level.ratio == pytest.approx(math.exp(np.mean(differences(logs))))
    assert (level.ci95_low, level.ci95_high) == pytest.approx((math.exp(low), math.exp(high)))
    assert level.p == pytest.approx(expected.pvalue)


def test_levels_hold_where_experiments_spread_unlike():
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        logs = np.array([0.0, 0.1, 0.2, 0.3]) + rng.normal(0, 1, (5, 4)) * [0.003, 0.01, 0.02, 0.04]
        found = levels(blocks(logs), TWO_BY_TWO)
        held += found[0].ci95_low <= math.exp(0.2) <= found[0].ci95_high
    assert 0.92 <= held / 200 <= 0.985


@pytest.mark.parametrize("missing", [False, True])
def test_few_cycles_of_a_noisy_experiment_are_rarely_taken_for_an_effect(missing):
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        logs = rng.normal(0, 0.01, (4, 8)) * [20, *[1] * 7]
        if missing:
            logs[0, 1] = np.nan
        found = levels(blocks(logs), {"batch": list(range(8))})
        alarms += any(each.p_holm < 0.05 for each in found)
    assert alarms / 400 <= 0.16  # With one spread for all: 0.23.


@pytest.mark.parametrize("cycles", [2, 3])
def test_few_cycles_of_equal_spreads_are_rarely_taken_for_unlike(cycles):
    shown = 0
    for seed in range(300):
        logs = np.random.default_rng(seed).normal(0, 0.01, (cycles, 8))
        logs[:, -1] += 0.05
        found = levels(blocks(logs), {"batch": list(range(8))})
        shown += found[-1].p_holm < 0.05
    assert shown / 300 >= {2: 0.81, 3: 0.96}[cycles]  # With one spread for all: 0.86 and 0.99.


def test_unequal_numbers_of_runs_do_not_shift_a_level():
    data = crossed(noise=1e-6)
    data.logs[1:, 3] = np.nan
    found = levels(data, TWO_BY_TWO)
    assert {level.factor: level.ratio for level in found} == pytest.approx(
        {"backend": math.exp(0.3), "batch": math.exp(-0.2)}, rel=1e-4
    )


def test_settings_that_move_together_are_not_told_apart():
    found = levels(crossed(), {"backend": ["x", "x", "y", "y"], "port": [1, 1, 2, 2]})
    assert [level.ratio for level in found] == [None, None]
    assert all(
        "cannot be distinguished from other settings" in level.unavailable for level in found
    )


@pytest.mark.parametrize("both", [0.0, 0.1])
def test_what_settings_do_together_is_no_spread_between_runs(both):
    few = crossed(cycles=3, both=both, noise=0.001)
    low, high = levels(few, TWO_BY_TWO)[0].ci95_low, levels(few, TWO_BY_TWO)[0].ci95_high
    assert math.log(high / low) < 0.01


def test_without_repeats_nothing_is_judged():
    found = levels(blocks([[0.0, 0.1, 0.2, 0.35]]), TWO_BY_TWO)
    assert all(level.ci95_low is None and level.ratio is not None for level in found)
    assert all("no repeats" in level.unavailable for level in found)


def test_without_a_varying_setting_there_is_no_table():
    assert levels(crossed(), {"backend": ["x"] * 4}) == []


def test_too_many_levels_are_refused_in_words():
    rng = np.random.default_rng(0)
    found = levels(blocks(rng.normal(0, 1, (2, 500))), {"seed": list(range(500))})
    assert {level.ratio for level in found} == {None}
    assert all("up to 400" in level.unavailable for level in found)


def rates(cycles=2, seed=1, known=(2, 4, 0)):
    """Return two token counts at three rates, of which the silent server has no value."""
    tokens = [8, 16] * len(known)
    rate = [each for each in known for _ in range(2)]
    rng = np.random.default_rng(seed)
    truth = [
        0.1 * math.log2(each) + math.log(count) if each else math.nan
        for each, count in zip(rate, tokens, strict=True)
    ]
    logs = np.array(truth) + rng.normal(0, 0.001, (cycles, len(truth)))
    return blocks(logs), {"serving.rate_per_s": rate, "max_output_tokens": tokens}


@pytest.mark.parametrize("cycles", [2, 5])
@pytest.mark.parametrize(
    "known", [(2, 4, 0), (0, 2, 4), (2, 0, 4)], ids=["last", "first", "between"]
)
def test_a_level_without_data_never_takes_another_factors_effect(known, cycles):
    found = levels(*rates(cycles, known=known))
    by_level = {(each.factor, each.level): each for each in found}
    silent = by_level["serving.rate_per_s", "0"]
    assert silent.ratio is silent.p is silent.p_holm is silent.ci95_low is None
    assert silent.unavailable.startswith("no data")
    assert {each.reference for each in found} == {"2", "8"}
    assert by_level["serving.rate_per_s", "4"].ratio == pytest.approx(math.exp(0.1), rel=0.01)
    assert by_level["max_output_tokens", "16"].ratio == pytest.approx(2.0, rel=0.01)
    assert len(found) == 3


def test_a_factor_with_data_at_one_level_alone():
    found = levels(blocks([[0.0, math.nan], [0.1, math.nan]]), {"rate": [2, 0]})
    assert [(each.level, each.reference, each.ratio) for each in found] == [("0", "2", None)]


def test_what_a_failed_run_does_not_tell_is_no_level():
    data = crossed()
    data.logs[:, 3] = math.nan
    found = levels(data, {"precision": ["fp32", "fp32", "bf16", None]})
    assert [each.level for each in found] == ["bf16"]


def test_levels_are_corrected_for_their_number():
    found = levels(crossed(noise=0.1), TWO_BY_TWO)
    p_values = [each.p for each in found]
    assert [each.p_holm for each in found] == pytest.approx(
        [min(1.0, 2 * min(p_values)) if p == min(p_values) else max(p_values) for p in p_values]
    )
