import math

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import METRICS, SUMMARY_SCHEMA, summarise
from llenergymeasure.config.dotted import value_at
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Clocks, Quality
from llenergymeasure.results.table import failed_row, rows_table, run_row
from results.synthetic import make_plan, make_result

SWEPT = ["pytorch.batch_size"]


def configs(*sizes):
    return [
        {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}}
        for size in sizes
    ]


def row(run, swept=SWEPT, **settings):
    values = {key: value_at(run["config"], key) for key in swept}
    return run_row(make_result(run, **settings), values)


def summary_of(rows):
    return summarise(StudyRuns(rows_table(rows))).to_pylist()


@pytest.fixture
def runs():
    return make_plan(configs(8), SWEPT, cycles=5)["runs"]


def test_means_and_intervals_are_those_of_scipy(runs):
    energies = [1000.0, 1020.0, 985.0, 1003.0, 998.0]
    (found,) = summary_of([row(run, energy_j=j) for run, j in zip(runs, energies, strict=True)])
    per_token = [energy / 2000 for energy in energies]
    half_width = stats.t.ppf(0.975, 4) * stats.sem([math.log(value) for value in per_token])
    low, high = (sum(per_token) / 5 * math.exp(sign * half_width) for sign in (-1, 1))
    assert found["n"] == 5
    assert found["energy_per_output_token_j_mean"] == pytest.approx(sum(per_token) / 5)
    assert found["energy_per_output_token_j_sd"] == pytest.approx(stats.tstd(per_token))
    assert found["energy_per_output_token_j_ci95_low"] == pytest.approx(low)
    assert found["energy_per_output_token_j_ci95_high"] == pytest.approx(high)
    assert found["energy_per_request_j_mean"] == pytest.approx(100 * sum(per_token) / 5)
    assert found["power_mean_w_mean"] == pytest.approx(sum(energies) / 5 / 20)
    assert found["energy_u_sys_rel"] == pytest.approx(0.05)
    assert found["energy_u95_rel"] == pytest.approx(0.01)


def test_one_run_has_a_mean_and_no_interval(runs):
    (found,) = summary_of([row(runs[0])])
    assert found["n"] == 1
    for metric in METRICS:
        assert found[f"{metric}_sd"] is None
        assert found[f"{metric}_ci95_low"] is None
        assert found[f"{metric}_ci95_high"] is None
    assert found["energy_per_output_token_j_mean"] == 0.5


def test_disqualified_runs_are_counted_and_left_out(runs):
    rows = [row(run) for run in runs[:3]]
    rows.append(row(runs[3], energy_j=9000.0, validity=["other_process", "throttled"]))
    rows.append(row(runs[4], energy_j=1000.0, validity=["throttled"]))
    (found,) = summary_of(rows)
    assert (found["n"], found["n_disqualified"], found["n_planned"]) == (4, 1, 5)
    assert found["energy_per_output_token_j_mean"] == pytest.approx(0.5)
    assert found["validity"] == ["other_process", "throttled"]


def test_experiment_whose_every_run_is_disqualified_has_no_mean(runs):
    (found,) = summary_of([row(run, validity=["sample_gap"]) for run in runs])
    assert (found["n"], found["n_disqualified"]) == (0, 5)
    assert found["energy_per_output_token_j_mean"] is None
    assert found["kind"] == "measured"


def test_failed_and_pending_runs_are_counted_apart(runs):
    rows = [row(runs[0]), row(runs[1])]
    for run, status in zip(runs[2:], ["failed", "lost"], strict=False):
        rows.append({**failed_row(run, Outcome(status=status), {}), "pytorch.batch_size": 8})
    rows.append({**failed_row(runs[4], None, {}), "pytorch.batch_size": 8})
    (found,) = summary_of(rows)
    assert (found["n"], found["n_failed"], found["n_pending"]) == (2, 2, 1)


def test_measured_and_estimated_never_meet_in_a_mean(runs):
    rows = [row(run, energy_j=1000.0) for run in runs[:2]]
    rows += [row(run, energy_j=50.0, kind="estimated", source="codecarbon") for run in runs[2:]]
    (found,) = summary_of(rows)
    assert found["kind"] == "measured"
    assert (found["n"], found["n_other_meter"]) == (2, 3)
    assert found["energy_per_output_token_j_mean"] == pytest.approx(0.5)


def test_sensors_and_scopes_do_not_mix_either(runs):
    rows = [row(runs[0], energy_j=50.0, source="zeus")]
    rows += [row(run, energy_j=1000.0) for run in runs[1:]]
    (found,) = summary_of(rows)
    assert (found["energy_source"], found["n"], found["n_other_meter"]) == ("nvml", 4, 1)
    assert found["energy_per_output_token_j_mean"] == pytest.approx(0.5)


