"""Fronts: who is on them, how surely, and what is not known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.analysis.pareto import front, pareto

ENERGY, SPEED, LATENCY = "energy_per_output_token_j", "output_tokens_per_s", "request_latency_p50_s"


def runs(*pairs, objective=LATENCY):
    return [
        {"cycle": cycle, ENERGY: energy, objective: value}
        for cycle, (energy, value) in enumerate(pairs, start=1)
    ]


def places(used):
    return {point.experiment: point for point in pareto(used, [1])}


def test_the_front_and_who_beats_the_others():
    found = places(
        {
            "cheap": runs(*[(1.0, 9.0), (1.1, 9.1)] * 3),
            "quick": runs(*[(3.0, 1.0), (3.1, 1.1)] * 3),
            "worse": runs(*[(3.5, 9.5), (3.6, 9.6)] * 3),
        }
    )
    assert {name: point.on_front for name, point in found.items()} == {
        "cheap": True,
        "quick": True,
        "worse": False,
    }
    assert found["worse"].dominated_by == "cheap"
    assert found["cheap"].front_share == 1.0
    assert found["worse"].front_share == 0.0
    assert (found["cheap"].value, found["cheap"].direction) == (pytest.approx(9.05), "min")


def test_more_is_better_where_it_is():
    found = places(
        {
            "fast": runs((2.0, 100.0), (2.0, 101.0), objective=SPEED),
            "slow": runs((2.5, 50.0), (2.5, 51.0), objective=SPEED),
        }
    )
    assert (found["fast"].on_front, found["slow"].on_front) == (True, False)
    assert found["fast"].value == pytest.approx(100.5)


def test_a_close_call_is_on_the_front_in_part_of_the_draws():
    rng = np.random.default_rng(4)
    close = {
        name: runs(*[(level + rng.normal(0, 0.05), value) for _ in range(8)])
        for name, level, value in (("one", 1.0, 2.0), ("other", 1.01, 2.0 + 1e-6))
    }
    share = places(close)["other"].front_share
    assert 0.05 < share < 0.95
    assert share == places(close)["other"].front_share


def test_what_all_runs_of_a_cycle_share_does_not_make_a_front_uncertain():
    shared = (1.0, 3.0, 0.5, 2.0, 4.0)
    used = {
        "better": runs(*[(1.0 * s, 1.0 * s) for s in shared]),
        "worse": runs(*[(1.01 * s, 1.01 * s) for s in shared]),
    }
    assert places(used)["worse"].front_share == 0.0


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_few_cycles_have_a_front_and_no_share(cycles):
    found = places({"a": runs(*[(1.0, 1.0)] * cycles), "b": runs(*[(2.0, 2.0)] * cycles)})
    assert (found["a"].on_front, found["b"].on_front) == (True, False)
    assert found["a"].front_share is None
    assert found["a"].unavailable == "front_share: it needs 5 cycles"


def test_means_that_differ_by_the_order_of_a_sum_are_equal():
    scores = [0.1, 0.2, 0.3]
    assert scores[0] + scores[1] + scores[2] > scores[2] + scores[1] + scores[0]
    cheap = runs(*((1.0, score) for score in scores[::-1]), objective="quality_score")
    dear = runs(*((2.0, score) for score in scores), objective="quality_score")
    found = places({"cheap": cheap, "dear": dear})
    assert (found["cheap"].on_front, found["dear"].on_front) == (True, False)
    assert found["dear"].dominated_by == "cheap"


def test_a_real_difference_is_no_tie():
    found = places({"a": runs(*[(1.0, 0.3)] * 5), "b": runs(*[(1.0 + 1e-9, 0.3)] * 5)})
    assert (found["a"].on_front, found["b"].on_front) == (True, False)


def test_an_experiment_without_the_objective_says_so():
    found = places({"a": runs((1.0, 1.0), (1.0, 1.0)), "b": runs((1.0, None), (None, 1.0))})
    assert found["b"].on_front is None
    assert "not every run in the mean has both" in found["b"].unavailable


@pytest.mark.parametrize(("other", "on"), [("pytorch", True), ("vllm", None)])
def test_what_two_engines_take_of_memory_is_no_front(other, on):
    """One needs 2 GB, and the other takes all that it may before it is asked anything."""
    memory = "peak_memory_bytes"
    of = {"a": runs(*[(1.0, 2e9)] * 5, objective=memory)}
    of["b"] = runs(*[(0.9, 7e10)] * 5, objective=memory)
    backends = {"a": "pytorch", "b": other}
    found = places({name: [{**run, "backend": backends[name]} for run in of[name]] for name in of})
    assert (found["a"].on_front, found["b"].on_front) == (on, on)
    assert found["b"].value == 7e10
    assert ("engines take memory unlike" in (found["b"].unavailable or "")) == (on is None)


def test_an_engine_that_reports_no_memory_takes_no_front_from_the_others():
    memory = "peak_memory_bytes"
    of = {"a": [(1.0, 2e9)] * 5, "b": [(0.9, 3e9)] * 5, "c": [(0.8, None)] * 5}
    made = {name: runs(*each, objective=memory) for name, each in of.items()}
    backends = {"a": "pytorch", "b": "pytorch", "c": "openai"}
    found = places(
        {name: [{**run, "backend": backends[name]} for run in made[name]] for name in made}
    )
    assert [found[name].on_front for name in "abc"] == [True, True, None]
    assert "not every run" in found["c"].unavailable


def test_a_front_is_of_the_means_that_the_summary_has():
    """A score of one run of two is no mean of theirs: the summary has none, and no figure."""
    found = places({"a": runs((1.0, 0.5), (1.0, 0.5)), "b": runs((0.9, 0.9), (1.5, None))})
    assert found["b"].on_front is found["b"].energy_per_output_token_j is None
    assert "not every run" in found["b"].unavailable
    assert found["a"].on_front


def test_an_objective_that_nobody_has_is_passed_over():
    assert pareto({"a": runs((1.0, None))}, [1]) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_no_point_beats(points):
    energy, value = (np.array([[float(point[axis]) for point in points]]) for axis in (0, 1))
    expected = [
        not any(o[0] <= p[0] and o[1] <= p[1] and (o[0] < p[0] or o[1] < p[1]) for o in points)
        for p in points
    ]
    assert front(energy, value)[0].tolist() == expected


def drawn(seed, levels, cycles=6, noise=0.01):
    """Return experiments at levels of energy and latency, with noise in both."""
    rng = np.random.default_rng(seed)
    return {
        str(number): runs(*[level * np.exp(rng.normal(0, noise, 2)) for _ in range(cycles)])
        for number, level in enumerate(map(np.array, levels))
    }


def test_what_is_worse_in_both_is_beaten_and_a_trade_off_is_not():
    found = places(drawn(1, [(1.0, 1.0), (1.3, 1.3), (0.7, 1.4)]))
    assert found["1"].beaten_p_holm < 0.05
    assert found["0"].beaten_p_holm == found["2"].beaten_p_holm == 1.0


def test_equal_experiments_are_rarely_called_beaten():
    alarms = 0
    for seed in range(150):
        study = drawn(seed, [(1.0, 1.0)] * 12, cycles=4)
        for rows in study.values():
            for row in rows:
                row[LATENCY] = 0.3  # equal quality: energy alone decides
        alarms += any(point.beaten_p_holm < 0.05 for point in places(study).values())
    assert alarms / 150 <= 0.1


def test_equal_in_one_and_better_in_the_other_beats_and_equal_in_both_does_not():
    scattered = [1.0, 1.01, 0.99, 1.02, 1.0]
    found = places(
        {
            "a": runs(*((energy, 2.0) for energy in scattered)),
            "b": runs(*((1.1 * energy**2, 2.0) for energy in scattered)),
        }
    )
    assert found["a"].beaten_p_holm > 0.99
    assert found["b"].beaten_p_holm < 0.001
    same = places({"a": runs(*[(1.0, 2.0)] * 5), "b": runs(*[(1.0, 2.0)] * 5)})
    assert {point.beaten_p_holm for point in same.values()} == {1.0}


@pytest.mark.parametrize("values", [(2.0, 2.0), (2.0, 3.0)])
def test_energies_that_do_not_scatter_show_no_one_beaten(values):
    """As in a comparison: nothing says how sure they are."""
    found = places(
        {
            name: runs(*[(energy, value)] * 5)
            for name, energy, value in zip("ab", (1.0, 1.1), values, strict=True)
        }
    )
    assert [point.on_front for point in found.values()] == [True, False]
    assert {point.beaten_p_holm for point in found.values()} == {1.0}


def test_one_cycle_beats_no_one():
    found = places({"a": runs((1.0, 1.0)), "b": runs((2.0, 2.5))})
    assert found["b"].beaten_p_holm == 1.0


def test_an_experiment_without_the_objective_is_not_one_of_those_that_may_beat():
    used = {
        "a": runs((1.0, 1.0), (1.1, 1.2), (1.0, 1.1)),
        "b": runs((1.3, 1.5), (1.2, 1.2), (1.5, 1.4)),
    }
    lacking = runs((1.0, None), (1.0, 2.0), (1.0, 2.0))
    p_values = [places(of)["b"].beaten_p_holm for of in (used, {**used, "c": lacking})]
    assert 0 < p_values[0] < 0.5
    assert p_values[0] == p_values[1]


def test_an_experiment_that_has_no_others_with_the_objective_is_beaten_by_none():
    lacking = runs((1.0, None), (1.0, 2.0), (1.0, 2.0))
    found = places({"a": runs((1.0, 1.0), (1.1, 1.2), (1.0, 1.1)), "b": lacking})
    assert (found["a"].beaten_p_holm, found["b"].beaten_p_holm) == (1.0, None)
