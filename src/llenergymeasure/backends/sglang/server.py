"""SGLang's own OpenAI-compatible server: how it is started, asked and read."""

from typing import Any

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    SERVED_NAME,
    command_line,
    given_sampling,
    only_taken,
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

_JSON_LISTS = frozenset(
    {
        "decoupled_spec_connect_endpoints",
        "forward_hooks",
        "remote_instance_weight_loader_send_weights_group_ports",
        "sidecar_args",
    }
)
"""Lists that the command line takes as one JSON text (``type_parser=json_list_type``)."""

IN_PROCESS_ALONE = frozenset(
    {
        "aux_hidden_state_capture",
        "enable_cp_tp_group_sharing",
        "grpc_worker_threads",
        "speculative_boundary_reduction",
        "uses_mamba_radix_cache",
        "watermark_context_window",
        "watermark_default_enabled",
        "watermark_enforce_all",
        "watermark_max_probability",
        "watermark_mixing_probability",
    }
)
"""Arguments that the command line of SGLang 0.5.23 does not have (``Arg(no_cli=True)``)."""

_NAMES = {"min_new_tokens": "min_tokens", "max_new_tokens": "max_tokens", "sampling_seed": "seed"}
"""Sampling parameters that the server's interface calls otherwise."""

_SAME_NAMES = frozenset(
    {
        "custom_params",
        "ebnf",
        "frequency_penalty",
        "ignore_eos",
        "json_schema",
        "logit_bias",
        "min_p",
        "n",
        "no_stop_trim",
        "presence_penalty",
        "regex",
        "repetition_penalty",
        "skip_special_tokens",
        "stop",
        "stop_regex",
        "stop_token_ids",
        "temperature",
        "top_k",
        "top_p",
        "watermark",
    }
)
"""``CompletionRequest`` in ``sglang/srt/entrypoints/openai/protocol.py``, release 0.5.23."""


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1.

    Raises:
        BackendError: a setting has no name in the server's interface.
        ConfigurationError: the model's name means nothing.
    """
    arguments = engine_arguments(config, resolve_model(config))
    del arguments["skip_tokenizer_init"]
    missing = sorted(IN_PROCESS_ALONE & set(arguments))
    if missing:
        raise BackendError(
            f"SGLang's server takes no engine.{missing[0]}: remove it, or the section serving"
        )
    arguments |= {"served_model_name": SERVED_NAME, "enable_metrics": True}
    arguments["enable_cache_report"] = True  # usage reports what its prefix cache knew
    command, known = python_module("sglang.launch_server"), parameters("sglang.engine")
    ours = ["--host", "127.0.0.1", "--port", str(port)]  # last: the last one holds
    takes_key = arguments.get("tokenizer_worker_num", 1) == 1  # with more it refuses to start
    if takes_key:  # in a file: every user can read a command line
        ours += ["--config", KEY_FILE_PLACE]
    return ServerCommand(
        argv=(*command, *command_line(arguments, known, _JSON_LISTS), *ours),
        key_file=f'api-key: "{KEY_PLACE}"\n' if takes_key else "",
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        environment=environment(config),
        body=request_body(config),
        metrics_path="/metrics",
        gauges={
            "running": "sglang:num_running_reqs",
            "waiting": "sglang:num_queue_reqs",
            "kv_cache_share": "sglang:token_usage",
            "requests": "sglang:num_requests_total",
        },
        settings_path="/server_info",
    )


def request_body(config: ExperimentConfig) -> dict[str, Any]:
    """Return the sampling fields of every request, less the most tokens, which each one has.

    Raises:
        BackendError: a sampling parameter has no name in the server's interface.
    """
    asked = sampling_parameters(config, config.max_output_tokens)
    if "max_new_tokens" not in given_sampling(config):
        del asked["max_new_tokens"]
    only_taken(asked, _SAME_NAMES | set(_NAMES), "SGLang's server")
    return {_NAMES.get(name, name): value for name, value in asked.items()}
