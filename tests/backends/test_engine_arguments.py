"""What vLLM, SGLang and TensorRT-LLM get of a study, in process and as servers, without them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import engine_package, registry
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import jsonable
from llenergymeasure.backends.sglang import arguments as sglang
from llenergymeasure.backends.tensorrt import arguments as tensorrt
from llenergymeasure.backends.vllm import arguments as vllm
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import resolve_model

pytest.importorskip("tokenizers")

Study = dict[str, Any]
GREEDY = {"decoder": {"preset": "deterministic"}}
NATURAL = {"answer_length": "natural"}
FEWEST = {"decoder": {"min_new_tokens": 100}}
RANDOM = {"model": "Llama-3.1-8B", "weights": "random"}
STOPS = {"vllm": {"sampling": {"stop": ["."]}}}
SAMPLED = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1}
VLLM_ENGINE = {
    "max_num_seqs": 3,
    "enable_prefix_caching": False,
    "kv_cache_dtype": "fp8",
    "compilation_config": {"mode": 0},
    "async_scheduling": True,
}
MAX_TOKENS = 32
ABSENT = "absent"


def experiment(backend: str, study: Study) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "backend": backend, **study})


def engine_of(backend: str, study: Study) -> dict[str, Any]:
    config = experiment(backend, study)
    module: Any = {"vllm": vllm, "sglang": sglang, "tensorrt": tensorrt}[backend]
    return module.engine_arguments(config, resolve_model(config))


def sampling_of(backend: str, study: Study) -> dict[str, Any]:
    config = experiment(backend, study)
    if backend == "sglang":
        return sglang.sampling_parameters(config, MAX_TOKENS)
    module = {"vllm": vllm, "tensorrt": tensorrt}[backend]
    return module.sampling_parameters(config, resolve_model(config), MAX_TOKENS)


def server_of(backend: str, study: Study) -> ServerCommand:
    return registry.get(backend).server(experiment(backend, study), 8123)


def problems(backend: str, **study: Any) -> dict[str | None, str]:
    found = registry.get(backend).problems(experiment(backend, study))
    return {problem.key: problem.message for problem in found}


def names(rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"{backend} {study}" for backend, study, *_ in rows]


def assert_holds(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: found.get(name, ABSENT) for name in expected} == expected


ENGINES: list[tuple[str, Study, dict[str, Any]]] = [
    ("vllm", {"precision": "fp32", "random_seed": 7}, {"dtype": "float32", "seed": 7}),
    ("vllm", {"precision": "bf16"}, {"dtype": "bfloat16"}),
    ("sglang", {"precision": "fp16", "random_seed": 7}, {"dtype": "float16", "random_seed": 7}),
    ("vllm", {}, {"skip_tokenizer_init": True, "load_format": ABSENT}),
    ("sglang", {}, {"skip_tokenizer_init": True, "load_format": ABSENT}),
    ("vllm", RANDOM, {"load_format": "dummy"}),
    ("sglang", RANDOM, {"load_format": "dummy"}),
    # What turns tokens into words needs the tokenizer; SGLang asks it for what ends an answer.
    ("vllm", STOPS, {"skip_tokenizer_init": ABSENT}),
    ("sglang", NATURAL, {"skip_tokenizer_init": False}),
    ("vllm", {"vllm": {"engine": VLLM_ENGINE}}, VLLM_ENGINE),
    ("vllm", {"vllm": {"engine": {"disable_log_stats": True}}}, {"disable_log_stats": True}),
    ("vllm", {"passthrough_kwargs": {"some_new_name": 1}}, {"some_new_name": 1}),
    (
        "sglang",
        {
            "sglang": {"engine": {"chunked_prefill_size": 64, "enable_hierarchical_cache": True}},
            "passthrough_kwargs": {"chunked_prefill_size": 128, "some_new_option": 1},
        },
        {"chunked_prefill_size": 128, "enable_hierarchical_cache": True, "some_new_option": 1},
    ),
]


@pytest.mark.parametrize(("backend", "study", "expected"), ENGINES, ids=names(ENGINES))
def test_the_engine_gets_what_the_study_says(
    backend: str, study: Study, expected: dict[str, Any]
) -> None:
    assert_holds(engine_of(backend, study), expected)


def test_an_engine_that_was_compiled_elsewhere_gets_what_running_takes_alone() -> None:
    section = {"engine_path": "there", "engine": {"kv_cache_config": {"dtype": "fp8"}}}
    assert engine_of("tensorrt", {"tensorrt": section}) == {
        "model": "there",
        "skip_tokenizer_init": True,
        "kv_cache_config": {"dtype": "fp8"},
    }


DRAWN = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.0}
"""What is drawn by where the study says nothing."""
LIKELIEST = {"temperature": 0.0, "repetition_penalty": 1.0}
FIXED = {"max_tokens": 32, "ignore_eos": True}

SAMPLING: list[tuple[str, Study, dict[str, Any]]] = [
    ("vllm", {}, {**FIXED, **DRAWN, "detokenize": False}),
    ("vllm", STOPS, {**FIXED, **DRAWN, "stop": ["."]}),
    (
        "vllm",
        FEWEST,
        {"max_tokens": 32, "min_tokens": 32, "stop_token_ids": [1], **DRAWN, "detokenize": False},
    ),
    (
        "vllm",
        NATURAL,
        {"max_tokens": 32, "min_tokens": 1, "stop_token_ids": [1], **DRAWN, "detokenize": False},
    ),
    ("vllm", GREEDY, {**FIXED, **LIKELIEST, "detokenize": False}),
    (
        "vllm",
        {"decoder": SAMPLED},
        {**FIXED, **SAMPLED, "repetition_penalty": 1.0, "detokenize": False},
    ),
    (
        "sglang",
        {"decoder": {"top_k": 0}},
        {"max_new_tokens": 32, "ignore_eos": True, **DRAWN, "top_k": -1},
    ),
    ("sglang", GREEDY, {"max_new_tokens": 32, "ignore_eos": True, **LIKELIEST}),
    ("sglang", FEWEST, {"max_new_tokens": 32, "min_new_tokens": 32, **DRAWN}),
    ("sglang", NATURAL, {"max_new_tokens": 32, "min_new_tokens": 1, **DRAWN}),
    (
        "sglang",
        {"sglang": {"sampling": {"temperature": 0.2, "n": 3}}},
        {"max_new_tokens": 32, "ignore_eos": True, **DRAWN, "temperature": 0.2, "n": 3},
    ),
]


@pytest.mark.parametrize(("backend", "study", "expected"), SAMPLING, ids=names(SAMPLING))
def test_tokens_are_chosen_as_the_study_says(
    backend: str, study: Study, expected: dict[str, Any]
) -> None:
    assert sampling_of(backend, study) == expected


def test_an_answer_may_end_with_each_of_a_checkpoint_s_tokens(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x", "eos_token_id": 5}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8, 9]}')
    study = {"model": str(tmp_path)}
    assert_holds(sampling_of("tensorrt", study), {"end_id": 7, "stop_token_ids": ABSENT})
    assert_holds(sampling_of("tensorrt", study | NATURAL), {"end_id": 7, "stop_token_ids": [8, 9]})


BODIES: list[tuple[str, Study, dict[str, Any]]] = [
    (
        "vllm",
        {"decoder": SAMPLED},
        {**SAMPLED, "repetition_penalty": 1.0, "ignore_eos": True},
    ),
    (
        "sglang",
        {"decoder": {"temperature": 0.5}, "sglang": {"sampling": {"sampling_seed": 4}}},
        {**DRAWN, "temperature": 0.5, "seed": 4, "ignore_eos": True},
    ),
    ("sglang", {"decoder": {"min_new_tokens": 3}}, {**DRAWN, "min_tokens": 3}),
    ("sglang", NATURAL, {**DRAWN, "min_tokens": 1}),
    (
        "tensorrt",
        GREEDY,
        {"seed": 42, "top_k": 1, "repetition_penalty": 1.0, "ignore_eos": True},
    ),
    ("tensorrt", NATURAL | {"random_seed": 9}, {**DRAWN, "seed": 9, "min_tokens": 1}),
]


@pytest.mark.parametrize(("backend", "study", "expected"), BODIES, ids=names(BODIES))
def test_the_server_is_asked_for_the_same_tokens(
    backend: str, study: Study, expected: dict[str, Any]
) -> None:
    assert server_of(backend, study).body == expected


@pytest.mark.parametrize(
    ("backend", "section", "name"),
    [
        ("vllm", {"sampling": {"extra_args": {"a": 1}}}, r"sampling\.extra_args"),
        ("sglang", {"sampling": {"beam_width": 2}}, r"sampling\.beam_width"),
        ("sglang", {"engine": {"enable_cp_tp_group_sharing": True}}, r"engine\.enable_cp_tp_group"),
        ("tensorrt", {"sampling": {"logprobs": 2}}, r"sampling\.logprobs"),
    ],
)
def test_what_only_the_engine_in_process_takes_is_refused_for_the_server(
    backend: str, section: dict[str, Any], name: str
) -> None:
    with pytest.raises(BackendError, match=name):
        server_of(backend, {backend: section})


COMMANDS: list[tuple[str, Study, list[str], list[str]]] = [
    (
        "vllm",
        {"precision": "fp16", "vllm": {"engine": VLLM_ENGINE | {"enforce_eager": True}}},
        [
            "--host 127.0.0.1 --port 8123",
            "--dtype float16",
            "--max-num-seqs 3",
            "--no-enable-prefix-caching",
            "--enforce-eager",
            '--compilation-config {"mode": 0}',
        ],
        ["skip-tokenizer-init", "disable-log-stats", "api-key"],
    ),
    ("vllm", RANDOM, ["--skip-tokenizer-init"], []),  # a bare architecture has no tokenizer
    (
        "sglang",
        {
            "precision": "fp32",
            "sglang": {
                "engine": {
                    "tp_size": 2,
                    "disable_radix_cache": True,
                    "enable_torch_compile": False,
                    "dllm_fdfo": False,
                    "cuda_graph_bs_decode": [1, 2, 4],
                    "forward_hooks": [{"name": "x"}],
                }
            },
        },
        [
            "-P -m sglang.launch_server",
            "--host 127.0.0.1 --port 8123",
            "--served-model-name llem",
            "--dtype float32",
            "--tensor-parallel-size 2",
            "--disable-radix-cache",
            "--enable-metrics",
            "--enable-cache-report",
            "--no-dllm-fdfo",
            "--cuda-graph-bs-decode 1 2 4",
            f"--forward-hooks {json.dumps([{'name': 'x'}])}",
        ],
        ["enable-torch-compile", "skip-tokenizer-init", "api-key"],
    ),
]


@pytest.mark.parametrize(
    ("backend", "study", "has", "lacks"), COMMANDS, ids=["vllm", "vllm without words", "sglang"]
)
def test_the_server_is_started_with_the_same_in_its_own_spelling_and_listens_here_alone(
    backend: str, study: Study, has: list[str], lacks: list[str]
) -> None:
    command = server_of(backend, study)
    line = " ".join(command.argv)
    assert [text for text in has if text not in line] == []
    assert [text for text in lacks if text in line] == []
    assert (command.base_url, command.model) == ("http://127.0.0.1:8123/v1", "llem")


def test_the_key_of_a_server_is_on_no_command_line() -> None:
    assert server_of("vllm", {}).environment["VLLM_API_KEY"] == "{api_key}"
    assert server_of("sglang", {}).key_file == 'api-key: "{api_key}"\n'


def test_tensorrt_s_server_reads_its_options_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "cache"))
    section = {"engine": {"kv_cache_config": {"dtype": "fp8"}}, "tp_size": 2}
    argv = server_of("tensorrt", {**RANDOM, "tensorrt": section}).argv
    assert argv[:2] == ("trtllm-serve", "serve")
    assert "--host 127.0.0.1 --port 8123 --backend pytorch" in " ".join(argv[3:9])
    options = Path(argv[argv.index("--extra_llm_api_options") + 1]).read_text()
    lines = ("dtype: bfloat16", "load_format: dummy", "tensor_parallel_size: 2", "dtype: fp8")
    assert [line for line in lines if line not in options] == []
    elsewhere = server_of("tensorrt", {"tensorrt": {"engine_path": "there"}}).argv
    assert elsewhere[2] == "there"
    assert "--tokenizer" in elsewhere


def test_sglang_on_a_cpu_is_prepared_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = experiment("sglang", {"sglang": {"engine": {"device": "cpu"}}})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert sglang.environment(experiment("sglang", {})) == {}
    cpu = {"SGLANG_USE_CPU_ENGINE": "1"}
    assert sglang.environment(on_cpu) == cpu | {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert sglang.environment(on_cpu) == cpu


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM for the CPU were installed, on a machine that can compile."""
    monkeypatch.setattr(vllm, "on_cpu", lambda: True)
    monkeypatch.setattr(vllm, "built_for_cpu", lambda: True)
    for module in (vllm, engine_package):
        monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr(shutil, "which", lambda _: "there")


