"""Every parameter of an engine as a key of a study: taken, checked, and told what would do."""

import subprocess
import sys
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llenergymeasure.backends import registry
from llenergymeasure.config.dotted import nest, value_at
from llenergymeasure.config.engine_parameters import Schema, choices, forms
from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import ENGINE_SECTIONS
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import study_from_mapping

WRONG = object()
SAMPLES: dict[str, Any] = {
    "boolean": True,
    "integer": 1,
    "number": 0.5,
    "string": "text",
    "any": 1,
    "array": [],
    "object": {},
}


def right(schema: Schema) -> Any:
    """Return a value the parameter takes."""
    if schema.get("default") is not None:
        return schema["default"]
    if choices(schema):
        return choices(schema)[0]
    kind = next(kind for kind in SAMPLES if kind in forms(schema))
    least = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    return max([SAMPLES[kind], *least]) if kind == "integer" else SAMPLES[kind]


def wrong(schema: Schema) -> Any:
    """Return a value the parameter cannot take; ``WRONG`` where it takes anything."""
    kinds = forms(schema)
    if "any" in kinds:
        return WRONG
    if "object" not in kinds:
        return {"no": "mapping"}
    return ["no list"] if "array" not in kinds else 1.5


def wrong_text(schema: Schema) -> str | None:
    """Return a text the parameter cannot take; None where text is among what it takes."""
    if choices(schema) and forms(schema) <= {"enum", "string"}:
        return "no-such-choice"
    return "many" if forms(schema) <= {"boolean", "integer", "number"} else None


def settable(section: type[EngineSection]) -> dict[str, Schema]:
    parameters = {name: section.parameter(name) for name in section.names()}
    return {
        name: schema
        for name, schema in parameters.items()
        if schema is not None and forms(schema) != {"nothing"}
    }


def experiment(section: type[EngineSection], settings: dict[str, Any]) -> ExperimentConfig:
    backend, _, part = section.study_path.partition(".")
    values = {part: settings} if part else settings
    return ExperimentConfig.model_validate(
        {"model": "tiny-llama", "backend": backend, backend: values}
    )


