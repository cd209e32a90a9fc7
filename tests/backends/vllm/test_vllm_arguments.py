"""What vLLM would be told, found without it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import engine_package, registry
from llenergymeasure.backends.common import jsonable
from llenergymeasure.backends.vllm import arguments
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model

GREEDY = {"preset": "deterministic"}


def experiment(**values: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "backend": "vllm", **values})


def source_of(config: ExperimentConfig) -> ModelSource:
    return resolve_model(config)


def engine_of(**values: Any) -> dict[str, Any]:
    config = experiment(**values)
    return arguments.engine_arguments(config, source_of(config))


def sampling_of(**values: Any) -> dict[str, Any]:
    config = experiment(**values)
    return arguments.sampling_parameters(config, source_of(config), 32)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM for the CPU were installed, on a machine that can compile."""
    monkeypatch.setattr(arguments, "on_cpu", lambda: True)
    monkeypatch.setattr(arguments, "built_for_cpu", lambda: True)
    for module in (arguments, engine_package):
        monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr(shutil, "which", lambda _: "there")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")]
)
def test_precision_and_seed(precision: str, dtype: str) -> None:
    engine = engine_of(precision=precision, random_seed=7)
    assert (engine["dtype"], engine["seed"]) == (dtype, 7)


def test_prompts_need_no_tokenizer_but_stop_words_do() -> None:
    assert engine_of()["skip_tokenizer_init"] is True
    assert sampling_of()["detokenize"] is False
    with_words = {"sampling": {"stop": ["."]}}
    assert "skip_tokenizer_init" not in engine_of(vllm=with_words)
    assert "detokenize" not in sampling_of(vllm=with_words)


def test_every_engine_setting_goes_through_and_wins() -> None:
    settings = {
        "max_num_seqs": 3,
        "enable_prefix_caching": False,
        "kv_cache_dtype": "fp8",
        "compilation_config": {"mode": 0},
        "disable_log_stats": True,
        "async_scheduling": True,
    }
    engine = engine_of(vllm={"engine": settings})
    assert {name: engine[name] for name in settings} == settings


def test_passthrough_wins_over_all() -> None:
    assert engine_of(passthrough_kwargs={"some_new_name": 1})["some_new_name"] == 1


def test_random_weights_are_vllms_own_dummies() -> None:
    assert "load_format" not in engine_of()
    assert engine_of(model="Llama-3.1-8B", weights="random")["load_format"] == "dummy"


def test_end_of_sequence_is_ignored_unless_a_fewest_is_given() -> None:
    assert sampling_of()["ignore_eos"] is True
    sampling = sampling_of(decoder={"min_new_tokens": 100})
    assert "ignore_eos" not in sampling
    assert (sampling["min_tokens"], sampling["stop_token_ids"]) == (32, [1])


def test_natural_answers_end_by_themselves() -> None:
    sampling = sampling_of(answer_length="natural")
    assert "ignore_eos" not in sampling
    assert (sampling["min_tokens"], sampling["stop_token_ids"]) == (1, [1])


