"""Each pass begins with an empty prefix cache, or there is none: with stand-ins for the engines."""

import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import common
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request
from support.stand_in_modules import stand_in

REQUESTS = [Request(0, (1, 2), 1)]
ENGINES = [
    f"llenergymeasure.backends.{name}"
    for name in ("vllm.engine", "vllm.refusal", "vllm.step_counter", "sglang.engine")
]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    monkeypatch.setattr(common, "EMPTY_CACHE_LIMIT_S", 0.1)


def without(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> Any:
    """An engine that was not started."""
    stands = {
        "vllm": SimpleNamespace(SamplingParams=dict),
        "vllm.engine.arg_utils": SimpleNamespace(EngineArgs=None),
        "vllm.v1.metrics.loggers": SimpleNamespace(AggregateStatLoggerBase=object),
        "sglang": SimpleNamespace(),
    }
    stand_in(monkeypatch, stands, *ENGINES)
    engine_class: Any = getattr(import_module(f"llenergymeasure.backends.{name}.engine"), kind)
    engine = engine_class.__new__(engine_class)
    engine._config = ExperimentConfig.model_validate({"model": "tiny-llama", "backend": name})
    return engine


def vllm(
    monkeypatch: pytest.MonkeyPatch,
    reset: Callable[..., bool | None],
    *,
    caching: bool = True,
    tier: object = None,
) -> Any:
    engine = without(monkeypatch, "vllm", "VLLMEngine")
    engine._source, engine._thinking = resolve_model(engine._config), None
    output = SimpleNamespace(token_ids=[3], finish_reason="length")
    answer = SimpleNamespace(prompt_token_ids=[1, 2], outputs=[output])
    config = SimpleNamespace(
        cache_config=SimpleNamespace(enable_prefix_caching=caching), kv_transfer_config=tier
    )
    engine._llm = SimpleNamespace(
        llm_engine=SimpleNamespace(vllm_config=config),
        reset_prefix_cache=reset,
        generate=lambda *_, **__: [answer],
        collective_rpc=lambda _: [],
    )
    return engine


def sglang(monkeypatch: pytest.MonkeyPatch, flush: Callable[[], Any]) -> Any:
    engine = without(monkeypatch, "sglang", "SGLangEngine")
    engine._counts = {"prompt_tokens": 0, "cached_prompt_tokens": 0, "retractions": 0}
    metadata = {"prompt_tokens": 2, "completion_tokens": 1, "finish_reason": {"type": "length"}}
    engine._engine = SimpleNamespace(
        flush_cache=flush, generate=lambda **_: [{"meta_info": metadata, "output_ids": [3]}]
    )
    monkeypatch.setattr(type(engine), "synchronize", lambda _: None)
    return engine


def recorded_calls(answers: list[Any]) -> tuple[Callable[[], Any], list[int]]:
    """What a call answers, the last for ever, and when it was asked."""
    call_times_ns: list[int] = []

    def call() -> Any:
        call_times_ns.append(time.monotonic_ns())
        return answers[min(len(call_times_ns), len(answers)) - 1]

    return call, call_times_ns


@pytest.mark.parametrize("answers", [[True], [None], [False, False, True]])
def test_blocks_that_vllm_holds_for_a_moment_are_waited_for_before_the_pass(
    answers: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An offloading tier holds them while it still writes; earlier releases say nothing."""
    reset, call_times_ns = recorded_calls(answers)
    (answer,) = vllm(monkeypatch, reset).generate(REQUESTS)
    assert answer.output_tokens == 1
    assert len(call_times_ns) == len(answers)
    assert call_times_ns[-1] <= answer.start_monotonic_ns


def test_a_prefix_cache_that_is_kept_fails_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else repeating the requests would be cheaper than asking them once, and nothing say so."""
    reset, call_times_ns = recorded_calls([False])
    with pytest.raises(BackendError, match="vLLM kept its prefix cache"):
        vllm(monkeypatch, reset).generate(REQUESTS)
    assert len(call_times_ns) > 1


@pytest.mark.parametrize("caching", [True, False])
def test_a_tier_that_blocks_are_offloaded_to_is_emptied_too(
    caching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[bool] = []

    def reset(reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        assert not reset_running_requests
        emptied.append(reset_connector)
        return True

    vllm(monkeypatch, reset, caching=caching, tier=object()).generate(REQUESTS)
    assert emptied == [True]
    if caching:
        vllm(monkeypatch, reset).generate(REQUESTS)  # without one vLLM would answer False
        assert emptied == [True, False]


def test_nothing_is_emptied_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier vLLM's cache is its own alone, and a tier's is not asked for."""
    reset, call_times_ns = recorded_calls([True])
    assert vllm(monkeypatch, reset, caching=False).generate(REQUESTS)
    assert vllm(monkeypatch, reset, tier=object(), caching=False).generate(REQUESTS)
    assert call_times_ns == []
    assert vllm(monkeypatch, reset, tier=object()).generate(REQUESTS)
    assert len(call_times_ns) == 1


def test_sglang_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = SimpleNamespace(success=False, message="pending requests")
    flush, call_times_ns = recorded_calls([busy, SimpleNamespace(success=True, message="")])
    (answer,) = sglang(monkeypatch, flush).generate(REQUESTS)
    assert len(call_times_ns) == 2
    assert call_times_ns[-1] <= answer.start_monotonic_ns
    flush, call_times_ns = recorded_calls([busy])
    with pytest.raises(BackendError, match=r"SGLang kept its prefix cache.*pending requests"):
        sglang(monkeypatch, flush).generate(REQUESTS)
    assert len(call_times_ns) > 1
