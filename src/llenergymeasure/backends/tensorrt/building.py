"""Building a compiled engine, in a process of its own: what it takes of the GPU goes with it."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llenergymeasure.backends.tensorrt.arguments import engine_arguments, settings
from llenergymeasure.backends.tensorrt.engine_cache import EngineCache, EngineKey, EngineLease
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.machine.gpus.allotment import allot
from llenergymeasure.machine.gpus.inventory import discover
from llenergymeasure.processes import python_module
from llenergymeasure.screen import say
from llenergymeasure.workload.models.content import model_content
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model

RUNTIME_ALONE = frozenset(
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
"""Arguments that an engine is run with, and not built with."""

CONFIGURATIONS = {
    "build_config": "BuildConfig",
    "calib_config": "CalibConfig",
    "quant_config": "QuantConfig",
}
"""Arguments that are objects of ``tensorrt_llm.llmapi``, which a study gives as mappings."""

DISPATCHED = {
    "sparse_attention_config": "BaseSparseAttentionConfig",
    "speculative_config": "DecodingBaseConfig",
}
"""Arguments of several kinds, told apart by one of their keys: ``from_dict`` of a base class of
``tensorrt_llm.llmapi.llm_args`` makes them, where a release has it; others take the mapping."""


def engine_key(config: ExperimentConfig, source: ModelSource) -> EngineKey:
    """Return what the compiled engine of an experiment depends on.

    Raises:
        BackendError: the model's files cannot be read, or TensorRT-LLM is not here.
    """
    arguments = engine_arguments(config, source)
    options = {
        name: value
        for name, value in arguments.items()
        if name not in RUNTIME_ALONE and name != "model"
    }
    return EngineKey(
        model=model_content(source),
        options=options,
        gpus=_gpus(config),
        tensorrt_llm=version("tensorrt_llm"),
    )


def to_build(config: ExperimentConfig) -> Callable[[], dict[str, Any]] | None:
    """Return what builds the engine of an experiment; null if it is there, or none is needed.

    Raises:
        BackendError: the model cannot be had.
        ConfigurationError: the model's name means nothing.
    """
    section = settings(config)
    if not section.compiled or section.engine_path is not None:
        return None
    cache, key = EngineCache(), engine_key(config, resolve_model(config))
    if cache.has(key):
        return None

    def build() -> dict[str, Any]:
        lease = obtain(config)
        lease.release()
        return {
            "engine": key.hash,
            "built": lease.built,
            "build_s": lease.build_s,
            "waited_s": lease.waited_s,
        }

    return build


def obtain(config: ExperimentConfig) -> EngineLease:
    """Return the compiled engine of an experiment from the cache, built if it is not there.

    Raises:
        BackendError: TensorRT-LLM did not build it, or the cache cannot be written.
    """
    source = resolve_model(config)
    arguments = engine_arguments(config, source)
    wanted = {name: value for name, value in arguments.items() if name not in RUNTIME_ALONE}
    cache = EngineCache()
    try:
        return cache.obtain(
            engine_key(config, source),
            source.name,
            lambda folder: _in_its_own_process(wanted, folder),
        )
    except OSError as error:
        raise BackendError(
            f"the engine cache {cache.folder} cannot be written: {error}; set LLEM_ENGINES to a "
            "folder that can be"
        ) from error


def _gpus(config: ExperimentConfig) -> tuple[str, ...]:
    chosen = set(allot(config.model_dump(exclude_none=True)).uuids)
    cards = [gpu for gpu in discover().gpus if gpu.uuid in chosen]
    return tuple(
        f"{card.name} {'.'.join(map(str, card.compute_capability or ('unknown',)))}"
        for card in cards
    )


def _in_its_own_process(arguments: dict[str, Any], folder: Path) -> None:
    command = python_module("llenergymeasure.backends.tensorrt.building", str(folder))
    done = subprocess.run(
        command, input=json.dumps(arguments), text=True, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no message"]
        say(done.stderr)
        raise BackendError(f"TensorRT-LLM did not build an engine: {last[0]}")


def configured(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with mappings turned into TensorRT-LLM's own configurations."""
    from tensorrt_llm import llmapi

    told = dict(arguments)
    for name, kind in CONFIGURATIONS.items():
        if isinstance(told.get(name), dict):
            told[name] = getattr(llmapi, kind)(**told[name])
    for name, kind in DISPATCHED.items():
        if isinstance(told.get(name), dict):
            make = getattr(getattr(llmapi.llm_args, kind), "from_dict", dict)
            told[name] = make(dict(told[name]))
    return told


def main() -> None:
    """Build the engine of the arguments on standard input into the folder named."""
    from tensorrt_llm._tensorrt_engine import LLM

    llm = LLM(**configured(json.load(sys.stdin)))
    llm.save(sys.argv[1])
    llm.shutdown()


if __name__ == "__main__":
    main()
