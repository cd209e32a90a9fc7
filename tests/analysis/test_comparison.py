"""Experiments in pairs: the ratio by cycle, how sure it is, and what it would take to decide."""

import math
from operator import itemgetter

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.analysis.blocks import Blocks, make_blocks
from llenergymeasure.analysis.pairwise_comparison import (
    MAX_ALL_PAIRS,
    SIGNIFICANCE_LEVEL,
    compare,
    with_holm,
)
from llenergymeasure.analysis.statistics import autocorrelation, holm

NAN = math.nan


def study(logs, order=None, hosts=None):
    """Return a study of these logarithms, in interleaved order unless another is given."""
    logs = np.array(logs, float)
    cycles, count = logs.shape
    if order is None:
        order = np.arange(1.0, cycles * count + 1).reshape(cycles, count)
    return Blocks(
        experiments=tuple("abcdefgh"[:count]) if count <= 8 else tuple(map(str, range(count))),
        cycles=tuple(range(1, cycles + 1)),
        logs=logs,
        host_order=np.array(order, float),
        hosts=np.zeros(logs.shape) if hosts is None else np.array(hosts, float),
        order=np.array(order, float),
    )


A = [0.10, 0.13, 0.08, 0.11, 0.12]
B = [0.21, 0.26, 0.17, 0.24, 0.20]


@pytest.mark.parametrize("first", [0, 1])
def test_many_experiments_are_compared_with_the_first_that_has_data(first):
    rng = np.random.default_rng(1)
    logs = rng.normal(0, 0.01, (3, MAX_ALL_PAIRS + 1 + first))
    logs[:, :first] = NAN
    found = compare(study(logs))
    assert len(found) == MAX_ALL_PAIRS + first
    assert {each.experiment_a for each in found} == {str(first)}
    known = [each.experiment_b for each in found if each.ratio is not None]
    assert known == [str(number) for number in range(first + 1, MAX_ALL_PAIRS + 1 + first)]


def test_a_pair_is_the_paired_t_test_on_the_logarithms():
    (found,) = with_holm(compare(study(np.transpose([A, B]))))
    expected = stats.ttest_rel(B, A)
    low, high = expected.confidence_interval(0.95)
    assert (found.experiment_a, found.experiment_b, found.method) == ("a", "b", "paired")
    assert (found.n, found.n_a, found.n_b) == (5, 5, 5)
    assert found.ratio == pytest.approx(math.exp(np.mean(B) - np.mean(A)))
    assert found.ci95_low == pytest.approx(math.exp(low))
    assert found.ci95_high == pytest.approx(math.exp(high))
    assert found.p == found.p_holm == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == 4
    assert found.unavailable is None


def test_what_a_cycle_has_in_common_cancels():
    shared = np.array([0.0, 0.5, -0.4, 0.9, 0.2])
    plain, shifted = (
        compare(study(np.transpose([np.array(A) + s, np.array(B) + s])))[0] for s in (0.0, shared)
    )
    assert shifted.ratio == pytest.approx(plain.ratio)
    assert shifted.ci95_low == pytest.approx(plain.ci95_low)


def test_cycles_that_only_one_has_are_left_out_of_the_pair():
    (found,) = compare(study(np.transpose([A, [*B[:3], NAN, B[4]]])))
    kept = [0, 1, 2, 4]
    expected = stats.ttest_rel([B[k] for k in kept], [A[k] for k in kept])
    assert (found.n, found.n_a, found.n_b) == (4, 5, 4)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.unavailable is None