def test_run_without_energy_is_not_averaged_with_others(runs):
    (found,) = summary_of([row(runs[0]), row(runs[1], energy_j=None)])
    assert (found["n"], found["n_other_meter"]) == (1, 1)


def test_speed_is_told_where_no_energy_was_seen(runs):
    (found,) = summary_of([row(run, energy_j=None) for run in runs])
    assert found["n"] == 5
    assert found["kind"] is None
    assert found["energy_per_output_token_j_mean"] is None
    assert found["output_tokens_per_s_mean"] == 100.0


def test_metric_that_some_runs_lack_is_null(runs):
    first_s = "time_to_first_token_p50_s"
    known = [{**row(run), first_s: 0.1 + 0.01 * run["cycle"]} for run in runs]
    (found,) = summary_of(known)
    assert found[f"{first_s}_mean"] == pytest.approx(0.13)
    (found,) = summary_of([*known[:-1], {**known[-1], first_s: None}])
    assert (found["n"], found[f"{first_s}_mean"]) == (5, None)


def test_label_names_what_differs():
    plan = make_plan(configs(1, 8), SWEPT, cycles=1)
    found = summary_of([row(run) for run in plan["runs"]])
    assert [item["label"] for item in found] == ["batch_size=1", "batch_size=8"]
    assert [item["pytorch.batch_size"] for item in found] == [1, 8]


def test_label_of_a_single_experiment_is_its_model(runs):
    (found,) = summary_of([row(run) for run in runs])
    assert found["label"] == "tiny-llama"


def test_labels_never_coincide():
    plan = make_plan(configs(1, 8), [], cycles=1)
    found = summary_of([row(run, swept=[]) for run in plan["runs"]])
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
    plain = summary_of(rows)[0]
    for each in rows:
        each["energy_shared_u95_j"] = 0.3 * each["energy_gross_j"]
        each["energy_u95_j"] = 0.31 * each["energy_gross_j"]
    found = summary_of(rows)[0]
    mean = found["energy_per_output_token_j_mean"]
    half = (found["energy_per_output_token_j_total95_high"] - mean) / mean
    assert half >= 0.3
    assert half < 0.32
    # It is no scatter between cycles, so it does not stand among the parts of that.
    assert found["energy_within_sd_rel"] == pytest.approx((0.31**2 - 0.3**2) ** 0.5 / 1.96)
    assert plain["energy_per_output_token_j_total95_high"] < mean * 1.1


def test_what_repeats_share_is_that_of_the_runs_that_know_it(runs):
    rows = [row(run) for run in runs]
    for each in rows:
        each["energy_shared_u95_j"] = 0.3 * each["energy_gross_j"]
    rows[0]["energy_shared_u95_j"] = None
    assert summary_of(rows)[0]["energy_shared_u95_rel"] == pytest.approx(0.3)


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
    found = summary_of(rows)[0]
    assert found["energy_shared_u95_rel"] == pytest.approx(0.035, rel=0.01)
    low = found["energy_per_output_token_j_total95_low"]
    assert low < (1 - 0.0333) * found["energy_per_output_token_j_mean"]
    # What a record takes for the meter's own scatter stays so.
    shared = (old * 0.001**2 + (5 - old) * 0.0349**2) / 5
    within = (0.035**2 - shared) ** 0.5 / 1.96
    assert found["energy_within_sd_rel"] == pytest.approx(within, rel=1e-6)


@pytest.mark.parametrize("method", [5, 6])
def test_what_zeus_shared_is_known_since_method_6(runs, method):
    rows = [row(run, source="zeus", provenance={"energy_method": method}) for run in runs]
    for each in rows:
        each["energy_u95_j"] = 0.1 * each["energy_gross_j"]
        each["energy_shared_u95_j"] = 0.01 * each["energy_gross_j"]
    shared = 0.1 if method == 5 else 0.01
    assert summary_of(rows)[0]["energy_shared_u95_rel"] == pytest.approx(shared)


def test_the_clocks_of_all_runs_are_told(runs):
    def clocks(low, share, *reasons):
        return Clocks(
            sm_clock_median_mhz=low + 30,
            sm_clock_min_mhz=low,
            sm_clock_max_mhz=1980,
            slowed_share=share,
            slowed_by=reasons,
        )

    states = [
        clocks(1500, 0.5, "sw_power_cap"),
        clocks(1900, 0.0),
        clocks(1950, 0.1, "hw_slowdown"),
    ]
    rows = [row(run, clocks=each) for run, each in zip(runs[:3], states, strict=True)]
    (found,) = summary_of([*rows, row(runs[3], clocks=None)])
    assert found["sm_clock_min_mhz"] == 1500
    assert found["sm_clock_max_mhz"] == 1980
    assert found["sm_clock_median_mhz"] == 1930
    assert found["slowed_share"] == pytest.approx(0.2)
    assert found["slowed_by"] == ["hw_slowdown", "sw_power_cap"]
    assert found["memory_clock_median_mhz"] is None


