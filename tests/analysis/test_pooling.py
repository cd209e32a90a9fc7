"""Means by any factor over several studies, and what is never averaged silently."""

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from llenergymeasure.analysis.pooling import INCOMPLETE, study_runs, summarise_by
from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.results.record import Quality
from results.synthetic import GPU, make_plan, make_result, write_plan, write_result, write_runs

CONFIGS = [
    {"model": "tiny-llama", "precision": precision, "pytorch": {"batch_size": size}}
    for precision in ("bf16", "fp32")
    for size in (1, 8)
]
ONE = CONFIGS[:1]
SWEPT = ["precision", "pytorch.batch_size"]
METRIC, NET = "energy_per_output_token_j", "energy_net_j"


def environment(name="NVIDIA H200", driver="570.1", engine="5.0", limit=700.0):
    gpu = {"uuid": GPU, "name": name, "driver": driver, "power_limit_w": limit}
    return {"host": "node-1", "gpus": [gpu], "engine": {"versions": {"transformers": engine}}}


def of_commit(digit):
    return {"workload": {"model_commit": 40 * digit}}


def write_study(folder, configs=CONFIGS, cycles=3, study="demo", energy=None, **settings):
    plan = make_plan(configs, SWEPT, cycles=cycles, study=study)
    write_plan(folder, plan)
    for run in plan["runs"]:
        joules = 1000.0 + 7 * run["order"] if energy is None else energy(run)
        write_result(folder, make_result(run, energy_j=joules, study=study, **settings))
    return plan


def means(folders, by, metric=METRIC, pool=()):
    """Return the mean of every group of some studies' runs."""
    return summarise_by(study_runs(folders), by, metric, pool).to_pylist()


def with_values(runs, metric, values):
    """Return runs with other values of a quantity."""
    return runs.set_column(runs.schema.get_field_index(metric), metric, pa.array(values))


def test_an_interval_is_the_summary_s_where_a_cycle_was_measured_again_later(tmp_path):
    """Whether cycles follow each other is a matter of the time, not of their numbers."""

    def made(run):
        began = f"2026-03-01T12:{(1, 6, 2, 5, 3, 4)[run['cycle'] - 1]:02d}:00+00:00"
        provenance = {"recording": {"started_at": began}}
        return {"energy_j": 1000.0 + 10 * run["cycle"], "provenance": provenance}

    write_runs(tmp_path, make_plan(CONFIGS[:1], SWEPT, cycles=6), made)
    write_tables(tmp_path, partial=False)
    (summary,) = read_table(tmp_path, "summary.parquet").to_pylist()
    (row,) = means([tmp_path], ["precision"])
    assert (row["precision"], row["n"], row["experiments"]) == ("bf16", 6, 1)
    for name in ("mean", "sd", "ci95_low", "ci95_high"):
        assert row[f"{METRIC}_{name}"] == pytest.approx(summary[f"{METRIC}_{name}"])


def test_over_a_factor_the_cycles_are_what_repeats(tmp_path):
    # Batch sizes are far apart: that is no doubt about their mean.
    def energy(run):
        level = 1000 if run["config"]["pytorch"]["batch_size"] == 1 else 5000
        return level + [0.0, 10.0, 20.0][run["cycle"] - 1]

    write_study(tmp_path, energy=energy)
    rows = means([tmp_path], ["precision"])
    assert [row["precision"] for row in rows] == ["bf16", "fp32"]
    block_means = [(3000 + extra) / 2000 for extra in (0.0, 10.0, 20.0)]
    spread = math.exp(stats.t.ppf(0.975, 2) * stats.sem(np.log(block_means)))
    for row in rows:
        assert row["interval_method"] == "cycles"
        assert (row["experiments"], row["n"]) == (2, 6)
        assert row[f"{METRIC}_mean"] == pytest.approx(1.505)
        assert row[f"{METRIC}_ci95_high"] == pytest.approx(1.505 * spread)


