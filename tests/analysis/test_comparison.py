"""Experiments in pairs: the ratio by cycle, what order and temperature do to it, and honesty."""

import math

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.analysis.blocks import Blocks, blocks, covariates
from llenergymeasure.analysis.comparison import MAX_ALL_PAIRS, compare, holm

NAN = math.nan


def study(logs, order=None, temperatures=None, hosts=None):
    """Return a study of these logarithms, in interleaved order unless another is given."""
    logs = np.array(logs, float)
    cycles, count = logs.shape
    if order is None:
        order = np.arange(1.0, cycles * count + 1).reshape(cycles, count)
    return Blocks(
        experiments=tuple("abcdefgh"[:count]) if count <= 8 else tuple(map(str, range(count))),
        cycles=tuple(range(1, cycles + 1)),
        logs=logs,
        places=np.array(order, float),
        temperatures=np.full(logs.shape, NAN) if temperatures is None else temperatures,
        hosts=np.zeros(logs.shape) if hosts is None else np.array(hosts, float),
    )


A = [0.10, 0.13, 0.08, 0.11, 0.12]
B = [0.21, 0.26, 0.17, 0.24, 0.20]


def test_a_pair_is_the_paired_t_test_on_the_logarithms():
    (found,) = compare(study(np.transpose([A, B])), [1])
    expected = stats.ttest_rel(B, A)
    low, high = expected.confidence_interval(0.95)
    assert (found.experiment_a, found.experiment_b, found.method) == ("a", "b", "paired")
    assert (found.n, found.n_a, found.n_b) == (5, 5, 5)
    assert found.ratio == pytest.approx(math.exp(np.mean(B) - np.mean(A)))
    assert found.ci95_low == pytest.approx(math.exp(low))
    assert found.ci95_high == pytest.approx(math.exp(high))
    assert found.p == found.p_holm == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == 4
    assert found.order_difference_mean == 1
    assert found.unavailable is None


def test_what_a_cycle_has_in_common_cancels():
    shared = np.array([0.0, 0.5, -0.4, 0.9, 0.2])
    plain, shifted = (
        compare(study(np.transpose([np.array(A) + s, np.array(B) + s])), [1])[0]
        for s in (0.0, shared)
    )
    assert shifted.ratio == pytest.approx(plain.ratio)
    assert shifted.ci95_low == pytest.approx(plain.ci95_low)


def test_effect_size_is_hedges_g():
    (found,) = compare(study(np.transpose([A, B])), [1])
    sd = math.sqrt((np.var(A, ddof=1) + np.var(B, ddof=1)) / 2)
    assert found.effect_size == pytest.approx((np.mean(B) - np.mean(A)) / sd * (1 - 3 / 31))


def test_bootstrap_stands_beside_and_comes_from_the_seed():
    data = study(np.transpose([A, B]))
    one, same = (compare(data, [seed])[0] for seed in (1, 1))
    assert (one.bca95_low, one.bca95_high) == (same.bca95_low, same.bca95_high)
    assert one.bca95_low < one.ratio < one.bca95_high


def test_cycles_that_only_one_has_are_left_out_of_the_pair():
    (found,) = compare(study(np.transpose([A, [*B[:3], NAN, B[4]]])), [1])
    kept = [0, 1, 2, 4]
    expected = stats.ttest_rel([B[k] for k in kept], [A[k] for k in kept])
    assert (found.n, found.n_a, found.n_b) == (4, 5, 4)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.unavailable == "bootstrap: it needs 5 cycles, there are 4"


