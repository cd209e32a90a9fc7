"""SGLang's engine, driven from this process; scheduler and model have processes of their own."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import sglang

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.backends.common import empty_prefix_cache, failing_as, require_open
from llenergymeasure.backends.sglang.arguments import (
    engine_arguments,
    on_cpu,
    sampling_parameters,
)
from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.machine.gpus.allotment import allot
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request

_OMITTED = (
    "host",
    "port",
    "launch_command",
    "custom_sigquit_handler",
    "internal_states",
    "model_path",
    "tokenizer_path",
    "served_model_name",
)
"""Parts of SGLang's account of itself that say nothing of batches in process, say it twice, or say
where things lie on this machine."""


class SGLangEngine(Engine):
    """A started engine of SGLang."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Start it."""
        self._config = config
        self._source = resolve_model(config)
        self.devices = () if on_cpu(config) else allot(config.model_dump(exclude_none=True)).uuids
        self._counts: Counter[str] = Counter()
        self._engine: Any = None
        arguments = engine_arguments(config, self._source)
        with failing_as(f"SGLang did not start with model {config.model}"):
            self._engine = sglang.Engine(custom_sigquit_handler=_raise_process_failed, **arguments)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests; SGLang makes its own batches of them.

        Each call begins with an empty prefix cache: what the requests share among each other is
        computed once, as in real use, but repeating them in a window is not made cheaper.

        A request's end is by SGLang's own clock for it. Its first token's time is known where
        ``sglang.engine.enable_metrics`` is set.
        """
        engine = require_open(self._engine)
        parameters = [
            sampling_parameters(self._config, request.max_output_tokens) for request in requests
        ]

        def flush() -> str | None:
            emptied = engine.flush_cache()
            return None if emptied.success else str(emptied.message)

        with failing_as("generation failed"):
            empty_prefix_cache("SGLang", flush)
            started_ns = time.monotonic_ns()
            answers = engine.generate(
                input_ids=[list(request.prompt_token_ids) for request in requests],
                sampling_params=parameters,
            )
        ended_ns = time.monotonic_ns()
        self.synchronize()
        metadata = [answer["meta_info"] for answer in answers]
        per_request = len(metadata) // len(requests)
        groups = [metadata[i : i + per_request] for i in range(0, len(metadata), per_request)]
        for answer in metadata:
            self._counts["prompt_tokens"] += answer["prompt_tokens"]
            self._counts["cached_prompt_tokens"] += answer.get("cached_tokens") or 0
            self._counts["retractions"] += answer.get("num_retractions") or 0
        return [
            _completion(request, group, started_ns, ended_ns)
            for request, group in zip(requests, groups, strict=True)
        ]

    def log_likelihoods(self, token_ids: Sequence[int]) -> list[float]:
        """Return the natural logarithm of each token's likelihood after those before it.

        SGLang reports it on the way to an answer, of which one token is drawn and dropped.
        """
        with failing_as("scoring a text failed"):
            answer = require_open(self._engine).generate(
                input_ids=list(token_ids),
                sampling_params={"max_new_tokens": 1, "temperature": 0.0},
                return_logprob=True,
                logprob_start_len=0,
            )
            logprobs = answer["meta_info"]["input_token_logprobs"][1:]
            likelihoods = [float(value) for value, *_ in logprobs]
        if len(likelihoods) != len(token_ids) - 1:
            raise BackendError(f"SGLang scored {len(likelihoods)} of {len(token_ids) - 1} tokens")
        return likelihoods

    def synchronize(self) -> None:
        """Wait until the scheduler has done all it was given.

        It launches a step before it has looked at the one before, so a single answer may come
        while a step without any request left in it is still running; a second one cannot.
        """
        for _ in range(2):
            self._internal_state()

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, as the running engine reports them."""
        info = dict(require_open(self._engine).get_server_info())
        hidden = {*_OMITTED, *CREDENTIALS}
        sampling = sampling_parameters(self._config, self._config.max_output_tokens)
        return {
            "engine": {name: value for name, value in info.items() if name not in hidden},
            "sampling": sampling,
            "scheduler": _scheduler_state(self._internal_state()),
            "weights": "random" if self._source.random else "pretrained",
        }

    def statistics(self) -> dict[str, Any]:
        """Return the engine's own account of the work since the last call."""
        counts, self._counts = dict(self._counts), Counter()
        zeros = {"prompt_tokens": 0, "cached_prompt_tokens": 0, "retractions": 0}
        return zeros | counts | _scheduler_state(self._internal_state())

    def close(self) -> None:
        """End SGLang's processes; the engine cannot be used after."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    def _internal_state(self) -> dict[str, Any]:
        engine = require_open(self._engine)
        states = engine.loop.run_until_complete(engine.tokenizer_manager.get_internal_state())
        return dict(states[0]) if states else {}


def _scheduler_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what SGLang's scheduler says of itself, as far as it does."""
    names = {
        "memory_usage": "memory_gb",
        "last_gen_throughput": "last_output_tokens_per_s",
        "effective_max_running_requests_per_dp": "max_running_requests",
        "avg_spec_accept_length": "speculative_accepted_length_mean",
    }
    return {name: state[field] for field, name in names.items() if state.get(field) is not None}


def _completion(
    request: Request, metadata: Sequence[Mapping[str, Any]], started_ns: int, ended_ns: int
) -> Completion:
    """Return what came back for one request: of several answers to it, all tokens together."""
    reasons = [meta.get("finish_reason") or {} for meta in metadata]
    for reason in reasons:
        if reason.get("type") == "abort":
            raise BackendError(f"SGLang gave up on a request: {reason.get('message', reason)}")
    latencies_s = [meta["e2e_latency"] for meta in metadata if meta.get("e2e_latency")]
    first_s = [meta["first_token_latency"] for meta in metadata if meta.get("first_token_latency")]
    end_ns = started_ns + round(max(latencies_s) * NS_PER_S) if latencies_s else ended_ns
    return Completion(
        index=request.index,
        input_tokens=metadata[0]["prompt_tokens"],
        output_tokens=sum(meta["completion_tokens"] for meta in metadata),
        start_monotonic_ns=started_ns,
        end_monotonic_ns=min(end_ns, ended_ns),
        first_token_monotonic_ns=started_ns + round(min(first_s) * NS_PER_S) if first_s else None,
        finish_reason=reasons[0].get("type"),
    )


def _raise_process_failed(*_: object) -> NoReturn:
    """Take the signal by which SGLang's processes report that one of them has failed."""
    raise BackendError("one of SGLang's own processes failed; its messages are in the run's log")