def test_missing_runs_do_not_shift_the_mean_towards_the_others(tmp_path):
    def energy(run):
        size, cycle = run["config"]["pytorch"]["batch_size"], run["cycle"]
        if size == 8 and cycle == 3:
            return None
        return (1000 if size == 1 else 5000) + 10.0 * cycle

    write_study(tmp_path, energy=energy)
    row = means([tmp_path], ["precision"])[0]
    assert row[f"{METRIC}_mean"] == pytest.approx((1020 + 5015) / 2 / 2000)
    assert (row["interval_method"], row["n"], row["n_not_observed"]) == ("experiments", 5, 1)
    assert row[f"{METRIC}_ci95_low"] < row[f"{METRIC}_mean"] < row[f"{METRIC}_ci95_high"]


@pytest.mark.parametrize(
    ("metric", "chosen"),
    [
        (METRIC, True),
        ("energy_prefill_per_input_token_j", True),
        ("request_latency_p50_s", True),
        (NET, False),
    ],
)
def test_a_mean_is_not_of_the_runs_alone_in_which_something_came(tmp_path, metric, chosen):
    """Of one experiment a run has energy and none a token; the other experiment is whole."""
    write_study(tmp_path, CONFIGS[:2])
    runs = with_values(study_runs([tmp_path]), metric, [1.0, 1.1, 1.2, 1.3, 1.4, None])
    (row,) = summarise_by(runs, ["model"], metric).to_pylist()
    assert (row["n"], row["n_not_observed"]) == (5, 1)
    assert (row[f"{metric}_mean"] is None) is chosen
    assert (row["interval_unavailable"] == INCOMPLETE) is chosen
    # What an experiment never has, as by its engine, is none of its outcomes.
    runs = with_values(runs, metric, [1.0, None, 1.2, None, 1.4, None])
    (row,) = summarise_by(runs, ["model"], metric).to_pylist()
    assert row["experiments"] == 1
    assert row[f"{metric}_mean"] == pytest.approx(1.2)


@pytest.mark.parametrize("least", [0.1, 0.0, -0.1])
def test_over_incomplete_cycles_no_interval_goes_where_no_value_can(tmp_path, least):
    write_study(tmp_path, CONFIGS[:2])
    values = [9.0, 1.0, least, 2.0, 5.0, None]  # The last cycle lacks an experiment.
    runs = with_values(study_runs([tmp_path]), NET, values)
    (row,) = summarise_by(runs, ["model"], NET).to_pylist()
    assert row["interval_method"] == "experiments"
    low, high = row[f"{NET}_ci95_low"], row[f"{NET}_ci95_high"]
    assert np.sign(low) == np.sign(least)
    assert low < row[f"{NET}_mean"] < high


def test_single_runs_have_no_interval_and_say_so(tmp_path):
    write_study(tmp_path, cycles=1)
    row = means([tmp_path], ["precision"])[0]
    assert row[f"{METRIC}_ci95_low"] is None
    assert row["interval_unavailable"] == "an experiment of the group has a single run"


