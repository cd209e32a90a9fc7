"""SGLang's own OpenAI-compatible server: how it is started, asked and read."""

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    SERVED_NAME,
    command_line,
    given_sampling,
    request_fields,
)
from llenergymeasure.backends.sglang.arguments import (
    engine_arguments,
    environment,
    sampling_parameters,
)
from llenergymeasure.config.engine_parameters import parameters
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.processes import python_module
from llenergymeasure.redact import KEY_FILE_PLACE, KEY_PLACE
from llenergymeasure.workload.models.resolve import resolve_model


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1."""
    arguments = engine_arguments(config, resolve_model(config))
    del arguments["skip_tokenizer_init"]
    known = parameters("sglang.engine")
    missing = sorted(
        name for name in arguments if known.get(name, {}).get("x-command-line") is False
    )
    if missing:
        raise BackendError(
            f"SGLang's server takes no engine.{missing[0]}: remove it, or the section serving"
        )
    arguments |= {"served_model_name": SERVED_NAME, "enable_metrics": True}
    arguments["enable_cache_report"] = True  # usage reports what its prefix cache knew
    command = python_module("sglang.launch_server")
    ours = ["--host", "127.0.0.1", "--port", str(port)]  # last: the last one holds
    asked = sampling_parameters(config, config.max_output_tokens)
    besides = {"max_new_tokens"} - set(given_sampling(config))  # each request has its own
    takes_key = arguments.get("tokenizer_worker_num", 1) == 1  # with more it refuses to start
    if takes_key:  # in a file: every user can read a command line
        ours += ["--config", KEY_FILE_PLACE]
    return ServerCommand(
        argv=(*command, *command_line(arguments, known), *ours),
        key_file=f'api-key: "{KEY_PLACE}"\n' if takes_key else "",
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        environment=environment(config),
        body=request_fields(asked, "sglang", "SGLang's server", besides),
        metrics_path="/metrics",
        gauges={
            "running": "sglang:num_running_reqs",
            "waiting": "sglang:num_queue_reqs",
            "kv_cache_share": "sglang:token_usage",
            "requests": "sglang:num_requests_total",
        },
        settings_path="/server_info",
    )
