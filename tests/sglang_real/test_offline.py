"""The backend's batches on the real SGLang, on a CPU."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Engine, TextScorer
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request
from support.attempts import start
from support.sglang_cpu import ON_CPU

BATCH = {"n": 6, "dataset": {"input_len": 24, "output_len": 9}}
Load = Callable[..., Engine]


def experiment(**values: Any) -> ExperimentConfig:
    defaults = {"model": "tiny-llama", "backend": "sglang", "sglang": {"engine": ON_CPU}, **BATCH}
    return ExperimentConfig.model_validate({**defaults, **values})


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Load engines, one at a time: they take a share of the memory each."""
    engines: list[Engine] = []

    def load_one(**values: Any) -> Engine:
        while engines:
            engines.pop().close()
        config = experiment(**values)
        backend = registry.get("sglang")
        assert backend.problems(config) == []
        engines.append(backend.load(config))
        return engines[-1]

    yield load_one
    while engines:
        engines.pop().close()


def test_gives_exactly_the_tokens_asked_for_and_accounts_for_itself(load: Load) -> None:
    engine = load(decoder={"preset": "deterministic"})
    requests = build_workload(experiment()).requests
    first = engine.generate(requests)
    assert [completion.index for completion in first] == [request.index for request in requests]
    assert [completion.output_tokens for completion in first] == [9] * 6
    assert [completion.input_tokens for completion in first] == [24] * 6
    assert all(completion.finish_reason == "length" for completion in first)
    assert all(completion.start_monotonic_ns < completion.end_monotonic_ns for completion in first)
    assert all(completion.first_token_monotonic_ns is None for completion in first)
    counted = engine.statistics()
    assert counted["prompt_tokens"] == 6 * 24
    assert counted["cached_prompt_tokens"] < 24
    assert counted["memory_gb"]["token_capacity"] > 6 * 33

    resolved = json.loads(json.dumps(engine.resolved_config()))
    assert resolved["engine"]["dtype"] == "bfloat16"
    assert resolved["engine"]["device"] == "cpu"
    assert resolved["engine"]["random_seed"] == 42
    assert resolved["engine"]["chunked_prefill_size"] > 0
    assert resolved["engine"]["version"] == registry.get("sglang").versions()["sglang"]
    assert resolved["scheduler"]["max_running_requests"] >= 1
    assert resolved["weights"] == "pretrained"
    assert len(resolved["engine"]) > 500
    assert not {"api_key", "model_path"} & set(resolved["engine"])


def test_likelihoods_of_a_text_are_those_of_pytorch(load: Load) -> None:
    text = list(range(10, 40))
    engine = load()
    assert isinstance(engine, TextScorer)
    likelihoods = engine.log_likelihoods(text)
    assert len(likelihoods) == len(text) - 1
    plain = {"model": "tiny-llama", "backend": "pytorch", **BATCH}
    pytorch_engine = registry.get("pytorch").load(ExperimentConfig.model_validate(plain))
    assert isinstance(pytorch_engine, TextScorer)
    assert sum(likelihoods) == pytest.approx(sum(pytorch_engine.log_likelihoods(text)), rel=0.02)
    pytorch_engine.close()


def test_shared_prefixes_are_computed_once_a_pass_and_passes_cost_the_same(load: Load) -> None:
    engine = load(sglang={"engine": {**ON_CPU, "max_running_requests": 2}})
    alike = [Request(index, (*range(10, 30), 40 + index), 4) for index in range(6)]
    cached = []
    for _ in range(2):
        engine.generate(alike)
        cached.append(engine.statistics()["cached_prompt_tokens"])
    # Two run at once: the first two compute the 20 tokens, the four after them find them.
    assert cached == [4 * 20, 4 * 20]


def test_every_setting_of_the_study_reaches_the_engine(load: Load) -> None:
    engine = load(
        model="SmolLM2-135M",
        weights="random",
        precision="fp32",
        random_seed=7,
        sglang={
            "engine": {
                **ON_CPU,
                "disable_radix_cache": True,
                "chunked_prefill_size": 128,
                "max_running_requests": 3,
                "context_length": 512,
                "schedule_policy": "lof",
                "enable_metrics": True,
            },
            "sampling": {"frequency_penalty": 0.5, "n": 2},
        },
    )
    requests = build_workload(experiment()).requests
    completions = engine.generate(requests)
    # Two answers to each prompt, by sampling.n.
    assert [completion.output_tokens for completion in completions] == [18] * 6
    assert all(completion.first_token_monotonic_ns is not None for completion in completions)
    assert all(
        completion.start_monotonic_ns
        < (completion.first_token_monotonic_ns or 0)
        < completion.end_monotonic_ns
        for completion in completions
    )
    engine.generate(requests)
    assert engine.statistics()["cached_prompt_tokens"] == 0
    resolved = engine.resolved_config()
    assert resolved["weights"] == "random"
    expected = {
        "load_format": "dummy",
        "dtype": "float32",
        "random_seed": 7,
        "disable_radix_cache": True,
        "chunked_prefill_size": 128,
        "max_running_requests": 3,
        "context_length": 512,
        "schedule_policy": "lof",
    }
    assert {name: resolved["engine"][name] for name in expected} == expected
    assert resolved["sampling"]["frequency_penalty"] == 0.5


def test_what_the_engine_refuses_is_told_as_it_tells_it(load: Load) -> None:
    with pytest.raises(BackendError, match="SGLang"):
        load(sglang={"engine": {**ON_CPU, "context_length": 100_000}})


def test_a_whole_run_leaves_its_result(tmp_path: Path) -> None:
    attempt = start(
        tmp_path, backend="sglang", sglang={"engine": ON_CPU}, n=4, energy={"backend": None}
    )
    assert attempt.process.wait(600) == 0, (attempt.folder / "outcome.json").read_text()
    result = attempt.result()
    assert result["backend"] == "sglang"
    assert result["tokens"]["output"] == 4 * result["tokens"]["requests"]
    assert result["environment"]["engine"]["versions"]["sglang"]
    assert result["environment"]["engine"]["resolved_config"]["engine"]["device"] == "cpu"
    requests = pq.read_table(attempt.folder / "requests.parquet")
    assert set(requests["output_tokens"].to_pylist()) == {4}
    attempt.nothing_left()
