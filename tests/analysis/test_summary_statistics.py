"""What stands beside an experiment's mean, and what is kept out of it."""

import math

import pyarrow as pa
import pytest
from scipy import stats

from llenergymeasure.analysis.relations import experiment_labels, relate
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import summarise
from llenergymeasure.config.dotted import value_at
from llenergymeasure.results.table import rows_table, run_row
from results.synthetic import GPU, make_plan, make_result

SWEPT = ["pytorch.batch_size"]
TOKEN = "energy_per_output_token_j"
VALUES = [1000.0, 1010.0, 995.0, 1003.0, 998.0, 1006.0]


def machine(name="NVIDIA H200", driver="570.1", limit=700.0, engine="5.0"):
    gpu = {"uuid": GPU, "name": name, "driver": driver, "power_limit_w": limit}
    return {"host": "node-1", "gpus": [gpu], "engine": {"versions": {"transformers": engine}}}


def provenance(commit):
    return {"workload": {"model_commit": commit}}


def rows(values, sizes=(8,), **settings):
    configs = [{"model": "tiny-llama", "pytorch": {"batch_size": size}} for size in sizes]
    plan = make_plan(configs, SWEPT, cycles=len(values))
    found = []
    for run in plan["runs"]:
        each = settings.get("by_cycle", {}).get(run["cycle"], {})
        result = make_result(run, energy_j=values[run["cycle"] - 1], **each)
        found.append(run_row(result, {key: value_at(run["config"], key) for key in SWEPT}))
    return rows_table(found)


def summary(values, plan=None, **settings):
    (row,) = summarise(StudyRuns(rows(values, **settings), plan)).to_pylist()
    return row


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"name": "NVIDIA A100"}, "gpu_name: NVIDIA H200 in the mean, not NVIDIA A100"),
        ({"driver": "560.2"}, "driver_version: 570.1 in the mean, not 560.2"),
        ({"limit": 500.0}, "power_limit_w: 700.0 in the mean, not 500.0"),
        ({"engine": "4.9"}, "engine_version: transformers 5.0 in the mean, not transformers 4.9"),
    ],
)
def test_another_machine_is_not_averaged_silently(other, told):
    by_cycle = {cycle: {"environment": machine()} for cycle in range(1, 6)}
    by_cycle[6] = {"environment": machine(**other)}
    found = summary([*VALUES[:5], 5000.0], by_cycle=by_cycle)
    assert (found["n"], found["n_other_machine"]) == (5, 1)
    assert found["differs"] == [told]
    assert found[f"{TOKEN}_mean"] == pytest.approx(sum(VALUES[:5]) / 5 / 2000)


def test_another_commit_of_the_model_is_not_averaged_silently():
    by_cycle = {cycle: {"provenance": provenance("1" * 40)} for cycle in range(1, 6)}
    by_cycle[6] = {"provenance": provenance("2" * 40)}
    found = summary([*VALUES[:5], 5000.0], by_cycle=by_cycle)
    assert (found["n"], found["n_other_machine"]) == (5, 1)
    assert found["differs"] == [f"model_commit: {'1' * 40} in the mean, not {'2' * 40}"]


@pytest.mark.parametrize(("names", "is_named"), [(("one", "one"), True), (("one", "two"), False)])
def test_a_pair_says_that_its_model_has_two_commits(names, is_named):
    sizes = (4, 8)
    configs = [
        {"model": name, "pytorch": {"batch_size": size}}
        for name, size in zip(names, sizes, strict=True)
    ]
    commits = dict(zip(sizes, ("1" * 40, "2" * 40), strict=True))
    found = []
    for run in make_plan(configs, [])["runs"]:
        commit = commits[run["config"]["pytorch"]["batch_size"]]
        found.append(run_row(make_result(run, provenance=provenance(commit)), {}))
    study = StudyRuns(rows_table(found))
    pairs = relate(study, {row["experiment"]: "" for row in found})["comparisons"].to_pylist()
    assert {"model_commit" in pair["differs"] for pair in pairs} == {is_named}


