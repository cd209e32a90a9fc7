"""What stands beside an experiment's mean, and what is kept out of it and of comparisons."""

import math

import pytest
from scipy import stats

from analysis.studies import related, row, study_rows, summaries
from results.synthetic import GPU, make_plan

TOKEN = "energy_per_output_token_j"
VALUES = [1000.0, 1010.0, 995.0, 1003.0, 998.0, 1006.0]


def machine(name="NVIDIA H200", driver="570.1", limit=700.0, engine="5.0"):
    gpu = {"uuid": GPU, "name": name, "driver": driver, "power_limit_w": limit}
    engine = {"versions": {"transformers": engine}}
    return {"environment": {"host": "node-1", "gpus": [gpu], "engine": engine}}


def of_commit(digit):
    return {"provenance": {"workload": {"model_commit": 40 * digit}}}


def summary(values, plan=None, **settings):
    (found,) = summaries(study_rows(values, **settings), plan)
    return found


@pytest.mark.parametrize(
    ("usual", "other", "told"),
    [
        (machine(), machine(name="L4"), "gpu_name: NVIDIA H200 in the mean, not L4"),
        (machine(), machine(driver="560.2"), "driver_version: 570.1 in the mean, not 560.2"),
        (machine(), machine(limit=500.0), "power_limit_w: 700.0 in the mean, not 500.0"),
        (
            machine(),
            machine(engine="4.9"),
            "engine_version: transformers 5.0 in the mean, not transformers 4.9",
        ),
        (
            of_commit("1"),
            of_commit("2"),
            f"model_commit: {'1' * 40} in the mean, not {'2' * 40}",
        ),
    ],
    ids=["GPU", "driver", "power limit", "engine", "commit of the model"],
)
def test_another_machine_is_not_averaged_silently(usual, other, told):
    by_cycle = {**dict.fromkeys(range(1, 6), usual), 6: other}
    found = summary([*VALUES[:5], 5000.0], by_cycle=by_cycle)
    assert (found["n"], found["n_other_machine"], found["differs"]) == (5, 1, [told])
    assert found[f"{TOKEN}_mean"] == pytest.approx(sum(VALUES[:5]) / 5 / 2000)


def test_a_run_of_unknown_driver_does_not_join_those_of_two_drivers():
    by_cycle = {1: machine(driver=None), 3: machine(driver="560.2")}
    found = summary(VALUES, by_cycle={**dict.fromkeys(range(1, 7), machine()), **by_cycle})
    assert (found["n"], found["n_other_machine"]) == (5, 1)
    assert found["differs"] == ["driver_version: 570.1 in the mean, not 560.2"]


def test_what_an_older_record_does_not_tell_is_no_difference():
    found = summary(VALUES, by_cycle={1: {"environment": {"host": "node-1", "gpus": []}}})
    assert (found["n"], found["n_other_machine"], found["differs"]) == (6, 0, [])


@pytest.mark.parametrize("band", [0.05, 0.5, 0.99, 1.0, 3.0])
def test_the_sensors_gain_is_added_in_quadrature_and_the_interval_ends_at_zero(band):
    found = summary(VALUES, made=lambda run: {"energy_u_sys_j": band * run["energy_gross_j"]})
    mean, low, high = (found[f"{TOKEN}_{part}"] for part in ("mean", "ci95_low", "ci95_high"))
    up = math.hypot(math.log(high / mean), math.log1p(band))
    down = math.hypot(math.log(mean / low), math.log1p(-band)) if band < 1 else math.inf
    assert found[f"{TOKEN}_total95_high"] == pytest.approx(mean * math.exp(up))
    assert found[f"{TOKEN}_total95_low"] == pytest.approx(mean * math.exp(-down))


