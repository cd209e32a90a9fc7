"""How the pytorch backend's server is started, and what it cannot do."""

import json
from collections.abc import Iterator

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import SERVED_NAME
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.plan.orders import TRAFFIC_SECTIONS
from llenergymeasure.processes import python_module
from llenergymeasure.redact import KEY_PLACE, KEY_VARIABLE

_IN_PROCESS_ONLY = (
    "num_beams",
    "early_stopping",
    "length_penalty",
    "no_repeat_ngram_size",
    "prompt_lookup_num_tokens",
    "use_cache",
    "cache_implementation",
    "torch_compile",
    "num_processes",
    "tensor_parallel_size",
)
"""Settings of batches that transformers' continuous batching has no place for."""


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1.

    ``pytorch.batch_size`` is the most requests in a batch; by default transformers chooses.

    Raises:
        BackendError: a setting means nothing to continuous batching.
    """
    reasons = list(_unsupported(config))
    if reasons:
        raise BackendError("; ".join(reasons))
    # Without its traffic: runs that differ in that alone may share the server.
    settings = json.dumps(
        config.model_dump(mode="json", exclude_none=True, exclude=set(TRAFFIC_SECTIONS))
    )
    module = "llenergymeasure.backends.pytorch.continuous_batching"
    return ServerCommand(
        argv=tuple(python_module(module, "--port", str(port), "--config", settings)),
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        environment={KEY_VARIABLE: KEY_PLACE},
        metrics_path="/metrics",
        gauges={name: f"llem:{name}" for name in ("running", "waiting", "requests")},
    )


def _unsupported(config: ExperimentConfig) -> Iterator[str]:
    section = config.pytorch
    for name in _IN_PROCESS_ONLY:
        if section is not None and getattr(section, name) is not None:
            yield f"pytorch.{name} works on batches in the run's own process; remove it or serving"
    if config.serving is not None and config.serving.endpoint == "chat":
        yield "serving.endpoint: the pytorch server takes completions of token ids alone"
    decoder = config.decoder
    if decoder.min_new_tokens is not None:
        yield "decoder.min_new_tokens: continuous batching has no least length; remove it"
    if decoder.repetition_penalty != 1:
        yield "decoder.repetition_penalty: continuous batching takes 1 alone"
    if decoder.min_p is not None:
        yield "decoder.min_p: continuous batching has none; remove it"
