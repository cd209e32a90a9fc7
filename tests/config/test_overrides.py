"""Settings given from outside win over the study, wherever it sets them."""

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.fields import unknown_key_message
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import parse_overrides
from llenergymeasure.config.study_file import STUDY_KEYS
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping

STUDY: dict[str, Any] = {
    "model": "tiny-llama",
    "decoder": {"top_k": 5},
    "sweep": {"n": [1, 2], "load": [{"pytorch.batch_size": 1, "max_input_tokens": 8}]},
    "experiments": [{"n": 9, "decoder": {"top_k": 6}}],
}


def overridden(*arguments: str) -> Study:
    return study_from_mapping(STUDY, overrides=parse_overrides(arguments))


def test_nothing_given_changes_nothing() -> None:
    assert overridden().experiments == study_from_mapping(STUDY).experiments


def test_override_fixes_what_the_sweep_varies_and_experiments_set() -> None:
    loaded = overridden("n=3", "decoder.top_k=1")
    assert [experiment.model.n for experiment in loaded.experiments] == [3, 3]
    assert {experiment.model.decoder.top_k for experiment in loaded.experiments} == {1}


def test_override_takes_a_setting_out_of_a_group() -> None:
    loaded = overridden("pytorch.batch_size=4")
    sizes = [value_at(experiment.config, "pytorch.batch_size") for experiment in loaded.experiments]
    assert sizes == [4, 4, 4]
    assert value_at(loaded.experiments[0].config, "max_input_tokens") == 8


@pytest.mark.parametrize(
    "sweep",
    [
        {"pytorch": [{"batch_size": 1}, {"batch_size": 8}]},
        {"load": [{"pytorch": {"batch_size": 1}, "n": 4}, {"pytorch": {"batch_size": 8}}]},
        {"pytorch.batch_size": [1, 8]},
    ],
)
@pytest.mark.parametrize("overrides", [{"pytorch.batch_size": 4}, {"pytorch": {"batch_size": 4}}])
def test_an_override_wins_however_the_study_writes_it(
    sweep: dict[str, Any], overrides: dict[str, Any]
) -> None:
    loaded = study_from_mapping({"model": "tiny-llama", "sweep": sweep}, overrides=overrides)
    assert {
        value_at(experiment.config, "pytorch.batch_size") for experiment in loaded.experiments
    } == {4}
    assert "pytorch.batch_size" not in loaded.swept_keys


def test_an_override_of_a_backend_is_for_that_backend_alone() -> None:
    study = {"model": "tiny-llama", "backend": ["pytorch", "vllm"]}
    loaded = study_from_mapping(study, overrides={"pytorch.batch_size": 4})
    sizes = [value_at(experiment.config, "pytorch.batch_size") for experiment in loaded.experiments]
    assert sizes == [4, None]
    with pytest.raises(ConfigurationError, match=r"sglang.*which the study does not use"):
        study_from_mapping(study, overrides={"sglang.engine.dtype": "bfloat16"})


def test_an_override_leaves_a_free_mapping_whole() -> None:
    study = {"model": "tiny-llama", "passthrough_kwargs": {"a": 1, "b": 2}}
    loaded = study_from_mapping(study, overrides={"passthrough_kwargs": {"a": 3}})
    assert loaded.experiments[0].model.passthrough_kwargs == {"a": 3}


@pytest.mark.parametrize("backend", ["openai", "vllm"])
def test_an_override_of_one_field_of_a_free_mapping_keeps_the_others(backend: str) -> None:
    name = "num_speculative_tokens"
    both = {name: 1, "prompt_lookup_max": 2}
    section: dict[str, Any] = {"base_url": "http://127.0.0.1:8000/v1", "body": dict(both)}
    path = "openai.body"
    if backend == "vllm":
        section = {"engine": {"speculative_config": dict(both)}}
        path = "vllm.engine.speculative_config"
    study = {"model": "tiny-llama", "backend": backend, backend: section}
    loaded = study_from_mapping(study, overrides={f"{path}.{name}": 3})
    assert value_at(loaded.experiments[0].config, path) == {**both, name: 3}


@pytest.mark.parametrize("dataset", ["synthetic", {"input_len": 64, "output_len": 32, "n": 5}])
def test_an_override_of_one_length_of_the_data_set_keeps_the_others(dataset: Any) -> None:
    study = {"model": "tiny-llama", "n": 5, "max_output_tokens": 32, "dataset": dataset}
    loaded = study_from_mapping(study, overrides={"dataset.input_len": 128})
    dataset = loaded.experiments[0].model.synthetic()
    assert dataset is not None
    assert (dataset.n, dataset.input_len, dataset.output_len) == (5, 128, 32)


