"""Names of earlier releases, the original tool's and the engines', and their replacements.

Studies of the original's v1.19 are read as they are. Those of its releases 0.6 and later have
another format: `convert` rewrites them by the table ``KEY_REPLACEMENTS``.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llenergymeasure.config.dotted import value_at

FORMER_NAMES = {
    "model_name": "model",
    "fp_precision": "precision",
    "num_input_prompts": "n",
    "extra_metadata": "passthrough_kwargs",
    "extends": "base",
    "grid": "sweep",
    "matrix": "sweep",
    "cycle": "execution.n_cycles",
    **dict.fromkeys(("cycles", "n_cycles", "repeats", "repetitions"), "execution.n_cycles"),
    **dict.fromkeys(("max_tokens", "max_new_tokens"), "max_output_tokens"),
    "seed": "random_seed",
    "prompts": "dataset",
    "engine": "backend",
}
"""Names at the top of other tools' studies, and of the original's before its version 2, which only
messages know."""

FORMER_FIELDS: Mapping[str, Mapping[str, str]] = {
    "vllm.engine.compilation_config": {"level": "mode"},
}
"""Fields of an engine's classes under the names of older releases: read as today's."""

REMOVED_ATTENTION_FIELDS = (
    "use_prefill_decode_attention",
    "use_cudnn_prefill",
    "use_trtllm_ragged_deepseek_prefill",
    "disable_flashinfer_prefill",
)
"""Fields of ``vllm.engine.attention`` that newer vLLM has no place for."""

REPLACED = {
    "vllm.engine.swap_space": "newer vLLM has no CPU swap; it recomputes, or cpu_offload_gb keeps "
    "weights in CPU memory",
    "vllm.engine.speculative_model": "newer vLLM takes it as speculative_config: {model: …, "
    "num_speculative_tokens: …}",
    "vllm.engine.attention": "newer vLLM takes it as attention_config: {backend: …}",
    "vllm.engine.compilation_config.level": "newer vLLM calls it mode",
    **{
        f"vllm.engine.attention.{name}": "newer vLLM has no such setting, and it is left out"
        for name in REMOVED_ATTENTION_FIELDS
    },
}
"""Settings that are still read, with a note on what replaced them."""


ENGINES = {"transformers": "pytorch", "vllm": "vllm", "tensorrt": "tensorrt"}
"""The original tool's names of engines, and their backends."""

NON_SETTINGS = (
    *("base", "engine", "sweep", "experiments", "runners", "images"),
    *("name", "study_name", "study_execution", "output"),
)
"""Keys of its studies that are no settings of an experiment; a base's are not taken."""

FORMAT_MARKS = ("task", "study_execution", "serving_mode", "study_name", "measurement", "harness")
"""Keys that only studies in the original's later format have."""

KEY_REPLACEMENTS: Mapping[str, str] = {
    "name": "name",
    "study_name": "name",
    "version": "",
    "serving_mode": "",
    "engine": "backend",
    "sampling_preset": "decoder.preset",
    "passthrough_kwargs": "passthrough_kwargs",
    "model": "model",
    "dataset.source": "dataset",
    "dataset.n_prompts": "n",
    "dataset.order": "dataset_order",
    "max_input_tokens": "max_input_tokens",
    "max_output_tokens": "max_output_tokens",
    "random_seed": "random_seed",
    "measurement.energy_sampler": "energy.backend",
    "measurement.baseline": "baseline",
    "measurement.warmup": "warmup",
    "measurement.warmup.n_prompts": "warmup.n_warmup",
    "server.traffic.rate": "serving.rate_per_s",
    "server.traffic.arrival": "serving.arrivals",
    "server.traffic.burstiness": "serving.burstiness",
    "server.traffic.window_seconds": "window.min_seconds",
    "server.traffic.slo": "slo",
    "study_execution": "execution",
    "study_execution.experiment_order": "execution.cycle_order",
    "study_execution.experiment_timeout_seconds": "execution.run_timeout_seconds",
    "study_execution.gpu_indices": "gpu.devices",
    "output.results_dir": "output_dir",
    "output.save_timeseries": "",
    "transformers": "pytorch",
    "transformers.llem_execution": "pytorch",
    "harness.transformers": "pytorch",
    "transformers.dtype": "precision",
    "transformers.tp_size": "pytorch.tensor_parallel_size",
    "transformers.sampling": "decoder",
    "vllm": "vllm.engine",
    "vllm.engine": "vllm.engine",
    "vllm.dtype": "precision",
    "vllm.attention": "vllm.engine.attention_config",
    "vllm.beam_search": "vllm.beam_search",
    "vllm.sampling": "vllm.sampling",
    "vllm.sampling.ignore_eos": "answer_length",
    "tensorrt": "tensorrt.engine",
    "tensorrt.dtype": "precision",
    "tensorrt.calib": "tensorrt.engine.calib_config",
    "tensorrt.sampling": "tensorrt.sampling",
    "tensorrt.sampling.ignore_eos": "answer_length",
}
"""Replacements for keys of the original's releases 0.6 and later, and for everything below them.

A key that only sets what is always so here has no replacement.
"""

