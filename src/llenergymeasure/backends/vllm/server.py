"""vLLM's own OpenAI-compatible server: how it is started, asked and read."""

from typing import Any

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    SERVED_NAME,
    command_line,
    given_engine,
    given_sampling,
    request_fields,
)
from llenergymeasure.backends.vllm.arguments import (
    engine_arguments,
    environment,
    sampling_parameters,
)
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.processes import python_module
from llenergymeasure.redact import KEY_PLACE
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model
from llenergymeasure.workload.tokens import has_tokenizer


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1.

    ``vllm serve`` is the same program behind a launcher that some builds lack.
    """
    source = resolve_model(config)
    asked = sampling_parameters(config, source, config.max_output_tokens)
    besides = {"max_tokens", "detokenize"} - set(given_sampling(config))  # each has its own
    command = python_module("vllm.entrypoints.openai.api_server")
    listener = ("--host", "127.0.0.1", "--port", str(port))  # last: the last one holds
    return ServerCommand(
        argv=(*command, *command_line(_arguments(config, source), {}), *listener),
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        # Its development mode reports the settings in force; only this machine can reach it.
        environment=environment(config) | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": KEY_PLACE},
        body=request_fields(asked, "vllm", "vLLM's server", besides),
        metrics_path="/metrics",
        gauges={
            "running": "vllm:num_requests_running",
            "waiting": "vllm:num_requests_waiting",
            "kv_cache_share": "vllm:kv_cache_usage_perc",
            "requests": "vllm:request_success_total",
        },
        settings_path="/server_info?config_format=json",
    )


def _arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the server's arguments.

    The server writes text, so it loads the tokenizer where the model has one. What a checkpoint
    says of sampling is left aside: every request says its own.
    """
    arguments = engine_arguments(config, source)
    arguments["enable_prompt_tokens_details"] = True  # usage reports what its prefix cache knew
    given = given_engine(config)
    if "skip_tokenizer_init" not in given and has_tokenizer(source):
        arguments.pop("skip_tokenizer_init", None)
    if "disable_log_stats" not in given:
        del arguments["disable_log_stats"]
    return {"served_model_name": SERVED_NAME, "generation_config": "vllm"} | arguments
