"""Studies of the original's releases 0.6 and 0.7, rewritten, plan what it plans.

``later_originals/plans.json`` holds what those releases make of the studies beside it, in their
order, and in our words.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llenergymeasure.config.convert import convert
from llenergymeasure.config.dotted import value_at
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping

FOLDER = Path(__file__).parent / "later_originals"
PLANS: dict[str, Any] = json.loads((FOLDER / "plans.json").read_text())
STUDIES = [path.stem for path in sorted(FOLDER.glob("*.yaml"))]


def converted(text: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    path = folder / "old.yaml"
    path.write_text(text)
    return convert(path)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_a_converted_study_plans_the_runs_of_the_original(name: str) -> None:
    plan = PLANS[name]
    study = study_from_mapping(convert(FOLDER / f"{name}.yaml")[0])
    assert not study.left_out
    assert (study.n_cycles, study.execution.cycle_order) == (plan["cycles"], plan["order"])
    assert len(study.experiments) == len(plan["experiments"])
    for experiment, expected in zip(study.experiments, plan["experiments"], strict=True):
        planned = {**plan["shared"], **expected}
        assert {key: value_at(experiment.config, key) for key in planned} == planned


@pytest.mark.parametrize("name", STUDIES)
def test_a_converted_study_survives_its_file(name: str) -> None:
    study, _ = convert(FOLDER / f"{name}.yaml")
    again = yaml.safe_load(yaml.safe_dump(study, sort_keys=False))
    ids = [experiment.id for experiment in study_from_mapping(study).experiments]
    assert [experiment.id for experiment in study_from_mapping(again).experiments] == ids


@pytest.mark.parametrize("name", STUDIES)
def test_the_format_is_recognised_and_the_command_named(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_study(FOLDER / f"{name}.yaml")
    (problem,) = caught.value.problems
    assert "LLenergyMeasure 0.6 or 0.7" in str(problem)
    assert f"`llem convert {FOLDER / name}.yaml > new.yaml`" in str(problem)


def test_what_has_no_counterpart_is_named_once(tmp_path: Path) -> None:
    _, notes = converted(
        "serving_mode: offline\n"
        "task: {model: gpt2}\n"
        "measurement: {latency_profiling: true}\n"
        "study_execution: {wall_clock_timeout_hours: 2}\n"
        "sweep: {transformers.llem_execution.allow_tf32: [true, false],\n"
        "        transformers.engine_params.dtype: [float16]}\n",
        tmp_path,
    )
    assert [note.partition(" ")[0] for note in notes] == [
        "measurement.latency_profiling",
        "study_execution.wall_clock_timeout_hours",
        "transformers.llem_execution.allow_tf32",
    ]


def test_studies_of_its_repository_and_a_base(tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text(
        "serving_mode: offline\nstudy_execution: {n_cycles: 9}\n"
        "task: {model: gpt2, dataset: {n_prompts: 5}}\n"
    )
    study, _ = converted(
        "base: shared.yaml\nstudy_execution: {n_cycles: 2}\nimages: {vllm: 'ours/vllm:1'}\n"
        "sweep: {engine: [vllm, transformers], task.random_seed: [1, 2]}\n",
        tmp_path,
    )
    assert study["execution"] == {"n_cycles": 2}
    assert study["runners"] == {"vllm": "docker:ours/vllm:1"}
    read = study_from_mapping(study)
    assert [
        (experiment.model.backend, experiment.model.random_seed) for experiment in read.experiments
    ] == [
        ("vllm", 1),
        ("vllm", 2),
        ("pytorch", 1),
        ("pytorch", 2),
    ]
    assert {experiment.model.n for experiment in read.experiments} == {5}


def test_a_study_of_ours_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to convert"):
        converted("model: gpt2\n", tmp_path)


def test_a_study_that_contradicts_itself_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"old\.yaml: .* warmup is set to a plain value"):
        converted(
            "model: gpt2\noffline: {warmup: 5}\nmeasurement: {warmup: {n_prompts: 3}}", tmp_path
        )


def test_a_key_is_read_with_and_without_the_words_of_its_later_releases(tmp_path: Path) -> None:
    spelt = "tensorrt: {engine_params: {calib: {calib_batches: 2}}}\ntask: {random_seed: 5}\n"
    plain = "tensorrt: {calib: {calib_batches: 2}}\nrandom_seed: 5\n"
    shared = "serving_mode: offline\nmodel: gpt2\nengine: tensorrt\n"
    study, notes = converted(shared + spelt, tmp_path)
    assert (study, notes) == converted(shared + plain, tmp_path)
    assert study["tensorrt"] == {"engine": {"calib_config": {"calib_batches": 2}}}
