"""``trtllm-serve``: how it is started and asked."""

from typing import Any

import yaml

from llenergymeasure import files
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import request_fields
from llenergymeasure.backends.tensorrt.arguments import (
    engine_arguments,
    sampling_parameters,
    settings,
)
from llenergymeasure.backends.tensorrt.build_cache import environment
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.ids import digest
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.resolve import resolve_model

_NOT_ASKED = frozenset({"max_tokens", "end_id", "detokenize", "add_special_tokens"})
"""What each request has for itself, or the server sets."""


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1.

    Its arguments go into a file of options, so that every one of the engine's can be given.
    """
    source, section = resolve_model(config), settings(config)
    arguments = engine_arguments(config, source)
    model = arguments.pop("model")
    del arguments["skip_tokenizer_init"]
    asked = sampling_parameters(config, source, config.max_output_tokens)
    backend = "tensorrt" if section.compiled else "pytorch"
    command = ["trtllm-serve", "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend", backend, "--extra_llm_api_options", _options_file(arguments)]
    if section.engine_path is not None:
        command += ["--tokenizer", source.location]
    return ServerCommand(
        argv=tuple(command),
        base_url=f"http://127.0.0.1:{port}/v1",
        model=str(model),
        environment=environment(config),
        body=request_fields(asked, "tensorrt", "trtllm-serve", _NOT_ASKED),
        # There alone where the study turns on return_perf_metrics.
        metrics_path="/prometheus/metrics" if arguments.get("return_perf_metrics") else None,
        gauges={"requests": "trtllm_request_success_total"},
        settings={"engine": {**arguments, "backend": backend}},
    )


def _options_file(arguments: dict[str, Any]) -> str:
    """Return a file with the arguments, named by what is in it."""
    path = cache_folder() / "tensorrt" / f"{digest(arguments)[:16]}.yaml"
    files.write_if_changed(path, yaml.safe_dump(arguments, sort_keys=True).encode())
    return str(path)