PART_SPELLINGS: Mapping[tuple[int, str], tuple[str, ...]] = {
    (0, "task"): (),
    (0, "offline"): ("measurement",),
    (1, "engine_params"): (),
    (1, "sampling_params"): ("sampling",),
}
"""What ``KEY_REPLACEMENTS`` has for a part of a key, by the part's place."""

VALUE_REPLACEMENTS: Mapping[str, Mapping[Any, Any]] = {
    "backend": ENGINES,
    "precision": {
        **dict.fromkeys(("float16", "half"), "fp16"),
        "bfloat16": "bf16",
        **dict.fromkeys(("float32", "float"), "fp32"),
        "auto": None,
    },
    "energy.backend": {None: "none"},
    "answer_length": {True: "fixed", False: "natural"},
    "execution.cycle_order": {"interleave": "interleaved", "shuffle": "shuffled"},
    "runners": {"process": "local", "container": "docker"},
    "tensorrt.engine.backend": {"trt": "tensorrt"},
}
"""Replacements for values of the original tool, by our key."""

ORIGINAL_DEFAULTS: Mapping[str, Any] = {
    "dataset": "aienergyscore",
    "max_input_tokens": 256,
    "max_output_tokens": 256,
    "answer_length": "natural",
}
"""Defaults of its studies that differ from ours."""


def is_original_format(values: Mapping[str, Any]) -> bool:
    """Whether a study is in the format of the original's releases 0.6 and later."""
    experiments = values.get("experiments")
    entries = experiments if isinstance(experiments, list) else []
    parts = [part for part in (values, *entries) if isinstance(part, Mapping)]
    return any(mark in part for part in parts for mark in FORMAT_MARKS)


def current_vllm_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's arguments under today's names; what has no successor is left out."""
    current = {key: value for key, value in arguments.items() if key != "swap_space"}
    draft = current.pop("speculative_model", None)
    tokens = current.pop("num_speculative_tokens", None)
    if draft is not None:
        current["speculative_config"] = {"model": draft, "num_speculative_tokens": tokens}
    attention = current.pop("attention", None) or {}
    attention = {k: v for k, v in attention.items() if k not in REMOVED_ATTENTION_FIELDS}
    if attention:
        current["attention_config"] = attention
    compilation = current.get("compilation_config")
    if isinstance(compilation, Mapping):
        former = FORMER_FIELDS["vllm.engine.compilation_config"]
        current["compilation_config"] = {former.get(k, k): v for k, v in compilation.items()}
    return current


def notes(configs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each replaced setting that some experiment's configuration sets."""
    unreported = dict(REPLACED)
    for config in configs:
        if not unreported or "vllm" not in config:
            continue
        for key in [key for key in unreported if value_at(config, key) is not None]:
            yield f"{key}: {unreported.pop(key)}"