@pytest.mark.usefixtures("here")
def test_vllm_s_cache_on_a_cpu_is_made_for_the_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    def cache_bytes(study: Study) -> int | None:
        size: int | None = engine_of("vllm", study).get("kv_cache_memory_bytes")
        return size

    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setattr(vllm, "memory_bytes", lambda _: 64 * 2**30)
    large = {**RANDOM, "n": 32, "max_input_tokens": 512, "max_output_tokens": 128}
    size = cache_bytes(large)
    per_token = 2 * 32 * 8 * 128 * 2
    assert size is not None
    assert 32 * 640 * per_token < size < 64 * 2**30 / 2
    assert cache_bytes({"n": 1}) == 2**30 / 4
    assert cache_bytes({"vllm": {"engine": {"kv_cache_memory_bytes": 12345}}}) == 12345
    spelt = large | {"passthrough_kwargs": {"max_num_seqs": "8"}}
    assert cache_bytes(spelt) == size  # unchecked: a server takes the text
    assert cache_bytes({"vllm": {"engine": {"gpu_memory_utilization": 0.5}}}) is None


@pytest.mark.usefixtures("here")
def test_variables_that_are_set_already_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    variables = vllm.environment(experiment("vllm", {}))
    assert "OMP_NUM_THREADS" not in variables
    assert variables["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("study", "keys"),
    [
        ({}, []),
        ({"vllm": {"engine": {"data_parallel_size": 2}}}, ["vllm.engine.data_parallel_size"]),
        ({"passthrough_kwargs": {"dtype": "half", "fine": 1}}, ["passthrough_kwargs.dtype"]),
        (
            {"vllm": {"beam_search": {"beam_width": 2, "early_stopping": True}}, **FEWEST},
            ["decoder.min_new_tokens", "vllm.beam_search.early_stopping"],
        ),
    ],
    ids=["nothing", "data parallel", "a reserved word", "beams"],
)
def test_what_vllm_cannot_do_is_said_beforehand(study: Study, keys: list[str]) -> None:
    assert sorted(problems("vllm", **study)) == keys


