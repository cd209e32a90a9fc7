"""A precision target: the pilot decides once, everything that can go wrong in it is made up for."""

import json
import random
from dataclasses import asdict

import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.files import write_bytes
from llenergymeasure.plan import describe_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.manifest import write_manifest
from llenergymeasure.workflow.precision_target import plan_study, precision
from llenergymeasure.workflow.snakemake_process import Call, Listener
from llenergymeasure.workload.load_study import study_from_mapping
from results.synthetic import make_result, write_result
from support.studies import SERVED, llem, plan_of, result_times, snakemake, write_study

STUDY = {
    "name": "sure",
    "model": "tiny-llama",
    "sweep": {"n": [1, 2]},
    "execution": {"precision_target": 0.02, "max_cycles": 12, "cycle_order": "interleaved"},
}
STEADY = (100.0, 100.1, 99.9, 100.05, 99.95)
SHAKY = (100.0, 102.0, 98.0, 101.0, 99.0)


def study(**execution):
    return study_from_mapping({**STUDY, "execution": {**STUDY["execution"], **execution}})


def run_all(plan, folder, energies, only=lambda _run: True, **settings):
    """Leave a result for every planned run that has none, as a workflow does."""
    rng = random.Random(3)
    for run in plan.runs:
        place = folder.run(run.experiment, run.cycle)
        if place.result.is_file() or not only(run):
            continue
        pilot = energies[run.config["n"] - 1]
        energy = pilot[run.cycle - 1] if run.cycle <= len(pilot) else rng.gauss(100, 1)
        write_result(folder.path, make_result(asdict(run), energy_j=energy, **settings))


def written(asked, folder):
    """Plan as a workflow that starts does: the plan is written."""
    plan = plan_study(asked, folder)
    write_bytes(folder.plan, plan.to_json_bytes())
    return plan


def cycles_of(plan):
    cycles = {}
    for run in plan.runs:
        cycles[run.config["n"]] = max(cycles.get(run.config["n"], 0), run.cycle)
    return cycles


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "sure")


def test_it_begins_with_the_pilot_and_says_what_it_may_cost(folder):
    plan = written(study(), folder)
    assert cycles_of(plan) == {1: 5, 2: 5}
    text = describe_plan(plan)
    assert "to ±2 % of the energy per output token: 5 pilot cycles" in text
    assert "at most 24 runs in all" in text
    assert "with all cycles that it may take: " in text


def test_the_next_start_adds_what_the_spread_asks_for(folder):
    run_all(written(study(), folder), folder, (STEADY, SHAKY))
    state = precision(plan_study(study(), folder), folder, open_runs=0)
    assert (state.reached, state.short) == (False, 0)
    plan = written(study(), folder)
    # s = 0.0158 on the logarithm, t(0.975, 4) = 2.776: (2.776 s / ln 1.02)^2 = 4.9, so 5; with
    # half the target four times as many and more, cut at 12.
    assert cycles_of(plan) == {1: 5, 2: 5}
    assert cycles_of(plan_study(study(precision_target=0.0125), folder)) == {1: 5, 2: 12}
    assert cycles_of(plan_study(study(precision_target=0.015), folder)) == {1: 5, 2: 9}


def test_what_the_pilot_decided_stays(folder):
    target_study = study(precision_target=0.015)
    run_all(written(target_study, folder), folder, (STEADY, SHAKY))
    longer = written(target_study, folder)
    assert cycles_of(longer) == {1: 5, 2: 9}
    assert "2 experiments x 5 to 9 cycles" in describe_plan(longer)
    run_all(longer, folder, (STEADY, SHAKY))
    again = written(target_study, folder)
    assert again.to_json_bytes() == longer.to_json_bytes()
    for cycle in (1, 2):  # a pilot run measured anew decides nothing anew
        run = next(run for run in longer.runs if run.config["n"] == 2 and run.cycle == cycle)
        folder.run(run.experiment, run.cycle).result.unlink()
    run_all(longer, folder, (STEADY, (50.0, 200.0, *SHAKY[2:])))
    assert plan_study(target_study, folder).to_json_bytes() == longer.to_json_bytes()


def test_added_cycles_follow_the_pilot_and_keep_the_blocks(folder):
    target_study = study(precision_target=0.001)
    run_all(written(target_study, folder), folder, (SHAKY, SHAKY))
    plan = plan_study(target_study, folder)
    assert [run.order for run in plan.runs] == list(range(1, 25))
    assert [run.cycle for run in plan.runs] == [cycle for cycle in range(1, 13) for _ in (1, 2)]


@pytest.mark.parametrize("order", ["sequential", "interleaved", "shuffled", "latin_square"])
def test_the_pilot_keeps_its_places_in_every_order(folder, order):
    target_study = study(precision_target=0.001, cycle_order=order)
    pilot = written(target_study, folder)
    run_all(pilot, folder, (STEADY, SHAKY))
    longer = plan_study(target_study, folder)
    assert longer.runs[: len(pilot.runs)] == pilot.runs
    assert len({(run.experiment, run.cycle) for run in longer.runs}) == len(longer.runs) > 10