def test_several_studies_are_one(tmp_path):
    for number, config in enumerate(CONFIGS):
        write_study(tmp_path / str(number), [config], study=f"s{number}")
    folders = [tmp_path / str(number) for number in range(4)]
    rows = means(folders, ["precision", "pytorch.batch_size"])
    found = [(row["precision"], row["pytorch.batch_size"]) for row in rows]
    assert found == [("bf16", 1), ("bf16", 8), ("fp32", 1), ("fp32", 8)]
    for row in means(folders, ["precision"]):
        assert (row["studies"], row["experiments"]) == (2, 2)
        assert row[f"{METRIC}_ci95_low"] is None
        assert row["interval_unavailable"].startswith("not every study has every")


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [("n", (4, 8), [4, 8]), ("pytorch.batch_size", (1, "auto"), ["1", "auto"])],
    ids=["named as a count", "of several types"],
)
def test_a_setting_has_a_column_of_its_own(tmp_path, name, values, shown):
    folders = [tmp_path / str(value) for value in values]
    for folder, value in zip(folders, values, strict=True):
        config = {"model": "tiny-llama", "n": value, "pytorch": {"batch_size": value}}
        write_runs(folder, make_plan([config], [name], study=folder.name))
    rows = means(folders, [name])
    column = "setting.n" if name == "n" else name
    assert [row[column] for row in rows] == shown
    assert [row["n"] for row in rows] == [3, 3]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("gpu_name", {"environment": environment(name="NVIDIA A100")}),
        ("driver_version", {"environment": environment(driver="560.2")}),
        ("power_limit_w", {"environment": environment(limit=500.0)}),
        ("engine_version", {"environment": environment(engine="4.9")}),
        ("model_commit", {"environment": environment(), "provenance": of_commit("2")}),
    ],
)
def test_what_differs_is_refused_unless_it_is_asked_for(tmp_path, name, other):
    write_study(tmp_path / "one", ONE, environment=environment(), provenance=of_commit("1"))
    write_study(tmp_path / "two", ONE, study="two", **other)
    runs = study_runs([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(ConfigurationError, match=f"differ in {name} .*--pool {name}") as refused:
        summarise_by(runs, ["precision"], METRIC)
    assert refused.value.exit_code == 2
    assert len(summarise_by(runs, ["precision"], METRIC, [name])) == 1
    assert len(summarise_by(runs, ["precision", name], METRIC)) == 2


def test_two_models_may_each_have_their_own_commit(tmp_path):
    other = [{**CONFIGS[0], "model": "gpt2"}]
    write_study(tmp_path / "one", ONE, provenance=of_commit("1"))
    write_study(tmp_path / "two", other, study="two", provenance=of_commit("2"))
    assert len(means([tmp_path / "one", tmp_path / "two"], ["precision"])) == 1


def test_all_differences_are_one_message(tmp_path):
    write_study(tmp_path / "one", ONE, environment=environment())
    write_study(tmp_path / "two", ONE, environment=environment("NVIDIA A100", "560.2"))
    with pytest.raises(ConfigurationError, match="--pool gpu_name,driver_version") as refused:
        means([tmp_path / "one", tmp_path / "two"], ["precision"])
    assert "gpu_name (NVIDIA A100, NVIDIA H200 where precision=bf16)" in str(refused.value)


def test_a_disqualified_run_is_in_no_mean_and_a_marked_one_parts_nothing(tmp_path):
    """It does not matter what the first was made with."""
    plan = write_study(tmp_path, ONE, environment=environment())
    odd = {"environment": environment("NVIDIA A100"), "validity": ["other_process"]}
    marked = {"environment": environment(), "validity": ["throttled", "not_steady"]}
    write_result(tmp_path, make_result(plan["runs"][0], energy_j=9e9, **odd))
    write_result(tmp_path, make_result(plan["runs"][1], **marked))
    (row,) = means([tmp_path], ["precision"])
    assert (row["n"], row["n_disqualified"]) == (2, 1)
    assert row[f"{METRIC}_mean"] < 1


def test_over_several_studies_the_studies_are_the_repeats(tmp_path):
    levels = {"one": 1000.0, "two": 1050.0, "three": 1020.0}
    for study, level in levels.items():
        write_study(tmp_path / study, ONE, energy=lambda run, at=level: at - 2 + run["cycle"])
    (row,) = means([tmp_path / study for study in levels], ["precision"])
    # Of one name, they are told apart by their folders.
    assert (row["interval_method"], row["studies"], row["n"]) == ("studies", 3, 9)
    spread = math.exp(stats.t.ppf(0.975, 2) * stats.sem(np.log([*levels.values()])))
    assert row[f"{METRIC}_mean"] == pytest.approx(np.mean([*levels.values()]) / 2000)
    assert row[f"{METRIC}_ci95_high"] == pytest.approx(row[f"{METRIC}_mean"] * spread)


CARBON = {"grid_gco2e_per_kwh": 50.0, "pue": 1.2, "price_per_kwh": 0.3, "currency": "EUR"}
PER_ENERGY = ("carbon_per_1000_requests_gco2e", "cost_per_1000_requests")


def declare(folder, **changes):
    plan = json.loads((folder / "plan.json").read_text())
    write_plan(folder, {**plan, "sections": {"carbon": {**CARBON, **changes}}})


def write_measured_and_estimated(folder):
    for name, how in (("one", {}), ("two", {"kind": "estimated", "source": "codecarbon"})):
        write_study(folder / name, ONE, **how)
        declare(folder / name)
    return study_runs([folder / "one", folder / "two"])


@pytest.mark.parametrize("between", [0.0, 0.01, 0.03])
def test_the_interval_over_studies_holds_the_truth(tmp_path, between):
    folders = [tmp_path / study for study in ("one", "two", "three")]
    for folder in folders:
        write_study(folder, CONFIGS[:2], cycles=5, study=folder.name)
    runs = study_runs(folders)
    of_study = np.unique(runs["study"].to_pylist(), return_inverse=True)[1]
    of_cycle = 5 * of_study + runs["cycle"].to_numpy() - 1
    rng, hits = np.random.default_rng(1), 0
    for _ in range(300):
        logs = rng.normal(0, between, 3)[of_study] + rng.normal(0, 0.01, 15)[of_cycle]
        (row,) = summarise_by(
            with_values(runs, METRIC, np.exp(logs)), ["model"], METRIC
        ).to_pylist()
        hits += row[f"{METRIC}_ci95_low"] <= 1 <= row[f"{METRIC}_ci95_high"]
    assert hits / 300 >= 0.93


@pytest.mark.parametrize("metric", [METRIC, *PER_ENERGY])
def test_measured_and_estimated_energy_have_no_common_mean(tmp_path, metric):
    runs = write_measured_and_estimated(tmp_path)
    with pytest.raises(ConfigurationError, match="differ in kind"):
        summarise_by(runs, ["precision"], metric)
    with pytest.raises(ConfigurationError, match="have no common mean"):
        summarise_by(runs, ["precision"], metric, ["kind"])
    rows = summarise_by(runs, ["kind", "energy_source", "energy_scopes"], metric).to_pylist()
    assert [row["kind"] for row in rows] == ["estimated", "measured"]


def test_speed_is_one_quantity_whatever_metered_the_energy(tmp_path):
    runs = write_measured_and_estimated(tmp_path)
    assert len(summarise_by(runs, ["precision"], "output_tokens_per_s")) == 1


def test_two_currencies_have_no_common_mean(tmp_path):
    for name, changes in (("one", {}), ("two", {"currency": "USD", "price_per_kwh": 0.1})):
        write_study(tmp_path / name, ONE)
        declare(tmp_path / name, **changes)
    runs = study_runs([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(ConfigurationError, match=r"differ in cost_currency \(EUR, USD"):
        summarise_by(runs, ["experiment"], "cost_per_1000_requests")
    rows = summarise_by(runs, ["cost_currency"], "cost_per_1000_requests").to_pylist()
    assert [row["cost_currency"] for row in rows] == ["EUR", "USD"]


@pytest.mark.parametrize("studies", [1, 2])
def test_cycles_that_ask_the_same_questions_make_a_score_no_surer(tmp_path, studies):
    folders = [tmp_path / str(number) for number in range(studies)]
    for folder in folders:
        write_study(folder, CONFIGS[:1], quality=Quality(score=0.65, correct=26, items=40))
    (row,) = means(folders, ["precision"], "quality_score")
    found = stats.binomtest(26, 40).proportion_ci(method="wilson")
    ends = row["quality_score_ci95_low"], row["quality_score_ci95_high"]
    assert ends == pytest.approx((found.low, found.high))
    assert row["interval_method"] == "questions"


@pytest.mark.parametrize(
    ("by", "metric", "pool", "told"),
    [
        (["precison"], METRIC, [], "--group-by: no column precison; did you mean precision"),
        (["precision"], "energy_per_token", [], "--metric: no column energy_per_token; did you"),
        (["precision"], "model", [], "--metric: no column model"),
        (["precision"], "enery", [], "--metric: no column enery; did you mean energy or"),
        (["precision"], METRIC, ["gpu"], "--pool: no column gpu"),
        ([], METRIC, [], "at least one column"),
    ],
)
def test_unknown_names_are_told_with_what_would_do(tmp_path, by, metric, pool, told):
    write_study(tmp_path, CONFIGS[:1])
    with pytest.raises(ConfigurationError, match=told):
        means([tmp_path], by, metric, pool)


def test_the_command_prints_text_json_and_csv(tmp_path, call):
    write_study(tmp_path / "one", environment=environment())
    write_study(tmp_path / "two", environment=environment("NVIDIA A100"), study="two")
    asked = ("results", "one", "two", "--group-by", "precision")
    refused = call(*asked)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "gpu_name (NVIDIA A100, NVIDIA H200" in refused.err
    told = call(*asked, "--pool", "gpu_name", "--json")
    assert told.code == 0, told.err
    groups = json.loads(told.out)["groups"]
    assert [(group["precision"], group["n"]) for group in groups] == [("bf16", 12), ("fp32", 12)]
    table = call(*asked, "--pool", "gpu_name", "--csv")
    assert table.out.splitlines()[0].startswith('"precision","experiments","studies","n"')
    text = call("results", "one", "--group-by", "precision,pytorch.batch_size")
    assert text.code == 0, text.err
    title, _, header, *groups = text.out.splitlines()
    assert title == "Means of energy_per_output_token_j"
    assert header.split()[:2] == ["precision", "pytorch.batch_size"]
    assert len(groups) == 4


@pytest.mark.parametrize("jump", [0.0, 0.03])
def test_one_run_that_is_missing_makes_no_interval_too_narrow(tmp_path, jump):
    """What the runs of a cycle have in common is no less there where one of them failed."""
    write_study(tmp_path, cycles=5)
    runs, rng, hits = study_runs([tmp_path]), np.random.default_rng(1), 0
    cycles = runs["cycle"].to_numpy() - 1
    for _ in range(200):
        logs = rng.normal(0, jump, 5)[cycles] + rng.normal(0, 0.01, len(cycles))
        drawn = with_values(runs, NET, [*np.exp(logs[:7]), None, *np.exp(logs[8:])])
        (row,) = summarise_by(drawn, ["model"], NET).to_pylist()
        assert (row["interval_method"], row["n"]) == ("experiments", 19)
        hits += row[f"{NET}_ci95_low"] <= 1 <= row[f"{NET}_ci95_high"]
    assert hits / 200 >= 0.92


def test_a_folder_that_is_named_twice_is_one_study(tmp_path, monkeypatch):
    write_study(tmp_path / "kept")
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "kept"
    assert len(study_runs([named.relative_to(tmp_path), named])) == len(study_runs([named]))


def test_a_copy_of_a_results_folder_is_no_second_study(tmp_path):
    """It doubled n, and the interval of two equal means had no width."""
    kept, copy = tmp_path / "kept", tmp_path / "copy"
    began = {"started_at": "2026-03-01T12:00:00.25+00:00"}
    write_study(kept, provenance={"environment": environment(), "recording": began})
    shutil.copytree(kept, copy)
    with pytest.raises(ConfigurationError, match="hold the same run"):
        study_runs([kept, copy])
    for cycle in (1, 2):
        for run in copy.glob(f"runs/*/{cycle}"):
            shutil.rmtree(run)
    with pytest.raises(ConfigurationError, match="hold the same run"):
        study_runs([copy, kept])


def test_what_a_study_is_called_does_not_change_the_interval(tmp_path):
    """Whether studies follow each other is a matter of the time, not of their names."""

    def ends(names):
        folders = [tmp_path / names / name for name in names]
        for day, folder in enumerate(folders, 1):
            began = {"recording": {"started_at": f"2026-03-{day:02d}T12:00:00+00:00"}}
            write_study(
                folder,
                ONE,
                cycles=1,
                study=folder.name,
                energy=lambda _, day=day: 1000.0 + 20 * day,
                provenance=began,
            )
        (row,) = means(folders, ["precision"])
        assert row["interval_method"] == "studies"
        return row[f"{METRIC}_ci95_low"], row[f"{METRIC}_ci95_high"]

    assert ends("abcdefg") == ends("dagbfce")


def test_a_missing_run_does_not_hide_that_cycles_follow_each_other(tmp_path):
    """The interval of a group was a third of that of its experiments."""

    def energy(run):
        size, cycle = run["config"]["pytorch"]["batch_size"], run["cycle"]
        trend = 5.0 * cycle if size == 1 else -5.0 * cycle
        return None if (size, cycle) == (8, 12) else 1000 + trend

    write_study(tmp_path, CONFIGS[:2], cycles=12, energy=energy)
    write_tables(tmp_path, partial=False)
    (row,) = means([tmp_path], ["model"])
    assert row["interval_method"] == "experiments"
    own = read_table(tmp_path, "summary.parquet").to_pylist()
    assert [each["cycles_correlated"] for each in own] == [True, True]
    widths = [math.log(each[f"{METRIC}_ci95_high"] / each[f"{METRIC}_mean"]) for each in own]
    width = math.log(row[f"{METRIC}_ci95_high"] / row[f"{METRIC}_mean"])
    assert width == pytest.approx(math.hypot(*widths) / 2, rel=0.1)
