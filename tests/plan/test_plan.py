"""The plan: its runs, its bytes, and what a run is given."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import ids
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.config.servers import READY_LIMIT_S
from llenergymeasure.errors import ResultsError
from llenergymeasure.plan import Estimates, Plan, describe_plan, make_plan
from llenergymeasure.plan.estimate import (
    LIMIT_SPARE_S,
    Device,
    ModelAndDevice,
    ModelSize,
    Work,
    limit_s,
    run_estimate,
)
from llenergymeasure.run.measure_script import read_spec
from llenergymeasure.workload.load_study import study_from_mapping
from support.attempts import spec_of

STUDY: dict[str, Any] = {
    "name": "demo",
    "model": "tiny-llama",
    "backend": ["pytorch", "vllm"],
    "decoder": {"preset": "deterministic"},
    "sweep": {"precision": ["fp32", "bf16"], "dataset.shared_prefix_len": [4, 5000]},
    "runners": {"vllm": "docker:vllm:1"},
    "execution": {"n_cycles": 2, "run_timeout_seconds": 90},
}


def plan_with(**changes: Any) -> Plan:
    return make_plan(study_from_mapping({**STUDY, **changes}))


def test_json_has_the_fields_that_others_read() -> None:
    stored = json.loads(plan_with().to_json_bytes())
    assert {"study", "study_design_hash", "runs", "left_out"} <= set(stored)
    assert stored["study"] == "demo"
    assert len(stored["runs"]) == 4 * 2
    for place, run in enumerate(stored["runs"], start=1):
        assert {"experiment", "cycle", "order", "backend", "runner", "config"} <= set(run)
        assert run["order"] == place
        assert run["runner"] == {"pytorch": "local", "vllm": "docker"}[run["backend"]]
        assert run["config"]["backend"] == run["backend"]
    assert len(stored["left_out"]) == 4
    assert all(set(point) == {"config", "reason"} for point in stored["left_out"])


def test_ids_and_hash_follow_from_the_experiments() -> None:
    study = study_from_mapping(STUDY)
    plan = make_plan(study)
    experiments = [experiment.id for experiment in study.experiments]
    assert plan.study_design_hash == ids.study_design_hash(experiments)
    assert set(plan.experiments) == set(experiments)
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in experiments)


def test_same_study_gives_the_same_bytes() -> None:
    assert plan_with().to_json_bytes() == plan_with().to_json_bytes()
    assert plan_with(n=7).to_json_bytes() != plan_with().to_json_bytes()


def test_plan_is_read_back_whole(tmp_path: Path) -> None:
    plan = plan_with()
    path = tmp_path / "plan.json"
    path.write_bytes(plan.to_json_bytes())
    read = Plan.read(path)
    assert read == plan
    assert read.to_json_bytes() == plan.to_json_bytes()


def test_a_plan_of_an_earlier_version_keeps_what_its_runs_were_given(tmp_path: Path) -> None:
    carbon = {"grid_gco2e_per_kwh": 50.0, "pue": 1.0, "source": "ours"}
    plain = json.loads(plan_with().to_json_bytes())
    assert "sections" not in plain  # as it was written then: its tables are not made again
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**plain, "carbon": carbon}))
    assert Plan.read(path).sections == {"carbon": carbon}


def test_points_of_the_same_work_are_in_the_plan_and_its_text() -> None:
    plan = plan_with(sweep={"decoder.top_k": [1, 5]}, backend="pytorch")
    (same,) = json.loads(plan.to_json_bytes())["same_as"]
    assert set(same) == {"config", "experiment", "reason"}
    assert same["experiment"] in plan.experiments
    assert "Measured once with another: 1 point" in describe_plan(plan)


WHOLE = json.loads(make_plan(study_from_mapping({"model": "tiny-llama"})).to_json_bytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no plan can be read"),
        ("", "is no JSON"),
        ("[]", "has plan version None"),
        ('{"schema_version": 99}', "has plan version 99"),
        ('{"schema_version": 1, "study": "x"}', "is no plan"),
        ('{"schema_version": 1, "runs": [{"order": 1}]}', "is no plan"),
        *(
            (json.dumps({**WHOLE, name: None}), f"is no plan: {name} is no object")
            for name in ("execution", "images", "runner_reasons")
        ),
    ],
)
def test_damaged_plan_is_told(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ResultsError, match=message):
        Plan.read(path)


def test_spec_is_what_the_run_is_told(tmp_path: Path) -> None:
    plan = plan_with(execution={"n_cycles": 2, "run_timeout_seconds": 90, "skip_preflight": True})
    run = plan.runs[-1]
    spec = spec_of(plan, tmp_path / "plan.json", -1)
    assert (spec["study"], spec["order"], spec["backend"]) == ("demo", run.order, run.backend)
    assert (spec["timeout_s"], spec["skip_preflight"]) == (90, True)
    config = ExperimentConfig(**spec["config"])
    assert config.model_dump(exclude_none=True, include={"decoder", "precision"}) == {
        key: run.config[key] for key in ("decoder", "precision")
    }
    with pytest.raises(ValueError, match=f"no run {run.experiment}/3"):
        read_spec(tmp_path / "plan.json", f"{run.experiment}/3")


def test_images_are_kept_by_backend() -> None:
    assert plan_with().images == {"vllm": "vllm:1"}


@pytest.mark.parametrize(
    ("asked", "gaps"),
    [
        ({"cycle_order": "sequential"}, [0, 30, 30, 30, 30, 30]),
        ({"cycle_order": "interleaved"}, [0, 10, 10, 30, 10, 10]),
        ({"experiment_gap_seconds": None, "cycle_gap_seconds": None}, [0] * 6),
    ],
)
def test_gaps_stand_where_experiment_or_cycle_changes_if_asked_for(
    asked: dict[str, Any], gaps: list[float]
) -> None:
    execution = {"n_cycles": 2, "experiment_gap_seconds": 10, "cycle_gap_seconds": 30, **asked}
    plan = plan_with(backend="pytorch", sweep={"n": [1, 2, 3]}, execution=execution)
    assert [run.gap_s for run in plan.runs] == gaps


def test_shuffle_follows_the_design_unless_seeded() -> None:
    def names(**execution: Any) -> list[str]:
        plan = plan_with(
            backend="pytorch", sweep={"n": list(range(1, 9))}, execution={"n_cycles": 1} | execution
        )
        return [run.experiment for run in plan.runs]

    assert names() == names()
    assert names(shuffle_seed=1) == names(shuffle_seed=1)
    assert names(shuffle_seed=1) != names(shuffle_seed=2)
    assert sorted(names()) == sorted(names(shuffle_seed=1))


def seconds(plan: Plan, measured: bool = True, known: ModelAndDevice | None = None) -> float:
    return Estimates(lambda _: known or ModelAndDevice()).plan(plan, measured).seconds


def test_estimate_counts_waits_gaps_and_runs() -> None:
    quick = seconds(plan_with(protocol="quick"))
    standard = seconds(plan_with(protocol="standard"))
    publication = seconds(plan_with(protocol="publication"))
    assert 8 * 1 < quick < standard < publication
    assert standard > 8 * (20 + 20)
    gaps = {"n_cycles": 2, "experiment_gap_seconds": 100}
    longer = seconds(plan_with(protocol="quick", execution=gaps))
    assert longer == pytest.approx(quick + 7 * 100)
    assert seconds(plan_with(), measured=False) < seconds(plan_with(), measured=True)


LLAMA_8B = ModelSize(parameters=8e9, weights_bytes=16e9, layers=32)
H100 = Device("NVIDIA H100 80GB HBM3", 989e12, 3.35e12)


def test_the_estimate_knows_the_model_and_the_device() -> None:
    plan = plan_with(protocol="quick", n=100, backend="pytorch", sweep={"n": [100]})
    card = ModelAndDevice(LLAMA_8B, H100)
    slow = ModelAndDevice(LLAMA_8B, Device("CPU", 2e10, 1e10))
    small = ModelAndDevice(replace(LLAMA_8B, parameters=8e6, weights_bytes=16e6, layers=2), H100)
    assert seconds(plan) < seconds(plan, known=small) < seconds(plan, known=card)
    assert seconds(plan, known=slow) > 100 * seconds(plan, known=card)
    assert not Estimates(lambda _: card).plan(plan).unknown


def test_the_estimate_is_near_what_an_h100_took() -> None:
    """docs/validation: Llama-3.1-8B, 4 batches of 8, 128 tokens each; 12.5 s of window, 58 in all.

    The idle phases of 5 s were the study's own.
    """
    config = ExperimentConfig.model_validate(
        {
            "model": "meta-llama/Llama-3.1-8B",
            "backend": "pytorch",
            "protocol": "quick",
            "n": 32,
            "pytorch": {"batch_size": 8},
            "baseline": {"duration_seconds": 5},
        }
    )
    work = Work(requests=32, input_tokens=512, output_tokens=128, at_once=8)
    found = run_estimate(
        config, resolve_protocol(config, True), ModelAndDevice(LLAMA_8B, H100), work
    )
    assert 58 / 2 < found.seconds < 58 * 2


def test_what_an_estimate_does_not_know_it_names() -> None:
    known = ModelAndDevice("the size of nobody/nothing", "the speed of GPU X")
    text = describe_plan(plan_with(), Estimates(lambda _: known))
    assert "  at least " in text
    assert "not counted, as not known here: the size of nobody/nothing, the speed of" in text
    assert "  about " in describe_plan(
        plan_with(), Estimates(lambda _: ModelAndDevice(LLAMA_8B, H100))
    )


@pytest.mark.parametrize(
    ("dataset", "amount", "words"),
    [
        ("synthetic", "at least", "how long the quality takes to judge"),
        # Where it is the most, it is not called the least.
        (
            "arc",
            "up to about",
            "shorter texts take less\n  not counted: how long the quality takes",
        ),
    ],
)
def test_the_estimate_says_that_it_counts_no_judging(dataset: str, amount: str, words: str) -> None:
    study = {"model": "tiny-llama", "dataset": dataset, "quality": {"tasks": ["llem-small"]}}
    known = ModelAndDevice(LLAMA_8B, H100)
    text = describe_plan(make_plan(study_from_mapping(study)), Estimates(lambda _: known))
    assert f"  {amount} " in text
    assert words in text
    assert ("at least" in text) == (amount == "at least")


def test_the_text_names_lengths_that_a_made_data_set_does_not_take() -> None:
    study = {"model": "tiny-llama", "dataset": {"input_len": 64}, "max_input_tokens": 512}
    assert study_from_mapping(study).notes == ()
    swept = study_from_mapping({**study, "sweep": {"max_input_tokens": [64, 128]}})
    (note,) = swept.notes
    assert (
        note == "max_input_tokens does not count where dataset is a mapping: dataset.input_len does"
    )


def test_a_server_s_command_may_have_settings_that_cost_no_time() -> None:
    """An estimate is one for all that differ in these, and needs them all the same."""
    command = ["server", "--port", "{port}", "--min-p", "{decoder.min_p}", "{slo.ttft_ms}"]
    study = {"backend": "openai", "openai": {"command": command}, "decoder": {"min_p": 0.1}}
    plan = plan_with(**study, slo={"ttft_ms": 5}, sweep={"decoder.min_p": [0.1, 0.2], "n": [2, 4]})
    assert len(plan.runs) == 8
    assert "by estimate" in describe_plan(plan)


@pytest.mark.parametrize(
    "given",
    [
        {"dataset": "aienergyscore"},
        {"answer_length": "natural"},
        {"dataset": "aienergyscore", "serving": {"arrivals": "closed", "concurrency": 2}},
        {"answer_length": "natural", "backend": "openai", "openai": {"command": ["s", "{port}"]}},
    ],
    ids=str,
)
def test_an_estimate_of_texts_that_may_be_shorter_says_so(given: dict[str, Any]) -> None:
    shape = {"model": "any", "protocol": "quick", **given}
    (run, *_), known = plan_with(**shape, sweep={"n": [4]}).runs, ModelAndDevice(LLAMA_8B, H100)
    assert str(Estimates(lambda _: known).run(run.config)).startswith("up to about ")
    text = describe_plan(plan_with(**shape, sweep={"n": [4]}), Estimates(lambda _: known))
    assert "counted at max_input_tokens and max_output_tokens: shorter texts take less" in text


def test_the_limit_is_the_same_estimate_many_times_over() -> None:
    config = ExperimentConfig.model_validate({"model": "any", "protocol": "standard", "n": 50})
    protocol, work = resolve_protocol(config, True), Work(50, 512, 128, 1)
    for known in (
        ModelAndDevice(LLAMA_8B, H100),
        ModelAndDevice(),
        ModelAndDevice(LLAMA_8B, Device("CPU", 2e10, 1e10)),
    ):
        expected_s = run_estimate(config, protocol, known, work).seconds
        assert limit_s(config, protocol, known, work) > 5 * expected_s
    fast = limit_s(config, protocol, ModelAndDevice(LLAMA_8B, H100), work)
    assert limit_s(config, protocol, ModelAndDevice(), work) > fast


def test_the_limit_leaves_a_program_of_the_users_the_time_that_it_has_to_start() -> None:
    def limit(**openai: Any) -> float:
        settings = {"model": "any", "backend": "openai", "openai": openai}
        config = ExperimentConfig.model_validate(settings)
        tiny = ModelAndDevice(ModelSize(10**6, 10**6, 2), H100)
        return limit_s(config, resolve_protocol(config, True), tiny, Work(1, 8, 8, 1))

    assert limit(command=["serve", "{port}"]) > READY_LIMIT_S + LIMIT_SPARE_S
    assert limit(base_url="http://127.0.0.1:1/v1") < READY_LIMIT_S


def test_text_shows_runs_in_order_and_what_was_left_out() -> None:
    plan = plan_with()
    text = describe_plan(plan)
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("order"))
    assert header.split() == [
        *("order", "experiment", "cycle", "backend"),
        *("precision", "dataset.shared_prefix_len"),
    ]
    table = lines[lines.index(header) + 1 :]
    assert [line.split()[1] for line in table[:8]] == [run.experiment for run in plan.runs]
    assert "Left out: 4 points" in text
    assert "shared_prefix_len" in text[text.index("Left out") :]
    assert "4 experiments x 2 cycles, shuffled" in text
    assert "by estimate" in text


def test_text_of_a_large_plan_is_cut_and_counted() -> None:
    text = describe_plan(plan_with(sweep={"n": list(range(1, 101))}))
    assert "… and 360 more runs" in text
    assert len(text.splitlines()) <= 60


def test_text_holds_the_notes() -> None:
    assert "Note: the study's folder is named a-b" in describe_plan(plan_with(name="a b"))