def test_greedy_and_sampled() -> None:
    assert sampling_of(decoder=GREEDY)["temperature"] == 0
    sampling = sampling_of(decoder={"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1})
    assert {name: sampling[name] for name in ("temperature", "top_k", "top_p", "min_p")} == {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
    }


@pytest.mark.usefixtures("here")
def test_the_cache_on_a_cpu_is_made_for_the_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(arguments, "memory_bytes", lambda _: 64 * 2**30)
    large: dict[str, Any] = {"model": "Llama-3.1-8B", "weights": "random", "n": 32}
    lengths = {"max_input_tokens": 512, "max_output_tokens": 128}
    size = engine_of(**large, **lengths)["kv_cache_memory_bytes"]
    per_token = 2 * 32 * 8 * 128 * 2
    assert 32 * 640 * per_token < size < 64 * 2**30 / 2
    assert engine_of(n=1)["kv_cache_memory_bytes"] == 2**30 / 4
    settings = {"engine": {"kv_cache_memory_bytes": 12345}}
    assert engine_of(vllm=settings)["kv_cache_memory_bytes"] == 12345
    spelt = engine_of(**large, **lengths, passthrough_kwargs={"max_num_seqs": "8"})
    assert spelt["kv_cache_memory_bytes"] == size  # unchecked: a server takes the text
    share = engine_of(vllm={"engine": {"gpu_memory_utilization": 0.5}})
    assert "kv_cache_memory_bytes" not in share


@pytest.mark.usefixtures("here")
def test_variables_that_are_set_already_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    variables = arguments.environment(experiment())
    assert "OMP_NUM_THREADS" not in variables
    assert variables["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def problems(**values: Any) -> dict[str | None, str]:
    return {
        problem.key: problem.message
        for problem in registry.get("vllm").problems(experiment(**values))
    }


def test_a_machine_without_vllm_is_told_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_package, "find_spec", lambda _: None)
    messages = problems()
    assert "vllm not installed" in messages["backend"]
    assert "docker or apptainer" in messages["backend"]


@pytest.mark.usefixtures("here")
def test_what_cannot_be_done_is_told() -> None:
    assert problems() == {}
    messages = problems(
        vllm={"engine": {"data_parallel_size": 2}},
        passthrough_kwargs={"dtype": "half", "fine": 1},
    )
    assert set(messages) == {
        "vllm.engine.data_parallel_size",
        "passthrough_kwargs.dtype",
    }


@pytest.mark.usefixtures("here")
def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "g++" in problems()["vllm.engine.enforce_eager"]
    assert problems(vllm={"engine": {"enforce_eager": True}}) == {}


@pytest.mark.usefixtures("here")
def test_beams_have_no_fewest_tokens() -> None:
    messages = problems(
        vllm={"beam_search": {"beam_width": 2, "early_stopping": True}},
        decoder={"min_new_tokens": 2},
    )
    assert set(messages) == {"vllm.beam_search.early_stopping", "decoder.min_new_tokens"}


def server_of(**values: Any) -> Any:
    return arguments.server_command(experiment(**values), 8123)


def test_the_server_is_told_the_same_in_its_own_spelling() -> None:
    settings = {
        "max_num_seqs": 3,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "compilation_config": {"mode": 0},
    }
    command = server_of(precision="fp16", vllm={"engine": settings})
    line = " ".join(command.argv)
    assert "--host 127.0.0.1 --port 8123" in line
    assert "--dtype float16" in line
    assert "--max-num-seqs 3" in line
    assert "--no-enable-prefix-caching" in line
    assert "--enforce-eager" in command.argv
    assert '{"mode": 0}' in command.argv
    assert "skip-tokenizer-init" not in line
    assert command.base_url == "http://127.0.0.1:8123/v1"
    assert command.environment["VLLM_API_KEY"] == "{api_key}"
    assert "api" not in line.replace("api_server", "")


def test_a_bare_architecture_is_served_without_a_tokenizer() -> None:
    command = server_of(model="Llama-3.1-8B", weights="random")
    assert "--skip-tokenizer-init" in command.argv


def test_requests_to_the_server_sample_as_in_process() -> None:
    body = server_of(decoder={"temperature": 0.5, "top_k": 7}).body
    assert body["ignore_eos"] is True
    assert (body["temperature"], body["top_k"]) == (0.5, 7)
    assert "max_tokens" not in body
    assert "detokenize" not in body
    with pytest.raises(BackendError, match=r"sampling\.extra_args"):
        server_of(vllm={"sampling": {"extra_args": {"a": 1}}})


def test_a_configuration_becomes_plain_values(tmp_path: Path) -> None:
    content = jsonable(
        {"path": tmp_path, "set": {2, 1}, "hf_token": "secret", "_own": 1, "kind": int}
    )
    assert content == {"path": str(tmp_path), "set": ["1", "2"], "kind": "int"}