def test_a_run_of_unknown_driver_does_not_join_those_of_two_drivers():
    drivers = {1: None, 2: "570.1", 3: "560.2"}
    by_cycle = {
        cycle: {"environment": machine(driver=drivers.get(cycle, "570.1"))} for cycle in range(1, 7)
    }
    found = summary(VALUES, by_cycle=by_cycle)
    assert (found["n"], found["n_other_machine"]) == (5, 1)
    assert found["differs"] == ["driver_version: 570.1 in the mean, not 560.2"]


def test_what_an_older_record_does_not_tell_is_no_difference():
    found = summary(VALUES, by_cycle={1: {"environment": {"host": "node-1", "gpus": []}}})
    assert (found["n"], found["n_other_machine"], found["differs"]) == (6, 0, [])


def test_the_sensors_gain_is_added_in_quadrature():
    found = summary(VALUES)
    mean, low, high = (found[f"{TOKEN}_{part}"] for part in ("mean", "ci95_low", "ci95_high"))
    up = math.hypot(math.log(high / mean), math.log(1.05))
    down = math.hypot(math.log(mean / low), math.log(1 / 0.95))
    assert found[f"{TOKEN}_total95_high"] == pytest.approx(mean * math.exp(up))
    assert found[f"{TOKEN}_total95_low"] == pytest.approx(mean * math.exp(-down))


@pytest.mark.parametrize("band", [0.05, 0.5, 0.99, 1.0, 3.0])
def test_the_total_interval_holds_each_part_and_ends_at_zero(band):
    table = rows(VALUES).to_pylist()
    for each in table:
        each["energy_u_sys_j"] = band * each["energy_gross_j"]
    (found,) = summarise(StudyRuns(rows_table(table))).to_pylist()
    mean = found[f"{TOKEN}_mean"]
    assert found[f"{TOKEN}_total95_high"] >= mean * (1 + band)
    assert 0 <= found[f"{TOKEN}_total95_low"] <= max(mean * (1 - band), 0)


def test_cycles_that_follow_each_other_are_told():
    rising = summary([1000.0 + 10 * cycle for cycle in range(8)])
    assert rising["cycles_correlated"] is True
    assert rising["cycles_lag1"] == pytest.approx(0.625, abs=0.01)
    swinging = summary([1000.0 + 10 * (-1) ** cycle for cycle in range(8)])
    assert swinging["cycles_correlated"] is False
    few = summary(VALUES[:3])
    assert (few["cycles_correlated"], few["cycles_lag1"] is None) == (None, False)


def test_cycles_are_ordered_by_when_they_began():
    values = [1000.0, 1040.0, 1010.0, 1050.0, 1020.0, 1060.0, 1030.0, 1070.0]
    table = rows(values).to_pylist()
    in_time = sorted(range(8), key=lambda place: values[place])
    for began, place in enumerate(in_time):
        table[place]["started_at"] = f"2026-03-01T12:{began:02d}:00+00:00"
    (found,) = summarise(StudyRuns(rows_table(table))).to_pylist()
    assert found["cycles_correlated"] is True


def test_the_spread_is_parted_into_the_meters_and_the_cycles():
    found = summary(VALUES)
    within, between = found["energy_within_sd_rel"], found["energy_between_sd_rel"]
    assert within == pytest.approx(0.01 / 1.96)
    total = found[f"{TOKEN}_sd"] / found[f"{TOKEN}_mean"]
    assert between == pytest.approx(math.sqrt(max(total**2 - within**2, 0)))


def test_a_run_that_the_meter_knows_badly_counts_by_its_square():
    """One of five intervals is ten times as wide: the runs scatter by the root of 104/5."""
    table = rows(VALUES[:5]).to_pylist()
    for number, each in enumerate(table):
        each["energy_u95_j"] = (10 if number == 2 else 1) * 0.0196 * each["energy_gross_j"]
        each["energy_shared_u95_j"] = None
    (found,) = summarise(StudyRuns(rows_table(table))).to_pylist()
    assert found["energy_within_sd_rel"] == pytest.approx(0.01 * math.sqrt(104 / 5))


def test_an_outlier_is_named_and_stays_in_the_mean():
    values = [*VALUES[:5], 2000.0]
    found = summary(values)
    assert found["outlier_cycles"] == [6]
    assert found[f"{TOKEN}_mean"] == pytest.approx(sum(values) / 6 / 2000)
    assert found[f"{TOKEN}_median"] == pytest.approx((1000 + 1003) / 2 / 2000, rel=2e-3)