@pytest.mark.parametrize(
    ("values", "correlated", "lag1"),
    [
        ([1000.0 + 10 * cycle for cycle in range(8)], True, pytest.approx(0.625, abs=0.01)),
        ([1000.0 + 10 * (-1) ** cycle for cycle in range(8)], False, pytest.approx(-0.875)),
        (VALUES[:3], None, pytest.approx(-0.595, abs=0.01)),
    ],
    ids=["rising", "swinging", "few"],
)
def test_cycles_that_follow_each_other_are_told(values, correlated, lag1):
    found = summary(values)
    assert (found["cycles_correlated"], found["cycles_lag1"]) == (correlated, lag1)


def test_the_spread_is_parted_into_the_meters_and_the_cycles():
    found = summary(VALUES)
    within, between = found["energy_within_sd_rel"], found["energy_between_sd_rel"]
    assert within == pytest.approx(0.01 / 1.96)
    total = found[f"{TOKEN}_sd"] / found[f"{TOKEN}_mean"]
    assert between == pytest.approx(math.sqrt(max(total**2 - within**2, 0)))


def test_a_run_that_the_meter_knows_badly_counts_by_its_square():
    """One of five intervals is ten times as wide: the runs scatter by the root of 104/5."""

    def known(run):
        u95_rel = 0.0196 * (10 if run["cycle"] == 3 else 1)
        return {"energy_u95_j": u95_rel * run["energy_gross_j"], "energy_shared_u95_j": None}

    found = summary(VALUES[:5], made=known)
    assert found["energy_within_sd_rel"] == pytest.approx(0.01 * math.sqrt(104 / 5))


def test_an_outlier_is_named_and_stays_in_the_mean():
    values = [*VALUES[:5], 2000.0]
    found = summary(values)
    assert found["outlier_cycles"] == [6]
    assert found[f"{TOKEN}_mean"] == pytest.approx(sum(values) / 6 / 2000)
    assert found[f"{TOKEN}_median"] == pytest.approx((1000 + 1003) / 2 / 2000, rel=2e-3)


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


# What two experiments are to each other.


def of_two_commits(*models):
    """Return runs of batch sizes 4 and 8, each of a model of a commit of its own."""
    sizes, found = (4, 8), []
    experiments = [
        {"model": model, "pytorch": {"batch_size": size}}
        for model, size in zip(models, sizes, strict=True)
    ]
    for run in make_plan(experiments, [])["runs"]:
        commit = "1" if run["config"]["pytorch"]["batch_size"] == 4 else "2"
        found.append(row(run, [], **of_commit(commit)))
    return found


@pytest.mark.parametrize(("models", "is_named"), [(("one", "one"), True), (("one", "two"), False)])
def test_a_pair_says_that_its_model_has_two_commits(models, is_named):
    pairs = related(of_two_commits(*models))["comparisons"]
    assert {"model_commit" in pair["differs"] for pair in pairs} == {is_named}


def test_measured_and_estimated_experiments_are_not_compared():
    (estimated,) = study_rows(VALUES[:1], sizes=(2,))
    estimated |= {"kind": "estimated", "energy_source": "codecarbon"}
    tables = related([*study_rows(VALUES, sizes=(1, 8)), estimated])
    metrics = (TOKEN, "energy_per_request_j", "output_tokens_per_s", "request_latency_p50_s")
    assert {pair["metric"] for pair in tables["comparisons"]} == set(metrics)
    assert all(pair["label_a"] != pair["label_b"] for pair in tables["comparisons"])
    front = [each for each in tables["pareto"] if each["objective"] == "output_tokens_per_s"]
    assert [each["on_front"] is None for each in front] == [False, False, True]
    assert "not comparable: energy is measured by nvml" in front[2]["unavailable"]