def test_runs_that_were_not_in_blocks_are_compared_unpaired():
    first_a_then_b = np.transpose([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    (found,) = compare(study(np.transpose([A, B]), order=first_a_then_b))
    expected = stats.ttest_ind(B, A, equal_var=False)
    assert found.method == "unpaired"
    assert found.n is None
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees_of_freedom == pytest.approx(expected.df)
    assert "did not follow each other" in found.unavailable


def test_cycles_split_over_machines_are_no_blocks():
    hosts = np.transpose([[0] * 5, [1] * 5])
    assert compare(study(np.transpose([A, B]), hosts=hosts))[0].method == "unpaired"


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_runs_have_no_ratio_and_say_why(n):
    (found,) = compare(study(np.transpose([A, [*B[:n], *[NAN] * (5 - n)]])))
    assert found.ratio is found.ci95_low is found.p is found.method is None
    assert found.unavailable == f"ratio: it needs two runs of each, there are 5 and {n}"


def test_runs_that_do_not_differ_have_a_ratio_and_no_interval():
    (found,) = compare(study([[0.0, 0.1]] * 3))
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.ci95_low is found.p is None
    assert "repeats do not scatter" in found.unavailable


def test_holm_by_hand():
    found = holm(np.array([0.01, 0.04, NAN, 0.03, 0.005]))
    assert found.tolist()[:2] == pytest.approx([0.03, 0.06])
    assert found.tolist()[3:] == pytest.approx([0.06, 0.02])
    assert math.isnan(found[2])


def test_pairs_are_corrected_for_their_number():
    rng = np.random.default_rng(5)
    found = with_holm(compare(study(rng.normal(0, 0.01, (5, 4)))))
    assert len(found) == 6
    assert sum(each.p_holm for each in found) > sum(each.p for each in found)


def test_a_drift_within_cycles_moves_means_and_ratio_alike():
    order = np.array([[1.0, 2], [4, 3], [5, 6], [8, 7], [9, 10], [12, 11]])
    rng = np.random.default_rng(7)
    logs = rng.normal(0, 0.001, (6, 2)) + 0.01 * order
    (found,) = compare(study(logs, order=order))
    assert math.log(found.ratio) == pytest.approx(np.mean(logs[:, 1]) - np.mean(logs[:, 0]))


def decided(noise, difference, cycles, seed):
    rng = np.random.default_rng(seed)
    logs = rng.normal(0, noise, (cycles, 2)) + np.array([0.0, difference])
    (found,) = with_holm(compare(study(logs)))
    return found


def test_an_open_pair_says_how_many_cycles_would_decide_it():
    spread = 0.02 * np.array([-1.0, 1, -1, 1, 0])
    (found,) = with_holm(compare(study(np.transpose([np.zeros(5), 0.01 + spread]))))
    assert found.p_holm > SIGNIFICANCE_LEVEL
    # a difference of half a standard deviation: 34 pairs for 80 % power (Cohen 1988, table 2.4.1)
    assert found.cycles_to_decide == pytest.approx(34, abs=1)


def test_so_many_cycles_decide_it_in_most_studies():
    shown = [decided(0.01, 0.014, 11, seed).p_holm < SIGNIFICANCE_LEVEL for seed in range(300)]
    assert 0.72 <= np.mean(shown) <= 0.88  # 11 pairs have 80 % power here


@pytest.mark.parametrize(
    ("difference", "cycles"),
    [(0.5, 5), (0.0, 1)],
)
def test_a_decided_or_unknown_pair_names_no_cycles(difference, cycles):
    assert decided(0.01, difference, cycles, 1).cycles_to_decide is None


def test_a_difference_of_next_to_nothing_names_no_cycles():
    spread = 0.02 * np.array([-1.0, 1, -1, 1, 0])
    (found,) = with_holm(compare(study(np.transpose([np.zeros(5), 1e-5 + spread]))))
    assert found.p is not None
    assert found.cycles_to_decide is None


def test_many_pairs_take_more_cycles_to_decide():
    spread = 0.02 * np.array([-1.0, 1, -1, 1, 0])
    rest = np.random.default_rng(3).normal(0, 0.02, (5, 6))
    alone = np.column_stack([np.zeros(5), 0.01 + spread])
    (one,) = with_holm(compare(study(alone)))
    many = with_holm(compare(study(np.column_stack([alone, rest]))))
    assert many[0].cycles_to_decide > one.cycles_to_decide


def test_an_unpaired_open_pair_names_cycles_too():
    first_a_then_b = np.transpose([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    logs = np.transpose([A, np.add(A, [0.0, 0.03, 0.02, 0.03, -0.01])])
    (found,) = with_holm(compare(study(logs, order=first_a_then_b)))
    assert (found.method, found.p_holm > SIGNIFICANCE_LEVEL) == ("unpaired", True)
    assert found.cycles_to_decide > 5


def test_places_are_those_in_which_runs_really_began_on_their_machine():
    def row(experiment, cycle, started, host="x", value=1.0):
        return {
            "experiment": experiment,
            "cycle": cycle,
            "order": cycle,
            "started_at": f"2026-03-01T12:00:{started:02d}+00:00",
            "host": host,
            "m": value,
        }

    rows = [row("a", 1, 30), row("a", 2, 10), row("b", 1, 20, "y"), row("b", 2, 40, value=0.0)]
    data = make_blocks({"a": rows[:2], "b": rows[2:]}, rows, itemgetter("m"))
    assert data.cycles == (1, 2)
    assert data.host_order[:, 0].tolist() == [2, 1]
    assert data.host_order[0, 1] == 1
    assert np.isnan(data.logs[1, 1])


FIRST_A_THEN_B = np.arange(1.0, 17).reshape(2, 8).T


def test_an_unpaired_pair_is_as_unsure_as_means_of_cycles_that_follow_each_other():
    rising = np.array([0.0, 1, 2, 3, 4, 5, 6, 7]) / 100
    (found,) = compare(study(np.transpose([rising, rising + 0.1]), order=FIRST_A_THEN_B))
    welch = stats.ttest_ind(rising + 0.1, rising, equal_var=False).confidence_interval(0.95)
    width = math.log(found.ci95_high / found.ci95_low)
    widening = autocorrelation(rising.tolist()).widening
    assert found.method == "unpaired"
    assert widening > 1.5
    assert width == pytest.approx(widening * (welch.high - welch.low))


def test_whether_cycles_follow_each_other_is_a_matter_of_the_time_not_of_their_numbers():
    """A cycle that was made up for after a later one is the reason why a pair is unpaired."""
    rising = np.array([0.0, 1, 2, 3, 4, 5, 6, 7]) / 100
    in_time = compare(study(np.transpose([rising, rising + 0.1]), order=FIRST_A_THEN_B))
    numbered = [0, 7, 3, 1, 6, 2, 5, 4]
    logs, order = np.transpose([rising, rising + 0.1])[numbered], FIRST_A_THEN_B[numbered]
    assert compare(study(logs, order=order))[0].ci95_high == pytest.approx(in_time[0].ci95_high)


def test_equal_experiments_one_after_the_other_are_told_apart_less_often():
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(600):
        logs = rng.normal(0, 0.01, (20, 2))
        for row in range(1, 20):
            logs[row] = 0.6 * logs[row - 1] + 0.8 * logs[row]
        order = np.arange(1.0, 41).reshape(2, 20).T
        alarms += compare(study(logs, order=order))[0].p < 0.05
    assert alarms / 600 <= 0.13  # Welch alone: 0.30. What so few cycles show allows no less.
