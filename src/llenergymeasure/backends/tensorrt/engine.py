"""TensorRT-LLM's ``LLM``, driven from this process; its workers have processes of their own."""

import inspect
import itertools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorrt_llm
from tensorrt_llm.llmapi import GuidedDecodingParams

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.backends.common import failing_as, jsonable, require_open
from llenergymeasure.backends.tensorrt.arguments import (
    engine_arguments,
    sampling_parameters,
    settings,
    with_config_objects,
)
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.machine.gpus.allotment import allot
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request

_PATH_FIELDS = ("model", "tokenizer", "postprocess_tokenizer_dir")
"""Where things lie on this machine."""

STATISTICS_WAIT_S = 2.0


class TensorRTEngine(Engine):
    """A started ``LLM``, on PyTorch or with a compiled engine."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Start it."""
        self._config = config
        self._source = resolve_model(config)
        self.devices = allot(config.model_dump(exclude_none=True)).uuids
        self._llm: Any = None
        self._pass_numbers = itertools.count()
        with failing_as(f"TensorRT-LLM did not start with model {config.model}"):
            self._llm = self._start()
        parameters = inspect.signature(self._llm.generate).parameters
        self._has_salts = "cache_salt" in parameters

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests; TensorRT-LLM makes its own batches of them.

        Each call has a salt of its own, where this release knows salts, so that blocks of its
        cache are shared among the requests of a call and not with earlier ones: repeating them
        in a window is not made cheaper. The engine gives whole answers together: all carry the
        times of the call.
        """
        llm = require_open(self._llm)
        prompts = [{"prompt_token_ids": list(request.prompt_token_ids)} for request in requests]
        salt = {"cache_salt": f"pass-{next(self._pass_numbers)}"} if self._has_salts else {}
        started_ns = time.monotonic_ns()
        with failing_as("generation failed"):
            answers = llm.generate(
                prompts, sampling_params=self._sampling(requests), use_tqdm=False, **salt
            )
        ended_ns = time.monotonic_ns()
        return [
            Completion(
                index=request.index,
                input_tokens=len(answer.prompt_token_ids),
                output_tokens=sum(len(output.token_ids) for output in answer.outputs),
                start_monotonic_ns=started_ns,
                end_monotonic_ns=ended_ns,
                finish_reason=answer.outputs[0].finish_reason,
            )
            for request, answer in zip(requests, answers, strict=True)
        ]

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, as the running ``LLM`` holds them."""
        arguments = require_open(self._llm).args
        engine = jsonable(arguments.model_dump())
        for name in _PATH_FIELDS:
            engine.pop(name, None)
        longest = self._config.max_output_tokens
        return {
            "engine": engine,
            "sampling": sampling_parameters(self._config, self._source, longest),
            "compiled": settings(self._config).compiled,
            "prefix_cache": "apart for each pass" if self._has_salts else "kept between passes",
            "weights": "random" if self._source.random else "pretrained",
        }

    def statistics(self) -> dict[str, Any]:
        """Return the engine's own account of its steps since the last call.

        Empty unless ``tensorrt.engine.enable_iter_perf_stats`` is set: it is off by default.
        """
        section = settings(self._config).engine
        if section is None or not section.explicit_values().get("enable_iter_perf_stats"):
            return {}
        steps = list(map(_parse_step, require_open(self._llm).get_stats(timeout=STATISTICS_WAIT_S)))
        shares = [share for share in map(_cache_share, steps) if share is not None]
        active = [step["numActiveRequests"] for step in steps if "numActiveRequests" in step]
        summary: dict[str, Any] = {"steps": len(steps)}
        if shares:
            summary |= {
                "kv_cache_share_mean": statistics.fmean(shares),
                "kv_cache_share_max": max(shares),
            }
        if active:
            summary["active_requests_mean"] = statistics.fmean(active)
        return summary

    def close(self) -> None:
        """End TensorRT-LLM's processes; the engine cannot be used after."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()

    def _start(self) -> Any:
        arguments = with_config_objects(engine_arguments(self._config, self._source))
        if not settings(self._config).compiled:
            return tensorrt_llm.LLM(**arguments)
        from tensorrt_llm._tensorrt_engine import LLM

        return LLM(**arguments)

    def _sampling(self, requests: Sequence[Request]) -> list[Any]:
        parameters = []
        for request in requests:
            options = sampling_parameters(self._config, self._source, request.max_output_tokens)
            parameters.append(tensorrt_llm.SamplingParams(**_with_grammar_object(options)))
        return parameters


def _with_grammar_object(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return sampling parameters with a grammar, which a study gives as a mapping, as its class."""
    grammar = parameters.get("guided_decoding")
    if not isinstance(grammar, dict):
        return parameters
    return parameters | {"guided_decoding": GuidedDecodingParams(**grammar)}


def _parse_step(raw: Any) -> dict[str, Any]:
    """Return one step's account, which some releases give as a mapping and some as JSON."""
    step: dict[str, Any] = json.loads(raw) if isinstance(raw, str) else dict(raw)
    return step


def _cache_share(step: Mapping[str, Any]) -> float | None:
    cache = step.get("kvCacheStats") or {}
    used, total = cache.get("usedNumBlocks"), cache.get("maxNumBlocks")
    return None if used is None or not total else used / total