def test_runs_that_were_not_in_blocks_are_compared_unpaired():
    first_a_then_b = np.transpose([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    (found,) = compare(study(np.transpose([A, B]), order=first_a_then_b), [1])
    expected = stats.ttest_ind(B, A, equal_var=False)
    assert found.method == "unpaired"
    assert found.n is None
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(expected.df)
    assert found.order_difference_mean == 5
    assert "did not follow each other" in found.unavailable


def test_cycles_split_over_machines_are_no_blocks():
    hosts = np.transpose([[0] * 5, [1] * 5])
    assert compare(study(np.transpose([A, B]), hosts=hosts), [1])[0].method == "unpaired"


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_runs_have_no_ratio_and_say_why(n):
    (found,) = compare(study(np.transpose([A, [*B[:n], *[NAN] * (5 - n)]])), [1])
    assert found.ratio is found.ci95_low is found.p is found.method is None
    assert found.unavailable == f"ratio: it needs two runs of each, there are 5 and {n}"


def test_runs_that_do_not_differ_have_a_ratio_and_no_interval():
    (found,) = compare(study([[0.0, 0.1]] * 3), [1])
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.ci95_low is found.p is None
    assert "do not differ at all" in found.unavailable


def test_holm_by_hand():
    found = holm(np.array([0.01, 0.04, NAN, 0.03, 0.005]))
    assert found.tolist()[:2] == pytest.approx([0.03, 0.06])
    assert found.tolist()[3:] == pytest.approx([0.06, 0.02])
    assert math.isnan(found[2])


def test_pairs_are_corrected_for_their_number():
    rng = np.random.default_rng(5)
    found = compare(study(rng.normal(0, 0.01, (5, 4))), [1])
    assert len(found) == 6
    assert sum(each.p_holm for each in found) > sum(each.p for each in found)


def test_many_experiments_are_compared_with_the_first():
    rng = np.random.default_rng(5)
    found = compare(study(rng.normal(0, 0.01, (3, MAX_ALL_PAIRS + 1))), [1])
    assert len(found) == MAX_ALL_PAIRS
    assert {each.experiment_a for each in found} == {"0"}


def test_a_drift_with_the_order_is_taken_out():
    rng = np.random.default_rng(7)
    order = np.array([rng.permutation(3) + 1 + 3 * cycle for cycle in range(8)])
    logs = rng.normal(0, 0.001, (8, 3)) + np.array([0.0, 0.1, 0.2]) + 0.02 * order
    data = study(logs, order=order)
    trend, _ = covariates(data)
    assert trend.used
    assert trend.slope == pytest.approx(0.02, abs=0.001)
    for found, truth in zip(compare(data, [1]), (0.1, 0.2, 0.1), strict=True):
        assert found.adjusted_for == ("order",)
        assert math.log(found.ratio) == pytest.approx(truth, abs=0.003)
        assert math.log(found.ratio_unadjusted) - truth == pytest.approx(
            0.02 * found.order_difference_mean, abs=0.003
        )


def test_a_difference_in_start_temperature_is_taken_out():
    rng = np.random.default_rng(8)
    temperatures = rng.normal(40, 2, (8, 3))
    logs = rng.normal(0, 0.001, (8, 3)) + 0.01 * temperatures
    order = np.array([rng.permutation(3) + 1 + 3 * cycle for cycle in range(8)])
    _, warmth = covariates(study(logs, order=order, temperatures=temperatures))
    assert warmth.used
    assert warmth.slope == pytest.approx(0.01, abs=0.001)


def test_an_order_that_never_varied_tells_no_drift():
    rng = np.random.default_rng(9)
    trend, warmth = covariates(study(rng.normal(0, 0.01, (6, 4))))
    assert trend.unavailable == "it is the same in every cycle"
    assert warmth.unavailable == "it is not known of every run"


def test_a_small_study_does_not_fit_covariates():
    trend, _ = covariates(study(np.transpose([A, B])))
    assert trend.unavailable == "3 degrees of freedom are left, 8 needed"


def test_places_are_those_in_which_runs_really_began_on_their_machine():
    def row(experiment, cycle, started, host="x", value=1.0):
        return {
            "experiment": experiment,
            "cycle": cycle,
            "order": cycle,
            "started_at": f"2026-03-01T12:00:{started:02d}+00:00",
            "host": host,
            "start_temperature_celsius": None,
            "m": value,
        }

    rows = [row("a", 1, 30), row("a", 2, 10), row("b", 1, 20, "y"), row("b", 2, 40, value=0.0)]
    data = blocks({"a": rows[:2], "b": rows[2:]}, rows, "m")
    assert data.cycles == (1, 2)
    assert data.places[:, 0].tolist() == [2, 1]
    assert data.places[0, 1] == 1
    assert np.isnan(data.logs[1, 1])
