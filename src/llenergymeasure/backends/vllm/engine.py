"""vLLM's engine, driven from this process."""

import gc
import inspect
import json
import time
from collections.abc import Sequence
from typing import Any

import torch
import vllm

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.backends.common import (
    DTYPES,
    empty_prefix_cache,
    failing_as,
    jsonable,
    require_open,
)
from llenergymeasure.backends.vllm.arguments import (
    beam_parameters,
    engine_arguments,
    sampling_parameters,
)
from llenergymeasure.backends.vllm.refusal import sampling_object
from llenergymeasure.backends.vllm.step_counter import StepCounter
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.thinking import ThinkingMarks
from llenergymeasure.workload.tokens import thinking_marks

_EXTENSION = "llenergymeasure.backends.vllm.worker.WorkerExtension"
_PATH_FIELDS = ("_name_or_path", "model", "tokenizer", "served_model_name")
"""Where the model lies on this machine."""


class VLLMEngine(Engine):
    """A started ``vllm.LLM``."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Start it."""
        self._config = config
        self._source = resolve_model(config)
        self._thinking = thinking_marks(self._source)
        arguments = engine_arguments(config, self._source)
        self._llm: Any = None
        with failing_as(f"vLLM did not start with model {config.model}"):
            self._llm = vllm.LLM(**arguments, worker_extension_cls=_EXTENSION)
        self._check_precision()
        self._counter = _add_counter(self._llm)
        self.devices = tuple(
            sorted({uuid for uuid in self._ask_workers("llem_uuid") if uuid is not None})
        )

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests; vLLM makes its own batches of them.

        Each call begins with an empty prefix cache: what the requests share among each other is
        computed once, as in real use, but repeating them in a window is not made cheaper.
        """
        llm = require_open(self._llm)
        prompts = [{"prompt_token_ids": list(request.prompt_token_ids)} for request in requests]
        longest = max(request.max_output_tokens for request in requests)
        beams = beam_parameters(self._config, longest)
        with failing_as("generation failed"):
            self._empty_prefix_cache(llm)
            started_ns = time.monotonic_ns()
            if beams is not None:
                answers = llm.beam_search(prompts, vllm.sampling_params.BeamSearchParams(**beams))
            else:
                answers = llm.generate(prompts, self._sampling(requests), use_tqdm=False)
            self.synchronize()
        ended_ns = time.monotonic_ns()
        return [
            _completion(request, answer, started_ns, ended_ns, self._thinking)
            for request, answer in zip(requests, answers, strict=True)
        ]

    def log_likelihoods(self, token_ids: Sequence[int]) -> list[float]:
        """Return the natural logarithm of each token's likelihood after those before it.

        vLLM reports it on the way to an answer, of which one token is drawn and dropped.
        """
        parameters = vllm.SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False
        )
        prompt = {"prompt_token_ids": list(token_ids)}
        with failing_as("scoring a text failed"):
            (answer,) = require_open(self._llm).generate([prompt], parameters, use_tqdm=False)
        logprobs = answer.prompt_logprobs[1:]
        return [
            float(by_token[token].logprob)
            for token, by_token in zip(token_ids[1:], logprobs, strict=True)
        ]

    def synchronize(self) -> None:
        """Wait until every worker's device has done all it was given."""
        self._ask_workers("llem_synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, as the running engine holds them."""
        llm = require_open(self._llm)
        vllm_config = llm.llm_engine.vllm_config
        max_output_tokens = self._config.max_output_tokens
        beams = beam_parameters(self._config, max_output_tokens)
        sampling = sampling_parameters(self._config, self._source, max_output_tokens)
        model = json.loads(vllm_config.model_config.hf_config.to_json_string(use_diff=False))
        engine = jsonable(vllm_config)
        for folder in _PATH_FIELDS:
            model.pop(folder, None)
            engine["model_config"].pop(folder, None)
        return {
            "model_config": model,
            "engine": engine,
            "sampling": jsonable(sampling_object(sampling)) if beams is None else beams,
            "workers": self._ask_workers("llem_describe"),
            "weights": "random" if self._source.random else "pretrained",
        }

    def statistics(self) -> dict[str, Any]:
        """Return vLLM's own account of its steps since the last call; empty with it turned off."""
        return {} if self._counter is None else self._counter.pop_totals()

    def peak_memory_bytes(self) -> int | None:
        """Return the peak memory of all its GPUs since the last call; None on a CPU.

        vLLM takes its key-value cache whole when it starts, used or not.
        """
        peaks = [peak for peak in self._ask_workers("llem_peak_memory_bytes") if peak is not None]
        return sum(peaks) if peaks else None

    def close(self) -> None:
        """Give back memory and end vLLM's processes; the engine cannot be used after."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _check_precision(self) -> None:
        """Refuse an engine that chose another data type by itself: it would not compare."""
        dtype = str(self._llm.llm_engine.vllm_config.model_config.dtype).removeprefix("torch.")
        if dtype != DTYPES[self._config.precision]:
            self.close()
            raise BackendError(
                f"vLLM computes in {dtype} here, not in precision {self._config.precision}"
            )

    def _empty_prefix_cache(self, llm: Any) -> None:
        """Empty it, and what blocks are offloaded to, where this release can."""
        vllm_config = llm.llm_engine.vllm_config
        parameters = inspect.signature(llm.reset_prefix_cache).parameters
        offloads = vllm_config.kv_transfer_config is not None and "reset_connector" in parameters
        if not vllm_config.cache_config.enable_prefix_caching and not offloads:
            return
        options = {"reset_connector": True} if offloads else {}

        def flush() -> str | None:  # earlier releases say nothing
            return "blocks are in use" if llm.reset_prefix_cache(**options) is False else None

        empty_prefix_cache("vLLM", flush)

    def _sampling(self, requests: Sequence[Request]) -> list[Any]:
        lengths = {request.max_output_tokens for request in requests}
        parameters = {
            length: sampling_object(sampling_parameters(self._config, self._source, length))
            for length in lengths
        }
        return [parameters[request.max_output_tokens] for request in requests]

    def _ask_workers(self, method: str) -> list[Any]:
        return list(require_open(self._llm).collective_rpc(method))


def _add_counter(llm: Any) -> StepCounter | None:
    """Add a counter to the loggers that vLLM hands its statistics; None where it keeps none."""
    manager = llm.llm_engine.logger_manager
    if manager is None:
        return None
    counter = StepCounter()
    manager.stat_loggers.append(counter)
    return counter


def _completion(
    request: Request, answer: Any, started_ns: int, ended_ns: int, marks: ThinkingMarks | None
) -> Completion:
    """Return what came back for one request: of several answers to it, all tokens together.

    vLLM's engine stamps tokens on CLOCK_MONOTONIC, as its steps hand them over; of beams, whose
    best is the answer, it has no times.
    """
    metrics = getattr(answer, "metrics", None)
    if getattr(metrics, "is_corrupted", False):
        raise BackendError("the model computed NaN; use bf16 or fp32, or another checkpoint")
    first_s = getattr(metrics, "first_token_ts", 0.0)
    last_s = getattr(metrics, "last_token_ts", 0.0)
    end_ns = round(last_s * NS_PER_S) if last_s else ended_ns
    prompt = request.prompt_token_ids
    if hasattr(answer, "sequences"):
        best, input_tokens = answer.sequences[0], len(prompt)
        outputs, reason = [best.tokens[input_tokens:]], best.finish_reason
    else:
        input_tokens = len(answer.prompt_token_ids)
        outputs = [output.token_ids for output in answer.outputs]
        reason = answer.outputs[0].finish_reason
    thinking = None if marks is None else sum(marks.count(prompt, tokens) for tokens in outputs)
    return Completion(
        index=request.index,
        input_tokens=input_tokens,
        output_tokens=sum(map(len, outputs)),
        thinking_tokens=thinking,
        start_monotonic_ns=started_ns,
        end_monotonic_ns=min(max(end_ns, started_ns), ended_ns),
        first_token_monotonic_ns=round(first_s * NS_PER_S) if first_s else None,
        finish_reason=reason,
    )