def test_one_run_says_why_it_has_no_interval():
    found = summary(VALUES[:1])
    assert found["interval_unavailable"] == "one run has no spread to compute an interval from"
    assert found["interval_method"] is None
    assert found[f"{TOKEN}_total95_low"] is None


def test_under_a_precision_target_the_pilot_gives_the_spread():
    plan = {"execution": {"precision_target": 0.02, "max_cycles": 20, "n_cycles": 5}}
    found = summary(VALUES, plan)
    sd = stats.tstd([math.log(value) for value in VALUES[:5]])
    half_width = stats.t.ppf(0.975, 4) * sd / math.sqrt(6)
    mean = sum(VALUES) / 6 / 2000
    assert found["interval_method"] == "stein"
    assert found[f"{TOKEN}_ci95_low"] == pytest.approx(mean * math.exp(-half_width))
    assert found[f"{TOKEN}_ci95_high"] == pytest.approx(mean * math.exp(half_width))
    assert (found["precision_reached"], found["cycles_needed"]) == (True, 5)


def test_correlated_cycles_widen_the_interval_of_a_precision_target_and_may_miss_it():
    plan = {"execution": {"precision_target": 0.02, "max_cycles": 20, "n_cycles": 5}}
    rising = [1000.0, 1004.0, 1008.0, 1012.0, 1016.0, 1020.0, 1024.0]
    found = summary(rising, plan)
    sd = stats.tstd([math.log(value) for value in rising[:5]])
    plain = stats.t.ppf(0.975, 4) * sd / math.sqrt(7)
    assert found["cycles_correlated"] is True
    assert math.log(found[f"{TOKEN}_ci95_high"] / found[f"{TOKEN}_mean"]) > 1.5 * plain
    strict = {"execution": {**plan["execution"], "precision_target": 1.2 * plain}}
    assert summary(rising, strict)["precision_reached"] is False


def test_measured_and_estimated_experiments_are_not_compared():
    first = rows(VALUES, sizes=(1, 8))
    estimated = rows_table(
        [
            {**row, "kind": "estimated", "energy_source": "codecarbon", "experiment": f"{n:012x}"}
            for n, row in enumerate(rows(VALUES[:1], sizes=(2,)).to_pylist())
        ]
    )
    both = pa.concat_tables([first, estimated])
    labels = experiment_labels(summarise(StudyRuns(both)).to_pylist())
    tables = relate(StudyRuns(both), labels)
    pairs = tables["comparisons"].to_pylist()
    assert {(row["metric"], row["label_a"] != row["label_b"]) for row in pairs} == {
        (metric, True)
        for metric in (
            TOKEN,
            "energy_per_request_j",
            "output_tokens_per_s",
            "request_latency_p50_s",
        )
    }
    front = [
        row for row in tables["pareto"].to_pylist() if row["objective"] == "output_tokens_per_s"
    ]
    assert [row["on_front"] is None for row in front] == [False, False, True]
    assert "not comparable: energy is measured by nvml" in front[2]["unavailable"]