def refused(**study: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        study_from_mapping({"model": "tiny-llama", **study})
    return str(caught.value)


def loaded(**study: Any) -> Study:
    return study_from_mapping({"model": "tiny-llama", **study})


@pytest.mark.parametrize("section", ENGINE_SECTIONS, ids=lambda section: section.study_path)
def test_every_parameter_takes_what_the_engine_takes(section: type[EngineSection]) -> None:
    for name, schema in settable(section).items():
        if name in ("load_in_4bit", "cache_implementation", "attn_implementation"):
            continue
        value = right(schema)
        config = experiment(section, {name: value}).model_dump(exclude_none=True)
        assert value_at(config, f"{section.study_path}.{name}") == value


@pytest.mark.parametrize("section", ENGINE_SECTIONS, ids=lambda section: section.study_path)
def test_every_parameter_refuses_another_type_by_name(section: type[EngineSection]) -> None:
    for name, schema in settable(section).items():
        value = wrong(schema)
        if value is WRONG:
            continue
        with pytest.raises(ValidationError) as caught:
            experiment(section, {name: value})
        assert any(name in error["loc"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("section", "min_count"), [("vllm.engine", 240), ("sglang.engine", 520), ("vllm.sampling", 30)]
)
def test_parameters_can_be_swept_and_a_wrong_point_is_an_error(
    section: str, min_count: int
) -> None:
    model = next(part for part in ENGINE_SECTIONS if part.study_path == section)
    backend = section.partition(".")[0]
    assert len(settable(model)) >= min_count
    # Those that a rule holds together with the study or the model.
    skip = {"dtype", "seed", "random_seed", "max_model_len", "context_length"}
    checked = 0
    for name, schema in settable(model).items():
        bad = wrong_text(schema)
        if name in skip or bad is None or checked == 60:
            continue
        study = loaded(backend=backend, sweep={f"{section}.{name}": [right(schema)]})
        assert len(study.experiments) == 1, name
        with pytest.raises(ConfigurationError) as caught:
            loaded(backend=backend, sweep={f"{section}.{name}": [right(schema), bad]})
        assert f"{section}.{name}[1]: must be" in str(caught.value)
        if choices(schema):
            assert str(choices(schema)[0]) in str(caught.value)
        checked += 1
    assert checked >= (30 if "engine" in section else 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # An unknown name: the nearest one, or where the names are.
        ("vllm.engine.kv_cache_dtpye: fp8", "did you mean vllm.engine.kv_cache_dtype?"),
        ("sglang.engine.tensor_parallel_size: 2", "did you mean sglang.engine.tp_size?"),
        ("sglang.engine.zzz_zzz: 2", "sglang 0.5 … no such setting … llem config sglang"),
        ("tensorrt.engine.zzz: 5", "incomplete … passthrough_kwargs"),
        ("tensorrt.engine.max_batchsize: 5", "did you mean tensorrt.engine.max_batch_size?"),
        (
            "vllm.engine.attention_config: {backnd: X}",
            "vllm.engine.attention_config.backnd: unknown key; did you mean backend?",
        ),
        ("stream_interval: 2", "vllm.engine.stream_interval"),
        (
            "{backend: vllm, sweep: {vllm.engine.async_schedulin: [true]}}",
            "did you mean vllm.engine.async_scheduling?",
        ),
        # A value that it cannot take.
        (
            "vllm.engine.performance_mode: turbo",
            "must be one of balanced, interactivity, throughput … turbo",
        ),
        (
            "vllm.engine.quantization: zzz",
            "must be one of awq … compressed-tensors … passthrough_kwargs",
        ),
        ("vllm.engine.max_loras: 0", "vllm.engine.max_loras: must be at least 1 … 0"),
        (
            "vllm.engine.attention_config: {backend: X}",
            "vllm.engine.attention_config.backend: must be one of FLASH_ATTN",
        ),
        (
            "vllm.engine.numa_bind_nodes: [1, x]",
            "vllm.engine.numa_bind_nodes[1]: must be a whole number",
        ),
        # What a study may not set, or sets elsewhere.
        ("sglang.engine.host: 0.0.0.0", "sglang.engine.host … this machine alone"),
        ("vllm.engine.hf_token: secret", "vllm.engine.hf_token … HF_TOKEN"),
        ("pytorch.temperature: 0.5", "set decoder.temperature"),
        ("pytorch.eos_token_id: 5", "counted as output"),
        ("vllm.sampling.output_kind: 1", "set by the engine itself"),
        (
            "{backend: tensorrt, tensorrt: {tp_size: 2, engine: {tensor_parallel_size: 2}}}",
            "are the same setting",
        ),
    ],
)
def test_what_cannot_be_is_told_with_what_would_do(text: str, words: str) -> None:
    study = yaml.safe_load(text)
    for key in [key for key in study if "." in key]:
        path = tuple(key.split("."))
        study = {"backend": path[0], **nest(path, study[key])}
    message = refused(**study)
    for word in words.split(" … "):
        assert word in message
    assert "secret" not in message


def test_all_faults_are_told_at_once() -> None:
    message = refused(
        backend="vllm", vllm={"engine": {"async_scheduling": "maybe", "max_loras": 0, "seed": "x"}}
    )
    assert message.count("must be") == 3


def test_a_class_by_its_path_and_an_enumeration_in_small_letters_are_taken() -> None:
    engine = {"scheduler_cls": "my.module.Scheduler", "attention_backend": "flash_attn"}
    study = loaded(backend="vllm", vllm={"engine": engine})
    assert study.experiments[0].config["vllm"]["engine"] == engine


def test_ranges_and_keys_inside_a_parameter_can_be_swept() -> None:
    study = loaded(
        backend="vllm",
        sweep={
            "vllm.engine.stream_interval": {"pow2": {"min": 1, "max": 4}},
            "vllm.engine.compilation_config.mode": [0, 3],
        },
    )
    assert [cell.swept["vllm.engine.stream_interval"] for cell in study.experiments] == [
        *(1, 1, 2, 2, 4, 4)
    ]


def test_an_unset_parameter_leaves_the_id_alone() -> None:
    def id_with(**engine: Any) -> str:
        return loaded(backend="vllm", vllm={"engine": engine}).experiments[0].id

    unset = id_with(enable_mfu_metrics=None)
    assert unset == id_with(max_num_seqs=None) != id_with(enable_mfu_metrics=True)


def test_older_names_of_vllm_become_todays_and_are_noted() -> None:
    engine = {
        "swap_space": 4,
        "speculative_model": "draft",
        "num_speculative_tokens": 3,
        "attention": {"backend": "FLASH_ATTN", "use_cudnn_prefill": True},
        "compilation_config": {"level": 3},
        "max_num_seqs": 8,
    }
    study = loaded(backend="vllm", vllm={"engine": engine})
    config = study.experiments[0].model
    assert config.vllm is not None
    assert config.vllm.engine is not None
    arguments = config.vllm.engine.arguments()
    assert arguments == {
        "max_num_seqs": 8,
        "speculative_config": {"model": "draft", "num_speculative_tokens": 3},
        "attention_config": {"backend": "FLASH_ATTN"},
        "compilation_config": {"mode": 3},
    }
    # What they become is what today's vLLM takes.
    type(config.vllm.engine).model_validate(arguments)
    notes = "\n".join(study.notes)
    for words in (
        *("swap_space", "speculative_config", "attention_config", "use_cudnn_prefill"),
        "calls it mode",
    ):
        assert words in notes


WATCH = """
import sys
opened = []
def hook(event, args):
    if event == "open" and "engine_parameters" in str(args[0]) and str(args[0]).endswith(".json"):
        opened.append(str(args[0]).rsplit("/", 1)[-1])
sys.addaudithook(hook)
from llenergymeasure.workload.load_study import study_from_mapping
for settings in (
    {"backend": "pytorch"},
    {"backend": "vllm"},
    {"pytorch": {"batch_size": 4}},
    {"backend": "vllm", "vllm": {"engine": {"enable_mfu_metrics": True}}},
):
    study_from_mapping({"model": "x", **settings})
    print(*opened)
print(any(name in sys.modules for name in ("torch", "transformers", "vllm", "sglang")))
"""


def test_only_the_files_a_study_needs_are_read_and_no_engine() -> None:
    process = subprocess.run(
        [sys.executable, "-c", WATCH], capture_output=True, text=True, check=True
    )
    opened = ["", "", "pytorch.json", "pytorch.json vllm.json"]
    assert process.stdout.splitlines() == [*opened, "False"]


@pytest.mark.parametrize(
    ("backend", "name", "value", "why"),
    [
        ("vllm", "device_ids", [1], "of the GPUs it is given"),
        ("vllm", "nnodes", 2, "what other machines draw"),
        ("vllm", "data_parallel_address", "10.0.0.2", "what other machines draw"),
        ("sglang", "base_gpu_id", 1, "of the GPUs it is given"),
        ("sglang", "nnodes", 2, "what other machines draw"),
    ],
)
@pytest.mark.parametrize("where", ["engine", "passthrough"])
def test_work_on_cards_that_nobody_meters_is_refused(
    backend: str, name: str, value: Any, why: str, where: str
) -> None:
    settings: dict[str, Any] = {"model": "tiny-llama", "backend": backend}
    if where == "engine":
        with pytest.raises(ValidationError, match=why):
            ExperimentConfig.model_validate({**settings, backend: {"engine": {name: value}}})
        return
    config = ExperimentConfig.model_validate({**settings, "passthrough_kwargs": {name: value}})
    problems = [str(problem) for problem in registry.get(backend).problems(config)]
    assert any(why in problem for problem in problems), problems
