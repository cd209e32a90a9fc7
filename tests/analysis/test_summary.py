"""The means of an experiment's runs, which runs are in them, and what the rest are counted as."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.studies import SWEPT, configs, row, summaries
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import METRICS, SUMMARY_SCHEMA, summarise
from llenergymeasure.config.dotted import value_at
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Clocks, Quality
from llenergymeasure.results.table import failed_row, rows_table
from results.synthetic import make_plan

TOKEN = "energy_per_output_token_j"
ENERGIES_J = [1000.0, 1020.0, 985.0, 1003.0, 998.0]


@pytest.fixture
def runs():
    return make_plan(configs(8), SWEPT, cycles=5)["runs"]


def test_means_and_intervals_are_those_of_scipy(runs):
    (found,) = summaries(row(run, energy_j=j) for run, j in zip(runs, ENERGIES_J, strict=True))
    per_token = [energy / 2000 for energy in ENERGIES_J]
    half_width = stats.t.ppf(0.975, 4) * stats.sem(np.log(per_token))
    low, high = (np.mean(per_token) * math.exp(sign * half_width) for sign in (-1, 1))
    assert found["n"] == 5
    assert found[f"{TOKEN}_mean"] == pytest.approx(np.mean(per_token))
    assert found[f"{TOKEN}_sd"] == pytest.approx(stats.tstd(per_token))
    assert found[f"{TOKEN}_ci95_low"] == pytest.approx(low)
    assert found[f"{TOKEN}_ci95_high"] == pytest.approx(high)
    assert found["energy_per_request_j_mean"] == pytest.approx(100 * np.mean(per_token))
    assert found["energy_per_request_j_ci95_high"] == pytest.approx(100 * high)
    assert found["output_tokens_per_request_mean"] == 100
    assert found["power_mean_w_mean"] == pytest.approx(np.mean(ENERGIES_J) / 20)
    assert found["energy_u_sys_rel"] == pytest.approx(0.05)
    assert found["energy_u95_rel"] == pytest.approx(0.01)


def test_one_run_has_a_mean_and_no_interval_and_says_why(runs):
    (found,) = summaries([row(runs[0])])
    assert (found["n"], found[f"{TOKEN}_mean"]) == (1, 0.5)
    for metric in METRICS:
        for part in ("sd", "ci95_low", "ci95_high"):
            assert found[f"{metric}_{part}"] is None
    assert found[f"{TOKEN}_total95_low"] is found["interval_method"] is None
    assert found["interval_unavailable"] == "one run has no spread to compute an interval from"


ESTIMATED = {"energy_j": 50.0, "kind": "estimated", "source": "codecarbon"}
ODD = {"energy_j": 9000.0, "validity": ["other_process", "throttled"]}
MARKED = {"validity": ["not_comparable", "throttled"]}  # the first is one of an older version


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(
            [{}, {}, {}, ODD, MARKED],
            {
                "n": 4,
                "n_disqualified": 1,
                "n_planned": 5,
                "validity": ["not_comparable", "other_process", "throttled"],
            },
            id="disqualified",
        ),
        pytest.param(
            [{"validity": ["sample_gap"]}] * 5,
            {"n": 0, "n_disqualified": 5, f"{TOKEN}_mean": None, "kind": "measured"},
            id="every one disqualified",
        ),
        pytest.param(
            [{}, {}, *[ESTIMATED] * 3],
            {"n": 2, "n_other_meter": 3, "kind": "measured"},
            id="estimated",
        ),
        pytest.param(
            [{"energy_j": 50.0, "source": "zeus"}, *[{}] * 4],
            {"n": 4, "n_other_meter": 1, "energy_source": "nvml"},
            id="another sensor",
        ),
        pytest.param([{}, {"energy_j": None}], {"n": 1, "n_other_meter": 1}, id="no energy"),
        pytest.param(
            [{"energy_j": None}] * 5,
            {"n": 5, "kind": None, f"{TOKEN}_mean": None, "output_tokens_per_s_mean": 100.0},
            id="no energy in any",
        ),
    ],
)
def test_runs_that_have_no_mean_with_the_others_are_counted_and_left_out(runs, made, expected):
    (found,) = summaries(row(run, **how) for run, how in zip(runs, made, strict=False))
    expected = {f"{TOKEN}_mean": pytest.approx(0.5), **expected}
    assert {name: found[name] for name in expected} == expected


def test_failed_and_pending_runs_are_counted_apart(runs):
    rows = [row(runs[0]), row(runs[1])]
    for run, status in zip(runs[2:], ["failed", "lost"], strict=False):
        rows.append({**failed_row(run, Outcome(status=status), {}), "pytorch.batch_size": 8})
    rows.append({**failed_row(runs[4], None, {}), "pytorch.batch_size": 8})
    (found,) = summaries(rows)
    assert (found["n"], found["n_failed"], found["n_pending"]) == (2, 2, 1)


def test_metric_that_some_runs_lack_is_null(runs):
    first_s = "time_to_first_token_p50_s"
    known = [{**row(run), first_s: 0.1 + 0.01 * run["cycle"]} for run in runs]
    (found,) = summaries(known)
    assert found[f"{first_s}_mean"] == pytest.approx(0.13)
    (found,) = summaries([*known[:-1], {**known[-1], first_s: None}])
    assert (found["n"], found[f"{first_s}_mean"]) == (5, None)


LIMITS = [{"model": "tiny-llama", "gpu": {"power_limit_w": 300}}, {"model": "tiny-llama"}]
ABLATED = ("a", "b", "c")
ABLATION = [*({"passthrough_kwargs": {name: 1}} for name in ABLATED), {}]


@pytest.mark.parametrize(
    ("experiments", "swept", "labels"),
    [
        (configs(1, 8), SWEPT, ["batch_size=1", "batch_size=8"]),
        (configs(8), SWEPT, ["tiny-llama"]),
        (LIMITS, ["gpu.power_limit_w"], ["power_limit_w=300", "power_limit_w not set"]),
        (
            [{"model": "tiny-llama", **each} for each in ABLATION],
            [f"passthrough_kwargs.{name}" for name in ABLATED],
            ["a=1", "b=1", "c=1", "tiny-llama"],
        ),
    ],
    ids=["a setting", "one experiment", "a setting that one lacks", "an ablation of many"],
)
def test_a_label_names_what_differs(experiments, swept, labels):
    found = summaries(row(run, swept) for run in make_plan(experiments, swept)["runs"])
    assert [each["label"] for each in found] == labels
    for name in swept:
        assert [each[name] for each in found] == [value_at(each, name) for each in experiments]


def test_labels_never_coincide():
    plan = make_plan(configs(1, 8), [], cycles=1)
    found = summaries(row(run, []) for run in plan["runs"])
    assert len({item["label"] for item in found}) == 2
    assert all(item["experiment"] in item["label"] for item in found)


def test_swept_n_does_not_take_the_name_of_the_count():
    config = {"model": "tiny-llama", "precision": "bf16", "n": 64}
    plan = make_plan([config], ["n"], cycles=2)
    found = summarise(StudyRuns(rows_table([row(run, swept=["n"]) for run in plan["runs"]])))
    assert found["n"].to_pylist() == [2]
    assert found["setting.n"].to_pylist() == [64]


def test_no_runs_give_an_empty_table_of_the_same_columns():
    assert summarise(StudyRuns(rows_table([]))).column_names == SUMMARY_SCHEMA.names


def test_what_repeats_share_goes_into_the_total_interval_undiminished(runs):
    rows = [row(run, energy_j=100.0 + run["cycle"]) for run in runs]
    plain = summaries(rows)[0]
    for each in rows:
        each["energy_shared_u95_j"] = 0.3 * each["energy_gross_j"]
        each["energy_u95_j"] = 0.31 * each["energy_gross_j"]
    found = summaries(rows)[0]
    mean = found["energy_per_output_token_j_mean"]
    half = (found["energy_per_output_token_j_total95_high"] - mean) / mean
    assert half >= 0.3
    assert half < 0.32
    # It is no scatter between cycles, so it does not stand among the parts of that.
    assert found["energy_within_sd_rel"] == pytest.approx((0.31**2 - 0.3**2) ** 0.5 / 1.96)
    assert plain["energy_per_output_token_j_total95_high"] < mean * 1.1


@pytest.mark.parametrize("old", [0, 2, 5])
def test_of_runs_that_do_not_know_all_that_they_share_it_is_all_of_their_interval(runs, old):
    """Before method 5 what is smeared over the ends, 3.5 % here, was chance by their records."""
    rows = [row(run, energy_j=100.0 + 0.01 * run["cycle"]) for run in runs]
    for number, each in enumerate(rows):
        by_old = number < old
        each["energy_method"] = [4, None][number % 2] if by_old else 5
        each["energy_u_sys_j"] = 0.0
        each["energy_u95_j"] = 0.035 * each["energy_gross_j"]
        each["energy_shared_u95_j"] = (0.001 if by_old else 0.0349) * each["energy_gross_j"]
    found = summaries(rows)[0]
    assert found["energy_shared_u95_rel"] == pytest.approx(0.035, rel=0.01)
    low = found["energy_per_output_token_j_total95_low"]
    assert low < (1 - 0.0333) * found["energy_per_output_token_j_mean"]
    # What a record takes for the meter's own scatter stays so.
    shared = (old * 0.001**2 + (5 - old) * 0.0349**2) / 5
    within = (0.035**2 - shared) ** 0.5 / 1.96
    assert found["energy_within_sd_rel"] == pytest.approx(within, rel=1e-6)


@pytest.mark.parametrize(("method", "shared"), [(5, 0.1), (6, 0.01)])
def test_what_zeus_shared_is_known_since_method_6_of_the_runs_that_have_it(runs, method, shared):
    rows = [row(run, source="zeus", provenance={"energy_method": method}) for run in runs]
    for each in rows:
        each["energy_u95_j"] = 0.1 * each["energy_gross_j"]
        each["energy_shared_u95_j"] = 0.01 * each["energy_gross_j"]
    rows[0]["energy_shared_u95_j"] = None
    assert summaries(rows)[0]["energy_shared_u95_rel"] == pytest.approx(shared)


def test_the_clocks_of_all_runs_are_told(runs):
    rows = [row(runs[3], clocks=None)]
    states = [(1500, 0.5, ["sw_power_cap"]), (1900, 0.0, []), (1950, 0.1, ["hw_slowdown"])]
    for run, (low, share, reasons) in zip(runs, states, strict=False):
        ends = {"sm_clock_min_mhz": low, "sm_clock_median_mhz": low + 30, "sm_clock_max_mhz": 1980}
        rows.append(row(run, clocks=Clocks(**ends, slowed_share=share, slowed_by=reasons)))
    (found,) = summaries(rows)
    expected = {
        "sm_clock_min_mhz": 1500,
        "sm_clock_max_mhz": 1980,
        "sm_clock_median_mhz": 1930,
        "slowed_share": pytest.approx(0.2),
        "slowed_by": ["hw_slowdown", "sw_power_cap"],
        "memory_clock_median_mhz": None,
    }
    assert {name: found[name] for name in expected} == expected


def judged(run, energy_j, **quality):
    return row(run, energy_j=energy_j, quality=Quality(**quality))


def test_energy_of_a_right_answer_is_that_of_a_request_over_the_share_that_is_right(runs):
    score = {"score": 0.75, "correct": 30, "items": 40}
    rows = [judged(run, j, **score) for run, j in zip(runs, ENERGIES_J, strict=True)]
    (found,) = summaries(rows)
    request_j = found["energy_per_request_j_mean"]
    assert found["energy_per_correct_j_mean"] == pytest.approx(request_j / 0.75)
    # Equal scores of five cycles are the same 40 questions five times, and as uncertain as one.
    assert found["energy_per_correct_j_ci95_high"] > found["energy_per_correct_j_mean"] * 1.15
    assert found["energy_per_correct_j_ci95_low"] < found["energy_per_correct_j_mean"] * 0.93
    # 30 of 40: Wilson's interval, by hand.
    assert found["quality_score_ci95_low"] == pytest.approx(0.5981, abs=1e-4)
    assert found["quality_score_ci95_high"] == pytest.approx(0.8581, abs=1e-4)
    (bare,) = summaries([judged(run, 1000.0, score=0.75) for run in runs])
    assert bare["energy_per_correct_j_mean"] is None
    assert "how many answers were right" in bare["energy_per_correct_j_unavailable"]
    (none,) = summaries([judged(run, 1000.0, score=0.0, correct=0, items=40) for run in runs])
    assert none["energy_per_correct_j_unavailable"] == "no answer was right"
    (unasked,) = summaries([row(run) for run in runs])
    assert unasked["energy_per_correct_j_unavailable"] is None


def test_a_share_of_unlike_many_questions_is_the_mean_score_everywhere(runs):
    """A command may judge 100 answers in one cycle and 10,000 in another."""
    asked = [(100, 100), (10_000, 5000)]
    (found,) = summaries(
        [
            judged(run, 1000.0, score=correct / items, correct=correct, items=items)
            for run, (items, correct) in zip(runs, asked, strict=False)
        ]
    )
    share = found["quality_score_mean"]
    assert share == pytest.approx(0.75)
    assert found["quality_score_ci95_low"] < share < found["quality_score_ci95_high"]
    request_j = found["energy_per_request_j_mean"]
    assert found["energy_per_correct_j_mean"] == pytest.approx(request_j / share)


def study_of_draws(rng, plan, *, anew):
    """Return the summary of five cycles in which 12 prompts are answered.

    An answer's length is geometric, of a mean of its prompt's own, and it costs 2 J a token and 5 J
    besides; the meter is off by 0.2 %.
    """
    means = np.linspace(50, 150, 12)
    drawn = rng.geometric(1 / means, (5, 12)) if anew else [rng.geometric(1 / means)] * 5
    rows = []
    for run, lengths in zip(plan["runs"], drawn, strict=True):
        energy_j = (5 * 12 + 2 * lengths.sum()) * rng.normal(1, 0.002)
        found = row(run, output_tokens=int(lengths.sum()), energy_j=energy_j)
        rows.append({**found, "requests": 12, "energy_per_request_j": energy_j / 12})
    return summaries(rows)[0]


@pytest.mark.parametrize(
    ("anew", "least", "most"),
    [(True, 0.885, 1), (False, 0, 0.2)],
    ids=["other answers in each cycle", "the very same answers: the meter's noise alone"],
)
def test_the_interval_of_joules_an_answer_holds_the_spread_of_lengths(anew, least, most):
    rng, plan = np.random.default_rng(25), make_plan(configs(8), SWEPT, cycles=5)
    found = [study_of_draws(rng, plan, anew=anew) for _ in range(100)]
    name, true_j = "energy_per_request_j_ci95", 5 + 2 * 100
    held = np.mean([each[f"{name}_low"] <= true_j <= each[f"{name}_high"] for each in found])
    assert least <= held <= most  # 0.95, less three standard errors of 100 studies
