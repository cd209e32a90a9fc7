"""From an experiment to what SGLang and its server get, and why it cannot run."""

from collections.abc import Iterator
from typing import Any

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    DTYPES,
    SERVED_NAME,
    command_line,
    length_options,
    request_fields,
    sampling_options,
    study_arguments,
    study_sampling,
)
from llenergymeasure.backends.cpu_threads import threads_variable
from llenergymeasure.config.engine_parameters import parameters
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, Problem
from llenergymeasure.machine.gpus.inventory import discover, visible_gpus
from llenergymeasure.processes import python_module
from llenergymeasure.redact import KEY_FILE_PLACE, KEY_PLACE
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model

_NO_TOP_K = -1
"""What SGLang takes for the whole vocabulary."""


def on_cpu(config: ExperimentConfig) -> bool:
    """Whether the study asks for a CPU; SGLang takes a GPU unless configured otherwise."""
    return study_arguments(config).get("device") == "cpu"


def engine_arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the arguments of ``sglang.Engine``, less those that only a server has.

    The tokenizer is left out: prompts go in and answers come out as token ids, on every backend.
    A least length alone needs it: SGLang asks it for the tokens that end an answer.
    """
    return {
        "model_path": source.location,
        "dtype": DTYPES[config.precision],
        "random_seed": config.random_seed,
        "skip_tokenizer_init": config.fewest_tokens is None,
        **({"load_format": "dummy"} if source.random else {}),
        **study_arguments(config),
    }


def sampling_parameters(config: ExperimentConfig, max_output_tokens: int) -> dict[str, Any]:
    """Return SGLang's sampling parameters for one request."""
    return {
        **length_options(config, max_output_tokens, "max_new_tokens", "min_new_tokens"),
        **sampling_options(config.decoder, greedy={"temperature": 0.0}, no_top_k=_NO_TOP_K),
        **study_sampling(config),
    }


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that SGLang needs before it is imported.

    On a CPU it computes with as many threads as the pytorch backend would; ``OMP_NUM_THREADS``
    wins where it is set.
    """
    return {"SGLANG_USE_CPU_ENGINE": "1", **threads_variable(config)} if on_cpu(config) else {}


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1."""
    arguments = engine_arguments(config, resolve_model(config))
    del arguments["skip_tokenizer_init"]
    specs = parameters("sglang.engine")
    unsupported = sorted(
        name for name in arguments if specs.get(name, {}).get("x-command-line") is False
    )
    if unsupported:
        raise BackendError(
            f"SGLang's server takes no engine.{unsupported[0]}: remove it, or the section serving"
        )
    arguments |= {"served_model_name": SERVED_NAME, "enable_metrics": True}
    arguments["enable_cache_report"] = True  # usage reports what its prefix cache knew
    command = python_module("sglang.launch_server")
    options = ["--host", "127.0.0.1", "--port", str(port)]  # last: the last one holds
    sampling = sampling_parameters(config, config.max_output_tokens)
    excluded = {"max_new_tokens"} - set(study_sampling(config))  # each request has its own
    takes_key = arguments.get("tokenizer_worker_num", 1) == 1  # with more it refuses to start
    if takes_key:  # in a file: every user can read a command line
        options += ["--config", KEY_FILE_PLACE]
    return ServerCommand(
        argv=(*command, *command_line(arguments, specs), *options),
        key_file=f'api-key: "{KEY_PLACE}"\n' if takes_key else "",
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        environment=environment(config),
        body=request_fields(sampling, "sglang", "SGLang's server", excluded),
        metrics_path="/metrics",
        gauges={
            "running": "sglang:num_running_reqs",
            "waiting": "sglang:num_queue_reqs",
            "kv_cache_share": "sglang:token_usage",
            "requests": "sglang:num_requests_total",
        },
        settings_path="/server_info",
    )


def find_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that there is no GPU, unless the study asks for another device."""
    device = study_arguments(config).get("device")
    if device in (None, "cuda") and not visible_gpus(discover()).gpus:
        yield Problem(
            "SGLang needs an NVIDIA GPU, and none is visible here; on a CPU, which SGLang supports "
            "in part, set it to cpu",
            key="sglang.engine.device",
            found=device,
        )