@pytest.mark.usefixtures("here")
def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "g++" in problems("vllm")["vllm.engine.enforce_eager"]
    assert problems("vllm", vllm={"engine": {"enforce_eager": True}}) == {}


def test_an_engine_that_is_not_here_is_said_with_what_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_package, "find_spec", lambda _: None)
    message = problems("vllm")["backend"]
    assert "vllm not installed" in message
    assert "docker or apptainer" in message


def test_what_stands_in_sglang_s_way_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reserved = {"dtype": "half", "served_model_name": "x"}
    assert list(problems("sglang", passthrough_kwargs=reserved))[-3:] == [
        "sglang.engine.device",
        *(f"passthrough_kwargs.{name}" for name in reserved),
    ]
    assert set(problems("sglang", sglang={"engine": {"device": "cpu"}})) <= {"backend"}


def test_without_tensorrt_or_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    study = {"tensorrt": {"engine_path": "nowhere"}, "passthrough_kwargs": {"dtype": "half"}}
    keys = {"backend", "tensorrt.engine_path", "passthrough_kwargs.dtype"}
    assert set(problems("tensorrt", **study)) == keys
    assert "tensorrt_llm" not in sys.modules


def test_a_configuration_becomes_plain_values(tmp_path: Path) -> None:
    content = jsonable(
        {"path": tmp_path, "set": {2, 1}, "hf_token": "secret", "_own": 1, "kind": int}
    )
    assert content == {"path": str(tmp_path), "set": ["1", "2"], "kind": "int"}
