"""SGLang's own OpenAI-compatible server: how it is started, asked and read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.backends.base import ServerCommand
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

SERVED_NAME = "llem"

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
    command = python_module("sglang.launch_server")
    ours = ["--host", "127.0.0.1", "--port", str(port)]  # last: the last one holds
    takes_key = arguments.get("tokenizer_worker_num", 1) == 1  # with more it refuses to start
    if takes_key:  # in a file: every user can read a command line
        ours += ["--config", KEY_FILE_PLACE]
    return ServerCommand(
        argv=(*command, *_spelt(arguments), *ours),
        key_file=f'api-key: "{KEY_PLACE}"\n' if takes_key else "",
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        environment=environment(config),
        ready_path="/health",
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
    given = config.sglang.sampling.given() if config.sglang and config.sglang.sampling else {}
    parameters = sampling_parameters(config, config.max_output_tokens)
    if "max_new_tokens" not in given:
        del parameters["max_new_tokens"]
    unknown = sorted(set(parameters) - _SAME_NAMES - set(_NAMES))
    if unknown:
        raise BackendError(
            f"SGLang's server takes no sampling.{unknown[0]}: remove it, or the section serving"
        )
    return {_NAMES.get(name, name): value for name, value in parameters.items()}


def _spelt(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments as SGLang's command line takes them.

    Where the engine names another spelling, the command line knows that one for certain; a
    switch that is off by default is turned off by leaving it out.
    """
    known = parameters("sglang.engine")
    for name, value in arguments.items():
        if value is None:
            continue
        parameter = known.get(name, {})
        spelling = next(iter(parameter.get("x-aliases", ())), name)
        option = "--" + spelling.replace("_", "-")
        if value is True:
            yield option
        elif value is False:
            if parameter.get("default") is not False:
                yield f"--no-{spelling.replace('_', '-')}"
        elif isinstance(value, list) and name not in _JSON_LISTS:
            yield from (option, *(str(each) for each in value))
        else:
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            yield from (option, text)