@pytest.mark.parametrize("silent", [1, 2, 4])
def test_a_level_without_tokens_or_without_runs_says_that_it_has_no_data(silent):
    """A waiting server has no energy per token; runs that failed have nothing at all."""
    table = rows(VALUES, sizes=(1, 2, 4)).to_pylist()
    for each in table:
        if each["pytorch.batch_size"] == silent:
            each[TOKEN] = None
    runs = rows_table(table)
    failed = rows_table(
        [
            {**each, "status": "failed", "kind": None, "precision": None}
            if each["pytorch.batch_size"] == silent
            else each
            for each in table
        ]
    )
    for each in (runs, failed):
        labels = experiment_labels(summarise(StudyRuns(each)).to_pylist())
        levels = relate(StudyRuns(each), labels)["levels"].to_pylist()
        told = {row["level"]: row for row in levels if row["metric"] == TOKEN}
        sound = [size for size in (1, 2, 4) if size != silent]
        assert told[str(silent)]["ratio"] is None
        assert told[str(silent)]["unavailable"].startswith("no data")
        assert {row["reference"] for row in told.values()} == {str(sound[0])}
        assert told[str(sound[1])]["ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "none"),
    [(TOKEN, None), ("output_tokens_per_s", 0.0), ("request_latency_p50_s", None)],
)
def test_experiments_are_not_compared_by_the_cycles_alone_in_which_something_came(metric, none):
    """In one cycle of six nothing came from batch 2: the five others say nothing of its rate."""
    table = rows(VALUES, sizes=(1, 2, 4)).to_pylist()
    for each in table:
        if (each["pytorch.batch_size"], each["cycle"]) == (2, 6):
            each[metric] = none
    study = StudyRuns(rows_table(table))
    tables = relate(study, experiment_labels(summarise(study).to_pylist()))
    why = "not every run in the mean has this quantity above zero"
    for pair in tables["comparisons"].to_pylist():
        lacks = pair["metric"] == metric and "2" in pair["label_a"] + pair["label_b"]
        assert (pair["ratio"] is None) is lacks
        assert (pair["n_a"], pair["n_b"]) == (6, 6)
        assert (pair["unavailable"] == f"ratio: {why}") is lacks
    for level in tables["levels"].to_pylist():
        lacks = (level["metric"], level["level"]) == (metric, "2")
        assert (level["ratio"] is None) is lacks
        assert (level["unavailable"] == f"no data: {why}") is lacks


def test_the_runs_of_a_pair_are_those_in_the_means_also_where_there_is_one() -> None:
    """Of batch 1 one run is there; of batch 2 the last cycle has no energy per token."""
    table = [
        each
        for each in rows(VALUES, sizes=(1, 2)).to_pylist()
        if each["pytorch.batch_size"] == 2 or each["cycle"] == 1
    ]
    table[-1][TOKEN] = None
    study = StudyRuns(rows_table(table))
    pairs = relate(study, experiment_labels(summarise(study).to_pylist()))[
        "comparisons"
    ].to_pylist()
    (pair,) = [each for each in pairs if each["metric"] == TOKEN]
    assert (pair["n_a"], pair["n_b"]) == (1, 6)
    assert "above zero" in pair["unavailable"]
    assert all(each["unavailable"].endswith("1 and 6") for each in pairs if each != pair)


def test_a_pair_that_may_not_be_compared_says_nothing_of_what_the_sensor_leaves_open():
    table = rows(VALUES, sizes=(1, 2, 4)).to_pylist()
    for each in table:
        each["energy_shared_u95_j"] = 0.01 * each["energy_gross_j"]
        each["gpu_name"] = "L4" if each["pytorch.batch_size"] == 4 else "H200"
    study = StudyRuns(rows_table(table))
    pairs = relate(study, experiment_labels(summarise(study).to_pylist()))[
        "comparisons"
    ].to_pylist()
    of_energy = [pair for pair in pairs if pair["metric"] == TOKEN]
    assert [pair["ratio"] is None for pair in of_energy] == [False, True, True]
    assert [pair["shared_u95_rel"] is None for pair in of_energy] == [False, True, True]


@pytest.mark.parametrize(("tokens", "apart"), [(2090, False), (2120, True), (1890, True)])
def test_answers_of_unlike_length_are_named_in_a_comparison(tokens, apart):
    runs = rows(VALUES, sizes=(1, 8)).to_pylist()
    for run in runs:
        if run["pytorch.batch_size"] == 8:
            run["output_tokens_per_request"] *= tokens / 2000
    table = rows_table(runs)
    labels = experiment_labels(summarise(StudyRuns(table)).to_pylist())
    for pair in relate(StudyRuns(table), labels)["comparisons"].to_pylist():
        assert ("output_tokens_per_request" in pair["differs"]) is apart


def test_lengths_that_are_not_known_are_no_difference():
    runs = rows(VALUES, sizes=(1, 8)).to_pylist()
    for run in runs[::2]:
        run["output_tokens_per_request"] = None
    table = rows_table(runs)
    labels = experiment_labels(summarise(StudyRuns(table)).to_pylist())
    assert all(
        not pair["differs"] for pair in relate(StudyRuns(table), labels)["comparisons"].to_pylist()
    )
