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


def rates(cycles=2, seed=1, levels=(2, 4, 0)):
    """Return two token counts at three rates, of which the silent server has no value."""
    tokens = [8, 16] * len(levels)
    rate = [each for each in levels for _ in range(2)]
    rng = np.random.default_rng(seed)
    truth = [
        0.1 * math.log2(each) + math.log(count) if each else math.nan
        for each, count in zip(rate, tokens, strict=True)
    ]
    logs = np.array(truth) + rng.normal(0, 0.001, (cycles, len(truth)))
    return study(logs), {"serving.rate_per_s": rate, "max_output_tokens": tokens}


@pytest.mark.parametrize("cycles", [2, 5])
@pytest.mark.parametrize(
    "levels", [(2, 4, 0), (0, 2, 4), (2, 0, 4)], ids=["last", "first", "between"]
)
def test_a_level_without_data_never_takes_another_factors_effect(levels, cycles):
    terms, found = effects(*rates(cycles, levels=levels))
    by_level = {(each.factor, each.level): each for each in found}
    silent = by_level["serving.rate_per_s", "0"]
    assert silent.ratio is silent.p is silent.p_holm is silent.ci95_low is None
    assert silent.unavailable.startswith("no data")
    assert {each.reference for each in found} == {"2", "8"}
    assert by_level["serving.rate_per_s", "4"].ratio == pytest.approx(math.exp(0.1), rel=0.01)
    assert by_level["max_output_tokens", "16"].ratio == pytest.approx(2.0, rel=0.01)
    assert len(found) == 3
    assert by_name(terms)["serving.rate_per_s"].degrees_of_freedom == 1


def test_a_single_factor_with_a_level_without_data():
    rng = np.random.default_rng(1)
    logs = rng.normal(0, 0.01, (2, 5)) + np.array([math.nan, 0, 0.1, 0.2, 0.3])
    for place in range(5):
        order = np.roll(np.arange(5), place)
        values = np.array([0, 0.5, 1, 2, 4])[order]
        _, found = effects(study(logs[:, order]), {"rate": values.tolist()})
        told = {each.level: each for each in found}
        assert told["0.0"].unavailable.startswith("no data")
        assert {each.reference for each in found} == {next(str(v) for v in values if v)}
        assert sum(each.ratio is not None for each in found) == 3


def test_a_factor_with_data_at_one_level_alone():
    terms, found = effects(study([[0.0, math.nan], [0.1, math.nan]]), {"rate": [2, 0]})
    assert [(each.level, each.reference, each.ratio) for each in found] == [("0", "2", None)]
    assert terms[0].unavailable == "only one of its values has data"


def test_what_a_failed_run_does_not_tell_is_no_level():
    data = crossed()
    data.logs[:, 3] = math.nan
    _, found = effects(data, {"precision": ["fp32", "fp32", "bf16", None]})
    assert [each.level for each in found] == ["bf16"]


def test_levels_are_corrected_for_their_number():
    _, found = effects(crossed(noise=0.1), TWO_BY_TWO)
    p_values = [each.p for each in found]
    assert [each.p_holm for each in found] == pytest.approx(
        [min(1.0, 2 * min(p_values)) if p == min(p_values) else max(p_values) for p in p_values]
    )


def test_equal_levels_are_rarely_told_apart():
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        logs = rng.normal(0, 0.01, (5, 8)) + rng.normal(0, 0.03, (5, 1))
        _, found = effects(study(logs), {"batch": [1, 2, 4, 8, 16, 32, 64, 128]})
        alarms += any(each.p_holm < 0.05 for each in found)
    assert alarms / 300 <= 0.07
