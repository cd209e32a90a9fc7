"""What SGLang is told: in process and on its server's command line, from one study."""

import json
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.sglang.arguments import (
    engine_arguments,
    environment,
    sampling_parameters,
)
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import resolve_model

pytest.importorskip("tokenizers")


def experiment(**values: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "backend": "sglang", **values})


def arguments(**values: Any) -> dict[str, Any]:
    config = experiment(**values)
    return engine_arguments(config, resolve_model(config))


def server(**values: Any) -> ServerCommand:
    backend = registry.get("sglang")
    return backend.server(experiment(**values), 12345)


def option(command: ServerCommand, name: str) -> str:
    return command.argv[command.argv.index(name) + 1]


def test_the_study_s_own_settings_are_told_in_the_engine_s_words() -> None:
    engine = arguments(precision="fp16", random_seed=7)
    assert engine["dtype"] == "float16"
    assert engine["random_seed"] == 7
    assert "load_format" not in engine
    assert arguments(model="Llama-3.1-8B", weights="random")["load_format"] == "dummy"


def test_every_knob_reaches_the_engine_and_passthrough_wins() -> None:
    engine = arguments(
        sglang={"engine": {"chunked_prefill_size": 64, "enable_hierarchical_cache": True}},
        passthrough_kwargs={"chunked_prefill_size": 128, "some_new_option": 1},
    )
    assert engine["chunked_prefill_size"] == 128
    assert engine["enable_hierarchical_cache"] is True
    assert engine["some_new_option"] == 1


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ({"preset": "deterministic"}, {"temperature": 0.0, "repetition_penalty": 1.0}),
        (
            {"temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0.1},
            {
                "temperature": 0.7,
                "top_k": -1,
                "top_p": 0.9,
                "min_p": 0.1,
                "repetition_penalty": 1.0,
            },
        ),
    ],
)
def test_choice_of_tokens_and_equal_counts(decoder: Any, expected: dict[str, Any]) -> None:
    sampling = sampling_parameters(experiment(decoder=decoder), 5)
    assert sampling == {"max_new_tokens": 5, "ignore_eos": True, **expected}


def test_an_answer_may_end_early_where_the_study_says_so() -> None:
    natural = sampling_parameters(experiment(answer_length="natural"), 5)
    assert natural["min_new_tokens"] == 1
    assert "ignore_eos" not in natural
    # Of the tokens that end an answer SGLang asks its tokenizer.
    assert arguments(answer_length="natural")["skip_tokenizer_init"] is False
    assert arguments()["skip_tokenizer_init"] is True
    sampling = sampling_parameters(experiment(decoder={"min_new_tokens": 9}), 5)
    assert sampling["min_new_tokens"] == 5
    assert "ignore_eos" not in sampling


def test_the_engine_s_own_sampling_wins() -> None:
    config = experiment(sglang={"sampling": {"temperature": 0.2, "n": 3}})
    sampling = sampling_parameters(config, 5)
    assert (sampling["temperature"], sampling["n"]) == (0.2, 3)


def test_a_cpu_is_told_before_sglang_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment(experiment()) == {}
    on_cpu = experiment(sglang={"engine": {"device": "cpu"}})
    assert environment(on_cpu) == {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(on_cpu) == {"SGLANG_USE_CPU_ENGINE": "1"}


def test_the_server_is_told_the_same_and_listens_here_alone() -> None:
    command = server(
        precision="fp32",
        sglang={
            "engine": {
                "tp_size": 2,
                "disable_radix_cache": True,
                "enable_torch_compile": False,
                "dllm_fdfo": False,
                "cuda_graph_bs_decode": [1, 2, 4],
                "forward_hooks": [{"name": "x"}],
            }
        },
    )
    assert command.argv[1:4] == ("-P", "-m", "sglang.launch_server")
    assert option(command, "--host") == "127.0.0.1"
    assert option(command, "--port") == "12345"
    assert command.base_url == "http://127.0.0.1:12345/v1"
    assert option(command, "--served-model-name") == command.model
    assert option(command, "--dtype") == "float32"
    assert option(command, "--tensor-parallel-size") == "2"
    assert "--disable-radix-cache" in command.argv
    assert "--enable-metrics" in command.argv
    assert "--enable-torch-compile" not in command.argv
    assert "--no-dllm-fdfo" in command.argv
    assert "--skip-tokenizer-init" not in command.argv
    index = command.argv.index("--cuda-graph-bs-decode")
    assert command.argv[index + 1 : index + 4] == ("1", "2", "4")
    assert json.loads(option(command, "--forward-hooks")) == [{"name": "x"}]


def test_the_server_is_asked_for_the_same_sampling() -> None:
    command = server(decoder={"temperature": 0.5}, sglang={"sampling": {"sampling_seed": 4}})
    assert command.body == {
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 50,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "seed": 4,
    }
    assert server(decoder={"min_new_tokens": 3}).body["min_tokens"] == 3
    assert server(answer_length="natural").body["min_tokens"] == 1


def test_what_the_server_cannot_be_asked_is_refused() -> None:
    with pytest.raises(BackendError, match="beam_width"):
        server(sglang={"sampling": {"beam_width": 2}})


def test_what_stands_in_the_way_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = experiment(
        passthrough_kwargs={"dtype": "half", "served_model_name": "x"},
    )
    keys = [problem.key for problem in registry.get("sglang").problems(config)]
    assert keys[-3:] == [
        "sglang.engine.device",
        "passthrough_kwargs.dtype",
        "passthrough_kwargs.served_model_name",
    ]
    on_cpu = experiment(sglang={"engine": {"device": "cpu"}})
    assert [problem.key for problem in registry.get("sglang").problems(on_cpu)] in (
        [],
        ["backend"],
    )


def test_what_only_the_engine_in_process_takes_is_refused_for_the_server() -> None:
    with pytest.raises(BackendError, match=r"engine\.enable_cp_tp_group_sharing"):
        server(sglang={"engine": {"enable_cp_tp_group_sharing": True}})
