"""The backend against TensorRT-LLM's published signatures, on a simulated card.

TensorRT-LLM itself has never run here: what these tests show is that the backend keeps to the
interface that its sources declare.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.models.resolve import resolve_model
from nvml_sim import sim
from support.forks import run_forked

pytest.importorskip("tokenizers")

STANDINS = Path(__file__).parents[2] / "support" / "standins"

LOAD = """
import json, sys
from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.prompts import build_workload
config = ExperimentConfig.model_validate(json.loads(sys.argv[1]))
backend = registry.get("tensorrt")
assert backend.problems(config) == [], backend.problems(config)
try:
    engine = backend.load(config)
except BackendError as error:
    print(json.dumps({"refused": str(error)}))
    raise SystemExit
done = [each for _ in range(2) for each in engine.generate(build_workload(config).requests)]
asked = engine._llm.asked
print(json.dumps({
    "output": [each.output_tokens for each in done], "input": [each.input_tokens for each in done],
    "reasons": sorted({each.finish_reason for each in done}),
    "salts": [each["cache_salt"] for each in asked],
    "sampling": asked[0]["sampling_params"][0].given,
    "class": type(engine._llm).__name__, "resolved": engine.resolved_config(),
    "statistics": engine.statistics(), "devices": engine.devices,
    "versions": backend.versions(),
}, default=str))
engine.close()
"""

CACHE = """
import json, sys
from llenergymeasure.backends.tensorrt.build_cache import environment
from llenergymeasure.config.experiment import ExperimentConfig
config = ExperimentConfig.model_validate(json.loads(sys.argv[1]))
print(json.dumps(environment(config)))
"""
IMPORTED = (
    "llenergymeasure.backends.registry",
    "llenergymeasure.backends.tensorrt.build_cache",
    "llenergymeasure.workload.prompts",
    "pynvml",
)


@pytest.fixture
def variables(tmp_path: Path, library: Path) -> dict[str, str]:  # noqa: ARG001 - builds it
    """A simulated card, the stand-in on the path, and a cache of engines of the test's own."""
    trace = sim.Trace((sim.Device(),)).write(tmp_path)
    environment = sim.environment(trace)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return {
        **environment,
        "PYTHONPATH": str(STANDINS),
        "LLEM_ENGINES": str(tmp_path / "engines"),
        "LLEM_CACHE": os.environ["LLEM_CACHE"],
    }


def load_report(variables: dict[str, str], **values: Any) -> dict[str, Any]:
    config = {
        "model": "tiny-llama",
        "backend": "tensorrt",
        "n": 3,
        "dataset": {"input_len": 12, "output_len": 5},
        **values,
    }
    process = run_forked(LOAD, variables, json.dumps(config), modules=IMPORTED)
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def test_on_pytorch_every_setting_reaches_the_engine(variables: dict[str, str]) -> None:
    answer = load_report(
        variables,
        precision="fp16",
        random_seed=7,
        decoder={"temperature": 0.5, "top_k": 0},
        tensorrt={
            "max_batch_size": 4,
            "engine": {
                "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.5},
                "cuda_graph_config": {"batch_sizes": [1, 4]},
                "enable_iter_perf_stats": True,
                "speculative_config": {
                    "decoding_type": "NGram",
                    "max_draft_len": 4,
                    "max_matching_ngram_size": 2,
                },
                "sparse_attention_config": {"algorithm": "rocket", "topk": 32},
            },
            "sampling": {"n": 2, "guided_decoding": {"json_object": True}},
        },
    )
    assert answer["class"] == "TorchLLM"
    assert answer["output"] == [10] * 6
    assert answer["input"] == [12] * 6
    assert answer["reasons"] == ["length"]
    assert len(set(answer["salts"])) == 2
    sampling = answer["sampling"]
    assert "GuidedDecodingParams" in sampling.pop("guided_decoding")
    assert isinstance(sampling.pop("end_id"), int)
    assert sampling == {
        "max_tokens": 5,
        "ignore_eos": True,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "n": 2,
        "detokenize": False,
        "add_special_tokens": False,
        "seed": 7,
    }
    engine = answer["resolved"]["engine"]
    assert (engine["dtype"], engine["max_batch_size"]) == ("float16", 4)
    assert engine["kv_cache_config"] == {"dtype": "fp8", "free_gpu_memory_fraction": 0.5}
    assert "DecodingBaseConfig" in engine["speculative_config"]
    assert "BaseSparseAttentionConfig" in engine["sparse_attention_config"]
    assert "model" not in engine
    assert answer["resolved"]["prefix_cache"] == "apart for each pass"
    assert answer["statistics"]["kv_cache_share_mean"] == 0.5
    assert answer["statistics"]["kv_cache_share_max"] == 0.75
    assert answer["versions"]["tensorrt_llm"] == "1.2.1"
    assert len(answer["devices"]) == 1