def judged(run, energy_j, **quality):
    return row(run, energy_j=energy_j, quality=Quality(**quality))


def test_energy_of_a_right_answer_is_that_of_a_request_over_the_share_that_is_right(runs):
    energies = [1000.0, 1020.0, 985.0, 1003.0, 998.0]
    score = {"score": 0.75, "correct": 30, "items": 40}
    rows = [judged(run, j, **score) for run, j in zip(runs, energies, strict=True)]
    (found,) = summary_of(rows)
    request_j = found["energy_per_request_j_mean"]
    assert found["energy_per_correct_j_mean"] == pytest.approx(request_j / 0.75)
    # Equal scores of five cycles are the same 40 questions five times, and as uncertain as one.
    assert found["energy_per_correct_j_ci95_high"] > found["energy_per_correct_j_mean"] * 1.15
    assert found["energy_per_correct_j_ci95_low"] < found["energy_per_correct_j_mean"] * 0.93
    # 30 of 40: Wilson's interval, by hand.
    assert found["quality_score_ci95_low"] == pytest.approx(0.5981, abs=1e-4)
    assert found["quality_score_ci95_high"] == pytest.approx(0.8581, abs=1e-4)
    (bare,) = summary_of([judged(run, 1000.0, score=0.75) for run in runs])
    assert bare["energy_per_correct_j_mean"] is None
    assert "how many answers were right" in bare["energy_per_correct_j_unavailable"]
    (none,) = summary_of([judged(run, 1000.0, score=0.0, correct=0, items=40) for run in runs])
    assert none["energy_per_correct_j_unavailable"] == "no answer was right"
    (unasked,) = summary_of([row(run) for run in runs])
    assert unasked["energy_per_correct_j_unavailable"] is None


def test_a_share_of_unlike_many_questions_is_the_mean_score_everywhere(runs):
    """A command may judge 100 answers in one cycle and 10,000 in another."""
    asked = [(100, 100), (10_000, 5000)]
    (found,) = summary_of(
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


def test_answers_have_their_mean_length_and_its_interval(runs):
    rows = [
        row(run, output_tokens=n)
        for run, n in zip(runs, [2000, 2100, 1950, 2050, 2000], strict=True)
    ]
    for each in rows:
        each["requests"] = 20
        each["output_tokens_per_request"] = each["output_tokens"] / 20
    (found,) = summary_of(rows)
    assert found["output_tokens_per_request_mean"] == pytest.approx(101)
    assert found["output_tokens_per_request_ci95_low"] < 101


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
    return summary_of(rows)[0]


def test_the_interval_of_joules_an_answer_holds_the_spread_of_lengths():
    rng, plan = np.random.default_rng(25), make_plan(configs(8), SWEPT, cycles=5)
    true_j = 5 + 2 * 100

    def coverage(*, anew):
        found = [study_of_draws(rng, plan, anew=anew) for _ in range(150)]
        name = "energy_per_request_j_ci95"
        return np.mean([each[f"{name}_low"] <= true_j <= each[f"{name}_high"] for each in found])

    assert coverage(anew=True) >= 0.9  # 0.95, less three standard errors of 150 studies
    # The very same answers in each cycle: an interval of the meter's noise alone.
    assert coverage(anew=False) < 0.2


def test_an_experiment_without_the_setting_that_varies_is_not_named_by_the_model():
    limits = ({"gpu": {"power_limit_w": 300}}, {})
    swept = ["gpu.power_limit_w"]
    runs = make_plan([{"model": "tiny-llama", **each} for each in limits], swept)["runs"]
    found = summary_of([row(run, swept) for run in runs])
    assert [item["label"] for item in found] == ["power_limit_w=300", "power_limit_w not set"]


def test_the_base_of_an_ablation_of_many_settings_is_named_by_the_model():
    names = [f"passthrough_kwargs.setting_{number}" for number in range(3)]
    changes = [{name.rpartition(".")[2]: 1} for name in names]
    configs = [{"passthrough_kwargs": each} for each in changes]
    runs = make_plan([{"model": "tiny-llama", **each} for each in (*configs, {})], names)["runs"]
    found = summary_of([row(run, names) for run in runs])
    assert [item["label"] for item in found][-2:] == ["setting_2=1", "tiny-llama"]
