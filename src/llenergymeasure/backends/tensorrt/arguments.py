"""From an experiment to what TensorRT-LLM and its server get, and why it cannot run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llenergymeasure import files
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.common import (
    DTYPES,
    length_options,
    request_fields,
    sampling_options,
    study_sampling,
)
from llenergymeasure.backends.tensorrt.build_cache import environment
from llenergymeasure.config.backends.tensorrt import TensorRTConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.ids import digest
from llenergymeasure.machine.gpus.inventory import discover, visible_gpus
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model
from llenergymeasure.workload.tokens import eos_token_ids

_NOT_IN_REQUESTS = frozenset({"max_tokens", "end_id", "detokenize", "add_special_tokens"})
"""Sampling parameters that each request has for itself, or the server sets."""

QUANTISATION = {"int8_sq": "W8A8_SQ_PER_CHANNEL", "int4_awq": "W4A16_AWQ", "fp8": "FP8"}
"""``QuantAlgo`` of each method (``QuantConfig._get_modelopt_qformat`` in TensorRT-LLM)."""


_RUNTIME_ONLY = frozenset(
    {
        "batching_type",
        "cache_transceiver_config",
        "enable_chunked_prefill",
        "enable_tqdm",
        "env_overrides",
        "extended_runtime_perf_knob_config",
        "fail_fast_on_attention_window_too_large",
        "gather_generation_logits",
        "guided_decoding_backend",
        "iter_stats_max_iterations",
        "kv_cache_config",
        "normalize_log_probs",
        "num_postprocess_workers",
        "otlp_traces_endpoint",
        "peft_cache_config",
        "postprocess_tokenizer_dir",
        "request_stats_max_iterations",
        "return_perf_metrics",
        "scheduler_config",
        "skip_tokenizer_init",
        "workspace",
    }
)
"""Arguments that an engine is run with, and not built with: all that one from elsewhere takes."""

_CONFIG_CLASSES = {
    "build_config": "BuildConfig",
    "calib_config": "CalibConfig",
    "quant_config": "QuantConfig",
}
"""Arguments that are objects of ``tensorrt_llm.llmapi``, which a study gives as mappings."""

_CONFIG_BASES = {
    "sparse_attention_config": "BaseSparseAttentionConfig",
    "speculative_config": "DecodingBaseConfig",
}
"""Arguments of several kinds, distinguished by one of their keys: ``from_dict`` of a base class of
``tensorrt_llm.llmapi.llm_args`` makes them, where a release has it; others take the mapping."""


def settings(config: ExperimentConfig) -> TensorRTConfig:
    """Return the section of the study; its defaults where there is none."""
    return config.tensorrt or TensorRTConfig()


def engine_arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the arguments of ``LLM``, less which of its two classes is meant.

    The tokenizer is left out: prompts go in and answers come out as token ids, on every backend.
    """
    section = settings(config)
    explicit = {} if section.engine is None else section.engine.explicit_values()
    explicit.pop("backend", None)
    defaults: dict[str, Any] = {
        "model": source.location,
        "dtype": DTYPES[config.precision],
        "skip_tokenizer_init": True,
    }
    if source.random:
        defaults["load_format"] = "dummy"
    if section.max_batch_size is not None:
        defaults["max_batch_size"] = section.max_batch_size
    if section.tp_size is not None:
        defaults["tensor_parallel_size"] = section.tp_size
    if section.quantization is not None:
        defaults["quant_config"] = {"quant_algo": QUANTISATION[section.quantization]}
    arguments = defaults | explicit | (config.passthrough_kwargs or {})
    if section.engine_path is None:
        return arguments
    runtime = {name: value for name, value in arguments.items() if name in _RUNTIME_ONLY}
    return runtime | {"model": section.engine_path}


def with_config_objects(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with mappings turned into TensorRT-LLM's own configurations."""
    from tensorrt_llm import llmapi

    converted = dict(arguments)
    for name, class_name in _CONFIG_CLASSES.items():
        if isinstance(converted.get(name), dict):
            converted[name] = getattr(llmapi, class_name)(**converted[name])
    for name, class_name in _CONFIG_BASES.items():
        if isinstance(converted.get(name), dict):
            from_mapping = getattr(getattr(llmapi.llm_args, class_name), "from_dict", dict)
            converted[name] = from_mapping(dict(converted[name]))
    return converted


def sampling_parameters(
    config: ExperimentConfig, source: ModelSource, max_output_tokens: int
) -> dict[str, Any]:
    """Return the arguments of ``SamplingParams`` for one request.

    Without a tokenizer TensorRT-LLM has to be given which tokens end an answer; -1 is none.
    """
    end_id, *extra_ids = eos_token_ids(source) or [-1]
    stop = {"stop_token_ids": extra_ids} if extra_ids and config.fewest_tokens is not None else {}
    return {
        "end_id": end_id,
        **stop,
        "detokenize": False,
        "add_special_tokens": False,
        "seed": config.random_seed,
        **length_options(config, max_output_tokens),
        **sampling_options(config.decoder, greedy={"top_k": 1}),
        **study_sampling(config),
    }


def server_command(config: ExperimentConfig, port: int) -> ServerCommand:
    """Return how ``trtllm-serve`` is started on a port of 127.0.0.1.

    Its arguments go into a file of options, so that every one of the engine's can be given.
    """
    source, section = resolve_model(config), settings(config)
    arguments = engine_arguments(config, source)
    model = arguments.pop("model")
    del arguments["skip_tokenizer_init"]
    sampling = sampling_parameters(config, source, config.max_output_tokens)
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
        body=request_fields(sampling, "tensorrt", "trtllm-serve", _NOT_IN_REQUESTS),
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


def find_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that there is no GPU, or no engine where the study has one."""
    if not visible_gpus(discover()).gpus:
        yield Problem("needs an NVIDIA GPU, and none is visible here", key="backend")
    path = settings(config).engine_path
    if path is not None and not (Path(path).expanduser() / "config.json").is_file():
        yield Problem(
            "no folder with an engine's config.json", key="tensorrt.engine_path", found=path
        )