@pytest.mark.slow
def test_random_weights_are_the_engine_s_own_dummies(variables: dict[str, str]) -> None:
    answer = load_report(variables, model="SmolLM2-135M", weights="random")
    assert answer["resolved"]["engine"]["load_format"] == "dummy"
    assert answer["resolved"]["weights"] == "random"
    assert answer["statistics"] == {}


@pytest.mark.slow
def test_a_compiled_engine_is_kept_by_the_engine_s_own_cache(
    variables: dict[str, str], tmp_path: Path
) -> None:
    settings = {
        "quantization": "fp8",
        "engine": {
            "build_config": {"max_batch_size": 8},
            "kv_cache_config": {"free_gpu_memory_fraction": 0.5},
        },
    }
    answer = load_report(variables, tensorrt=settings)
    assert answer["class"] == "CompilingLLM"
    engine = answer["resolved"]["engine"]
    assert engine["kv_cache_config"] == {"free_gpu_memory_fraction": 0.5}
    assert answer["resolved"]["compiled"]
    (engine,) = (tmp_path / "engines").glob("*/engine-*/metadata.json")
    before = engine.stat().st_ino
    load_report(variables, tensorrt=settings)
    (again,) = (tmp_path / "engines").glob("*/engine-*/metadata.json")
    assert (again, again.stat().st_ino) == (engine, before)


@pytest.mark.slow
def test_an_engine_that_is_there_already_is_taken(
    variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    answer = load_report(variables, tensorrt={"engine_path": str(tmp_path / "mine")})
    assert answer["class"] == "CompilingLLM"
    assert not (tmp_path / "engines").exists()


def test_what_the_engine_refuses_is_told_as_it_tells_it(variables: dict[str, str]) -> None:
    answer = load_report(variables, passthrough_kwargs={"no_such_option": 1})
    assert "Extra inputs are not permitted: no_such_option" in answer["refused"]


def test_a_cache_is_one_model_s_content_on_one_set_of_cards(
    variables: dict[str, str], tmp_path: Path
) -> None:
    """The engine's own key knows the model's path alone, and no card."""

    def cache(**values: Any) -> dict[str, str]:
        config = {"backend": "tensorrt", "model": str(tmp_path / "model"), **values}
        process = run_forked(CACHE, variables, json.dumps(config), modules=IMPORTED)
        assert process.returncode == 0, process.stderr
        content: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
        return content

    model = tmp_path / "model"
    model.mkdir()
    dimensions = resolve_model(ExperimentConfig(model="tiny-llama")).config
    (model / "config.json").write_text(json.dumps(dict(dimensions)))
    compiled = {"engine": {"backend": "tensorrt"}}
    first = cache(tensorrt=compiled)
    assert first["TLLM_LLMAPI_BUILD_CACHE"] == "1"
    assert Path(first["TLLM_LLMAPI_BUILD_CACHE_ROOT"]).parent == tmp_path / "engines"
    assert cache(tensorrt=compiled, precision="fp16") == first
    (model / "weights.bin").write_text("others")
    assert cache(tensorrt=compiled) != first
    assert cache() == {}
    assert cache(tensorrt={"engine_path": str(model)}) == {}
