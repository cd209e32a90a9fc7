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


def points(loaded: Study, name: str) -> list[Any]:
    return [value_at(experiment.config, name) for experiment in loaded.experiments]


def test_nothing_given_changes_nothing() -> None:
    assert overridden().experiments == study_from_mapping(STUDY).experiments


@pytest.mark.parametrize(
    ("arguments", "name", "values"),
    [
        (("n=3", "decoder.top_k=1"), "n", [3, 3]),
        (("n=3", "decoder.top_k=1"), "decoder.top_k", [1, 1]),
        (("pytorch.batch_size=4",), "pytorch.batch_size", [4, 4, 4]),
        (("pytorch.batch_size=4",), "max_input_tokens", [8, 8, 512]),
        (("sweep.decoder.temperature=[0, 1]",), "decoder.temperature", [0, 1, 0, 1, 1]),
    ],
)
def test_an_override_fixes_what_sweep_group_and_experiments_set(
    arguments: tuple[str, ...], name: str, values: list[Any]
) -> None:
    assert points(overridden(*arguments), name) == values


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
    assert set(points(loaded, "pytorch.batch_size")) == {4}
    assert "pytorch.batch_size" not in loaded.swept_keys


SPECULATIVE = {"num_speculative_tokens": 1, "prompt_lookup_max": 2}
SERVER = {"base_url": "http://127.0.0.1:8000/v1", "body": SPECULATIVE}
ENGINES = [{"backend": "pytorch", "pytorch.batch_size": 8}, {"backend": "vllm", "n": 8}]


@pytest.mark.parametrize(
    ("study", "overrides", "name", "values"),
    [
        ({"backend": ["pytorch", "vllm"]}, {"backend": "vllm"}, "backend", ["vllm"]),
        (
            {"sweep": {"engine": ENGINES, "random_seed": [1]}},
            {"backend": "vllm"},
            "backend",
            ["vllm"],
        ),
        (
            {"sweep": {"engine": [{"backend": "pytorch"}, {"backend": "vllm"}]}},
            {"backend": "sglang"},
            "backend",
            ["sglang"],
        ),
        # An override of a backend is for that backend alone.
        (
            {"backend": ["pytorch", "vllm"]},
            {"pytorch.batch_size": 4},
            "pytorch.batch_size",
            [4, None],
        ),
        # A free mapping is replaced as a whole, and one field of it alone.
        (
            {"passthrough_kwargs": {"a": 1, "b": 2}},
            {"passthrough_kwargs": {"a": 3}},
            "passthrough_kwargs",
            [{"a": 3}],
        ),
        (
            {"backend": "openai", "openai": SERVER},
            {"openai.body.num_speculative_tokens": 3},
            "openai.body",
            [SPECULATIVE | {"num_speculative_tokens": 3}],
        ),
        (
            {"backend": "vllm", "vllm": {"engine": {"speculative_config": SPECULATIVE}}},
            {"vllm.engine.speculative_config.num_speculative_tokens": 3},
            "vllm.engine.speculative_config",
            [SPECULATIVE | {"num_speculative_tokens": 3}],
        ),
    ],
    ids=[
        *("one backend of several", "entries of a group", "a backend that no entry has"),
        *("settings of a backend", "a free mapping", "a field of a request", "of a parameter"),
    ],
)
def test_an_override_is_laid_over_what_the_study_has(
    study: dict[str, Any], overrides: dict[str, Any], name: str, values: list[Any]
) -> None:
    loaded = study_from_mapping({"model": "tiny-llama", **study}, overrides=overrides)
    assert points(loaded, name) == values


def test_an_override_of_a_backend_that_the_study_does_not_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sglang.*which the study does not use"):
        overridden("sglang.engine.dtype=bfloat16")


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
    loaded = study_from_mapping(study, overrides={**given, "name": "other"})
    assert (loaded.name, loaded.n_cycles) == ("other", 2)
    assert loaded.execution.cycle_order == "sequential"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # It would be lost.
        (("n=4", "n=8"), "n: is given twice"),
        (("decoder.top_k=1", "decoder={top_k: 2}"), "sets decoder.top_k, which is set already"),
        (("execution.n_cycles=2", "execution={n_cycles: 3}"), "sets execution.n_cycles, which"),
        (("n=",), "n: has no value; `null` unsets it"),
        (("base=other.yaml",), "base: cannot be set over a study; name it in the study itself"),
        # It is none.
        (("n",), "must be KEY=VALUE"),
        (("=3",), "must be KEY=VALUE"),
        (("n=[1",), "n: is no valid YAML"),
        (("nn=3",), "nn: unknown key"),
        (("decoder.temprature=3",), "did you mean decoder.temperature?"),
        (("decoder..top_k=3",), "is no setting's name"),
        (("n=0",), "n: must be at least 1"),
        (("execution.n_cycles=0",), "execution.n_cycles: must be at least 1"),
        (("execution.cycles=2",), "did you mean execution.n_cycles?"),
        (("model.x=1",), "unknown key"),
        # Whatever its value.
        (("decoder={temprature: null}",), "did you mean"),
        (("execution={n_cycls: null}",), "did you mean"),
        (("decoder={top_k:5}",), "blank after its colon"),
    ],
)
def test_an_override_that_cannot_be_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        overridden(*arguments)
    assert message in str(caught.value)


def test_a_key_that_is_near_none_names_each_known_one_once() -> None:
    message = unknown_key_message(("zz",), STUDY_KEYS)
    names = message.partition("known here: ")[2].split(", ")
    assert {"model", "backend", "execution", "sweep"} <= set(names)
    assert len(names) == len(set(names))


def test_override_of_a_file_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("model: tiny-llama\nn: 4\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study(path, {"n": 0})
    assert "study.yaml" not in str(caught.value)


ENDLESS: dict[str, Any] = {"model": "x"}
ENDLESS["decoder"] = ENDLESS


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"model": "x", "decoder": object()}, "decoder: must be text, a number"),
        ({"model": "x", "decoder": {"temperature": float("nan")}}, "finite"),
        ({"model": "x", 3: 4}, "a key must be text"),
        (["model"], "must be a mapping"),
        (ENDLESS, "holds itself"),
    ],
    ids=["an object", "no number", "a number as key", "a list", "without an end"],
)
def test_program_values_must_be_plain(study: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        study_from_mapping(study)


def test_mapping_uses_its_origin_for_name_and_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: tiny-llama\nn: 4\n")
    loaded = study_from_mapping({"base": "base.yaml"}, origin=tmp_path / "mine.yaml")
    assert loaded.name == "mine"
    assert loaded.experiments[0].model.n == 4
    assert study_from_mapping({"model": "tiny-llama"}).name == "study"