@pytest.mark.parametrize("given", [{"execution": {"n_cycles": 2}}, {"execution.n_cycles": 2}])
def test_an_override_of_a_study_s_section_keeps_what_it_does_not_set(given: Any) -> None:
    study = {"model": "tiny-llama", "execution": {"n_cycles": 5, "cycle_order": "sequential"}}
    loaded = study_from_mapping(study, overrides=given)
    assert (loaded.n_cycles, loaded.execution.cycle_order) == (2, "sequential")


def test_override_of_execution_sweep_and_name() -> None:
    loaded = overridden("execution.n_cycles=7", "sweep.decoder.temperature=[0, 1]", "name=other")
    assert (loaded.name, loaded.n_cycles) == ("other", 7)
    assert len(loaded.experiments) == 2 * 2 + 1


def test_override_of_the_backend_picks_one() -> None:
    study = {"model": "tiny-llama", "backend": ["pytorch", "vllm"]}
    loaded = study_from_mapping(study, overrides={"backend": "vllm"})
    assert [experiment.model.backend for experiment in loaded.experiments] == ["vllm"]


def test_an_override_of_the_backend_picks_its_entries_of_a_group() -> None:
    group = [
        {"backend": "pytorch", "pytorch.batch_size": 8},
        {"backend": "vllm", "vllm.engine.max_num_seqs": 8},
    ]
    study: dict[str, Any] = {"model": "tiny-llama", "sweep": {"engine": group, "n": [1, 2]}}
    loaded = study_from_mapping(study, overrides={"backend": "vllm"})
    assert [experiment.model.backend for experiment in loaded.experiments] == ["vllm", "vllm"]
    assert value_at(loaded.experiments[0].config, "vllm.engine.max_num_seqs") == 8
    study["sweep"] = {"engine": [{"backend": "pytorch"}, {"backend": "vllm"}]}
    loaded = study_from_mapping(study, overrides={"backend": "sglang"})
    assert [experiment.model.backend for experiment in loaded.experiments] == ["sglang"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("n=4", "n=8"), "n: is given twice"),
        (("decoder.top_k=1", "decoder={top_k: 2}"), "sets decoder.top_k, which is set already"),
        (("execution.n_cycles=2", "execution={n_cycles: 3}"), "sets execution.n_cycles, which"),
        (("n=",), "n: has no value; `null` unsets it"),
        (("base=other.yaml",), "base: cannot be set over a study; name it in the study itself"),
    ],
)
def test_an_override_that_would_be_lost_is_refused(
    arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        overridden(*arguments)
    assert message in str(caught.value)


def test_a_key_that_is_near_none_names_each_known_one_once() -> None:
    message = unknown_key_message(("zz",), STUDY_KEYS)
    names = message.partition("known here: ")[2].split(", ")
    assert {"model", "backend", "execution", "sweep"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("n", "must be KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        ("n=[1", "n: is no valid YAML"),
        ("nn=3", "nn: unknown key"),
        ("decoder.temprature=3", "did you mean decoder.temperature?"),
        ("decoder..top_k=3", "is no setting's name"),
        ("n=0", "n: must be at least 1"),
        ("execution.n_cycles=0", "execution.n_cycles: must be at least 1"),
        ("execution.cycles=2", "did you mean execution.n_cycles?"),
        ("model.x=1", "unknown key"),
    ],
)
def test_bad_override_is_told(argument: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        overridden(argument)
    assert message in str(caught.value)


def test_override_of_a_file_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("model: tiny-llama\nn: 4\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study(path, {"n": 0})
    assert "study.yaml" not in str(caught.value)


def test_a_misspelt_override_is_refused_whatever_its_value(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("model: tiny-llama\n")
    for text in ("decoder={temprature: null}", "execution={n_cycls: null}", "decoder={top_k:5}"):
        with pytest.raises(ConfigurationError, match=r"did you mean|blank after its colon"):
            load_study(path, parse_overrides([text]))


def test_program_values_must_be_plain() -> None:
    with pytest.raises(ConfigurationError, match="decoder: must be text, a number"):
        study_from_mapping({"model": "x", "decoder": object()})
    with pytest.raises(ConfigurationError, match="finite"):
        study_from_mapping({"model": "x", "decoder": {"temperature": float("nan")}})
    with pytest.raises(ConfigurationError, match="a key must be text"):
        study_from_mapping({"model": "x", 3: 4})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="must be a mapping"):
        study_from_mapping(["model"])  # type: ignore[arg-type]
    endless: dict[str, Any] = {"model": "x"}
    endless["decoder"] = endless
    with pytest.raises(ConfigurationError, match="holds itself"):
        study_from_mapping(endless)


def test_mapping_uses_its_origin_for_name_and_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: tiny-llama\nn: 4\n")
    loaded = study_from_mapping({"base": "base.yaml"}, origin=tmp_path / "mine.yaml")
    assert loaded.name == "mine"
    assert loaded.experiments[0].model.n == 4
    assert study_from_mapping({"model": "tiny-llama"}).name == "study"