def test_an_incomplete_pilot_decides_later_and_holds_no_one_up(folder):
    target_study = study(precision_target=0.015)
    pilot = written(target_study, folder)
    run_all(pilot, folder, (SHAKY, SHAKY), only=lambda run: (run.config["n"], run.cycle) != (1, 4))
    plan = written(target_study, folder)
    assert cycles_of(plan) == {1: 5, 2: 9}
    run_all(plan, folder, (SHAKY, SHAKY))
    plan = written(target_study, folder)
    assert cycles_of(plan) == {1: 9, 2: 9}


def test_disqualified_pilot_runs_are_made_up_for(folder):
    target_study = study(precision_target=0.019)
    pilot = written(target_study, folder)
    run_all(
        pilot,
        folder,
        (SHAKY, STEADY),
        only=lambda run: (run.config["n"], run.cycle) == (1, 2),
        validity=["other_process"],
    )
    run_all(pilot, folder, (SHAKY, STEADY))
    assert cycles_of(plan_study(target_study, folder)) == {1: 6, 2: 5}


def test_a_pilot_that_cannot_tell_asks_for_nothing(folder):
    target_study = study()
    run_all(written(target_study, folder), folder, (STEADY, STEADY), validity=["other_process"])
    plan = plan_study(target_study, folder)
    assert cycles_of(plan) == {1: 5, 2: 5}
    assert {decision["reason"] for decision in plan.stopping.values()} == {
        "only 0 of the pilot's runs can be used; 3 would do"
    }


def test_without_a_target_nothing_changes(folder):
    plain = study_from_mapping({**STUDY, "execution": {"n_cycles": 2}})
    assert b"stopping" not in written(plain, folder).to_json_bytes()
    assert precision(plan_study(plain, folder), folder, open_runs=0) is None
    assert "precision_reached" not in json.loads(_manifest(plain, folder))


def _manifest(asked, folder):
    write_manifest(plan_study(asked, folder), folder)
    return folder.manifest.read_text()


@pytest.fixture
def driven(folder, monkeypatch):
    """Drive a study whose runs are there at once; return how it ended and each plan's length."""
    lengths = []

    class Driven:
        error_text, circuit_message = "", None

        def __init__(self, _file, plan, *_):
            self.plan = plan

        def run(self, _call):
            write_bytes(folder.plan, self.plan.to_json_bytes())
            run_all(self.plan, folder, (STEADY, SHAKY))
            lengths.append(len(self.plan.runs))
            return self.code

    def drive(asked, code):
        monkeypatch.setattr(Driven, "code", code, raising=False)
        monkeypatch.setattr("llenergymeasure.workflow.complete_study.SnakemakeProcess", Driven)
        return complete_study(asked, None, folder, Listener(), Call(), 0)[0], lengths

    return drive


@pytest.mark.parametrize(("code", "lengths"), [(0, [10, 14]), (130, [10])])
def test_it_is_driven_until_no_pilot_asks_for_more_or_it_is_interrupted(driven, code, lengths):
    assert driven(study(precision_target=0.015), code) == (code, lengths)


@pytest.mark.parametrize(
    ("execution", "told"),
    [
        ({"precision_target": 0.02, "n_cycles": 3}, "give n_cycles or precision_target"),
        ({"max_cycles": 9}, "max_cycles needs precision_target"),
        ({"precision_target": 0.02, "max_cycles": 4}, "max_cycles"),
        ({"precision_target": 0.0}, "precision_target"),
    ],
)
def test_settings_that_contradict_each_other_are_one_message(execution, told):
    with pytest.raises(ConfigurationError, match=told):
        study_from_mapping({**STUDY, "execution": execution})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_bare_snakemake_says_that_a_second_call_goes_on_and_llem_run_goes_on(tmp_path):
    file = write_study(tmp_path, **SERVED, execution={"precision_target": 0.00001, "max_cycles": 6})
    first = snakemake(tmp_path, "--configfile", str(file), timeout_s=700)
    assert first.returncode == 0, first.stderr
    assert "precision_reached: false" in first.stderr
    assert "takes 1 more run; the same command runs them" in first.stderr
    finished = result_times(tmp_path)
    assert len(finished) == 5
    manifest = json.loads((tmp_path / "results/small/manifest.json").read_text())
    assert manifest["precision_reached"] is False
    assert manifest["precision"]["runs_to_come"] == 1

    # A run of the pilot is lost: the call makes it, and then what the pilot asks for.
    next(tmp_path.glob("results/small/runs/*/5/result.json")).unlink()
    second = llem(tmp_path, "run", str(file), timeout_s=700)
    assert second.returncode == 0, second.stderr
    assert "precision_reached: false" in second.stderr
    times = result_times(tmp_path)
    assert len(times) == 6
    pilot_times = {key: time for key, time in finished.items() if not key.endswith("/5")}
    assert {key: times[key] for key in pilot_times} == pilot_times
    assert len(plan_of(tmp_path)["runs"]) == 6
    status = json.loads(llem(tmp_path, "status", str(file), "--json").stdout)
    assert status["precision_reached"] is False
    assert status["counts"] == {"completed": 6}
    third = snakemake(tmp_path, "--configfile", str(file), timeout_s=700)
    assert "Nothing to be done" in third.stderr
    assert result_times(tmp_path) == times