@pytest.mark.parametrize("of_silent", [{}, {"status": "failed", "kind": None, "precision": None}])
@pytest.mark.parametrize("silent", [1, 2, 4])
def test_a_level_without_tokens_or_without_runs_says_that_it_has_no_data(silent, of_silent):
    """A waiting server has no energy per token; runs that failed have nothing at all."""

    def nothing_came(run):
        return {TOKEN: None, **of_silent} if run["pytorch.batch_size"] == silent else {}

    levels = related(study_rows(VALUES, sizes=(1, 2, 4), made=nothing_came))["levels"]
    told = {each["level"]: each for each in levels if each["metric"] == TOKEN}
    sound = [size for size in (1, 2, 4) if size != silent]
    assert told[str(silent)]["ratio"] is None
    assert told[str(silent)]["unavailable"].startswith("no data")
    assert {each["reference"] for each in told.values()} == {str(sound[0])}
    assert told[str(sound[1])]["ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "none"),
    [(TOKEN, None), ("output_tokens_per_s", 0.0), ("request_latency_p50_s", None)],
)
def test_experiments_are_not_compared_by_the_cycles_alone_in_which_something_came(metric, none):
    """In one cycle of six nothing came from batch 2: the five others say nothing of its rate."""

    def nothing_came(run):
        return {metric: none} if (run["pytorch.batch_size"], run["cycle"]) == (2, 6) else {}

    tables = related(study_rows(VALUES, sizes=(1, 2, 4), made=nothing_came))
    why = "not every run in the mean has this quantity above zero"
    for pair in tables["comparisons"]:
        lacks = pair["metric"] == metric and "2" in pair["label_a"] + pair["label_b"]
        assert (pair["ratio"] is None) is lacks
        assert (pair["n_a"], pair["n_b"]) == (6, 6)
        assert (pair["unavailable"] == f"ratio: {why}") is lacks
    for level in tables["levels"]:
        lacks = (level["metric"], level["level"]) == (metric, "2")
        assert (level["ratio"] is None) is lacks
        assert (level["unavailable"] == f"no data: {why}") is lacks


def test_the_runs_of_a_pair_are_those_in_the_means_also_where_there_is_one():
    """Of batch 1 one run is there; of batch 2 the last cycle has no energy per token."""
    rows = study_rows(VALUES, sizes=(1, 2))
    rows[-1][TOKEN] = None
    pairs = related(each for each in rows if each["pytorch.batch_size"] == 2 or each["cycle"] == 1)[
        "comparisons"
    ]
    (pair,) = [each for each in pairs if each["metric"] == TOKEN]
    assert (pair["n_a"], pair["n_b"]) == (1, 6)
    assert "above zero" in pair["unavailable"]
    assert all(each["unavailable"].endswith("1 and 6") for each in pairs if each != pair)


def test_a_pair_that_may_not_be_compared_says_nothing_of_what_the_sensor_leaves_open():
    def made(run):
        name = "L4" if run["pytorch.batch_size"] == 4 else "H200"
        return {"energy_shared_u95_j": 0.01 * run["energy_gross_j"], "gpu_name": name}

    pairs = related(study_rows(VALUES, sizes=(1, 2, 4), made=made))["comparisons"]
    of_energy = [pair for pair in pairs if pair["metric"] == TOKEN]
    assert [pair["ratio"] is None for pair in of_energy] == [False, True, True]
    assert [pair["shared_u95_rel"] is None for pair in of_energy] == [False, True, True]


@pytest.mark.parametrize(
    ("tokens", "apart"),
    [(2090, False), (2120, True), (1890, True), (None, False)],
    ids=["4.5 % more", "6 % more", "5.5 % fewer", "not known"],
)
def test_answers_of_unlike_length_are_named_in_a_comparison(tokens, apart):
    def made(run):
        length = None if tokens is None else tokens / 2000 * run["output_tokens_per_request"]
        return {"output_tokens_per_request": length} if run["pytorch.batch_size"] == 8 else {}

    for pair in related(study_rows(VALUES, sizes=(1, 8), made=made))["comparisons"]:
        assert pair["differs"] == ["output_tokens_per_request"] * apart
